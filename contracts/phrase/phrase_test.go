package phrase_test

import (
	"math"
	"testing"
	"time"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/contracts/phrase"
)

func TestBytes(t *testing.T) {
	t.Parallel()
	for n, want := range map[int64]string{
		0: "0 B", 1: "1 B", 999: "999 B", 1000: "1.0 kB", 4096: "4.1 kB", 99_949: "99.9 kB", 99_950: "100 kB",
		999_499: "999 kB", 999_500: "1.0 MB", 412_345_678: "412 MB", 1e9: "1.0 GB", 1 << 30: "1.1 GB", 12_345_678_901: "12.3 GB",
		5e12: "5.0 TB", 2e15: "2.0 PB", math.MaxInt64: "9.2 EB", -5: "-5 B", -2_500_000: "-2.5 MB", math.MinInt64: "-9.2 EB",
	} {
		if got := phrase.Bytes(n); got != want {
			t.Errorf("%d: got %q, want %q", n, got, want)
		}
	}
}

func TestLeft(t *testing.T) {
	t.Parallel()
	for d, want := range map[time.Duration]string{
		-time.Second: "", 0: "", 1: "1 s", 5*time.Second + 1: "6 s", 59 * time.Second: "59 s",
		59*time.Second + 1: "1 min", 125 * time.Second: "2 min 5 s", 10 * time.Minute: "10 min", 24*time.Minute + 1: "25 min",
		time.Hour: "1 h", 3*time.Hour + 4*time.Minute + 1: "3 h 5 min", 47 * time.Hour: "47 h", 49 * time.Hour: "3 days",
		99 * 24 * time.Hour: "99 days", 1000 * 24 * time.Hour: "", math.MaxInt64: "",
	} {
		if got := phrase.Left(d); got != want {
			t.Errorf("%s: got %q, want %q", d, got, want)
		}
	}
}

func TestPhases(t *testing.T) {
	t.Parallel()
	for want, phase := range map[string]contracts.Phase{
		"Fetching input": {Phase: contracts.PhaseFetchingInput},
		"Fetching input big.tif: 412 MB of 1.0 GB, 105 MB/s, 6 s left":          {Phase: contracts.PhaseFetchingInput, What: "big.tif", Bytes: 412e6, Of: 1e9, Rate: 105e6},
		"Fetching input big.tif: 412 MB, 105 MB/s":                              {Phase: contracts.PhaseFetchingInput, What: "big.tif", Bytes: 412e6, Rate: 105e6},
		"Fetching input big.tif: 0 B of 1.0 GB":                                 {Phase: contracts.PhaseFetchingInput, What: "big.tif", Of: 1e9},
		"Fetching input grown.tif: 2.0 GB, 5 B/s":                               {Phase: contracts.PhaseFetchingInput, What: "grown.tif", Bytes: 2e9, Of: 1e9, Rate: 5},
		"Fetching input none.tif":                                               {Phase: contracts.PhaseFetchingInput, What: "none.tif"},
		"Fetching input slow.tif: 1.0 GB of 1.0 PB, 1 B/s":                      {Phase: contracts.PhaseFetchingInput, What: "slow.tif", Bytes: 1e9, Of: 999_999e9, Rate: 1},
		"Uploading results a b: 1.0 GB of 1.0 GB":                               {Phase: contracts.PhasePushingOutput, What: "a\nb\x1b", Bytes: 1e9, Of: 1e9, Rate: 105e6},
		"Pulling image demo/image:1: 12.0 MB of 40.0 MB":                        {Phase: contracts.PhasePulling, What: "demo/image:1", Bytes: 12e6, Of: 40e6},
		"Fetching input big.tif: 412 MB of 1.0 GB, waiting: Girder answers 503": {Phase: contracts.PhaseFetchingInput, What: "big.tif", Bytes: 412e6, Of: 1e9, Rate: 105e6, Waiting: "Girder\nanswers 503"},
		"Running":                {Phase: contracts.PhaseRunning},
		"taking a break: 1.0 kB": {Phase: "taking_a_break", Bytes: 1000},
	} {
		if got := phrase.Of(&phase).String(); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}
