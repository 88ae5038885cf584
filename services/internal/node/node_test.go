package node

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gantry-worker/gantry/contracts"
)

// asStarter names, in the environment of a child process, the machine as which
// the test binary then opens the work folder that is its argument, once it is
// told to on its standard input.
const asStarter = "NODE_TEST_MACHINE"

func TestMain(m *testing.M) {
	if machine, ok := os.LookupEnv(asStarter); ok {
		fmt.Println("ready")
		bufio.NewScanner(os.Stdin).Scan()
		id, err := open(os.Args[1], machine)
		fmt.Println(id, errors.Is(err, ErrOtherMachine))
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// start opens a folder with one process per machine, all at once, and returns
// what each said: its node id and whether it was refused.
func start(t *testing.T, root string, machines ...string) []string {
	t.Helper()
	type starter struct {
		lines *bufio.Scanner
		begin func() error
	}
	starters := make([]starter, len(machines))
	for i, machine := range machines {
		cmd := exec.CommandContext(t.Context(), os.Args[0], root) // it ends with a test that fails
		cmd.Env = append(os.Environ(), asStarter+"="+machine)
		stdin, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		stdout, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = cmd.Wait() })
		starters[i] = starter{lines: bufio.NewScanner(stdout), begin: stdin.Close}
	}
	for _, s := range starters {
		if !s.lines.Scan() || s.lines.Text() != "ready" {
			t.Fatalf("a process did not start: %q", s.lines.Text())
		}
	}
	for _, s := range starters {
		if err := s.begin(); err != nil {
			t.Fatal(err)
		}
	}
	said := make([]string, len(starters))
	for i, s := range starters {
		if !s.lines.Scan() {
			t.Fatalf("a process said nothing: %v", s.lines.Err())
		}
		said[i] = s.lines.Text()
	}
	return said
}

func TestStartingTogetherIsOneNode(t *testing.T) {
	t.Parallel()
	root := filepath.Join(t.TempDir(), "work")
	said := start(t, root, "one", "one", "", "one", "one", "", "one", "one")
	for _, id := range said {
		if id != said[0] || !strings.HasPrefix(id, "node-") || !strings.HasSuffix(id, " false") {
			t.Fatalf("not one node: %q", said)
		}
	}
	if left, _ := filepath.Glob(filepath.Join(root, "*")); len(left) != 1 {
		t.Errorf("left behind: %v", left)
	}
	if got := stored(t, root); got.Machine != "one" {
		t.Errorf("the machine is not in the file: %+v", got)
	}
}

// A folder on the network, of which no machine is known: one of two that start
// together gets it.
func TestOneOfTwoMachinesGetsAFolder(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	before, err := open(root, "")
	if err != nil {
		t.Fatal(err)
	}
	refused := 0
	for _, answer := range start(t, root, "one", "two") {
		switch answer {
		case string(before) + " false":
		case " true":
			refused++
		default:
			t.Errorf("got %q", answer)
		}
	}
	if refused != 1 {
		t.Errorf("%d of two machines were refused", refused)
	}
}

func TestMachines(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name             string
		stored, starting string
		refused          bool
		after            string
	}{
		{"the same", "one", "one", false, "one"},
		{"another", "one", "two", true, "one"},
		{"starting cannot be told", "one", "", false, "one"},
		{"stored could not be told", "", "two", false, "two"},
		{"neither can be told", "", "", false, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			root := t.TempDir()
			before, err := open(root, tt.stored)
			if err != nil {
				t.Fatal(err)
			}
			id, err := open(root, tt.starting)
			if tt.refused != errors.Is(err, ErrOtherMachine) || !tt.refused && (err != nil || id != before) {
				t.Errorf("got %q, %v", id, err)
			}
			if got, want := stored(t, root), (identity{Node: before, Machine: tt.after}); got != want {
				t.Errorf("stored %+v, want %+v", got, want)
			}
		})
	}
}

// What the refusal says to do about a folder that was moved on purpose works.
func TestMovedFolder(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	before, err := open(root, "one")
	if err != nil {
		t.Fatal(err)
	}
	_, err = open(root, "two")
	path := filepath.Join(root, identityFile)
	for _, want := range []string{path + " says one, this is two", "set work_root", `set "machine" in that file to ""`} {
		if !strings.Contains(fmt.Sprint(err), want) {
			t.Errorf("%q is not in: %v", want, err)
		}
	}
	if err := os.WriteFile(path, fmt.Appendf(nil, `{"node":%q,"machine":""}`, before), 0o600); err != nil {
		t.Fatal(err)
	}
	if id, err := open(root, "two"); err != nil || id != before {
		t.Errorf("got %q, %v", id, err)
	}
	if _, err := open(root, "one"); !errors.Is(err, ErrOtherMachine) {
		t.Errorf("the machine that it was moved from was let in: %v", err)
	}
}

func TestWhatAKilledWriterLeft(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	if err := os.WriteFile(filepath.Join(root, identityFile+".new"), []byte(`{"node":"node-half","mach`), 0o600); err != nil {
		t.Fatal(err)
	}
	id, err := open(root, "one")
	if err != nil {
		t.Fatal(err)
	}
	if got := stored(t, root); got.Node != id {
		t.Errorf("stored %+v, want %s", got, id)
	}
	if left, _ := filepath.Glob(filepath.Join(root, "*")); len(left) != 1 {
		t.Errorf("left behind: %v", left)
	}
}

func TestOpenNamesWhatIsWrong(t *testing.T) {
	t.Parallel()
	if _, err := open("relative", "m"); err == nil {
		t.Error("a relative folder was accepted")
	}
	for _, content := range []string{`{"node":"A B"}`, `{"node":"node-a"`, ``} {
		root := t.TempDir()
		path := filepath.Join(root, identityFile)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := open(root, "m"); err == nil || !strings.Contains(err.Error(), path+" is damaged") {
			t.Errorf("%s: got %v", content, err)
		}
		if data, err := os.ReadFile(path); err != nil || string(data) != content {
			t.Errorf("a damaged identity was changed: %q, %v", data, err)
		}
	}
}

func TestMachineID(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := func(name, content string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	known := file("known", "0123456789abcdef0123456789abcdef\n")
	want := machineID(known)
	if len(want) != 16 || strings.Contains("0123456789abcdef0123456789abcdef", want) {
		t.Errorf("%q is no hash", want)
	}
	for _, unknown := range []string{
		filepath.Join(dir, "missing"), dir, "/dev/null", file("empty", ""), file("new", "uninitialized\n"),
	} {
		if got := machineID(unknown); got != "" {
			t.Errorf("%s: got %q", unknown, got)
		}
		if got := machineID(unknown, known); got != want {
			t.Errorf("%s hides the next file: got %q", unknown, got)
		}
	}
	if machineID(file("other", "fedcba9876543210fedcba9876543210\n")) == want {
		t.Error("two machines are the same")
	}
}

func stored(t *testing.T, root string) identity {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(root, identityFile))
	if err != nil {
		t.Fatal(err)
	}
	var id identity
	if err := json.Unmarshal(data, &id); err != nil {
		t.Fatal(err)
	}
	if _, err := contracts.ParseName[contracts.NodeID](string(id.Node)); err != nil {
		t.Error(err)
	}
	return id
}
