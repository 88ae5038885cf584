package service

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/rs/zerolog"

	"github.com/gantry-worker/gantry/contracts/client"
)

// childConfig is the variable that makes a transfer of the test's program.
const childConfig = "GANTRY_TEST_TRANSFER"

// childOrder is what it says. Such a child looks at nobody's life unasked, so
// that it sends few requests but those of its steps.
type childOrder struct {
	NATS, Token, WorkRoot, Girder, CacheSize string
	Concurrency                              int
}

// beChild is transfer in a process of its own, which can be killed.
func beChild(text string) int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	var order childOrder
	if err := json.Unmarshal([]byte(text), &order); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	cfg := Config{
		NATS: client.Config{URL: order.NATS, Token: order.Token, Patience: timeout}, WorkRoot: order.WorkRoot, GirderAPIURL: order.Girder,
		Concurrency: order.Concurrency, GirderConnections: 32, CacheSize: order.CacheSize, GirderPatience: patience,
	}
	log := zerolog.New(os.Stderr).Level(zerolog.WarnLevel)
	rhythm := rhythm{life: time.Hour, holds: quick.holds, sweep: quick.sweep}
	if err := run(log.WithContext(ctx), cfg, rhythm); err != nil {
		log.Error().Err(err).Msg("ended")
		return 1
	}
	return 0
}

// child is such a process.
type child struct {
	cmd  *exec.Cmd
	once sync.Once
}

func (b *bench) order() childOrder {
	nats := b.nats.Config()
	return childOrder{NATS: nats.URL, Token: nats.Token, WorkRoot: b.root, Girder: b.sim.APIURL(), Concurrency: 1}
}

func (b *bench) child(order childOrder) *child {
	b.t.Helper()
	text, err := json.Marshal(order)
	if err != nil {
		b.t.Fatal(err)
	}
	c := &child{cmd: exec.Command(os.Args[0])}
	c.cmd.Env = append(os.Environ(), childConfig+"="+string(text))
	c.cmd.Stdout, c.cmd.Stderr = output{b.t}, output{b.t}
	if err := c.cmd.Start(); err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(c.kill)
	return c
}

// kill ends the process as nothing else does, and returns when it is gone.
func (c *child) kill() { c.end(syscall.SIGKILL) }

// terminate asks the process to end, and returns when it has.
func (c *child) terminate() { c.end(syscall.SIGTERM) }

func (c *child) end(how syscall.Signal) {
	c.once.Do(func() {
		_ = c.cmd.Process.Signal(how)
		_ = c.cmd.Wait() // its state says the rest
	})
}

type output struct{ t *testing.T }

func (o output) Write(p []byte) (int, error) {
	o.t.Logf("child: %s", p)
	return len(p), nil
}
