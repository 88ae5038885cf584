package scenarios

import (
	"hash/fnv"
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/gantry-worker/gantry/e2e/setup"
	"github.com/gantry-worker/gantry/e2e/workload"
)

const natsServer = "nats-server"

// TestKilledAgainAndAgain kills each service, and the NATS server, at random
// moments while mixed tasks run. The user sees nothing of it: every task is
// tried once, its container goes on, its log and its uploads are what it made.
//
// The environment may set GANTRY_CHAOS_SEED (printed, to have the same tasks
// and moments again), GANTRY_CHAOS_KILLS and GANTRY_CHAOS_TASKS.
func TestKilledAgainAndAgain(t *testing.T) {
	t.Parallel()
	for _, name := range []string{setup.Dispatcher, setup.Transfer, setup.Tracker, setup.Executor, natsServer} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newChaos(t, name, setup.Config{Slots: 5})
			process := c.g.NATS
			if name != natsServer {
				process = c.g.Services[name]
			}
			if name == setup.Transfer {
				c.g.MayLoseUploads(c.breaks)
			}
			c.during(process.Restart)
			// The last words of a task may die with the executor that has read them,
			// or with the server that says it has them.
			c.work.Check(workload.Expect{Progress: name != setup.Executor && name != natsServer})
		})
	}
}

// TestRollingRestarts ends a service as an upgrade does and starts it again, with
// tasks that run: nothing is counted as a crash.
func TestRollingRestarts(t *testing.T) {
	t.Parallel()
	for _, name := range []string{setup.Executor, setup.Transfer} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newChaos(t, name, setup.Config{Slots: 3})
			c.breaks, c.tasks = (c.breaks+4)/5, (c.tasks+1)/2
			process := c.g.Services[name]
			c.during(func() {
				if code := process.Stop(); code != 0 {
					t.Errorf("exit code %d after SIGTERM", code)
				}
				process.Start()
				process.AwaitOutput("starting") // before that a signal just ends it
			})
			c.work.Check(workload.Expect{Progress: name != setup.Executor})
		})
	}
}

// chaos is a Gantry of which something breaks again and again while tasks run.
type chaos struct {
	g      *setup.Gantry
	work   *workload.Workload
	seed   uint64
	random *rand.Rand
	// breaks and tasks are how many there are to be, pauses are between two
	// breaks.
	breaks, tasks     int
	shortest, longest time.Duration
}

// newChaos starts a Gantry. What is random depends on the seed and the name
// alone.
func newChaos(t *testing.T, name string, cfg setup.Config) *chaos {
	t.Helper()
	seed := number(t, "GANTRY_CHAOS_SEED", rand.Uint64()>>1)
	t.Logf("again with GANTRY_CHAOS_SEED=%d", seed)
	hash := fnv.New64()
	_, _ = hash.Write([]byte(name)) // it has no errors
	seed ^= hash.Sum64()
	cfg.Patience = 20 * time.Minute // all of them run at once, on few cores
	return &chaos{
		g: setup.Start(t, cfg), seed: seed, random: rand.New(rand.NewPCG(seed, 0)),
		breaks: int(number(t, "GANTRY_CHAOS_KILLS", 50)), tasks: int(number(t, "GANTRY_CHAOS_TASKS", 60)),
		shortest: 300 * time.Millisecond, longest: 1000 * time.Millisecond,
	}
}

// number reads a variable of the environment.
func number(t *testing.T, name string, otherwise uint64) uint64 {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return otherwise
	}
	value, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return value
}

// during submits all tasks while something breaks at random moments, to the
// last of which tasks are submitted and run.
func (c *chaos) during(breaks func()) {
	pauses := make([]time.Duration, c.breaks)
	var all time.Duration
	for i := range pauses {
		pauses[i] = c.shortest + time.Duration(c.random.Int64N(int64(c.longest-c.shortest)))
		all += pauses[i]
	}
	c.work = workload.New(c.g, c.seed, c.tasks)
	submitted := make(chan struct{})
	defer func() { <-submitted }() // also where something does not break as it should
	go func() {
		defer close(submitted)
		c.work.Submit(all * 9 / 10)
	}()
	for _, pause := range pauses {
		<-time.After(pause) // the moments are what the test is made of
		breaks()
	}
}
