package client_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/go-json-experiment/json"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/contracts/client"
	"github.com/gantry-worker/gantry/contracts/client/natstest"
)

func task() *contracts.Task {
	return &contracts.Task{Name: contracts.TaskDockerRun, Docker: &contracts.DockerRun{Image: "img"}}
}

func TestApplyTopologyTwice(t *testing.T) {
	t.Parallel()
	c := natstest.Start(t).Client() // has applied it once
	if err := c.ApplyTopology(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	states, err := c.Topology(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, state := range states {
		if state.Missing {
			t.Errorf("%s is missing", state.Name)
		}
	}
	if want := len(contracts.Streams) + len(contracts.Buckets); len(states) != want {
		t.Errorf("%d streams, want %d", len(states), want)
	}
}

func TestSubmitPublishesAValidTaskWithAnID(t *testing.T) {
	t.Parallel()
	c := natstest.Start(t).Client()
	job, err := c.Submit(t.Context(), task())
	if err != nil {
		t.Fatal(err)
	}
	stream, err := c.JetStream().Stream(t.Context(), contracts.StreamSubmit)
	if err != nil {
		t.Fatal(err)
	}
	msg, err := stream.GetLastMsgForSubject(t.Context(), contracts.SubmitSubject(contracts.DefaultQueue))
	if err != nil {
		t.Fatal(err)
	}
	got, err := contracts.DecodeTask(msg.Data)
	if err != nil || got.ID != job {
		t.Errorf("published task has id %q and error %v, want %q", got.ID, err, job)
	}
}

func TestSubmitRefusesAnInvalidTask(t *testing.T) {
	t.Parallel()
	c := natstest.Start(t).Client()
	bad := task()
	bad.Docker.Image = ""
	_, err := c.Submit(t.Context(), bad)
	var invalid *contracts.InvalidTaskError
	if !errors.As(err, &invalid) || invalid.Problems[0].Path != "docker.image" {
		t.Errorf("got %v, want an error about docker.image", err)
	}
}

func TestConnectSaysThatNobodyAnswers(t *testing.T) {
	t.Parallel()
	_, err := client.Connect(t.Context(), client.Config{URL: "nats://the-token@127.0.0.1:1"})
	if !errors.Is(err, client.ErrUnreachable) || strings.Contains(err.Error(), "the-token") {
		t.Errorf("got %v", err)
	}
}

func TestLifeOfUnknownJob(t *testing.T) {
	t.Parallel()
	c := natstest.Start(t).Client()
	if _, err := c.Life(t.Context(), "nobody"); !errors.Is(err, client.ErrNoJob) {
		t.Errorf("got %v", err)
	}
}

// script publishes a short life with a log that is shipped twice.
func script(t *testing.T, c *client.Client, job contracts.JobID) {
	t.Helper()
	publish := func(subject string, v any) {
		t.Helper()
		data, err := json.Marshal(v)
		if entry, ok := v.(*contracts.Entry); ok {
			data, err = entry.Encode()
		}
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.JetStream().Publish(t.Context(), subject, data); err != nil {
			t.Fatal(err)
		}
	}
	first := contracts.NextEntry(nil, job, "test", &contracts.Submitted{Task: task()})
	publish(contracts.LifeSubject(job), first)
	for _, seq := range []uint64{1, 2, 1, 2, 3} {
		chunk := contracts.LogChunk{Version: 1, Job: job, Attempt: 1, Seq: seq, Stream: contracts.LogStdout, Data: "line\n"}
		publish(contracts.LogHeadSubject(job), chunk)
	}
	publish(contracts.LifeSubject(job), contracts.NextEntry(first, "", "test", &contracts.Canceled{LogSeq: 3}))
}

func TestFollowEndsWithTheWholeLog(t *testing.T) {
	t.Parallel()
	c := natstest.Start(t).Client()
	script(t, c, "other")
	script(t, c, "job")
	var types []contracts.EntryType
	var seqs []uint64
	for event, err := range c.Follow(t.Context(), "job") {
		switch {
		case err != nil:
			t.Fatal(err)
		case event.Entry != nil:
			types = append(types, event.Entry.Type)
		case event.Log != nil:
			seqs = append(seqs, event.Log.Seq)
		}
	}
	if len(types) != 2 || types[1] != contracts.EntryCanceled {
		t.Errorf("entries %v", types)
	}
	if len(seqs) != 3 || seqs[0] != 1 || seqs[2] != 3 {
		t.Errorf("log messages %v, want 1, 2, 3 once each", seqs)
	}
}

func TestFollowAcrossARestartOfTheServer(t *testing.T) {
	t.Parallel()
	server := natstest.Start(t)
	c := server.Client()
	done := make(chan error, 1)
	go func() {
		_, err := c.Wait(t.Context(), "job")
		done <- err
	}()
	server.Restart()
	script(t, server.Client(), "job")
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

func TestLogReadsWhatIsThere(t *testing.T) {
	t.Parallel()
	c := natstest.Start(t).Client()
	script(t, c, "job")
	for _, follow := range []bool{false, true} {
		var n int
		for _, err := range c.Log(t.Context(), "job", follow) {
			if err != nil {
				t.Fatal(err)
			}
			n++
		}
		if n != 3 {
			t.Errorf("follow %v: %d pieces, want 3", follow, n)
		}
	}
	for range c.Log(t.Context(), "empty", false) {
		t.Error("a job without a log has one")
	}
}

func TestLogFromAnyPlace(t *testing.T) {
	t.Parallel()
	c := natstest.Start(t).Client()
	script(t, c, "job") // three times "line\n"
	const whole = "line\nline\nline\n"
	for from := range int64(len(whole) + 2) {
		for _, follow := range []bool{false, true} {
			text, at := "", min(from, int64(len(whole)))
			for piece, err := range c.LogFrom(t.Context(), "job", from, follow) {
				if err != nil {
					t.Fatal(err)
				}
				if piece.Place != at {
					t.Errorf("a piece at %d, want %d", piece.Place, at)
				}
				text += string(piece.Bytes())
				at += int64(len(piece.Bytes()))
			}
			if want := whole[min(from, int64(len(whole))):]; text != want {
				t.Errorf("from %d, follow %t: %q, want %q", from, follow, text, want)
			}
		}
	}
	for range c.LogFrom(t.Context(), "job", 7, true) {
		break // a reader that has enough
	}
}

func TestRevokeIsKept(t *testing.T) {
	t.Parallel()
	c := natstest.Start(t).Client()
	if err := c.Revoke(t.Context(), contracts.Revoke{Job: "not yet there", By: "me"}); err == nil {
		t.Error("an id with blanks was accepted")
	}
	if err := c.Revoke(t.Context(), contracts.Revoke{Job: "later", By: "me"}); err != nil {
		t.Fatal(err)
	}
	stream, err := c.JetStream().Stream(t.Context(), contracts.StreamRevoke)
	if err != nil {
		t.Fatal(err)
	}
	msg, err := stream.GetLastMsgForSubject(t.Context(), contracts.RevokeSubject("later"))
	if err != nil {
		t.Fatal(err)
	}
	if revoke, err := contracts.DecodeRevoke(msg.Data, "later"); err != nil || revoke.By != "me" {
		t.Errorf("kept %+v, %v", revoke, err)
	}
}
