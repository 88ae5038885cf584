package girder

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"
)

// errStill is the cause of giving up a body that stands still.
var errStill = errors.New("the connection stands still")

// watch ends a request whose body, in either direction, makes no progress for
// a while. It counts only the time that the network takes: neither a slow disk
// before an upload nor a slow reader behind a download is the server's fault.
type watch struct {
	limit  time.Duration
	cancel context.CancelCauseFunc
	timer  *time.Timer
	sent   chan struct{} // closed when the transport is through with the body to be sent; nil without one
}

func newWatch(limit time.Duration, cancel context.CancelCauseFunc) *watch {
	t := time.AfterFunc(limit, func() { cancel(errStill) })
	t.Stop()
	return &watch{limit: limit, cancel: cancel, timer: t}
}

func (w *watch) start() { w.timer.Reset(w.limit) }
func (w *watch) stop()  { w.timer.Stop() }

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
	body  io.ReadCloser
	watch *watch
	ctx   context.Context // of this one request
	call  *call
}

func (a *answer) Read(p []byte) (int, error) {
	a.watch.start()
	n, err := a.body.Read(p)
	a.watch.stop()
	if err != nil && err != io.EOF {
		err = unreachable(a.ctx, a.call, err)
	}
	return n, err
}

func (a *answer) Close() error {
	err := a.body.Close()
	a.watch.end()
	return err
}
