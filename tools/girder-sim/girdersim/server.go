package girdersim

import (
	"context"
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
	MinimumChunk int64          // least size of a chunk that is not the last; 0: 5 MiB
	Latency      time.Duration  // added to every request
	NoAssetstore bool           // refuse uploads like a Girder without an assetstore
	Artifacts    bool           // files can be attached to jobs, which no release of Girder has
	Log          zerolog.Logger // what goes wrong, and at debug level every request
}

func (o Options) withDefaults() Options {
	if o.Addr == "" {
		o.Addr = "127.0.0.1:0"
	}
	if o.MinimumChunk == 0 {
		o.MinimumChunk = defaultMinimumChunk
	}
	return o
}

// Server is a running simulator. All methods may be called at any time and from
// several goroutines, except where they say otherwise.
type Server struct {
	options Options
	st      *store
	started time.Time
	addr    string
	faults  faults
	log     requestLog

	life sync.Mutex // guards up; held while the listener comes or goes
	up   *listening // nil while the server is down
}

// Start opens the store and listens. Close ends what Start began.
func Start(o Options) (*Server, error) {
	o = o.withDefaults()
	st, err := openStore(o.Dir)
	if err != nil {
		return nil, err
	}
	l, err := net.Listen("tcp", o.Addr)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("listen on %s: %w", o.Addr, err), st.close())
	}
	s := &Server{options: o, st: st, started: stamp(), addr: l.Addr().String(), log: newRequestLog()}
	s.up = s.listen(l)
	return s, nil
}

// URL is the address of the server, without a path.
func (s *Server) URL() string { return "http://" + s.addr }

// APIURL is the address that clients of the REST interface start from.
func (s *Server) APIURL() string { return s.URL() + apiRoot }

// Close ends all connections, waits for their handlers and, without a folder,
// removes all bytes. It may be called more than once.
func (s *Server) Close() error {
	s.Down()
	return s.st.close()
}

// Down closes the listener and all connections and waits for their handlers.
// From then on connections are refused. Do not call it from a fault function.
func (s *Server) Down() {
	s.life.Lock()
	defer s.life.Unlock()
	if s.up == nil {
		return
	}
	s.up.stop()
	s.up = nil
}

// Up listens again, on the same port, with everything as it was before Down.
func (s *Server) Up() error {
	s.life.Lock()
	defer s.life.Unlock()
	if s.up != nil {
		return nil
	}
	l, err := net.Listen("tcp", s.addr)
	if err != nil {
		return fmt.Errorf("listen on %s: %w", s.addr, err)
	}
	s.up = s.listen(l)
	return nil
}

// listening is the time between Up and Down.
type listening struct {
	server   *http.Server
	cancel   context.CancelFunc // releases handlers that wait
	handlers sync.WaitGroup
	done     chan struct{}
}

func (s *Server) listen(l net.Listener) *listening {
	ctx, cancel := context.WithCancel(context.Background())
	up := &listening{cancel: cancel, done: make(chan struct{})}
	up.server = &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			up.handlers.Add(1)
			defer up.handlers.Done()
			s.serve(w, r)
		}),
		BaseContext: func(net.Listener) context.Context { return ctx },
		ErrorLog:    log.New(s.options.Log, "", 0),
	}
	go func() {
		defer close(up.done)
		if err := up.server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			s.options.Log.Error().Err(err).Msg("server ended")
		}
	}()
	return up
}

func (up *listening) stop() {
	up.cancel()
	up.server.Close() // what fails to close is closed
	<-up.done
	up.handlers.Wait()
}
