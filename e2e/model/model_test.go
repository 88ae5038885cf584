package model

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/cryptotest"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats-server/v2/server/ats"
)

var (
	seedFlag  = flag.Uint64("seed", 0, "run this seed and no other, also as GANTRY_MODEL_SEED")
	seedsFlag = flag.Uint64("seeds", 0, "how many seeds to run, also as GANTRY_MODEL_SEEDS")
	traceFlag = flag.Bool("trace", false, "print all of a seed's trace")
)

func TestTheLifeOfJobs(t *testing.T) {
	each(t, 30, runtime.NumCPU(), func(t *testing.T, seed uint64) {
		cryptotest.SetGlobalRandom(t, seed)
		ats.Register() // its ticker is the whole process's, and not the bubble's
		defer ats.Unregister()
		today := time.Now().Truncate(24 * time.Hour)
		synctest.Test(t, func(t *testing.T) {
			// The server has that other clock beside the bubble's: it tells how old
			// messages are. Days do not matter, years do.
			time.Sleep(time.Until(today))
			runSeed(t, newWorld(t, seed, bubble, newOneServer(t)))
		})
	})
}

// A cluster talks to itself by real connections, so it needs real time: what
// takes minutes in the bubble takes a fraction of it here, and less of a run
// is the seed's.
func TestTheLifeOfJobsWithThreeReplicas(t *testing.T) {
	each(t, 1, 2, func(t *testing.T, seed uint64) {
		runSeed(t, newWorld(t, seed, clock, newThreeServers(t)))
	})
}

// each runs the seed that was asked for, or n seeds or as many as were asked
// for, a few side by side and each in a process of its own: libraries keep
// timers for reuse, and those of one bubble are of no use in another.
func each(t *testing.T, n uint64, together int, run func(t *testing.T, seed uint64)) {
	t.Helper()
	if seed := asked(t, *seedFlag, "GANTRY_MODEL_SEED"); seed != 0 {
		fmt.Printf("seed %d; to run it again: go test -race ./e2e/model -run '^%s$' -seed %d\n", seed, t.Name(), seed)
		run(t, seed)
		return
	}
	t.Parallel()
	if many := asked(t, *seedsFlag, "GANTRY_MODEL_SEEDS"); many != 0 {
		n = many
	}
	first := uint64(time.Now().UnixMicro())
	slots := make(chan struct{}, together)
	var running sync.WaitGroup
	for seed := first; seed < first+n; seed++ {
		slots <- struct{}{}
		running.Go(func() {
			defer func() { <-slots }()
			runApart(t, seed)
		})
	}
	running.Wait()
	t.Logf("%d seeds from %d on", n, first)
}

func runApart(t *testing.T, seed uint64) {
	child := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+t.Name()+"$", "-test.timeout=30m", fmt.Sprint("-seed=", seed))
	child.Env = append(os.Environ(), "GOMAXPROCS=1", "GORACE=atexit_sleep_ms=0 "+os.Getenv("GORACE"))
	if out, err := child.CombinedOutput(); err != nil {
		t.Errorf("seed %d: %v\n%s", seed, err, out)
	}
}

func asked(t *testing.T, flagged uint64, variable string) uint64 {
	t.Helper()
	text := os.Getenv(variable)
	if flagged != 0 || text == "" {
		return flagged
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		t.Fatalf("%s: %v", variable, err)
	}
	return n
}

func runSeed(t *testing.T, w *world) {
	w.run()
	fmt.Printf("seed %d: %d turns, %s, trace %016x: %s\n",
		w.seed, w.given, time.Since(w.trace.began).Round(time.Second), w.trace.hash, w.obs.summary())
	if w.report() {
		os.Exit(1) // what is stuck is not waited for
	}
	w.close()
}

// report prints what was found, and returns whether anything was.
func (w *world) report() bool {
	w.mu.Lock()
	failures := w.failures
	w.mu.Unlock()
	for _, f := range failures {
		fmt.Printf("seed %d: %s: %s\n", w.seed, f.job, f.text)
	}
	if len(failures) > 0 && !*traceFlag {
		fmt.Printf("who did what:\n%s%s\n", w.trace.about(failures[0].job), strings.Repeat("-", 20))
	}
	return len(failures) > 0
}
