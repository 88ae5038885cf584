package service

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/gantry-worker/gantry/contracts"
)

// crowd is steps that want places, in a bubble in which nothing else happens.
type crowd struct {
	t      *testing.T
	places *places

	mu      sync.Mutex
	turns   map[string]*turn
	entered []string // since it was asked last
	waited  int
}

func newCrowd(t *testing.T, each int) *crowd {
	return &crowd{t: t, places: newPlaces(each, time.Second), turns: map[string]*turn{}}
}

func stepOf(job, host string) *contracts.Step {
	return &contracts.Step{Job: contracts.JobID(job), Girder: contracts.GirderAccess{APIURL: "https://" + host + "/api/v1"}}
}

// wants has a step of a job ask for a place. Its name is "<job> <host> <n>".
func (c *crowd) wants(ctx context.Context, name string) {
	words := strings.Fields(name)
	go func() {
		turn, err := c.places.turn(ctx, stepOf(words[0], words[1]), "", waitingTold{c.waits, func() {}})
		c.mu.Lock()
		defer c.mu.Unlock()
		c.turns[name] = turn
		if err != nil {
			name += ": " + err.Error()
		}
		c.entered = append(c.entered, name)
	}()
	synctest.Wait()
}

// waits counts those that had to wait.
func (c *crowd) waits(context.Context) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.waited++
}

// again has a step that gave its place up ask for it.
func (c *crowd) again(name string) {
	turn := c.turn(name)
	go func() {
		if turn.Take(c.t.Context()) == nil {
			c.mu.Lock()
			defer c.mu.Unlock()
			c.entered = append(c.entered, name)
		}
	}()
	synctest.Wait()
}

// turn returns that of a step, when it has one.
func (c *crowd) turn(name string) *turn {
	synctest.Wait()
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.turns[name]
}

func (c *crowd) leave(name string) {
	c.turn(name).end()
	synctest.Wait()
}

// came checks who got a place since the last look.
func (c *crowd) came(names ...string) {
	c.t.Helper()
	synctest.Wait()
	slices.Sort(c.entered)
	if diff := cmp.Diff(names, c.entered); diff != "" {
		c.t.Error(diff)
	}
	c.entered = nil
}

// empty has all leave, again and again: one that has left may have asked before,
// and get the place of one that leaves later.
func (c *crowd) empty() {
	c.t.Helper()
	for passes := 0; passes <= len(c.turns); passes++ {
		for name := range maps.Clone(c.turns) {
			c.leave(name)
			c.leave(name) // twice is as good as once
		}
	}
	if c.places.all != 0 || len(c.places.ways) != 0 || len(c.places.jobs) != 0 || len(c.places.waiting) != 0 {
		c.t.Errorf("left: %+v", c.places)
	}
}

// TestAGirderThatIsAwayKeepsNobodyElseWaiting: its steps have all places of it,
// and more wait for them.
func TestAGirderThatIsAwayKeepsNobodyElseWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCrowd(t, 2)
		for n := range 9 {
			c.wants(t.Context(), fmt.Sprint("a dead ", n))
		}
		c.came("a dead 0", "a dead 1")
		if c.waited != 7 {
			t.Errorf("%d are told that they wait", c.waited)
		}
		c.wants(t.Context(), "b well 0")
		c.wants(t.Context(), "b well 1")
		c.came("b well 0", "b well 1")
		c.wants(t.Context(), "b well 2")
		c.came()
		c.leave("b well 0")
		c.came("b well 2")
		if n := c.places.atWork(); n != 4 {
			t.Errorf("%d at work", n)
		}
		for n := range 9 {
			c.leave(fmt.Sprint("a dead ", n))
		}
		c.empty()
	})
}

// TestTheNodeHasABoundToo whatever number of Girders the tasks name.
func TestTheNodeHasABoundToo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCrowd(t, 1)
		for _, host := range []string{"1", "2", "3", "4", "5"} {
			c.wants(t.Context(), "a "+host+" x")
		}
		c.came("a 1 x", "a 2 x", "a 3 x", "a 4 x")
		c.leave("a 3 x")
		c.came("a 5 x")
		c.empty()
	})
}

// TestATaskWithManyFilesHoldsUpNobody of the same Girder.
func TestATaskWithManyFilesHoldsUpNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCrowd(t, 2)
		for n := range 5 {
			c.wants(t.Context(), fmt.Sprint("many g ", n))
		}
		c.came("many g 0", "many g 1")
		c.wants(t.Context(), "one g 0")
		c.wants(t.Context(), "one g 1")
		c.leave("many g 0")
		c.came("one g 0")
		c.leave("many g 1")
		c.came("many g 2") // each has one now, and this one came earlier
		c.leave("many g 2")
		c.came("many g 3")
		c.empty()
	})
}

// TestWhoWaitsToTryAgainHasNoPlace, and is the next to get one.
func TestWhoWaitsToTryAgainHasNoPlace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCrowd(t, 1)
		c.wants(t.Context(), "broken g 0")
		c.wants(t.Context(), "b g 0")
		c.wants(t.Context(), "c g 0")
		c.came("broken g 0")
		broken := c.turn("broken g 0")
		broken.Give(time.Second - 1)
		c.came()
		c.again("broken g 0")
		c.came("broken g 0") // it had it
		broken.Give(time.Second)
		c.came("b g 0")
		broken.Give(time.Hour) // another of its files
		c.came()
		c.again("broken g 0")
		c.again("broken g 0")
		c.came()
		c.leave("b g 0")
		c.came("broken g 0", "broken g 0") // one place for both
		if n := c.places.atWork(); n != 1 {
			t.Errorf("%d at work", n)
		}
		c.leave("broken g 0")
		c.came("c g 0")
		c.empty()
	})
}

// TestFilesThatNeverComeHoldUpNoOtherTask: those that had a place before go
// behind a job that has none.
func TestFilesThatNeverComeHoldUpNoOtherTask(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCrowd(t, 2)
		for n := range 4 {
			c.wants(t.Context(), fmt.Sprint("broken g ", n))
		}
		c.came("broken g 0", "broken g 1")
		c.turn("broken g 0").Give(time.Minute)
		c.turn("broken g 1").Give(time.Minute)
		c.came("broken g 2", "broken g 3")
		c.again("broken g 0")
		c.again("broken g 1")
		c.wants(t.Context(), "other g 0")
		c.came()
		c.leave("broken g 2")
		c.came("other g 0")
		c.leave("broken g 3")
		c.came("broken g 0")
		c.empty()
	})
}

// TestAStepThatIsEndedWaitsNoMore, and loses nobody a place.
func TestAStepThatIsEndedWaitsNoMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCrowd(t, 1)
		c.wants(t.Context(), "a g 0")
		ctx, cancel := context.WithCancelCause(t.Context())
		c.wants(ctx, "a g 1")
		c.wants(t.Context(), "a g 2")
		c.came("a g 0")
		cancel(errors.New("revoked"))
		c.came("a g 1: revoked")
		c.leave("a g 1")
		c.came()
		c.leave("a g 0")
		c.came("a g 2")
		c.empty()
	})
}

// TestAPlaceThatComesWithTheEnd of its step goes to the next one.
func TestAPlaceThatComesWithTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for range 100 { // either of the two is seen first
			c := newCrowd(t, 1)
			c.wants(t.Context(), "a g 0")
			ctx, cancel := context.WithCancel(t.Context())
			c.wants(ctx, "a g 1")
			cancel()
			c.leave("a g 0")
			c.leave("a g 1")
			c.empty()
		}
	})
}

func TestWays(t *testing.T) {
	t.Parallel()
	plain, other := stepOf("a", "girder.example.org"), stepOf("b", "GIRDER.example.org")
	proxied, verified := stepOf("c", "girder.example.org"), stepOf("d", "girder.example.org")
	proxied.Session = &contracts.GirderSession{Proxies: map[string]contracts.Secret{"https": "http://proxy:3128"}}
	verified.Session = &contracts.GirderSession{Verify: &contracts.Verify{Off: true}}
	if wayOf(plain, "") != wayOf(other, "") || wayOf(plain, "") != wayOf(verified, "") {
		t.Error("one host is two")
	}
	if wayOf(plain, "") == wayOf(proxied, "") {
		t.Error("a task's own proxy is everybody's way")
	}
	if here := wayOf(plain, "http://10.0.0.1:8080/api/v1"); here != (way{host: "10.0.0.1:8080"}) || here != wayOf(stepOf("e", "elsewhere"), "http://10.0.0.1:8080/api/v1") {
		t.Errorf("%+v", here)
	}
}
