package natstest

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/gantry-worker/gantry/contracts/client"
	"github.com/gantry-worker/gantry/contracts/client/testport"
)

// replicas is the number of a cluster's members, and of each stream's replicas.
const replicas = 3

// Cluster is three NATS servers that hold every stream together. They are
// stopped at the test's end.
type Cluster struct {
	t       testing.TB
	members [replicas]*member
}

type member struct {
	dir           string
	client, route int // ports
	server        *server.Server
}

// StartCluster starts a cluster and applies the topology with three replicas.
func StartCluster(t testing.TB) *Cluster {
	t.Helper()
	c := &Cluster{t: t}
	for i := range c.members {
		c.members[i] = &member{dir: Folder(t), client: testport.Reserve(t), route: testport.Reserve(t)}
	}
	t.Cleanup(c.Stop)
	c.Start()
	conn := c.Client()
	// A step whose answer is lost with a leader is taken again: it never comes.
	for _, step := range conn.TopologySteps(replicas) {
		c.Await(step.Name, func() bool {
			ctx, cancel := context.WithTimeout(t.Context(), stepTime)
			defer cancel()
			return step.Do(ctx) == nil
		})
	}
	return c
}

// stepTime is how long one step of the topology is given.
const stepTime = 10 * time.Second

// Await returns when condition holds, which is looked at again and again.
func (c *Cluster) Await(what string, condition func() bool) {
	c.t.Helper()
	ticker := time.NewTicker(50 * time.Millisecond)
	defer ticker.Stop()
	for deadline := time.Now().Add(patience); !condition(); <-ticker.C {
		if time.Now().After(deadline) {
			c.t.Fatalf("the cluster does not come to %s", what)
		}
	}
}

// Start starts the members that do not run, and returns when the cluster has a
// leader.
func (c *Cluster) Start() {
	c.t.Helper()
	for i := range c.members {
		c.StartMember(i)
	}
	c.Await("a leader", func() bool {
		for _, m := range c.members {
			if m.server.JetStreamIsLeader() {
				return true
			}
		}
		return false
	})
}

// StartMember starts a member with its data and ports of before, if it does not
// run.
func (c *Cluster) StartMember(i int) {
	c.t.Helper()
	m := c.members[i]
	if m.server != nil {
		return
	}
	srv, err := Run(&server.Options{
		ServerName: fmt.Sprintf("natstest-%d", i), Host: "127.0.0.1", Port: m.client, Authorization: Token,
		AuthTimeout: authTimeout, JetStream: true, StoreDir: m.dir, JetStreamMaxStore: MaxStore, NoSigs: true, NoLog: true,
		// A client is to use the addresses that it was given: a proxy, or all.
		Cluster: server.ClusterOpts{Name: "natstest", Host: "127.0.0.1", Port: m.route, NoAdvertise: true},
		Routes:  c.routes(i),
	})
	if err != nil {
		c.t.Fatal(err)
	}
	m.server = srv
}

// routes returns the addresses of a member's peers.
func (c *Cluster) routes(member int) []*url.URL {
	var routes []*url.URL
	for i, m := range c.members {
		if i != member {
			routes = append(routes, &url.URL{Scheme: "nats", Host: fmt.Sprintf("127.0.0.1:%d", m.route)})
		}
	}
	return routes
}

// StopMember stops a member; its data stays for StartMember.
func (c *Cluster) StopMember(i int) {
	m := c.members[i]
	if m.server == nil {
		return
	}
	m.server.Shutdown()
	m.server.WaitForShutdown()
	m.server = nil
}

// Stop stops all members.
func (c *Cluster) Stop() {
	for i := range c.members {
		c.StopMember(i)
	}
}

// Leader returns the member that leads a stream, waiting for an election.
func (c *Cluster) Leader(stream string) int {
	c.t.Helper()
	leader := -1
	c.Await("a leader of "+stream, func() bool {
		for i := range c.members {
			if c.Leads(i, stream) {
				leader = i
				return true
			}
		}
		return false
	})
	return leader
}

// Leads reports whether a member leads a stream, as far as it knows.
func (c *Cluster) Leads(member int, stream string) bool {
	m := c.members[member]
	return m.server != nil && m.server.JetStreamIsStreamLeader(server.DEFAULT_GLOBAL_ACCOUNT, stream)
}

// StepDown makes a stream elect another leader.
func (c *Cluster) StepDown(conn *client.Client, stream string) {
	c.t.Helper()
	c.Await("a leader of "+stream+" that steps down", func() bool {
		ctx, cancel := context.WithTimeout(c.t.Context(), 2*time.Second)
		defer cancel()
		reply, err := conn.Conn().RequestWithContext(ctx, "$JS.API.STREAM.LEADER.STEPDOWN."+stream, nil)
		if err != nil {
			return false // nobody leads it just now
		}
		var answer struct {
			Error *jetstream.APIError `json:"error"`
		}
		return json.Unmarshal(reply.Data, &answer) == nil && answer.Error == nil
	})
}

// Config says how to reach the cluster, by any member.
func (c *Cluster) Config() client.Config {
	urls := make([]string, len(c.members))
	for i, m := range c.members {
		urls[i] = fmt.Sprintf("nats://127.0.0.1:%d", m.client)
	}
	return client.Config{URL: strings.Join(urls, ","), Token: Token, Name: c.t.Name(), Patience: patience}
}

// MemberConfig says how to reach one member.
func (c *Cluster) MemberConfig(i int) client.Config {
	return client.Config{URL: fmt.Sprintf("nats://127.0.0.1:%d", c.members[i].client), Token: Token, Name: c.t.Name(), Patience: patience}
}

// Client returns a new connection, closed at the test's end.
func (c *Cluster) Client() *client.Client {
	c.t.Helper()
	return connect(c.t, c.Config())
}
