package enginetest

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/services/docker-executor/internal/engine"
	"github.com/gantry-worker/gantry/services/docker-executor/removetree"
)

// touch makes an empty file.
func (b *bench) touch(dir, name string) {
	b.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), nil, 0o644); err != nil {
		b.Fatal(err)
	}
}

// stdout runs a container and returns what it wrote, if it ended well.
func (b *bench) stdout(spec engine.Spec) string {
	b.Helper()
	out, exit := b.finish(spec)
	if exit.Code != 0 {
		b.Fatalf("exit %+v, stderr %q", exit, out.stderr)
	}
	return string(out.stdout)
}

func mounts(b *bench) {
	rw, ro := b.TempDir(), b.TempDir()
	if err := os.WriteFile(filepath.Join(ro, "in"), []byte("given\n"), 0o644); err != nil {
		b.Fatal(err)
	}
	binds := []engine.Mount{
		{HostPath: rw, ContainerPath: "/mnt/rw"},
		{HostPath: ro, ContainerPath: "/mnt/ro", ReadOnly: true},
	}
	spec := b.spec("cat:/mnt/ro/in", "write:/mnt/rw/out:made")
	spec.Mounts = binds
	if got := b.stdout(spec); got != "given\n" {
		b.Errorf("read %q", got)
	}
	if made, err := os.ReadFile(filepath.Join(rw, "out")); err != nil || string(made) != "made" {
		b.Errorf("file on the host: %q, %v", made, err)
	}
	spec = b.spec("write:/mnt/ro/out:made")
	spec.Mounts = binds
	if _, exit := b.finish(spec); exit.Code != 1 {
		b.Errorf("write to a read-only mount: exit %+v", exit)
	}
	if _, err := os.Stat(filepath.Join(ro, "out")); !errors.Is(err, os.ErrNotExist) {
		b.Errorf("a read-only mount was written to: %v", err)
	}
}

func mountMissing(b *bench) {
	spec := b.spec("exit:0")
	spec.Mounts = []engine.Mount{{HostPath: filepath.Join(b.TempDir(), "absent"), ContainerPath: "/mnt"}}
	_, err := b.Engine.Create(b.Context(), spec)
	if !errors.Is(err, engine.ErrRefused) {
		b.Errorf("create: %v, want ErrRefused", err)
	}
}

func user(b *bench) {
	spec := b.spec("id")
	spec.Options.User = "4711:4712"
	if got := b.stdout(spec); got != "4711:4712\n" {
		b.Errorf("by number: %q", got)
	}
}

func workingDir(b *bench) {
	spec := b.spec("pwd")
	spec.Options.WorkingDir = "/home"
	if got := b.stdout(spec); got != "/home\n" {
		b.Errorf("working directory %q", got)
	}
}

func environment(b *bench) {
	spec := b.spec("env:FIRST", "env:SECOND", "env:NEVER_SET")
	spec.Options.Environment = contracts.Environment{"FIRST": "a b=c \"d\"", "SECOND": "ünï"}
	if got, want := b.stdout(spec), "a b=c \"d\"\nünï\n\n"; got != want {
		b.Errorf("environment %q, want %q", got, want)
	}
}

func memoryLimit(b *bench) {
	if b.NoMemoryLimit != "" {
		b.Skip(b.NoMemoryLimit)
	}
	spec := b.spec("memory")
	spec.Options.MemLimit = 32 << 20
	if got := strings.TrimSpace(b.stdout(spec)); got != strconv.Itoa(32<<20) {
		b.Errorf("limit inside is %s", got)
	}
}

func noNetwork(b *bench) {
	if got := strings.Fields(b.stdout(b.spec("net"))); len(got) == 0 || got[len(got)-1] != "lo" && got[0] != "lo" {
		b.Errorf("interfaces %q", got)
	}
}

func entrypoint(b *bench) {
	spec := b.spec("out:from the entrypoint\\n")
	spec.Entrypoint = []string{"/bin/sh", "/bin/script", "out:first\\n"}
	if got := b.stdout(spec); got != "first\nfrom the entrypoint\n" {
		b.Errorf("output %q", got)
	}
}

func removeTree(b *bench) {
	tree, outside := b.TempDir(), b.TempDir()
	b.touch(outside, "kept")
	errs := []error{
		os.MkdirAll(filepath.Join(tree, "a/b"), 0o755), os.Chmod(filepath.Join(tree, "a/b"), 0o500),
		os.Symlink(outside, filepath.Join(tree, "a/link")), os.Symlink("..", filepath.Join(tree, "up")),
	}
	if err := errors.Join(errs...); err != nil {
		b.Fatal(err)
	}
	b.touch(tree, "plain")
	mark := map[string]string{"gantry.test": b.spec().Name}
	id, err := removetree.IDOf(tree)
	if err != nil {
		b.Fatal(err)
	}
	for range 2 { // the second time there is nothing in it
		if err := b.Engine.RemoveTree(b.Context(), tree, id, mark); err != nil {
			b.Fatal(err)
		}
		if left, err := os.ReadDir(tree); err != nil || len(left) != 0 {
			b.Errorf("left: %v, %v", left, err)
		}
	}
	if _, err := os.Stat(filepath.Join(outside, "kept")); err != nil {
		b.Errorf("what was linked to: %v", err)
	}
	if list, err := b.Engine.List(b.Context(), mark); err != nil || len(list) != 0 {
		b.Errorf("containers left: %+v, %v", list, err)
	}
	exchanged := filepath.Join(b.TempDir(), "tree") // for a link, since its ID was taken
	if err := errors.Join(os.Chmod(filepath.Dir(exchanged), 0o755), os.Symlink(outside, exchanged)); err != nil {
		b.Fatal(err)
	}
	if err := b.Engine.RemoveTree(b.Context(), exchanged, id, mark); err == nil || !strings.Contains(err.Error(), exchanged) {
		b.Errorf("a link to another folder: %v", err)
	}
	if _, err := os.Stat(filepath.Join(outside, "kept")); err != nil {
		b.Errorf("what a link in the folder's place leads to: %v", err)
	}
	absent := filepath.Join(tree, "absent")
	if err := b.Engine.RemoveTree(b.Context(), absent, id, mark); err == nil || !strings.Contains(err.Error(), absent) {
		b.Errorf("a folder that is not there: %v", err)
	}
}

// self: whoever runs the suite sees the same each time, and never a container
// that the suite made.
func self(b *bench) {
	id := b.start(b.spec("hang"))
	first, err := b.Engine.Self(b.Context())
	if err != nil || first != nil && first.ID == id {
		b.Fatalf("self is %+v, %v", first, err)
	}
	again, err := b.Engine.Self(b.Context())
	if err != nil || (first == nil) != (again == nil) || first != nil && first.ID != again.ID {
		b.Errorf("self is %+v, then %+v, %v", first, again, err)
	}
}
