package girdersim

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/rs/zerolog"
)

const apiRoot = "/api/v1"

const defaultMinimumChunk = 5 << 20

// Options configure a server. Their zero value is a server in memory on a free
// port of the loopback interface.
type Options struct {
	Addr         string         // host:port to listen on; empty: 127.0.0.1:0
	Dir          string         // folder for documents and bytes; empty: gone after Close
	Assets       string         // another folder for bytes, made if it is not there, and left behind
	MinimumChunk int64          // least size of a chunk that is not the last; 0: 5 MiB
	Latency      time.Duration  // added to every request
	NoAssetstore bool           // refuse uploads like a Girder without an assetstore
	Artifacts    bool           // files can be attached to jobs, which no release of Girder has
	Hashsums     bool           // files' documents have their SHA-512, as with Girder's plugin hashsum_download
	TLS          *TLS           // speak HTTPS; nil: HTTP
	ObjectStore  *ObjectStore   // keep files' bytes behind redirects; nil: Girder sends them itself
	Log          zerolog.Logger // what goes wrong, and at debug level every request
}

func (o Options) withDefaults() Options {
	if o.Addr == "" {
		o.Addr = "127.0.0.1:0"
	}
	if o.MinimumChunk == 0 {
		o.MinimumChunk = defaultMinimumChunk
	}
	o.ObjectStore = o.ObjectStore.withDefaults()
	return o
}

// Server is a running simulator. All methods may be called at any time and from
// several goroutines, except where they say otherwise.
type Server struct {
	options Options
	st      *store
	started time.Time
	// port and storePort are the server's from Start to Close; without an object
	// store there is no storePort.
	port, storePort *hold
	addr            string     // of the server, as a number
	signed          signatures // of the object store's URLs
	faults          faults
	log             requestLog

	life sync.Mutex // guards up; held while the listeners come or go
	up   *listening // nil while the server is down
}

// Start opens the store and listens. Close ends what Start began.
func Start(o Options) (*Server, error) {
	o = o.withDefaults()
	st, err := openStore(o.Dir, o.Assets)
	if err != nil {
		return nil, err
	}
	s := &Server{options: o, st: st, started: stamp(), log: newRequestLog()}
	l, store, err := s.open()
	if err != nil {
		s.release()
		return nil, errors.Join(err, st.close())
	}
	s.addr = l.Addr().String()
	if store != nil {
		s.signed.base, s.signed.life = s.scheme()+"://"+s.storePort.addr, o.ObjectStore.Life
		s.signed.renew()
	}
	s.up = s.listen(l, store)
	return s, nil
}

// open takes the ports and listens on them.
func (s *Server) open() (l, store net.Listener, err error) {
	if s.port, err = newHold(s.options.Addr); err != nil {
		return nil, nil, err
	}
	if s.options.ObjectStore != nil {
		if s.storePort, err = newHold(s.options.ObjectStore.Addr); err != nil {
			return nil, nil, err
		}
	}
	return s.bind()
}

// bind opens the listeners; that of the object store is nil if there is none.
func (s *Server) bind() (l, store net.Listener, err error) {
	if l, err = net.Listen("tcp", s.port.addr); err != nil {
		return nil, nil, fmt.Errorf("listen on %s: %w", s.port.addr, err)
	}
	if s.storePort == nil {
		return l, nil, nil
	}
	if store, err = net.Listen("tcp", s.storePort.addr); err != nil {
		return nil, nil, errors.Join(fmt.Errorf("listen on %s: %w", s.storePort.addr, err), l.Close())
	}
	return l, store, nil
}

// release lets go of the ports.
func (s *Server) release() {
	s.life.Lock()
	defer s.life.Unlock()
	for _, port := range []**hold{&s.port, &s.storePort} {
		if *port != nil {
			(*port).close()
			*port = nil
		}
	}
}

// URL is the address of the server, without a path.
func (s *Server) URL() string { return s.scheme() + "://" + s.addr }

func (s *Server) scheme() string {
	if s.options.TLS != nil {
		return "https"
	}
	return "http"
}

// APIURL is the address that clients of the REST interface start from.
func (s *Server) APIURL() string { return s.URL() + apiRoot }

// Close ends all connections, waits for their handlers and, without a folder,
// removes all bytes. It may be called more than once.
func (s *Server) Close() error {
	s.Down()
	s.release()
	return s.st.close()
}

// Down closes the listeners and all connections and waits for their handlers.
// From then on connections are refused; the ports stay the server's. Do not call
// it from a fault function.
func (s *Server) Down() {
	s.life.Lock()
	defer s.life.Unlock()
	if s.up == nil {
		return
	}
	s.up.stop()
	s.up = nil
}

// Up listens again, on the same ports, with everything as it was before Down.
func (s *Server) Up() error {
	s.life.Lock()
	defer s.life.Unlock()
	if s.up != nil {
		return nil
	}
	if s.port == nil {
		return errors.New("listen again: the server is closed")
	}
	l, store, err := s.bind()
	if err != nil {
		return err
	}
	s.up = s.listen(l, store)
	return nil
}

// listening is the time between Up and Down.
type listening struct {
	servers []*http.Server
	cancel  context.CancelFunc // releases handlers that wait
	serving sync.WaitGroup

	mu       sync.Mutex
	stopped  bool // no handler begins any more
	handlers sync.WaitGroup
}

// enter reports whether a handler may begin, which calls handlers.Done at its end.
// A connection that was accepted before the listeners closed may come late.
func (up *listening) enter() bool {
	up.mu.Lock()
	defer up.mu.Unlock()
	if up.stopped {
		return false
	}
	up.handlers.Add(1)
	return true
}

// listen serves what comes from the listeners; that of an object store may be nil.
func (s *Server) listen(l, store net.Listener) *listening {
	ctx, cancel := context.WithCancel(context.Background())
	up := &listening{cancel: cancel}
	s.serveOn(ctx, up, l, true, s.answer)
	if store != nil {
		s.serveOn(ctx, up, store, false, s.serveObject)
	}
	return up
}

// serveOn serves a listener until up is stopped. Only Girder itself demands
// certificates of its clients.
func (s *Server) serveOn(ctx context.Context, up *listening, l net.Listener, isGirder bool, answer http.HandlerFunc) {
	if s.options.TLS != nil {
		l = tls.NewListener(l, s.options.TLS.config(isGirder))
	}
	server := &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if !up.enter() {
				panic(http.ErrAbortHandler)
			}
			defer up.handlers.Done()
			s.serve(w, r, !isGirder, answer)
		}),
		BaseContext: func(net.Listener) context.Context { return ctx },
		ErrorLog:    log.New(s.options.Log, "", 0),
	}
	up.servers = append(up.servers, server)
	up.serving.Go(func() {
		if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			s.options.Log.Error().Err(err).Msg("server ended")
		}
	})
}

func (up *listening) stop() {
	up.cancel()
	for _, server := range up.servers {
		server.Close() // what fails to close is closed
	}
	up.serving.Wait()
	up.mu.Lock()
	up.stopped = true
	up.mu.Unlock()
	up.handlers.Wait()
}
