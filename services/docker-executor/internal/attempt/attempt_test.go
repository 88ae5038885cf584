package attempt_test

import (
	"context"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"go.uber.org/goleak"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/contracts/client/natstest"
	"github.com/gantry-worker/gantry/services/docker-executor/internal/attempt"
	"github.com/gantry-worker/gantry/services/docker-executor/internal/engine"
	"github.com/gantry-worker/gantry/services/docker-executor/internal/engine/fake"
	"github.com/gantry-worker/gantry/services/docker-executor/internal/folder"
	"github.com/gantry-worker/gantry/services/docker-executor/internal/policy"
	"github.com/gantry-worker/gantry/services/internal/bus"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A revoke that is heard while an attempt is being adopted stops the container
// as any other does: with its signal, and all of its log before the end.
func TestARevokeDuringTheAdoptionStopsTheContainerFirst(t *testing.T) {
	t.Parallel()
	b, err := bus.Open(t.Context(), natstest.Start(t).Config(), "test", "test")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Close)
	eng := fake.New()
	t.Cleanup(eng.Close)
	id, err := eng.Create(t.Context(), engine.Spec{Image: fake.ScriptImage, Args: []string{"trap:TERM:7", "out:text\n", "hang"}})
	if err == nil {
		err = eng.Start(t.Context(), id)
	}
	if err != nil {
		t.Fatal(err)
	}
	task := &contracts.Task{
		Version: contracts.Version, ID: "job", Name: contracts.TaskDockerRun,
		Docker: &contracts.DockerRun{Image: fake.ScriptImage},
	}
	var last *bus.Seen
	for _, data := range []contracts.EntryData{
		&contracts.Submitted{Task: task}, &contracts.Queued{}, &contracts.Claimed{Node: "n", Executor: "dead"},
		&contracts.Started{Container: id}, &contracts.Adopted{Node: "n", Executor: "ex"},
	} {
		if last, err = b.Append(t.Context(), "job", last, data); err != nil {
			t.Fatal(err)
		}
	}
	life, err := b.Life(t.Context(), "job")
	if err != nil {
		t.Fatal(err)
	}
	f, err := folder.Create(t.TempDir(), folder.About{
		Job: "job", Attempt: 1, ContainerID: id, Volumes: []folder.Volume{{Host: t.TempDir(), Container: "/mnt/x"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	rules, err := policy.New(policy.Config{})
	if err != nil {
		t.Fatal(err)
	}
	tools := &attempt.Tools{Bus: b, Engine: eng, Policy: rules, Node: "n", Executor: "ex", MaxGrace: time.Minute, LogLimit: 1 << 20}
	a := attempt.Adopt(tools, task, last, life, f, engine.Container{ID: id, State: engine.Running}, zerolog.Nop())

	ctx, revoke := context.WithCancelCause(t.Context())
	revoke(&attempt.Revoked{Revoke: contracts.Revoke{Job: "job", By: "somebody"}})
	done, err := a.Run(ctx, t.Context())
	if err != nil || !done {
		t.Fatalf("ended with %v, %v", done, err)
	}
	end, err := b.Last(t.Context(), "job")
	if err != nil {
		t.Fatal(err)
	}
	if canceled, ok := end.Data.(*contracts.Canceled); !ok || canceled.By != "somebody" || canceled.LogSeq != 1 {
		t.Errorf("ended as %s %+v", end.Type, end.Data)
	}
	list, err := eng.List(t.Context(), nil)
	if err != nil || len(list) != 1 || list[0].State != engine.Exited {
		t.Fatalf("containers are %+v, error %v", list, err)
	}
	if exit, err := eng.Wait(t.Context(), id, engine.Run{}); err != nil || exit.Code != 7 {
		t.Errorf("the container ended as %+v, error %v", exit, err)
	}
	if err := f.Remove(); err != nil {
		t.Error(err)
	}
}
