package natstest_test

import (
	"context"
	"testing"
	"time"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/contracts/client/natstest"
)

// TestClusterGoesOnWithoutItsLeader: two of three are enough, one is not.
func TestClusterGoesOnWithoutItsLeader(t *testing.T) {
	t.Parallel()
	cluster := natstest.StartCluster(t)
	c := cluster.Client()
	publish := func() error {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second) // without a quorum nobody answers
		defer cancel()
		_, err := c.JetStream().Publish(ctx, contracts.SubmitAny, []byte("x"))
		return err
	}
	cluster.Await("a message stored", func() bool { return publish() == nil })
	first := cluster.Leader(contracts.StreamSubmit)
	cluster.StopMember(first)
	second := cluster.Leader(contracts.StreamSubmit)
	cluster.Await("a message stored by two members", func() bool { return publish() == nil })
	cluster.StopMember(second)
	if err := publish(); err == nil {
		t.Error("one member of three stored a message")
	}
	cluster.StartMember(first)
	cluster.Await("a message stored by two members again", func() bool { return publish() == nil })
	cluster.Start()
	before := cluster.Leader(contracts.StreamSubmit)
	cluster.Await("another leader", func() bool {
		cluster.StepDown(c, contracts.StreamSubmit) // the same may win again
		return cluster.Leader(contracts.StreamSubmit) != before
	})
	cluster.Stop()
	cluster.Start()
	cluster.Await("a message stored after a restart of all", func() bool { return publish() == nil })
}
