package mirror

import (
	"strings"
	"testing"
	"time"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/contracts/client/natstest"
	"github.com/gantry-worker/gantry/services/internal/bus"
	"github.com/gantry-worker/gantry/services/job-tracker/internal/transcript"
)

func openBus(t *testing.T) *bus.Bus {
	t.Helper()
	b, err := bus.Open(t.Context(), natstest.Start(t).Config(), "test", "a")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Close)
	return b
}

// The last piece of log goes after the mirror has seen that it is there and
// before it has read it.
func TestTheEndOfALogVanishes(t *testing.T) {
	t.Parallel()
	b := openBus(t)
	chunk := &contracts.LogChunk{Version: 1, Job: "job", Attempt: 1, Seq: 1, Time: time.Now().UTC(), Stream: contracts.LogStdout}
	chunk.SetBytes([]byte("lost\n"))
	if err := b.Publish(t.Context(), contracts.LogHeadSubject("job"), "", chunk); err != nil {
		t.Fatal(err)
	}
	m := newMirror(NewManager(b, Config{LogLimit: 1 << 20, LogPatience: 100 * time.Millisecond}), "job")
	m.text = transcript.New(transcript.Position{Attempt: 1}, false)
	m.box, _ = transcript.NewOutbox(1<<20, nil, contracts.MirrorCursor{Attempt: 1})
	m.life.terminal = contracts.NextEntry(nil, "job", "test", &contracts.Succeeded{LogSeq: 1})
	m.life.terminal.Attempt = 1
	// A reader that hears nothing; in its place comes one that reads again.
	m.live = &live{heard: make(chan heard), stop: func() {
		if err := b.Purge(t.Context(), contracts.StreamLive, contracts.LogFilter("job")); err != nil {
			t.Error(err)
		}
	}}
	if err := m.completeLog(t.Context()); err != nil {
		t.Fatal(err)
	}
	m.hush()
	if got, want := m.box.Next(true), "[gantry: the log has a gap here, 1 pieces of it are lost]\n"; got != want {
		t.Errorf("the log is %q, want %q", got, want)
	}
}

func TestAReaderThatEndsSaysSo(t *testing.T) {
	t.Parallel()
	b := openBus(t)
	if err := b.JetStream().DeleteStream(t.Context(), contracts.StreamLive); err != nil {
		t.Fatal(err)
	}
	m := newMirror(NewManager(b, Config{}), "job")
	m.live = listen(t.Context(), b, "job")
	defer m.hush()
	if err := m.hear(t.Context(), <-m.heard()); err == nil || !strings.Contains(err.Error(), "stream not found") {
		t.Errorf("the mirror goes on with %v", err)
	}
}
