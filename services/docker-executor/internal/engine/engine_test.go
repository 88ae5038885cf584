package engine_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/gantry-worker/gantry/services/docker-executor/internal/engine"
)

func TestIsInfrastructure(t *testing.T) {
	t.Parallel()
	for kind, want := range map[error]bool{
		engine.ErrImageNotFound: false, engine.ErrPullDenied: false, engine.ErrRefused: false,
		engine.ErrCannotStart: false, engine.ErrNoDriver: false, engine.ErrNameConflict: false,
		engine.ErrNotFound: true, engine.ErrNoSpace: true, engine.ErrRegistryUnavailable: true,
		engine.ErrUnavailable: true, engine.ErrSilent: true, engine.ErrOtherVersion: true, engine.ErrFailed: true,
		errors.New("unheard of"): true, context.Canceled: false, context.DeadlineExceeded: false,
	} {
		err := fmt.Errorf("attempt: %w", &engine.Error{Op: "do", Subject: "it", Kind: kind})
		if engine.IsInfrastructure(err) != want {
			t.Errorf("%v: %t", err, !want)
		}
	}
	if engine.IsInfrastructure(nil) {
		t.Error("nil is nobody's fault")
	}
}

func TestErrorReadsWell(t *testing.T) {
	t.Parallel()
	err := &engine.Error{Op: "pull", Subject: "image tool:1", Kind: engine.ErrNoSpace, Detail: "write /x"}
	want := "pull image tool:1: no space left on the engine's disk: write /x; free some space there"
	if err.Error() != want {
		t.Errorf("%q, want %q", err, want)
	}
	if text := (&engine.Error{Op: "start", Subject: "container a", Kind: engine.ErrCannotStart}).Error(); strings.ContainsAny(text, ";") {
		t.Errorf("%q has an empty part", text)
	}
}

func TestSignalOf(t *testing.T) {
	t.Parallel()
	for code, want := range map[int]string{0: "", 1: "", 128: "", 129: "SIGHUP", 137: "SIGKILL", 143: "SIGTERM", 255: "", -1: ""} {
		if got := engine.SignalOf(code); got != want {
			t.Errorf("%d: %q, want %q", code, got, want)
		}
	}
}

// TestResume stops behind every record of a log in which times repeat, and goes
// on from the stored position.
func TestResume(t *testing.T) {
	t.Parallel()
	var log []engine.Frame
	for i, sec := range []int64{1, 1, 1, 2, 2, 1, 3, 3, 3, 3} { // one is older than its neighbor
		stream := engine.Stdout
		if i%3 == 2 {
			stream = engine.Stderr
		}
		log = append(log, engine.Frame{Stream: stream, Time: time.Unix(sec, 7), Data: fmt.Append(nil, i)})
	}
	for stop := range len(log) + 1 {
		var pos engine.Position
		for _, f := range log[:stop] {
			pos.Advance(f)
		}
		stored, err := json.Marshal(pos)
		if err != nil {
			t.Fatal(err)
		}
		var restored engine.Position
		if err := json.Unmarshal(stored, &restored); err != nil {
			t.Fatal(err)
		}
		resume := engine.NewResume(restored)
		var got []string
		for _, f := range log {
			if resume.New(f) {
				got = append(got, string(f.Data))
			}
		}
		var want []string
		for _, f := range log[stop:] {
			want = append(want, string(f.Data))
		}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("stopped behind %d: %v, want %v", stop, got, want)
		}
	}
}

func TestHostPath(t *testing.T) {
	t.Parallel()
	self := &engine.Self{ID: "x", Mounts: []engine.SelfMount{
		{Source: "/srv/gantry", Destination: "/var/lib/gantry"}, {Destination: "/var/lib/gantry/tmp"},
		{Source: "/disk2", Destination: "/var/lib/gantry/big/"}, {Source: "/run/docker.sock", Destination: "/run/docker.sock"},
	}}
	for local, want := range map[string]string{
		"/var/lib/gantry": "/srv/gantry", "/var/lib/gantry/": "/srv/gantry", "/var/lib/gantry/a/../b": "/srv/gantry/b",
		"/var/lib/gantry/big/x": "/disk2/x", "/var/lib/gantry/bigger": "/srv/gantry/bigger", "/run/docker.sock": "/run/docker.sock",
		"/var/lib/gantry/tmp/x": "", "/var/lib/gantry2": "", "/var/lib": "", "/": "",
	} {
		if got, ok := self.HostPath(local); got != want || ok != (want != "") {
			t.Errorf("%s: %q, %t, want %q", local, got, ok, want)
		}
		if got, ok := (*engine.Self)(nil).HostPath("/a/./b"); got != "/a/b" || !ok {
			t.Errorf("in no container: %q, %t", got, ok)
		}
	}
	whole := &engine.Self{Mounts: []engine.SelfMount{{Source: "/", Destination: "/host"}, {Source: "/img", Destination: "/"}}}
	for local, want := range map[string]string{"/host/etc": "/etc", "/etc": "/img/etc"} {
		if got, ok := whole.HostPath(local); got != want || !ok {
			t.Errorf("%s: %q, %t, want %q", local, got, ok, want)
		}
	}
}
