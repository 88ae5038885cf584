package policy_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gantry-worker/gantry/services/docker-executor/internal/policy"
)

func newPolicy(t *testing.T, cfg policy.Config) *policy.Policy {
	t.Helper()
	p, err := policy.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// refusal checks that err is a refusal which says all of these.
func refusal(t *testing.T, err error, says ...string) {
	t.Helper()
	var r *policy.Refusal
	if !errors.As(err, &r) {
		t.Fatalf("error %v, want a refusal", err)
	}
	for _, s := range says {
		if !strings.Contains(err.Error(), s) {
			t.Errorf("refusal %q does not say %q", err, s)
		}
	}
}

// host makes a few folders and links, and returns where.
func host(t *testing.T) string {
	t.Helper()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range []string{"data/sub", "database", "secret", "ro"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for link, target := range map[string]string{"data/escape": "../secret", "data/inner": "sub", "alias": "data"} {
		if err := os.Symlink(target, filepath.Join(dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestBind(t *testing.T) {
	t.Parallel()
	dir := host(t)
	p := newPolicy(t, policy.Config{AllowBind: []string{dir + "/data:rw", dir + "/ro"}})
	for _, test := range []struct {
		path string
		mode policy.Mode
		want string // resolved, empty: refused
		says []string
	}{
		{path: "/data", mode: "rw", want: "/data"},
		{path: "/data/sub", mode: "ro", want: "/data/sub"},
		{path: "/data/inner", mode: "rw", want: "/data/sub"},
		{path: "/alias/sub", mode: "rw", want: "/data/sub"},
		{path: "/ro", mode: "ro", want: "/ro"},
		{path: "/ro", mode: "rw", says: []string{"read-only", policy.SettingBind + "=", "/ro:rw"}},
		{path: "/data/escape", mode: "ro", says: []string{"symbolic links", policy.SettingBind}},
		{path: "/database", mode: "ro", says: []string{"outside", policy.SettingBind}},
		{path: "/secret", mode: "ro", says: []string{"outside", "/secret:ro", `volume "v"`}},
		{path: "", mode: "ro", says: []string{"outside"}},
		{path: "/data/absent", mode: "ro", says: []string{"cannot be resolved"}},
		{path: "/secret/absent", mode: "ro", says: []string{"outside"}},
		{path: "/data/../secret", mode: "ro", says: []string{"not clean"}},
		{path: "/data/", mode: "ro", says: []string{"not clean"}},
		{path: "/data\x00", mode: "ro", says: []string{"NUL"}},
		{path: "/data", mode: "rwx", says: []string{"neither"}},
	} {
		got, err := p.Bind("v", dir+test.path, test.mode)
		if test.want != "" {
			if err != nil || got != dir+test.want {
				t.Errorf("%s: %q, %v, want %s", test.path, got, err, test.want)
			}
			continue
		}
		refusal(t, err, test.says...)
	}
	_, err := p.Bind("v", "data", "ro")
	refusal(t, err, "not absolute")
}

func TestBindByDefault(t *testing.T) {
	t.Parallel()
	_, err := newPolicy(t, policy.Config{}).Bind("data", "/srv/data", policy.ReadWrite)
	refusal(t, err, `"/srv/data"`, `"data"`, policy.SettingBind+"=/srv/data:rw")
}

func TestBindEverything(t *testing.T) {
	t.Parallel()
	dir := host(t)
	p := newPolicy(t, policy.Config{AllowBind: []string{"/:ro"}})
	if got, err := p.Bind("v", dir+"/data/escape", policy.ReadOnly); err != nil || got != dir+"/secret" {
		t.Errorf("%q, %v", got, err)
	}
	_, err := p.Bind("v", dir+"/data", policy.ReadWrite)
	refusal(t, err, "read-only")
}

func TestImage(t *testing.T) {
	t.Parallel()
	digest := "@sha256:" + strings.Repeat("ab", 32)
	for _, test := range []struct {
		allow    string
		ref      string
		accepted bool
	}{
		{"", "anything:1", true},
		{"", "sha256:" + strings.Repeat("ab", 32), true},
		{"busybox", "busybox", false}, // the tag is part of the name
		{"busybox:latest", "busybox", true},
		{"busybox:*", "busybox:1.36", true},
		{"busybox*", "busybox" + digest, true},
		{"docker.io/library/busybox:*", "busybox", true},
		{"ghcr.io/lab/*", "ghcr.io/lab/deep/tool:2", true},
		{"ghcr.io/lab/*", "ghcr.io/labs/tool:2", false},
		{"ghcr.io/lab/*", "evil.example/ghcr.io/lab/tool", false},
		{"lab/*", "lab/tool", true},
		{"lab/*", "other.example/lab/tool", false},
		{"ghcr.io/lab.x/*", "ghcr.io/lab-x/tool", false},
		{"*", "any/thing", true},
		{"*", "sha256:" + strings.Repeat("ab", 32), false},
		{"*", strings.Repeat("ab", 32), false},
		{"*", "abcdef", false},
		{"*", "Not A Name", false},
	} {
		cfg := policy.Config{}
		if test.allow != "" {
			cfg.AllowImages = []string{test.allow}
		}
		err := newPolicy(t, cfg).Image(test.ref)
		if test.accepted && err != nil {
			t.Errorf("allow %q: %s: %v", test.allow, test.ref, err)
		}
		if !test.accepted {
			refusal(t, err, test.ref)
		}
	}
	p := newPolicy(t, policy.Config{AllowImages: []string{"a/*"}})
	refusal(t, p.Image("b/x:1"), policy.SettingImages+"=b/x:1")
}

func TestNewNamesEveryWrongEntry(t *testing.T) {
	t.Parallel()
	_, err := policy.New(policy.Config{
		AllowBind:    []string{"/fine:rw", "relative", "/not/../clean", "/x:rx/", ""},
		AllowImages:  []string{" "},
		AllowOptions: []string{"network_mode=host", "priviledged"},
	})
	if err == nil {
		t.Fatal("accepted")
	}
	for _, want := range []string{`"relative"`, `"/not/../clean"`, `"/x:rx/"`, `""`, policy.SettingImages, `"priviledged"`} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q does not name %s", err, want)
		}
	}
	if strings.Contains(err.Error(), "/fine") {
		t.Errorf("%q names a right entry", err)
	}
}
