package girder

import (
	"context"
	"errors"
	"io"
	"net/http/httptrace"
	"sync"
	"sync/atomic"
	"time"
)

// Causes of giving up a request.
var (
	errStill  = errors.New("the connection stands still")
	errSilent = errors.New("the server does not answer")
)

// watch ends a request whose body, in either direction, makes no progress for
// a while. It counts only the time that the network takes: neither a slow disk
// before an upload nor a slow reader behind a download is the server's fault, and
// neither are our own bounds on traffic.
type watch struct {
	limit  time.Duration
	cancel context.CancelCauseFunc
	timer  *time.Timer
	sent   chan struct{} // closed when the transport is through with the body to be sent; nil without one
	bounds atomic.Int64  // time that our own bounds took

	mu     sync.Mutex
	silent *time.Timer // runs from the sent request to its answer
	over   bool        // there is an answer
}

func newWatch(limit time.Duration, cancel context.CancelCauseFunc) *watch {
	t := time.AfterFunc(limit, func() { cancel(errStill) })
	t.Stop()
	return &watch{limit: limit, cancel: cancel, timer: t}
}

func (w *watch) start() { w.timer.Reset(w.limit) }
func (w *watch) stop()  { w.timer.Stop() }

// waited notes time that our own bounds took, and sum gives all of it.
func (w *watch) waited(d time.Duration) { w.bounds.Add(int64(d)) }
func (w *watch) sum() time.Duration     { return time.Duration(w.bounds.Load()) }

// awaiting returns a context for a request whose answer must begin within the
// limit after the last byte of the request.
func (w *watch) awaiting(ctx context.Context, limit time.Duration) context.Context {
	ctx = context.WithValue(ctx, watchKey{}, w)
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GotConn:      func(got httptrace.GotConnInfo) { begin(got.Conn) },
		WroteRequest: func(httptrace.WroteRequestInfo) { w.wrote(limit) },
	})
}

func (w *watch) wrote(limit time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.over {
		return // the answer was early
	}
	if w.silent != nil { // of a connection that was closed
		w.silent.Stop()
	}
	w.silent = time.AfterFunc(limit, func() { w.cancel(errSilent) })
}

// watchKey finds the watch of a request by its context.
type watchKey struct{}

// redirected says that an answer has begun which leads elsewhere, and that it
// takes us so long to go there.
func (w *watch) redirected(goThere func() error) error {
	w.mu.Lock()
	if w.silent != nil {
		w.silent.Stop()
	}
	w.mu.Unlock()
	began := time.Now()
	defer func() { w.waited(time.Since(began)) }()
	return goThere()
}

// answered says that an answer has begun, or that none will come.
func (w *watch) answered() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.over = true
	if w.silent != nil {
		w.silent.Stop()
	}
}

// end frees the request's context and returns when nobody reads the body to be
// sent any more: the transport may go on with it after an early answer.
func (w *watch) end() {
	w.cancel(context.Canceled)
	if w.sent != nil {
		<-w.sent
	}
	w.timer.Stop()
}

// sending wraps a body to be sent. Between two reads the network has the bytes;
// behind the last one the limit for the answer's header takes over.
func (w *watch) sending(body io.Reader) io.ReadCloser {
	w.sent = make(chan struct{})
	return &outgoing{body: body, watch: w}
}

type outgoing struct {
	body  io.Reader
	watch *watch
	once  sync.Once
}

func (o *outgoing) Read(p []byte) (int, error) {
	o.watch.stop()
	n, err := o.body.Read(p)
	if err == nil {
		o.watch.start()
	}
	return n, err
}

// Close is called by the transport, always, and sometimes more than once.
func (o *outgoing) Close() error {
	o.watch.stop()
	o.once.Do(func() { close(o.watch.sent) })
	return nil
}

// answer is the body of a response.
type answer struct {
	body    io.ReadCloser
	watch   *watch
	ctx     context.Context // of this one request
	call    *call
	from    string // the host, where it is not Girder's
	session *session
	leave   func()
}

func (a *answer) Read(p []byte) (int, error) {
	if a.call.movesFile() {
		p = a.session.traffic.piece(p)
	}
	a.watch.start()
	n, err := a.body.Read(p)
	a.watch.stop()
	if err != nil && err != io.EOF {
		return n, a.session.brokenBy(a.ctx, err, &Unreachable{Method: a.call.method, Path: a.call.path, Host: a.from, Waited: a.watch.sum()})
	}
	if !a.call.movesFile() {
		return n, err
	}
	waited, ended := a.session.traffic.pay(a.ctx, n)
	a.watch.waited(waited)
	if ended != nil {
		return n, ended
	}
	return n, err
}

// Close may be called more than once.
func (a *answer) Close() error {
	err := a.body.Close()
	a.watch.end()
	a.leave()
	return err
}
