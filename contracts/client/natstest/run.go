package natstest

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

// patience is how long a server, or a cluster, may take for one thing. It bounds
// what never comes; a machine with much else to do is given the time.
const patience = 2 * time.Minute

// Run starts a server and returns when it takes connections, or why it does not.
func Run(options *server.Options) (*server.Server, error) {
	srv, err := server.NewServer(options)
	if err != nil {
		return nil, fmt.Errorf("create NATS server: %w", err)
	}
	log := &fatal{}
	srv.SetLoggerV2(log, false, false, false)
	srv.Start()
	for deadline := time.Now().Add(patience); ; {
		ready := srv.ReadyForConnections(100 * time.Millisecond)
		err := log.error()
		if ready && err == nil {
			return srv, nil
		}
		if err == nil && time.Now().After(deadline) {
			err = fmt.Errorf("not ready after %s", patience)
		}
		if err != nil {
			srv.Shutdown()
			srv.WaitForShutdown()
			return nil, fmt.Errorf("start NATS server: %w", err)
		}
	}
}

// fatal keeps why a server gave up, which is told to its log alone.
type fatal struct {
	mu  sync.Mutex
	err error
}

func (f *fatal) error() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.err
}

func (f *fatal) Fatalf(format string, args ...any) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.err = errors.Join(f.err, fmt.Errorf(format, args...))
}

func (*fatal) Noticef(string, ...any) {}
func (*fatal) Warnf(string, ...any)   {}
func (*fatal) Errorf(string, ...any)  {}
func (*fatal) Debugf(string, ...any)  {}
func (*fatal) Tracef(string, ...any)  {}
