package telemetry

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/gantry-worker/gantry/contracts/client/leaktest"
)

func TestMain(m *testing.M) { leaktest.Main(m) }

func TestLogger(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	logger := NewLogger(&out, Settings{})
	logger.Debug().Msg("hidden")
	logger.Info().Str("job", "1").Msg("claimed")

	var line struct{ Level, Job, Message, Time string }
	if err := json.Unmarshal(out.Bytes(), &line); err != nil {
		t.Fatalf("%v in %q", err, out.String())
	}
	if line.Level != "info" || line.Job != "1" || line.Message != "claimed" {
		t.Errorf("got %+v", line)
	}
	if at, err := time.Parse(time.RFC3339, line.Time); err != nil || !strings.HasSuffix(line.Time, "Z") || at.IsZero() {
		t.Errorf("time %q: %v", line.Time, err)
	}
}

func TestConsoleLoggerAtDebug(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	logger := NewLogger(&out, Settings{LogLevel: "debug", LogFormat: "console"})
	logger.Debug().Str("job", "1").Msg("claimed")
	if got := out.String(); !strings.Contains(got, "DBG claimed job=1\n") {
		t.Errorf("got %q", got)
	}
}

// start serves h on a free port until stop is called.
func start(t *testing.T, h *Health) (address string, stop func()) {
	t.Helper()
	address, _, stop = startObserved(t, h)
	return address, stop
}

// startObserved also tells when the server has begun to stop: it closes its
// listener first.
func startObserved(t *testing.T, h *Health) (address string, stopping <-chan struct{}, stop func()) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	h.patience = 2 * time.Minute // nothing here is about its end
	observed := &observedListener{Listener: listener, closed: make(chan struct{})}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- h.serve(ctx, observed) }()
	stop = func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error("serve:", err)
		}
		http.DefaultClient.CloseIdleConnections()
	}
	return listener.Addr().String(), observed.closed, stop
}

type observedListener struct {
	net.Listener
	once   sync.Once
	closed chan struct{}
}

func (l *observedListener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return l.Listener.Close()
}

func TestReadiness(t *testing.T) {
	h := NewHealth()
	h.Register("nats", func(context.Context) error { return nil })
	address, stop := start(t, h)
	defer stop()

	if err := Probe(t.Context(), address); err != nil {
		t.Error("with a check that passes:", err)
	}
	h.Register("engine", func(context.Context) error { return errors.New("does not answer") })
	err := Probe(t.Context(), address)
	if err == nil || !strings.Contains(err.Error(), `"engine":"does not answer"`) || !strings.Contains(err.Error(), `"nats":"ok"`) {
		t.Errorf("with one that fails: %v", err)
	}
	_, port, _ := net.SplitHostPort(address)
	h.Register("engine", func(context.Context) error { return nil })
	for _, bound := range []string{":" + port, "0.0.0.0:" + port} {
		if err := Probe(t.Context(), bound); err != nil {
			t.Errorf("Probe(%q): %v", bound, err)
		}
	}
}

func TestAliveWhileNotReady(t *testing.T) {
	h := NewHealth()
	h.Register("nats", func(context.Context) error { return errors.New("gone") })
	address, stop := start(t, h)
	defer stop()

	resp, err := http.Get("http://" + address + "/healthz")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK || string(body) != "ok\n" {
		t.Errorf("got %s %q %v", resp.Status, body, err)
	}
}

func TestCheckIsBoundedByTheRequest(t *testing.T) {
	t.Parallel()
	h := NewHealth()
	h.Register("hangs", func(ctx context.Context) error { <-ctx.Done(); return context.Cause(ctx) })
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errors.New("client left"))
	want := Readiness{Checks: map[string]string{"hangs": "client left"}}
	if diff := cmp.Diff(want, h.Ready(ctx)); diff != "" {
		t.Error(diff)
	}
}

func TestServeFinishesRequests(t *testing.T) {
	h := NewHealth()
	asked, answer := make(chan struct{}), make(chan struct{})
	h.Register("slow", func(context.Context) error { close(asked); <-answer; return nil })
	address, stopping, stop := startObserved(t, h)

	probed := make(chan error, 1)
	go func() { probed <- Probe(context.WithoutCancel(t.Context()), address) }()
	<-asked
	stopped := make(chan struct{})
	go func() { stop(); close(stopped) }()
	<-stopping
	close(answer)
	if err := <-probed; err != nil {
		t.Error("a request that was being answered:", err)
	}
	<-stopped
}

func TestServeOffAndInUse(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := NewHealth().Serve(ctx, ""); err != nil {
		t.Error("off:", err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	if err := NewHealth().Serve(t.Context(), listener.Addr().String()); err == nil {
		t.Error("an address in use was no error")
	}
}
