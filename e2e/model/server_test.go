package model

import (
	"fmt"
	"math/rand/v2"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/contracts/client/natstest"
)

// natsServers are the NATS of a run: one server, or three.
type natsServers interface {
	replicas() int
	// outage takes something away and says what; mend brings all back.
	outage(random *rand.Rand) string
	mend()
	// reachable reports whether anybody can be reached.
	reachable() bool
	dial() (net.Conn, error)
	close()
}

// oneServer is a NATS server whose connections are pipes.
type oneServer struct {
	t      *testing.T
	root   string
	starts int

	mu      sync.Mutex
	running *server.Server
}

func newOneServer(t *testing.T) *oneServer {
	s := &oneServer{t: t, root: t.TempDir()}
	s.mend()
	return s
}

func (s *oneServer) replicas() int { return 1 }

func (s *oneServer) is(running *server.Server) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.running = running
}

func (s *oneServer) now() *server.Server {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.running
}

func (s *oneServer) reachable() bool { return s.now() != nil }

func (s *oneServer) dir(start int) string { return filepath.Join(s.root, fmt.Sprint("store-", start)) }

func (s *oneServer) mend() {
	if s.now() != nil {
		return
	}
	srv, err := natstest.Run(&server.Options{
		ServerName: "model", DontListen: true, JetStream: true, StoreDir: s.dir(s.starts), JetStreamMaxStore: natstest.MaxStore, NoSigs: true, NoLog: true,
	})
	if err != nil {
		s.t.Fatal(err)
	}
	s.is(srv)
}

// outage stops the server, or kills it: a killed one starts again with what was
// in its files at this moment.
func (s *oneServer) outage(random *rand.Rand) string {
	running := s.now()
	if running == nil {
		return ""
	}
	from, to := s.dir(s.starts), s.dir(s.starts+1)
	killed := random.IntN(2) == 0
	if killed {
		if err := os.CopyFS(to, os.DirFS(from)); err != nil {
			s.t.Fatalf("copy the server's files: %v", err)
		}
	}
	s.is(nil)
	running.Shutdown()
	running.WaitForShutdown()
	s.starts++
	if killed {
		return "NATS is killed"
	}
	if err := os.Rename(from, to); err != nil {
		s.t.Fatalf("move the server's files: %v", err)
	}
	return "NATS is stopped"
}

func (s *oneServer) dial() (net.Conn, error) {
	running := s.now()
	if running == nil {
		return nil, errUnreachable
	}
	return running.InProcessConn()
}

func (s *oneServer) close() {
	if running := s.now(); running != nil {
		running.Shutdown()
		running.WaitForShutdown()
	}
}

// threeServers are a cluster, on the loopback interface and in real time.
type threeServers struct {
	cluster *natstest.Cluster
	addrs   [3]string

	mu   sync.Mutex
	down [3]bool
	turn int
}

func newThreeServers(t *testing.T) *threeServers {
	s := &threeServers{cluster: natstest.StartCluster(t)}
	for i := range s.addrs {
		u, err := url.Parse(s.cluster.MemberConfig(i).URL)
		if err != nil {
			t.Fatal(err)
		}
		s.addrs[i] = u.Host
	}
	return s
}

func (s *threeServers) replicas() int { return len(s.addrs) }

func (s *threeServers) reachable() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.down != [3]bool{true, true, true}
}

func (s *threeServers) mend() {
	s.cluster.Start()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.down = [3]bool{}
}

// outage stops one member, the leader of what matters most among them, or all.
func (s *threeServers) outage(random *rand.Rand) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.down != [3]bool{} {
		return ""
	}
	stop := func(i int) {
		s.down[i] = true
		s.cluster.StopMember(i)
	}
	switch random.IntN(4) {
	case 0:
		for i := range s.down {
			stop(i)
		}
		return "all of NATS is stopped"
	case 1:
		i := random.IntN(len(s.down))
		stop(i)
		return fmt.Sprintf("member %d of NATS is stopped", i)
	default:
		stream := []string{contracts.StreamJobs, contracts.StreamReady, contracts.StreamLive}[random.IntN(3)]
		i := s.cluster.Leader(stream)
		stop(i)
		return fmt.Sprintf("the leader of %s, member %d of NATS, is stopped", stream, i)
	}
}

func (s *threeServers) dial() (net.Conn, error) {
	s.mu.Lock()
	var addr string
	for range s.addrs {
		s.turn++
		if i := s.turn % len(s.addrs); !s.down[i] {
			addr = s.addrs[i]
			break
		}
	}
	s.mu.Unlock()
	if addr == "" {
		return nil, errUnreachable
	}
	return net.Dial("tcp", addr)
}

func (s *threeServers) close() {} // natstest does

// direct is a way to NATS without gates.
type direct struct{ servers natsServers }

// Dial connects to NATS, if it is there.
func (d direct) Dial(string, string) (net.Conn, error) { return d.servers.dial() }
