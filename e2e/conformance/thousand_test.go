package conformance

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/e2e/setup"
)

// many is how many short containers TestShortContainersLeaveNothing runs.
func many(t *testing.T) int {
	text := os.Getenv("GANTRY_MANY_CONTAINERS")
	if text == "" {
		return 100
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		t.Fatalf("GANTRY_MANY_CONTAINERS is %q", text)
	}
	return n
}

// 4.15 1000 jobs with short containers: no descriptor, goroutine, container,
// folder, pipe, message or consumer is left. That nothing of theirs is left of
// containers, folders, pipes, messages and secrets is checked at the end of every
// Gantry of these tests; here the services are looked at while they live.
func TestShortContainersLeaveNothing(t *testing.T) {
	n := many(t)
	s := alone(t, setup.Config{Slots: 8, Patience: patience + time.Duration(n)*10*time.Second})
	file := s.Girder.File("in", []byte("content"))
	item := s.Girder.Item("out")
	task := func(i int) *contracts.Task {
		task := s.script(`cat "$1"; echo '{"current": 1}' > "$2"; cat "$3" > /dev/null; echo piped > "$4"; echo x > "$5"`,
			&contracts.GirderFile{ID: file.ID}, &contracts.ProgressPipe{}, streamOf(file.ID, "in"),
			connect(&contracts.NamedOutputPipe{Name: "out"}, &contracts.HostStderr{}), volumePath("result"))
		switch i % 3 {
		case 0:
			task.Outputs = []contracts.Output{output(&contracts.GirderJobArtifact{Path: pathOf("missing")})}
		case 1:
			task.Outputs = []contracts.Output{uploadTo(item, "result")}
		}
		return task
	}
	run := func(n int) {
		jobs := make([]contracts.JobID, n)
		for i := range jobs {
			jobs[i] = s.MustSubmit(task(i))
		}
		for _, job := range jobs {
			s.AwaitSuccess(job)
			if _, log := s.JobLog(job); log[contracts.LogStdout] != "content" || log[contracts.LogStderr] != "piped\n" {
				t.Errorf("the log of %s is %q", job, log)
			}
			s.AwaitMirrored(job)
		}
	}
	run(20) // all is in use once
	goroutines := s.goroutines()
	run(20)
	before := s.measureAll()
	began := time.Now()
	run(n)
	t.Logf("%d containers took %s", n, time.Since(began).Round(time.Millisecond))
	// Connections that idle are closed after a while, and taken up again: what is
	// there for each container would be there n times.
	most := max(8, n/20)
	s.await("the services are as they were", func() error { return s.grownBy(before, most) })
	for what, count := range s.measureAll() {
		t.Logf("%s: %d, before %d", what, count, before[what])
	}
	for name, count := range s.goroutines() {
		t.Logf("goroutines of %s: %d, before %d", name, count, goroutines[name])
		if count > goroutines[name]+3*most { // a connection that idles has two
			t.Errorf("%s has %d goroutines, before %d", name, count, goroutines[name])
		}
	}
	s.awaitNothing("containers", func() []string { return s.Engine.Containers(s.Label()) })
	s.awaitNothing("folders", func() []string { return entries(t, s.WorkRoot+"/attempts") })
}

// goroutines counts those of each service, which costs its life: it is started
// again.
func (s *stage) goroutines() map[string]int {
	s.t.Helper()
	all := map[string]int{}
	for _, name := range []string{setup.Dispatcher, setup.Executor, setup.Transfer, setup.Tracker} {
		all[name] = s.Services[name].Goroutines()
		s.Services[name].Start()
		s.AwaitService(name)
	}
	return all
}

func (s *stage) grownBy(before map[string]int, most int) error {
	for what, count := range s.measureAll() {
		allowed := before[what] + most
		if strings.HasPrefix(what, "threads") {
			// One that waited for the disk stays: a slow disk makes more of them.
			allowed += 4 * most
		}
		if count > allowed {
			return fmt.Errorf("%s: %d, before %d", what, count, before[what])
		}
	}
	return nil
}

// measureAll counts what the services have, and what NATS keeps for them.
func (s *stage) measureAll() map[string]int {
	s.t.Helper()
	all := map[string]int{}
	for _, name := range []string{setup.Dispatcher, setup.Executor, setup.Transfer, setup.Tracker} {
		process := s.Services[name]
		all["descriptors of "+name] = len(entries(s.t, fmt.Sprintf("/proc/%d/fd", process.PID())))
		all["threads of "+name] = len(entries(s.t, fmt.Sprintf("/proc/%d/task", process.PID())))
	}
	for _, name := range []string{
		contracts.StreamSubmit, contracts.StreamReady, contracts.StreamLater, contracts.StreamTransfers, contracts.StreamRevoke, contracts.StreamDead,
		contracts.StreamJobs, contracts.StreamLive,
	} {
		stream, err := s.JetStream().Stream(s.Context(), name)
		if err != nil {
			s.t.Fatal(err)
		}
		state := stream.CachedInfo().State
		all["consumers of "+name] = state.Consumers
		if name != contracts.StreamJobs && name != contracts.StreamLive { // they are what is to be remembered
			all["messages of "+name] = int(state.Msgs)
		}
	}
	all["folders of attempts"] = len(entries(s.t, s.WorkRoot+"/attempts"))
	return all
}
