package attempt_test

import (
	"context"
	"encoding/json"
	"errors"
	"iter"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/contracts/client/leaktest"
	"github.com/gantry-worker/gantry/services/docker-executor/internal/attempt"
	"github.com/gantry-worker/gantry/services/docker-executor/internal/engine"
	"github.com/gantry-worker/gantry/services/docker-executor/internal/engine/fake"
	"github.com/gantry-worker/gantry/services/docker-executor/internal/folder"
	"github.com/gantry-worker/gantry/services/internal/bus"
)

func TestMain(m *testing.M) { leaktest.Main(m) }

// awaitOutput returns when a container has written something.
func awaitOutput(t *testing.T, eng engine.Engine, id string) {
	t.Helper()
	errWritten := errors.New("it has")
	_, err := eng.Logs(t.Context(), id, engine.Both, engine.Position{}, func(engine.Frame) error { return errWritten })
	if !errors.Is(err, errWritten) {
		t.Fatalf("the container wrote nothing: %v", err)
	}
}

// watch returns what returns the next phase that an attempt of the job says.
func watch(t *testing.T, b *bus.Bus, job contracts.JobID) (next func() contracts.Phase) {
	t.Helper()
	message, stop := iter.Pull2(b.Messages(t.Context(), contracts.StreamLive, 1, contracts.NotesSubject(job)))
	t.Cleanup(stop)
	return func() contracts.Phase {
		t.Helper()
		for {
			msg, err, more := message()
			if err != nil || !more {
				t.Fatalf("no more notes: %v", err)
			}
			note, phase := new(contracts.Note), contracts.Phase{}
			if err := json.Unmarshal(msg.Data(), note); err != nil {
				t.Fatal(err)
			}
			if note.Type != contracts.NotePhase {
				continue
			}
			if err := json.Unmarshal(note.Data, &phase); err != nil {
				t.Fatal(err)
			}
			return phase
		}
	}
}

// An attempt whose inputs nobody brings says so, until a transfer is there.
func TestAnAttemptWithoutATransferSaysSo(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	task := &contracts.Task{
		Version: contracts.Version, ID: "job", Name: contracts.TaskDockerRun,
		Docker: &contracts.DockerRun{
			Image: fake.ScriptImage, Pull: contracts.PullNever,
			Args: []contracts.Arg{{Text: "exit:0"}, {Transform: &contracts.GirderFile{ID: "aa", Filename: "a.tif"}}},
		},
	}
	last, f := s.claim(task)
	a := attempt.New(s.tools, task, last, f, zerolog.Nop())
	var run sync.WaitGroup
	defer run.Wait()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	run.Go(func() {
		if done, err := a.Run(ctx, ctx); ctx.Err() == nil && (err != nil || !done) {
			t.Errorf("ended with %v, %v", done, err)
		}
	})
	next := watch(t, s.bus, "job")
	until := func(want contracts.Phase) {
		t.Helper()
		for got := next(); got != want; got = next() {
			t.Logf("phase %+v", got)
		}
	}
	until(contracts.Phase{Phase: contracts.PhaseFetchingInput, Waiting: attempt.NoTransfer})
	note, err := contracts.NewNote(contracts.NoteTransfer, last.Attempt, 1, contracts.TransferNote{ID: "in-0", What: "a.tif", Bytes: 5, Total: 9})
	if err == nil {
		err = s.bus.Hint("job", note)
	}
	if err != nil {
		t.Fatal(err)
	}
	until(contracts.Phase{Phase: contracts.PhaseFetchingInput, What: "a.tif", Bytes: 5, Of: 9})
	result := []byte(`{"version":1,"step":"in-0","outcome":"done","path":"a.tif","bytes":9}`)
	at := filepath.Join(f.Path(), "steps", "in-0.json")
	if err := errors.Join(os.WriteFile(at+".new", result, 0o600), os.Rename(at+".new", at)); err != nil {
		t.Fatal(err)
	}
	until(contracts.Phase{Phase: contracts.PhaseRunning})
	run.Wait()
	if err := f.Remove(); err != nil {
		t.Error(err)
	}
}

// A revoke that is heard while an attempt is being adopted stops the container
// as any other does: with its signal, and all of its log before the end.
func TestARevokeDuringTheAdoptionStopsTheContainerFirst(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	id, err := s.engine.Create(t.Context(), engine.Spec{Image: fake.ScriptImage, Args: []string{"trap:TERM:7", "out:text\n", "hang"}})
	if err == nil {
		err = s.engine.Start(t.Context(), id)
	}
	if err != nil {
		t.Fatal(err)
	}
	awaitOutput(t, s.engine, id) // from then on it handles the signal
	task := &contracts.Task{
		Version: contracts.Version, ID: "job", Name: contracts.TaskDockerRun,
		Docker: &contracts.DockerRun{Image: fake.ScriptImage},
	}
	last := s.live(task, &contracts.Claimed{Node: "n", Executor: "dead"}, &contracts.Started{Container: id}, &contracts.Adopted{Node: "n", Executor: "ex"})
	life, err := s.bus.Life(t.Context(), "job")
	if err != nil {
		t.Fatal(err)
	}
	f, err := folder.Create(t.TempDir(), folder.About{
		Job: "job", Attempt: 1, ContainerID: id, Volumes: []folder.Volume{{Host: t.TempDir(), Container: "/mnt/x"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	a := attempt.Adopt(s.tools, task, last, life, f, engine.Container{ID: id, State: engine.Running}, zerolog.Nop())

	ctx, revoke := context.WithCancelCause(t.Context())
	grace := contracts.Duration(time.Hour)
	revoke(&attempt.Revoked{Revoke: contracts.Revoke{Job: "job", By: "somebody", Grace: &grace}})
	done, err := a.Run(ctx, t.Context())
	if err != nil || !done {
		t.Fatalf("ended with %v, %v", done, err)
	}
	end, err := s.bus.Last(t.Context(), "job")
	if err != nil {
		t.Fatal(err)
	}
	if canceled, ok := end.Data.(*contracts.Canceled); !ok || canceled.By != "somebody" || canceled.LogSeq != 1 {
		t.Errorf("ended as %s %+v", end.Type, end.Data)
	}
	list, err := s.engine.List(t.Context(), nil)
	if err != nil || len(list) != 1 || list[0].State != engine.Exited {
		t.Fatalf("containers are %+v, error %v", list, err)
	}
	if exit, err := s.engine.Wait(t.Context(), id, engine.Run{}); err != nil || exit.Code != 7 {
		t.Errorf("the container ended as %+v, error %v", exit, err)
	}
	if err := f.Remove(); err != nil {
		t.Error(err)
	}
}
