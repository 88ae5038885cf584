package transfer

import (
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/e2e/setup"
	"github.com/gantry-worker/gantry/tools/girder-sim/girdersim"
)

// patience bounds everything that one test waits for: it is no measurement, and a
// disk may be slow.
const patience = 15 * time.Minute

// shared is the Gantry of all tests that need none of their own.
var shared = setup.Shared{Config: setup.Config{Slots: 4, Env: allowBind()}, Patience: patience}

// start starts a Gantry of the test's own.
func start(t *testing.T, cfg setup.Config) *setup.Gantry {
	t.Helper()
	cfg.Patience = patience
	return setup.Start(t, cfg)
}

func TestMain(m *testing.M) { os.Exit(setup.Main(m, &shared)) }

func allowBind() map[string]string {
	return map[string]string{"GANTRY_ALLOW_BIND": os.TempDir() + ":rw"}
}

// hostFolder is a new folder of the host that any container user may use.
func hostFolder(t *testing.T) string {
	t.Helper()
	path := t.TempDir()
	if err := errors.Join(os.Chmod(filepath.Dir(path), 0o755), os.Chmod(path, 0o777)); err != nil {
		t.Fatal(err)
	}
	return path
}

// atData mounts a folder of the host at /data.
func atData(host string) contracts.Volume {
	return contracts.Volume{Name: "data", Type: contracts.VolumeBindMount, HostPath: host, ContainerPath: "/data", Mode: "rw"}
}

const (
	mebibyte = 1 << 20
	gibibyte = 1 << 30
	// mostMemory is what transfer may have at once, whatever it moves.
	mostMemory = 64 * mebibyte
)

// noise is so many bytes that are nowhere alike.
func noise(seed string, size int64) io.Reader {
	var key [32]byte
	copy(key[:], seed)
	return io.LimitReader(rand.NewChaCha8(key), size)
}

// addFile makes an item with one file of so much noise.
func addFile(g *setup.Gantry, name string, size int64) girdersim.File {
	g.T.Helper()
	file, err := g.Girder.AddFile(g.Girder.Item(name).ID, name, noise(name, size))
	if err != nil {
		g.T.Fatal(err)
	}
	return file
}

// asked are the requests to Girder of that method whose path ends so.
func asked(g *setup.Gantry, method, path string) []girdersim.Request {
	return slices.DeleteFunc(g.Girder.Requests(), func(r girdersim.Request) bool {
		return r.Method != method || !strings.HasSuffix(r.Path, path)
	})
}

// downloaded is how many bytes of a file Girder sent.
func downloaded(g *setup.Gantry, file girdersim.File) int64 {
	var sum int64
	for _, r := range asked(g, "GET", "/file/"+file.ID+"/download") {
		sum += r.Sent
	}
	return sum
}

// uploadFolder is the output that puts a path of the default volume into a
// folder.
func uploadFolder(folder girdersim.Folder, path string) contracts.Output {
	return contracts.Output{OutputSpec: &contracts.GirderUploadFolder{
		Path: contracts.OutputPath{VolumePath: contracts.VolumePath{Path: path}}, FolderID: folder.ID,
	}}
}

// newFolder makes a folder in Girder.
func newFolder(g *setup.Gantry, parent, name string) girdersim.Folder {
	g.T.Helper()
	folder, err := g.Girder.CreateFolder(parent, name, false)
	if err != nil {
		g.T.Fatal(err)
	}
	return folder
}

// checkMemory fails if transfer needed more than it may since it was started.
func checkMemory(g *setup.Gantry, when string) {
	g.T.Helper()
	peak := g.Services[setup.Transfer].PeakMemory()
	g.T.Logf("transfer's peak %s: %d MiB", when, peak/mebibyte)
	if peak >= mostMemory {
		g.T.Errorf("transfer had %d bytes at once %s, more than %d", peak, when, mostMemory)
	}
}

// small is the content of a small file.
func small(name string) string { return strings.Repeat(name+" ", 4096/(len(name)+1)) }

// addSmall makes an item with one small file.
func addSmall(g *setup.Gantry, folder girdersim.Folder, name string) {
	g.T.Helper()
	item, err := g.Girder.CreateItem(folder.ID, name)
	if err == nil {
		_, err = g.Girder.AddFile(item.ID, name, strings.NewReader(small(name)))
	}
	if err != nil {
		g.T.Fatal(err)
	}
}
