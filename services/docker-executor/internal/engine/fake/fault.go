package fake

import (
	"context"
	"sync"
)

// Call names a method of the engine.
type Call string

// The calls that can be told to fail or to hang.
const (
	CallImage  Call = "image"
	CallPull   Call = "pull"
	CallCreate Call = "create"
	CallStart  Call = "start"
	CallLogs   Call = "logs"
	CallWait   Call = "wait"
	CallSignal Call = "signal"
	CallRemove Call = "remove"
	CallList   Call = "list"
	CallPing   Call = "ping"
	CallID     Call = "id"
	CallRun    Call = "run"
	CallSelf   Call = "self"
	CallTree   Call = "tree"
)

// fault is what the next call of a kind runs into.
type fault struct {
	err     error
	release chan struct{} // nil: do not hang
	reached chan struct{}
	once    sync.Once
}

// Fail makes the next times calls of this kind return err, before they do
// anything.
func (e *Engine) Fail(call Call, err error, times int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for range times {
		e.faults[call] = append(e.faults[call], &fault{err: err, reached: make(chan struct{})})
	}
}

// Hang makes the next call of this kind hang before it does anything, until
// release is called or its context ends. reached is closed when the call is
// there.
func (e *Engine) Hang(call Call) (reached <-chan struct{}, release func()) {
	f := &fault{release: make(chan struct{}), reached: make(chan struct{})}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.faults[call] = append(e.faults[call], f)
	return f.reached, func() { f.once.Do(func() { close(f.release) }) }
}

// LockUp makes the engine lock up as Docker 20.10 does, until unlock is called:
// calls that make, change or end containers, or ask for its run, hang until then
// or until their context ends; it answers all others.
func (e *Engine) LockUp() (unlock func()) {
	locked := make(chan struct{})
	e.mu.Lock()
	defer e.mu.Unlock()
	e.locked = locked
	return sync.OnceFunc(func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		e.locked = nil
		close(locked)
	})
}

// pass waits while the engine is locked up.
func (e *Engine) pass(ctx context.Context, call Call) error {
	switch call {
	case CallCreate, CallStart, CallSignal, CallRemove, CallRun, CallTree:
	default:
		return nil
	}
	e.mu.Lock()
	locked := e.locked
	e.mu.Unlock()
	if locked == nil {
		return nil
	}
	select {
	case <-locked:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// enter is the beginning of every call.
func (e *Engine) enter(ctx context.Context, call Call) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err := e.pass(ctx, call); err != nil {
		return err
	}
	e.mu.Lock()
	var f *fault
	if queue := e.faults[call]; len(queue) > 0 {
		f, e.faults[call] = queue[0], queue[1:]
	}
	e.mu.Unlock()
	if f == nil {
		return nil
	}
	close(f.reached)
	if f.release != nil {
		select {
		case <-f.release:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return f.err
}
