package stream

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"testing"
)

// stuck is a reader whose first bytes come at once, and whose next ones wait
// until the context ends.
type stuck struct {
	ctx   context.Context
	from  io.Reader
	first bool
	waits chan<- struct{}
}

func (s *stuck) Read(p []byte) (int, error) {
	n, err := s.from.Read(p[:1])
	if !s.first {
		s.first = true
		return n, err
	}
	close(s.waits)
	<-s.ctx.Done()
	return n, context.Cause(s.ctx)
}

// getsStuck streams "ab" to a URL, and tells when the second byte waits.
func (b *bench) getsStuck(ctx context.Context, url string) (ended <-chan error, waits <-chan struct{}) {
	b.t.Helper()
	p, err := NewPost(url, nil, timeout)
	b.must(err)
	waiting := make(chan struct{})
	p.Paced = func(ctx context.Context, from io.Reader) io.Reader {
		return &stuck{ctx: ctx, from: from, waits: waiting}
	}
	_, ended = b.drain(ctx, p)
	b.must(b.write("ab"))
	return ended, waiting
}

// TestPacedDrainIsExact has all bytes go through the reader that bounds the rate.
func TestPacedDrainIsExact(t *testing.T) {
	t.Parallel()
	b := setup(t)
	content := noise(200_000)
	got := make(chan []byte, 1)
	s := b.server(func(w http.ResponseWriter, r *http.Request) {
		all, _ := io.ReadAll(r.Body)
		got <- all
	})
	p, err := NewPost(s.URL, nil, timeout)
	b.must(err)
	var counted bytes.Buffer
	p.Paced = func(_ context.Context, from io.Reader) io.Reader { return io.TeeReader(from, &counted) }
	outlet, ended := b.drain(t.Context(), p)
	b.must(b.write(string(content)))
	outlet.Pipe.End()
	b.must(b.await(ended))
	if !bytes.Equal(<-got, content) || !bytes.Equal(counted.Bytes(), content) {
		t.Errorf("%d of %d bytes were counted", counted.Len(), len(content))
	}
}

// TestAWaitForTheRateIsEnded by whatever ends the stream.
func TestAWaitForTheRateIsEnded(t *testing.T) {
	t.Parallel()
	t.Run("answer", func(t *testing.T) {
		t.Parallel()
		b := setup(t)
		answer := make(chan struct{})
		s := b.server(func(w http.ResponseWriter, r *http.Request) {
			<-answer
			w.WriteHeader(http.StatusForbidden)
		})
		ended, waits := b.getsStuck(t.Context(), s.URL)
		<-waits
		close(answer)
		var refused *Refused
		if err := b.await(ended); !errors.As(err, &refused) || refused.Status != http.StatusForbidden || !refused.Early {
			t.Error(err)
		}
	})
	t.Run("broken connection", func(t *testing.T) {
		t.Parallel()
		b := setup(t)
		leave := make(chan struct{})
		s := b.server(func(w http.ResponseWriter, r *http.Request) {
			<-leave
			if conn, _, err := http.NewResponseController(w).Hijack(); err == nil {
				_ = conn.Close()
			}
		})
		ended, waits := b.getsStuck(t.Context(), s.URL)
		<-waits
		close(leave)
		if err := b.await(ended); err == nil || IsFailure(err) {
			t.Error(err)
		}
	})
	t.Run("cancel", func(t *testing.T) {
		t.Parallel()
		b := setup(t)
		s := b.server(func(w http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body) })
		ctx, cancel := context.WithCancelCause(t.Context())
		ended, waits := b.getsStuck(ctx, s.URL)
		<-waits
		revoked := errors.New("revoked")
		cancel(revoked)
		if err := b.await(ended); !errors.Is(err, revoked) {
			t.Error(err)
		}
	})
}
