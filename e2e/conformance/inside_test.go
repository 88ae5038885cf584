package conformance

// An executor that itself runs in a container.

import (
	"encoding/json"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/docker/docker/api/types/container"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/e2e/setup"
)

// insideWork is where the services in their containers see the work folder: not
// where the host has it.
const insideWork = "/inside/work"

// inside are services of a node in containers, on a network of their own.
type inside struct {
	*stage
	network, gateway string
	natsURL          string
}

func newInside(t *testing.T) *inside {
	t.Helper()
	s := alone(t, setup.Config{Hold: []string{setup.Executor, setup.Transfer}})
	i := &inside{stage: s}
	i.network, i.gateway = s.Engine.Network()
	i.natsURL = "nats://" + i.forward(strings.TrimPrefix(s.URL, "nats://"))
	if err := os.MkdirAll(s.WorkRoot, 0o755); err != nil {
		t.Fatal(err)
	}
	return i
}

// forward makes a server of the host's loopback interface reachable in the
// network, and returns its address there.
func (i *inside) forward(target string) string {
	i.t.Helper()
	listener, err := net.Listen("tcp", net.JoinHostPort(i.gateway, "0"))
	if err != nil {
		i.t.Fatal(err)
	}
	var conns sync.Map
	var accepting, serving sync.WaitGroup
	carry := func(to, from net.Conn) {
		serving.Go(func() {
			defer to.Close()  //nolint:errcheck // the other direction closes it as well
			io.Copy(to, from) //nolint:errcheck // whoever waits for the bytes notices
		})
	}
	accepting.Go(func() {
		for {
			from, err := listener.Accept()
			if err != nil {
				return
			}
			to, err := net.Dial("tcp", target)
			if err != nil {
				from.Close() //nolint:errcheck // its other end notices
				continue
			}
			conns.Store(from, to)
			carry(to, from)
			carry(from, to)
		}
	})
	i.t.Cleanup(func() {
		listener.Close() //nolint:errcheck // nobody listens any more, either way
		accepting.Wait() // all connections are known
		conns.Range(func(from, to any) bool {
			from.(net.Conn).Close() //nolint:errcheck // it may be closed
			to.(net.Conn).Close()   //nolint:errcheck // it may be closed
			return true
		})
		serving.Wait()
	})
	return listener.Addr().String()
}

// start starts a service in a container of an image with nothing else in it.
func (i *inside) start(service string, binds []string, env ...string) string {
	i.t.Helper()
	// An image of the test's own: another test removes its one when it ends.
	name := "gantry-conformance-" + contracts.NewToken()[:8] + "-" + service
	ref := i.Engine.Import(name, map[string][]byte{"service": setup.ReadProgram(i.t, service)})
	i.t.Cleanup(func() { i.Engine.RemoveImage(ref) })
	env = append(env, "GANTRY_NATS_URL="+i.natsURL, "GANTRY_NATS_TOKEN="+i.Token, "GANTRY_WORK_ROOT="+insideWork, "GANTRY_LOG_LEVEL=debug")
	id := i.Engine.Start("", &container.Config{Image: ref, Env: env, Entrypoint: []string{"/service"}}, &container.HostConfig{NetworkMode: container.NetworkMode(i.network), Binds: binds})
	i.t.Cleanup(func() {
		if i.t.Failed() {
			i.t.Logf("log of %s:\n%s", service, i.Engine.Logs(id))
		}
		i.Engine.Remove(id)
	})
	return id
}

func socketOf(t *testing.T) string {
	t.Helper()
	host := os.Getenv("DOCKER_HOST")
	if host == "" {
		host = "unix:///var/run/docker.sock"
	}
	path, ok := strings.CutPrefix(host, "unix://")
	if !ok {
		t.Skip("the engine has no socket that a container could be given")
	}
	return path + ":/var/run/docker.sock"
}

// Paths are translated to those of the host; the network is that of the
// executor's own container.
func TestAnExecutorInAContainerRunsTasksOnItsHost(t *testing.T) {
	socket := socketOf(t)
	i := newInside(t)
	work := i.WorkRoot + ":" + insideWork
	girder := "http://" + i.forward(strings.TrimPrefix(i.Girder.URL(), "http://")) + "/api/v1"
	transfer := i.start(setup.Transfer, []string{work}, "GANTRY_GIRDER_API_URL="+girder)
	executor := i.start(setup.Executor, []string{work, socket})
	i.AwaitTransfer(i.Nodes[0])
	i.AwaitExecutor(i.Nodes[0])

	file, item := i.Girder.File("in", []byte("of Girder")), i.Girder.Item("out")
	stream, sum := i.bigFile(1 << 20)
	task := i.script(`cat "$1"; echo; cp "$1" "$2"; echo '{"total": 1, "current": 1, "message": "there"}' > "$3"; sha256sum < "$4" | cut -c 1-64 > "$5"
		echo ready >&2; while :; do sleep 1000 & wait $!; done`,
		&contracts.GirderFile{ID: file.ID}, volumePath("out"), &contracts.ProgressPipe{}, streamOf(stream, "stream"), outputPipe("sum"))
	task.Docker.Options.NetworkMode = ""
	task.Limits = &contracts.Limits{Time: contracts.Duration(patience)}
	job := i.submit(task)
	i.AwaitLog(job, sum)
	i.AwaitLog(job, "ready")
	var made struct{ HostConfig struct{ NetworkMode string } }
	id := i.AwaitEntry(job, contracts.EntryStarted, 1).Data.(*contracts.Started).Container
	if err := json.Unmarshal([]byte(i.Engine.Inspect(id)), &made); err != nil {
		t.Fatal(err)
	}
	if made.HostConfig.NetworkMode != i.network {
		t.Errorf("the task's network is %q, want %q", made.HostConfig.NetworkMode, i.network)
	}
	i.revoke(job)
	end := i.end(job).canceled().progressed(1, 1, "there")
	if !strings.Contains(end.stdout, "of Girder\n") || !strings.Contains(end.stdout, sum+"\n") {
		t.Errorf("stdout is %q", end.stdout)
	}

	named := i.script(`cp "$1" "$2"; ls /sys/class/net`, &contracts.GirderFile{ID: file.ID}, volumePath("out"))
	named.Outputs = []contracts.Output{uploadTo(item, "out")} // its network is "none"
	if end := i.succeed(named); strings.Contains(end.log, "eth0") {
		t.Errorf("a task that wants no network has %q", end.log)
	}
	if _, content := i.Girder.Uploaded(item.ID); string(content) != "of Girder" {
		t.Errorf("uploaded %q", content)
	}
	i.awaitNothing("folders", func() []string { return append(i.left(job), entries(t, i.WorkRoot+"/attempts")...) })
	for service, id := range map[string]string{setup.Executor: executor, setup.Transfer: transfer} {
		if code := i.Engine.StopContainer(i.Context(), id); code != 0 {
			t.Errorf("%s ended with code %d", service, code)
		}
	}
}

// An executor whose work folder the host does not have says so.
func TestAnExecutorWhoseWorkFolderIsOnlyInItsContainerRefusesToStart(t *testing.T) {
	socket := socketOf(t)
	i := newInside(t)
	id := i.start(setup.Executor, []string{socket})
	if code := i.Engine.AwaitEnd(i.Context(), id); code == 0 {
		t.Error("it ended with code 0")
	}
	if log := i.Engine.Logs(id); !strings.Contains(log, insideWork) || !strings.Contains(log, "mount") {
		t.Errorf("it says %q", log)
	}
}
