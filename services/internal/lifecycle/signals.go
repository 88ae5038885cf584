package lifecycle

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

// Signaled is the cause of a context that ended because the process was asked
// to stop. To errors.Is it is a context.Canceled.
type Signaled struct{ Signal syscall.Signal }

func (s *Signaled) Error() string { return s.Signal.String() + " signal received" }

// Is makes an error that wraps the cause look like one that wraps ctx.Err().
func (s *Signaled) Is(target error) bool { return target == context.Canceled }

// withSignals returns a context that the first SIGTERM or SIGINT ends; the
// second one calls exit with the code that a shell gives to such an end. The
// function returned stops listening and waits until nobody does any more.
func withSignals(exit func(code int)) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(context.Background())
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT)
	released, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for asked := false; ; asked = true {
			select {
			case <-released:
				return
			case received := <-signals:
				sig := received.(syscall.Signal)
				if asked {
					exit(128 + int(sig))
				}
				cancel(&Signaled{Signal: sig})
			}
		}
	}()
	return ctx, func() {
		signal.Stop(signals)
		close(released)
		<-ended
		cancel(nil)
	}
}
