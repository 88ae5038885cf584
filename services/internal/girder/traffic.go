package girder

import (
	"context"
	"io"
	"maps"
	"math/rand/v2"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"
	"golang.org/x/time/rate"
)

// TrafficLimits are an operator's bounds on what goes over the network.
type TrafficLimits struct {
	// PerHost is how many files are moved to or from one host at a time; 0: any number.
	PerHost int
	// BytesPerSecond bounds all files of both directions together; 0: no bound.
	BytesPerSecond int64
}

// Traffic keeps the clients that share it, as [Options.Traffic], within bounds.
//
// A request that moves a file's bytes takes a place of its host until its answer
// is closed. Requests for documents take none, so that they are never stuck
// behind files. Where a host says with Retry-After that it has too much to do,
// all requests to it wait.
//
// What a request waits here counts neither as a connection that stands still nor
// against the patience of a [Retry]. A nil *Traffic sets no bounds.
type Traffic struct {
	shared *sharedTraffic
	places bool
}

// sharedTraffic is what a [Traffic] and those made of it have in common.
type sharedTraffic struct {
	perHost int64
	bytes   *rate.Limiter // nil: no bound
	piece   int           // the most bytes that are paid for at once

	mu    sync.Mutex
	hosts map[string]*hostTraffic
}

// hostTraffic is dropped when nobody uses it and nothing pauses it.
type hostTraffic struct {
	users  int
	places *semaphore.Weighted
	paused time.Time // nobody asks before
}

const (
	// A bound on bytes is kept within about this time.
	ratePrecision = 50 * time.Millisecond
	smallestPiece = 512
	largestPiece  = 256 << 10
	// longestPause bounds what a host can ask of others than those that it refused.
	longestPause = time.Minute
	// spread is how far those that waited for the same are kept apart, at most.
	spread = time.Second
)

// NewTraffic keeps the limits.
func NewTraffic(limits TrafficLimits) *Traffic {
	shared := &sharedTraffic{perHost: int64(limits.PerHost), hosts: map[string]*hostTraffic{}}
	if limits.BytesPerSecond > 0 {
		burst := int(min(float64(limits.BytesPerSecond)*ratePrecision.Seconds(), 1<<30))
		shared.piece = min(max(burst, smallestPiece), largestPiece)
		shared.bytes = rate.NewLimiter(rate.Limit(limits.BytesPerSecond), max(burst, shared.piece))
	}
	return &Traffic{shared: shared, places: limits.PerHost > 0}
}

// ForStreams shares the rate and the pauses, but its requests take no place: a
// stream is as slow as the container behind it, and files must not wait for that.
func (t *Traffic) ForStreams() *Traffic {
	if t == nil {
		return nil
	}
	return &Traffic{shared: t.shared}
}

// Reader counts bytes that go elsewhere than through a client. Where the context
// ends while it waits, Read returns its cause.
func (t *Traffic) Reader(ctx context.Context, from io.Reader) io.Reader {
	if !t.limitsBytes() {
		return from
	}
	return &paidReader{ctx: ctx, from: from, traffic: t, waited: func(time.Duration) {}}
}

type paidReader struct {
	ctx     context.Context // of the one request or copy that the bytes are of
	from    io.Reader
	traffic *Traffic
	waited  func(time.Duration)
}

func (r *paidReader) Read(p []byte) (int, error) {
	n, err := r.from.Read(r.traffic.piece(p))
	waited, ended := r.traffic.pay(r.ctx, n)
	r.waited(waited)
	if ended != nil {
		return n, ended
	}
	return n, err
}

func (t *Traffic) limitsBytes() bool { return t != nil && t.shared.bytes != nil }

// piece is how much of p may be read before it is paid for.
func (t *Traffic) piece(p []byte) []byte {
	if !t.limitsBytes() {
		return p
	}
	return p[:min(len(p), t.shared.piece)]
}

// pay waits until n bytes more, no more than a piece, are within the rate.
func (t *Traffic) pay(ctx context.Context, n int) (waited time.Duration, err error) {
	if n == 0 || !t.limitsBytes() {
		return 0, nil
	}
	began := time.Now()
	if t.shared.bytes.WaitN(ctx, n) != nil { // the context has ended, or will before it is our turn
		<-ctx.Done()
		err = context.Cause(ctx)
	}
	return time.Since(began), err
}

// enter waits until a request to the host may be sent, and gives what is to be
// called when it is over.
func (t *Traffic) enter(ctx context.Context, host string, movesFile bool) (leave func(), err error) {
	if t == nil {
		return func() {}, nil
	}
	h := t.use(host)
	takes := movesFile && t.places
	if takes {
		if err := h.places.Acquire(ctx, 1); err != nil {
			t.drop(host, h)
			return nil, context.Cause(ctx)
		}
	}
	leave = sync.OnceFunc(func() {
		if takes {
			h.places.Release(1)
		}
		t.drop(host, h)
	})
	if err := t.awaitPause(ctx, h); err != nil {
		leave()
		return nil, err
	}
	return leave, nil
}

// pass waits until a redirected request may go on to a host.
func (t *Traffic) pass(ctx context.Context, host string) error {
	leave, err := t.enter(ctx, host, false)
	if err != nil {
		return err
	}
	leave()
	return nil
}

func (t *Traffic) use(host string) *hostTraffic {
	t.shared.mu.Lock()
	defer t.shared.mu.Unlock()
	h := t.shared.of(host)
	h.users++
	return h
}

// of is called with the lock.
func (s *sharedTraffic) of(host string) *hostTraffic {
	h, ok := s.hosts[host]
	if !ok {
		maps.DeleteFunc(s.hosts, func(_ string, h *hostTraffic) bool { return h.idle() })
		h = &hostTraffic{places: semaphore.NewWeighted(s.perHost)}
		s.hosts[host] = h
	}
	return h
}

func (t *Traffic) drop(host string, h *hostTraffic) {
	t.shared.mu.Lock()
	defer t.shared.mu.Unlock()
	h.users--
	if h.idle() {
		delete(t.shared.hosts, host)
	}
}

func (h *hostTraffic) idle() bool { return h.users == 0 && !h.paused.After(time.Now()) }

// awaitPause waits while the host is not to be asked. Those that waited for the
// same moment do not come at the same moment.
func (t *Traffic) awaitPause(ctx context.Context, h *hostTraffic) error {
	for {
		t.shared.mu.Lock()
		wait := time.Until(h.paused)
		t.shared.mu.Unlock()
		if wait <= 0 {
			return nil
		}
		timer := time.NewTimer(wait + rand.N(min(wait, spread)))
		select {
		case <-ctx.Done():
			timer.Stop()
			return context.Cause(ctx)
		case <-timer.C:
		}
	}
}

// refused takes in what a host answered to a request.
func (t *Traffic) refused(host string, refusal *Error) {
	if t == nil || refusal.RetryAfter == 0 || !refusal.tooMuch() {
		return
	}
	t.shared.mu.Lock()
	defer t.shared.mu.Unlock()
	h := t.shared.of(host)
	if until := time.Now().Add(min(refusal.RetryAfter, longestPause)); until.After(h.paused) {
		h.paused = until
	}
}
