package telemetry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"
)

const (
	checkTimeout    = 2 * time.Second // for all checks of one request
	shutdownTimeout = 5 * time.Second // for requests that are being answered
)

// A Check reports what keeps a service from its work, or nil. It must end when
// its context does, and may be called at any time and concurrently. Its text is
// public: no secrets.
type Check func(ctx context.Context) error

// Health answers for a service: /healthz while the process lives, /readyz while
// every registered check passes. Register checks before Serve, so that nobody
// is told "ready" before there was anything to check.
type Health struct {
	patience time.Duration // with who asks, and with what is being answered at the end

	mu     sync.Mutex
	checks map[string]Check
}

// NewHealth returns a Health without checks.
func NewHealth() *Health { return &Health{patience: shutdownTimeout, checks: map[string]Check{}} }

// Register adds a check, or replaces the one of that name.
func (h *Health) Register(name string, check Check) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.checks[name] = check
}

// Ready runs every check and returns what each said.
func (h *Health) Ready(ctx context.Context) Readiness {
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	r := Readiness{Ready: true, Checks: map[string]string{}}
	var (
		mu sync.Mutex
		wg sync.WaitGroup
	)
	for name, check := range h.snapshot() {
		wg.Go(func() {
			err := check(ctx)
			mu.Lock()
			defer mu.Unlock()
			r.add(name, err)
		})
	}
	wg.Wait()
	return r
}

func (h *Health) snapshot() map[string]Check {
	h.mu.Lock()
	defer h.mu.Unlock()
	checks := make(map[string]Check, len(h.checks))
	for name, check := range h.checks {
		checks[name] = check
	}
	return checks
}

// Readiness is the answer of /readyz.
type Readiness struct {
	Ready  bool              `json:"ready"`
	Checks map[string]string `json:"checks"` // by name: "ok", or what is wrong
}

func (r *Readiness) add(name string, err error) {
	if err == nil {
		r.Checks[name] = "ok"
		return
	}
	r.Ready = false
	r.Checks[name] = err.Error()
}

// Handler returns what Serve serves.
func (h *Health) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "ok\n") // a client that left needs no answer
	})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, req *http.Request) {
		r := h.Ready(req.Context())
		w.Header().Set("Content-Type", "application/json")
		if !r.Ready {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		_ = json.NewEncoder(w).Encode(r) // as above
	})
	return mux
}

// Serve answers on address until ctx ends, then finishes the requests that it
// has. An empty address is "off": Serve only waits for ctx.
func (h *Health) Serve(ctx context.Context, address string) error {
	if address == "" {
		<-ctx.Done()
		return nil
	}
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", address)
	if err != nil {
		return fmt.Errorf("listen for health checks: %w", err)
	}
	return h.serve(ctx, listener)
}

func (h *Health) serve(ctx context.Context, listener net.Listener) error {
	server := &http.Server{Handler: h.Handler(), ReadHeaderTimeout: h.patience}
	stopped := make(chan error, 1)
	stop := context.AfterFunc(ctx, func() {
		clean, cancel := context.WithTimeout(context.WithoutCancel(ctx), h.patience)
		defer cancel()
		stopped <- server.Shutdown(clean)
	})
	err := server.Serve(listener)
	if stop() { // ctx has not ended: Serve failed by itself
		return fmt.Errorf("serve health checks: %w", err)
	}
	if err := <-stopped; err != nil {
		return errors.Join(fmt.Errorf("stop health checks: %w", err), server.Close())
	}
	return nil
}

// Probe asks the service that serves its health on address whether it is ready.
// The error says which checks fail.
func Probe(ctx context.Context, address string) error { return ask(ctx, address, "/readyz") }

// ProbeAlive asks the service that serves its health on address whether it is
// alive, ready or not.
func ProbeAlive(ctx context.Context, address string) error { return ask(ctx, address, "/healthz") }

func ask(ctx context.Context, address, path string) error {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return fmt.Errorf("health address: %w", err)
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	url := "http://" + net.JoinHostPort(host, port) + path
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusOK {
		return nil
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	if err != nil {
		return err
	}
	return fmt.Errorf("not ready: %s: %s", resp.Status, strings.TrimSpace(string(body)))
}
