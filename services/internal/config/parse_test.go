package config_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/gantry-worker/gantry/services/internal/config"
)

// TestMain keeps from the tests what whoever runs them has set for services.
func TestMain(m *testing.M) {
	for _, variable := range os.Environ() {
		if name, _, _ := strings.Cut(variable, "="); strings.HasPrefix(name, "GANTRY_") {
			_ = os.Unsetenv(name) // it is the name of a variable
		}
	}
	os.Exit(m.Run())
}

type settings struct {
	NATS Server `prefix:"nats-" embed:""`
	Logs

	Slots   int               `help:"Attempts at the same time." default:"2"`
	Queues  []string          `help:"Queues to serve." default:"default"`
	Grace   time.Duration     `help:"Longest grace." default:"30s"`
	Keep    bool              `help:"Keep containers."`
	Labels  map[string]string `help:"Labels."`
	Token   string            `help:"API token." secret:""`
	Timeout int               `help:"Seconds." secret:""`
	Name    string            `help:"Name."`
}

type Server struct {
	URL string `help:"Server." default:"nats://127.0.0.1:4222"`
}

type Logs struct {
	Level string `help:"Level." default:"info" enum:"debug,info"`
}

func (l Logs) Validate() error {
	if l.Level == "debug" {
		return config.Invalid("level", "debug is off in tests")
	}
	return nil
}

func (s settings) Validate() error {
	var problems []error
	if s.Slots < 1 {
		problems = append(problems, config.Invalid("slots", "must be 1 or more, is %d", s.Slots))
	}
	if s.Name == "twice" {
		problems = append(problems, config.Invalid("name", "is not %q", s.Name), errors.New("one more thing"))
	}
	return errors.Join(problems...)
}

func (s Server) Validate() error {
	if !strings.HasPrefix(s.URL, "nats://") {
		return config.Invalid("url", "must start with nats://")
	}
	return nil
}

func parse(t *testing.T, args ...string) (settings, config.Settings, error) {
	t.Helper()
	var cfg settings
	all, err := config.Parse("prog", "Does things.", &cfg, args, &bytes.Buffer{})
	return cfg, all, err
}

func writeFile(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "gantry.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestDefaults(t *testing.T) {
	want := settings{
		NATS:   Server{URL: "nats://127.0.0.1:4222"},
		Logs:   Logs{Level: "info"},
		Slots:  2,
		Queues: []string{"default"},
		Grace:  30 * time.Second,
	}
	parsed, _, err := parse(t)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, parsed); diff != "" {
		t.Error("Parse without arguments:", diff)
	}

	direct := settings{Slots: 7}
	if err := config.Defaults(&direct); err != nil {
		t.Fatal(err)
	}
	want.Slots = 7
	if diff := cmp.Diff(want, direct); diff != "" {
		t.Error("Defaults:", diff)
	}
}

func TestPrecedence(t *testing.T) {
	path := writeFile(t, "slots: 3\ngrace: 3s\nname: file\n")
	t.Setenv("GANTRY_GRACE", "4s")
	t.Setenv("GANTRY_NAME", "env")
	t.Setenv("GANTRY_LEVEL", "") // empty is unset
	cfg, all, err := parse(t, "--config", path, "--name", "flag")
	if err != nil {
		t.Fatal(err)
	}
	if cfg.Slots != 3 || cfg.Grace != 4*time.Second || cfg.Name != "flag" || cfg.Level != "info" {
		t.Errorf("got %+v", cfg)
	}
	origins := map[string]string{}
	for _, s := range all {
		origins[s.Key] = s.Origin
	}
	want := map[string]string{
		"nats_url": "default", "level": "default", "slots": "slots in gantry.yaml", "queues": "default",
		"grace": "GANTRY_GRACE", "keep": "default", "labels": "default", "token": "default",
		"timeout": "default", "name": "--name",
	}
	if diff := cmp.Diff(want, origins); diff != "" {
		t.Error(diff)
	}
}

func TestFile(t *testing.T) {
	path := writeFile(t, `
nats:
  url: nats://other:1
queues: [a, "b,c", 7]
labels: {site: 1, x: "y;z"}
keep: true
grace: 1m30s
token:
`)
	t.Setenv("GANTRY_CONFIG", path)
	cfg, _, err := parse(t)
	if err != nil {
		t.Fatal(err)
	}
	want := settings{
		NATS:   Server{URL: "nats://other:1"},
		Logs:   Logs{Level: "info"},
		Slots:  2,
		Queues: []string{"a", "b,c", "7"},
		Labels: map[string]string{"site": "1", "x": "y;z"},
		Grace:  90 * time.Second,
		Keep:   true,
	}
	if diff := cmp.Diff(want, cfg); diff != "" {
		t.Error(diff)
	}
}

func TestProblems(t *testing.T) {
	tests := []struct {
		name string
		file string
		env  map[string]string
		args []string
		want []string
	}{
		{name: "unknown key", file: "slotz: 1\nzzz: {a: 1}\n", want: []string{
			"slotz in gantry.yaml: there is no such option, did you mean slots?",
			"zzz in gantry.yaml: there is no such option",
		}},
		{name: "unknown nested key", file: "nats: {urll: x}\n", want: []string{"nats.urll in gantry.yaml: there is no such option, did you mean nats_url?"}},
		{name: "flag's spelling", file: "print-config: true\n", want: []string{"print-config in gantry.yaml: there is no such option"}},
		{name: "twice", file: "nats: {url: 'nats://a'}\nnats_url: 'nats://b'\n", want: []string{"nats_url in gantry.yaml is given twice, also as nats.url in gantry.yaml"}},
		{name: "no YAML", file: "a: [", want: []string{"read configuration"}},
		{name: "no file", args: []string{"--config", "absent.yaml"}, want: []string{"absent.yaml"}},
		{name: "unknown flag", args: []string{"--slotz=1"}, want: []string{"unknown flag --slotz"}},
		{
			name: "every ill-typed value",
			file: "slots: many\n",
			env:  map[string]string{"GANTRY_GRACE": "soon", "GANTRY_TIMEOUT": "hunter2", "GANTRY_LEVEL": "loud"},
			want: []string{
				"slots in gantry.yaml: ", `"many"`, "GANTRY_GRACE: ", `"soon"`,
				"GANTRY_TIMEOUT: is no valid int", `GANTRY_LEVEL: must be one of debug, info, is "loud"`,
			},
		},
		{
			name: "Validate, with the operator's names",
			file: "name: twice\n",
			env:  map[string]string{"GANTRY_NATS_URL": "http://x"},
			args: []string{"--slots=0"},
			want: []string{
				"--slots: must be 1 or more, is 0", `name in gantry.yaml: is not "twice"`,
				"one more thing", "GANTRY_NATS_URL: must start with nats://",
			},
		},
		{name: "embedded Validate", args: []string{"--level", "debug"}, want: []string{"prog: --level: debug is off in tests"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			args := tt.args
			if tt.file != "" {
				args = append(args, "--config", writeFile(t, tt.file))
			}
			for key, value := range tt.env {
				t.Setenv(key, value)
			}
			_, _, err := parse(t, args...)
			var listed *config.Error
			if !errors.As(err, &listed) {
				t.Fatalf("got %v, want a *config.Error", err)
			}
			for _, want := range tt.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%q is not in: %v", want, err)
				}
			}
			if strings.Contains(err.Error(), "hunter2") {
				t.Errorf("a secret is in: %v", err)
			}
		})
	}
}

func TestPrintedTexts(t *testing.T) {
	t.Setenv("GANTRY_TOKEN", "hunter2")
	t.Setenv("GANTRY_NATS_URL", "nats://me:hunter2@a:1,nats://hunter2@b:2,me:hunter2@c:3")
	tests := []struct {
		arg  string
		want []string
	}{
		{"--help", []string{"Does things.", "--nats-url", "[GANTRY_NATS_URL]", "--config=FILE"}},
		{"--version", []string{"prog ", " (go1."}},
		{"--print-config", []string{
			`nats_url: "nats://***@a:1,nats://***@b:2,***@c:3" # GANTRY_NATS_URL`,
			`token: "***" # GANTRY_TOKEN`, "grace: 30s # default\n", "queues: [default] # default\n",
		}},
	}
	for _, tt := range tests {
		t.Run(tt.arg, func(t *testing.T) {
			var out bytes.Buffer
			_, err := config.Parse("prog", "Does things.", &settings{}, []string{tt.arg}, &out)
			if !errors.Is(err, config.ErrDone) {
				t.Fatalf("got %v, want ErrDone", err)
			}
			for _, want := range tt.want {
				if !strings.Contains(out.String(), want) {
					t.Errorf("%q is not in:\n%s", want, out.String())
				}
			}
			if strings.Contains(out.String(), "hunter2") {
				t.Errorf("a secret is in:\n%s", out.String())
			}
		})
	}
}

func TestValidateReportsOnce(t *testing.T) {
	type onlyEmbeds struct{ Logs }
	err := config.Validate(&onlyEmbeds{Logs{Level: "debug"}})
	if got, want := err.Error(), "--level: debug is off in tests"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if err := config.Validate(&onlyEmbeds{}); err != nil {
		t.Errorf("a valid one: %v", err)
	}
}
