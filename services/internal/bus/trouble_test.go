package bus_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/rs/zerolog"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/contracts/client"
	"github.com/gantry-worker/gantry/contracts/client/natstest"
	"github.com/gantry-worker/gantry/services/internal/bus"
	"github.com/gantry-worker/gantry/services/internal/bus/bustest"
)

// lines is a log that is read while it is written.
type lines struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *lines) Write(data []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(data)
}

// errors returns the errors of the lines that are worse than a warning.
func (l *lines) errors(t *testing.T) []string {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	var all []string
	for line := range strings.Lines(l.text.String()) {
		var entry struct{ Level, Error string }
		if err := json.Unmarshal([]byte(line), &entry); err != nil {
			t.Fatalf("%v in %s", err, line)
		}
		if entry.Level == "error" {
			all = append(all, entry.Error)
		}
	}
	return all
}

// openLogged opens a bus whose log is read.
func openLogged(t *testing.T, config client.Config) (*bus.Bus, *lines) {
	t.Helper()
	log := new(lines)
	ctx := zerolog.New(log).WithContext(t.Context())
	b, err := bus.Open(ctx, config, "test", "a")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Close)
	return b, log
}

const refusedPull = "$JS.API.CONSUMER.MSG.NEXT.TASKS_SUBMIT.dispatcher"

// TestReadyWhileNATSRefuses: a service that may not pull is connected and
// announced, and yet not ready. It says so once, and is well when it may.
func TestReadyWhileNATSRefuses(t *testing.T) {
	t.Parallel()
	server, restricted := natstest.StartRestricted(t, "$JS.API.INFO", "$JS.API.STREAM.>", "$KV.>")
	proxy := bustest.Start(t, restricted)
	var pulls atomic.Int64
	proxy.Judge(func(subject string) bustest.Verdict {
		if subject == refusedPull {
			pulls.Add(1)
		}
		return bustest.Pass
	})
	b, log := openLogged(t, proxy.Config())
	announce(t, b, "a")
	until(t, "readiness", func() bool { return b.Ready(t.Context()) == nil })

	ctx, cancel := context.WithCancel(t.Context())
	done, taken := make(chan error, 1), make(chan struct{}, 1)
	go func() {
		done <- b.Work(ctx, contracts.SubmitConsumer, 2, func(context.Context, *bus.Message) error {
			tell(taken, struct{}{})
			return nil
		})
	}()
	until(t, "the end of readiness", func() bool { return b.Ready(t.Context()) != nil })
	err := b.Ready(t.Context())
	for _, want := range []string{refusedPull, `user "restricted"`, "GANTRY_NATS_USER and GANTRY_NATS_PASSWORD", proxy.Config().URL} {
		if !errors.Is(err, client.ErrNotPermitted) || !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in: %v", want, err)
		}
	}
	const more = 6 // those of both workers, again
	before := pulls.Load()
	until(t, "further pulls", func() bool { return pulls.Load() > before+more })
	if said := log.errors(t); len(said) != 1 || !strings.Contains(said[0], refusedPull) {
		t.Errorf("logged %q, want one line", said)
	}

	server.Reconfigure(natstest.Token, ">")
	until(t, "readiness again", func() bool { return b.Ready(t.Context()) == nil })
	if _, err := server.Client().Submit(t.Context(), someTask().Task); err != nil {
		t.Fatal(err)
	}
	<-taken
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("ended with %v", err)
	}
}

// TestPasswordThatChanges: a service whose password is no longer right is not
// ready, says once what to do, and goes on when the password is right again.
func TestPasswordThatChanges(t *testing.T) {
	t.Parallel()
	server, restricted := natstest.StartRestricted(t, ">")
	dialer := new(countingDialer)
	restricted.Dialer = dialer
	b, log := openLogged(t, restricted)
	announce(t, b, "a")
	until(t, "readiness", func() bool { return b.Ready(t.Context()) == nil })

	server.Reconfigure("another", ">")
	until(t, "a refusal", func() bool { return errors.Is(b.Ready(t.Context()), client.ErrNotAuthorized) })
	checkNotAuthorized(t, b.Ready(t.Context()), restricted)
	const more = 4
	before := dialer.tries.Load()
	until(t, "further tries", func() bool { return dialer.tries.Load() > before+more })
	if said := log.errors(t); len(said) != 1 || !strings.Contains(said[0], "GANTRY_NATS_PASSWORD") {
		t.Errorf("logged %q, want one line", said)
	}
	server.Reconfigure(natstest.Token, ">")
	until(t, "readiness again", func() bool { return b.Ready(t.Context()) == nil })
}

// countingDialer counts the tries to connect.
type countingDialer struct {
	net.Dialer
	tries atomic.Int64
}

func (d *countingDialer) Dial(network, address string) (net.Conn, error) {
	d.tries.Add(1)
	return d.Dialer.Dial(network, address)
}

func checkNotAuthorized(t *testing.T, err error, config client.Config) {
	t.Helper()
	for _, want := range []string{`user "restricted"`, "GANTRY_NATS_USER and GANTRY_NATS_PASSWORD", config.URL} {
		if !errors.Is(err, client.ErrNotAuthorized) || !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in: %v", want, err)
		}
	}
	if errors.Is(err, client.ErrUnreachable) || strings.Contains(err.Error(), config.Password) {
		t.Errorf("got %v", err)
	}
}

// TestOpenWithAWrongPassword: who starts a service is told at once.
func TestOpenWithAWrongPassword(t *testing.T) {
	t.Parallel()
	_, restricted := natstest.StartRestricted(t, ">")
	restricted.Password = "wrong password"
	_, err := bus.Open(t.Context(), restricted, "test", "a")
	checkNotAuthorized(t, err, restricted)
	restricted.Wait = false
	_, err = client.Connect(t.Context(), restricted)
	checkNotAuthorized(t, err, restricted)

	for setting, config := range map[string]client.Config{
		"GANTRY_NATS_TOKEN, and": {URL: restricted.URL, Token: "wrong"},
		"GANTRY_NATS_USER and GANTRY_NATS_PASSWORD, or GANTRY_NATS_TOKEN": {URL: restricted.URL},
		"GANTRY_NATS_URL": {URL: strings.Replace(restricted.URL, "//", "//a:b@", 1)},
	} {
		_, err := bus.Open(t.Context(), config, "test", "a")
		if !errors.Is(err, client.ErrNotAuthorized) || !strings.Contains(err.Error(), setting) {
			t.Errorf("%q is not in: %v", setting, err)
		}
	}
}
