package pace_test

import (
	"testing"
	"time"

	"github.com/gantry-worker/gantry/services/internal/pace"
)

// run moves bytes and returns the rate in the end.
type run struct {
	pace.Pace
	now   time.Time
	bytes int64
}

func begin() *run {
	r := &run{now: time.Unix(1_000_000, 0)}
	r.At(r.now, 0)
	return r
}

// move moves so many bytes, a piece after each pause.
func (r *run) move(pieces int, piece int64, pause time.Duration) {
	for range pieces {
		r.now, r.bytes = r.now.Add(pause), r.bytes+piece
		r.At(r.now, r.bytes)
	}
}

func (r *run) want(t *testing.T, want int64) {
	t.Helper()
	if got := r.Rate(r.now); got < want*99/100 || got > want*101/100 {
		t.Errorf("rate is %d, want %d", got, want)
	}
}

func TestASteadyMovementHasItsRateSoon(t *testing.T) {
	t.Parallel()
	r := begin()
	r.want(t, 0)
	r.move(100, 1e6, 10*time.Millisecond)
	r.want(t, 100e6)
	r.move(3000, 1e6, 10*time.Millisecond)
	r.want(t, 100e6)
}

func TestTheFirstBytesAreNoBurst(t *testing.T) {
	t.Parallel()
	r := begin()
	r.move(1, 1e6, time.Microsecond)
	r.want(t, 2e6)
}

func TestAChangeOfPaceIsSmoothedAndArrives(t *testing.T) {
	t.Parallel()
	r := begin()
	r.move(1000, 1e6, 10*time.Millisecond)
	r.move(100, 1e5, 10*time.Millisecond)
	if got := r.Rate(r.now); got < 70e6 || got > 95e6 {
		t.Errorf("a second after it slowed down the rate is %d", got)
	}
	r.move(600, 1e5, 10*time.Millisecond)
	r.want(t, 10e6)
}

func TestWhatWasFoundDoesNotCount(t *testing.T) {
	t.Parallel()
	r := begin()
	r.Found(1e9)
	r.move(1, 1e9, 10*time.Millisecond)
	r.want(t, 0)
	r.move(200, 1e5, 10*time.Millisecond)
	r.want(t, 10e6)
	r.Found(1e9)
	r.move(1, 1e9, 0)
	r.want(t, 10e6)
}

func TestNothingMovesAnyMore(t *testing.T) {
	t.Parallel()
	r := begin()
	r.move(200, 1e6, 10*time.Millisecond)
	r.now = r.now.Add(4 * time.Second)
	r.want(t, 100e6)
	r.now = r.now.Add(time.Second)
	r.want(t, 0)
	r.At(r.now, r.bytes) // said again
	r.want(t, 0)
	r.now = r.now.Add(time.Minute)
	r.move(1, 1e6, 0) // the first after a pause says nothing of the pace
	r.want(t, 0)
	r.move(100, 1e6, 10*time.Millisecond)
	r.want(t, 100e6)
}

// Large pieces that come from far apart are a movement as well.
func TestLargePiecesFromFarApart(t *testing.T) {
	t.Parallel()
	r := begin()
	r.move(4, 1e6, 8*time.Second)
	r.want(t, 125e3)
	r.now = r.now.Add(9 * time.Second)
	r.want(t, 125e3)
	r.now = r.now.Add(10 * time.Second)
	r.want(t, 0)
}

func TestAnotherMovementBegins(t *testing.T) {
	t.Parallel()
	r := begin()
	r.move(200, 1e6, 10*time.Millisecond)
	r.bytes = 0
	r.move(1, 0, 10*time.Millisecond)
	r.want(t, 0)
	r.move(200, 1e5, 10*time.Millisecond)
	r.want(t, 10e6)
}
