package bus_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/contracts/client/natstest"
	"github.com/gantry-worker/gantry/services/internal/bus"
	"github.com/gantry-worker/gantry/services/internal/bus/bustest"
)

func TestLogs(t *testing.T) {
	t.Parallel()
	natstest.Each(t, func(t *testing.T, nats natstest.NATS) {
		for name, test := range map[string]func(*testing.T, natstest.NATS){
			"pieces follow one another": logPiecesFollowOneAnother,
			"piece with a lost answer":  logPieceWithALostAnswerIsThereOnce,
			"lost pieces are noticed":   logPiecesThatAreLostAreNoticed,
			"tail is dropped":           logTailIsDropped,
			"outage":                    logGoesOnAfterAnOutage,
		} {
			t.Run(name, func(t *testing.T) { test(t, nats) })
		}
	})
}

func piece(job contracts.JobID, attempt int, seq uint64) *contracts.LogChunk {
	return &contracts.LogChunk{
		Version: contracts.Version, Job: job, Attempt: attempt, Seq: seq, Stream: contracts.LogStdout, Data: fmt.Sprintf("line %d\n", seq),
	}
}

func publishLog(t *testing.T, b *bus.Bus, subject string, last uint64, chunk *contracts.LogChunk) uint64 {
	t.Helper()
	at, err := b.PublishLog(t.Context(), subject, "a", last, chunk)
	if err != nil {
		t.Fatal(err)
	}
	return at
}

func checkLastLog(t *testing.T, b *bus.Bus, job contracts.JobID, attempt int, seq, at uint64) {
	t.Helper()
	last, lastAt, err := b.LastLog(t.Context(), job)
	if err != nil || last == nil || last.Attempt != attempt || last.Seq != seq || lastAt != at {
		t.Errorf("last piece %+v at %d, %v, want %d of attempt %d at %d", last, lastAt, err, seq, attempt, at)
	}
}

func logPiecesFollowOneAnother(t *testing.T, nats natstest.NATS) {
	b := open(t, nats, "a")
	const job = "log"
	if last, at, err := b.LastLog(t.Context(), job); last != nil || at != 0 || err != nil {
		t.Errorf("last piece of no log: %+v at %d, %v", last, at, err)
	}
	head, tail := contracts.LogHeadSubject(job), contracts.LogTailSubject(job)
	at := publishLog(t, b, head, 0, piece(job, 1, 1))
	publishLog(t, b, contracts.LogHeadSubject("log-other"), 0, piece("log-other", 1, 1))
	at = publishLog(t, b, head, at, piece(job, 1, 2))
	at = publishLog(t, b, tail, at, piece(job, 1, 3))
	checkLastLog(t, b, job, 1, 3, at)
	at = publishLog(t, b, head, at, piece(job, 2, 1)) // the next attempt begins anew
	checkLastLog(t, b, job, 2, 1, at)
	if _, err := b.PublishLog(t.Context(), tail, "a", at-1, piece(job, 1, 4)); !errors.Is(err, bus.ErrLogLost) {
		t.Errorf("an attempt that is over wrote: %v", err)
	}
	checkLastLog(t, b, job, 2, 1, at)
}

func logPieceWithALostAnswerIsThereOnce(t *testing.T, nats natstest.NATS) {
	for name, verdict := range map[string]bustest.Verdict{"before": bustest.Cut, "after": bustest.LoseAnswer} {
		job := contracts.JobID("answer-" + name)
		subject := contracts.LogHeadSubject(job)
		b, broken := through(t, nats, "logs.", verdict)
		at := publishLog(t, b, subject, 0, piece(job, 1, 1))
		if !broken() {
			t.Fatalf("%s: nothing broke", name)
		}
		checkLastLog(t, b, job, 1, 1, at)
		at = publishLog(t, b, subject, at, piece(job, 1, 2))
		checkLastLog(t, b, job, 1, 2, at)
		if n := bustest.Count(t, nats.Client(), contracts.StreamLive, subject); n != 2 {
			t.Errorf("%s: %d pieces, want 2", name, n)
		}
	}
}

// The server may lose the end of a log in a crash, and yet remember its ids.
func logPiecesThatAreLostAreNoticed(t *testing.T, nats natstest.NATS) {
	b := open(t, nats, "a")
	const job = "lost-log"
	head, tail := contracts.LogHeadSubject(job), contracts.LogTailSubject(job)
	first := publishLog(t, b, head, 0, piece(job, 1, 1))
	second := publishLog(t, b, head, first, piece(job, 1, 2))
	conn := nats.Client()
	until(t, "a lost piece", func() bool {
		ctx, cancel := brief(t)
		defer cancel()
		live, err := conn.JetStream().Stream(ctx, contracts.StreamLive)
		if err != nil {
			return false
		}
		err = live.DeleteMsg(ctx, second)
		return err == nil || errors.Is(err, jetstream.ErrMsgNotFound) // the answer of before was lost
	})
	for _, subject := range []string{head, tail} {
		if _, err := b.PublishLog(t.Context(), subject, "a", second, piece(job, 1, 3)); !errors.Is(err, bus.ErrLogLost) {
			t.Errorf("on %s behind a lost piece: %v", subject, err)
		}
	}
	again, err := b.PublishLog(t.Context(), head, "b", first, piece(job, 1, 2))
	if err != nil {
		t.Fatal(err)
	}
	checkLastLog(t, b, job, 1, 2, again)
}

func logTailIsDropped(t *testing.T, nats natstest.NATS) {
	b := open(t, nats, "a")
	const job = "tail"
	head, tail := contracts.LogHeadSubject(job), contracts.LogTailSubject(job)
	at := publishLog(t, b, head, 0, piece(job, 1, 1))
	for seq := uint64(2); seq <= 8; seq++ {
		at = publishLog(t, b, tail, at, piece(job, 1, seq))
	}
	for range 2 { // again is harmless
		if err := b.DropLog(t.Context(), tail, 3); err != nil {
			t.Fatal(err)
		}
		inHead, inTail := bustest.Count(t, nats.Client(), contracts.StreamLive, head), bustest.Count(t, nats.Client(), contracts.StreamLive, tail)
		if inHead != 1 || inTail != 3 {
			t.Errorf("%d and %d pieces, want 1 and 3", inHead, inTail)
		}
	}
	checkLastLog(t, b, job, 1, 8, at)
	publishLog(t, b, tail, at, piece(job, 1, 9))
}

func logGoesOnAfterAnOutage(t *testing.T, nats natstest.NATS) {
	b := open(t, nats, "a")
	const job = "outage"
	subject := contracts.LogHeadSubject(job)
	at := publishLog(t, b, subject, 0, piece(job, 1, 1))
	nats.Stop()
	stored := make(chan error, 1)
	go func() {
		_, err := b.PublishLog(t.Context(), subject, "a", at, piece(job, 1, 2))
		stored <- err
	}()
	nats.Start()
	if err := <-stored; err != nil {
		t.Fatal(err)
	}
	last, _, err := b.LastLog(t.Context(), job)
	if err != nil || last.Seq != 2 {
		t.Errorf("last piece %+v, %v", last, err)
	}
}
