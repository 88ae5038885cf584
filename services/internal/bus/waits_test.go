package bus_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/contracts/client/natstest"
	"github.com/gantry-worker/gantry/services/internal/bus/bustest"
)

// waits returns how often each reason to wait was told, and the end of that.
func (l *lines) waits(t *testing.T) (waiting, goingOn map[string]int) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	waiting, goingOn = map[string]int{}, map[string]int{}
	for line := range strings.Lines(l.text.String()) {
		var entry struct{ Level, Message, Error, Waited string }
		if err := json.Unmarshal([]byte(line), &entry); err != nil {
			t.Fatalf("%v in %s", err, line)
		}
		switch entry.Level + ": " + entry.Message {
		case "warn: waiting for NATS":
			waiting[entry.Error]++
		case "info: going on with NATS":
			goingOn[entry.Waited]++
		}
	}
	return waiting, goingOn
}

// TestWhatWaitsSaysSo: a stream is gone while all else works. Those who write to
// it wait, say why once, and say that they go on.
func TestWhatWaitsSaysSo(t *testing.T) {
	t.Parallel()
	server := natstest.Start(t)
	proxy := bustest.Start(t, server.Config())
	b, log := openLogged(t, proxy.Config())
	b.TellWaitsAfter(time.Nanosecond)
	if err := server.Client().JetStream().DeleteStream(t.Context(), contracts.StreamLive); err != nil {
		t.Fatal(err)
	}
	const writers = 4
	var tries [writers]atomic.Int64
	subjects := map[string]*atomic.Int64{}
	done := make(chan error, writers)
	for i := range writers {
		job := contracts.JobID(fmt.Sprintf("job-%d", i))
		subjects[contracts.LogHeadSubject(job)] = &tries[i]
	}
	proxy.Judge(func(subject string) bustest.Verdict {
		if count := subjects[subject]; count != nil {
			count.Add(1)
		}
		return bustest.Pass
	})
	for i := range writers {
		job := contracts.JobID(fmt.Sprintf("job-%d", i))
		go func() {
			_, err := b.PublishLog(t.Context(), contracts.LogHeadSubject(job), "a", 0, piece(job, 1, 1))
			done <- err
		}()
	}
	const some = 8 // nats.go itself asks three times
	until(t, "some tries of each", func() bool {
		for i := range tries {
			if tries[i].Load() < some {
				return false
			}
		}
		return true
	})
	waiting, goingOn := log.waits(t)
	if waiting[jetstream.ErrNoStreamResponse.Error()] != 1 || len(goingOn) != 0 {
		t.Errorf("said %v and %v", waiting, goingOn)
	}
	for reason, times := range waiting {
		if times != 1 {
			t.Errorf("said %d times: %s", times, reason)
		}
	}
	if err := server.Client().ApplyTopology(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	for range writers {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	waiting, goingOn = log.waits(t)
	for reason, times := range waiting {
		if goingOn[reason] != times {
			t.Errorf("waited %d times and went on %d times: %s", times, goingOn[reason], reason)
		}
	}
}
