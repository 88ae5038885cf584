package docker

import (
	"strings"
	"testing"

	"github.com/docker/docker/api/types/container"
	"github.com/google/go-cmp/cmp"
)

var (
	outer = strings.Repeat("0a", 32)
	inner = strings.Repeat("f1", 32)
)

func TestParseGroups(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		text string
		want []string
	}{
		"host":             {"0::/user.slice/user-0.slice/session-1.scope\n", nil},
		"v1":               {"12:memory:/docker/" + inner + "\n11:cpu:/docker/" + inner + "\n0::/system.slice/containerd.service\n", []string{inner}},
		"v2":               {"0::/system.slice/docker-" + inner + ".scope\n", []string{inner}},
		"v2 of its own":    {"0::/\n", nil},
		"nested":           {"4:memory:/docker/" + outer + "/docker/" + inner + "\n", []string{inner}},
		"another engine's": {"0::/kubepods/burstable/pod1/cri-containerd-" + outer + ".scope", []string{outer}},
		"empty":            {"", nil},
	} {
		if diff := cmp.Diff(test.want, parseGroups([]byte(test.text))); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

func TestParseMounts(t *testing.T) {
	t.Parallel()
	got := parseMounts([]byte(strings.Join([]string{
		`100 90 0:1 / / rw,relatime master:1 - overlay overlay rw,lowerdir=/a:/b`,
		`101 100 8:1 /srv/a\040b /mnt/with\040space\134 rw - ext4 /dev/sda1 rw`,
		`102 100 8:1 /first /mnt/twice rw - ext4 /dev/sda1 rw`,
		`103 102 8:1 /second /mnt/twice rw - ext4 /dev/sda1 rw`,
		`broken line`,
	}, "\n")))
	want := map[string]string{"/": "/", `/mnt/with space\`: "/srv/a b", "/mnt/twice": "/second"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("mounts (-want +got):\n%s", diff)
	}
}

// hereIn returns what a process in a container sees, and what its engine says
// of it.
func hereIn(id string) (*surroundings, *container.InspectResponse) {
	s := &surroundings{hostname: id[:12], mounts: map[string]string{
		"/": "/", "/work": "/@/srv/work",
		"/etc/hostname":    "/@/var/lib/docker/containers/" + id + "/hostname",
		"/etc/hosts":       "/@/var/lib/docker/containers/" + id + "/hosts",
		"/etc/resolv.conf": "/@/var/lib/docker/containers/" + id + "/resolv.conf",
	}}
	c := &container.InspectResponse{
		ContainerJSONBase: &container.ContainerJSONBase{
			ID: id, State: &container.State{Running: true}, HostConfig: &container.HostConfig{},
			HostnamePath:   "/var/lib/docker/containers/" + id + "/hostname",
			HostsPath:      "/var/lib/docker/containers/" + id + "/hosts",
			ResolvConfPath: "/var/lib/docker/containers/" + id + "/resolv.conf",
		},
		Mounts:          []container.MountPoint{{Source: "/srv/work", Destination: "/work"}},
		NetworkSettings: &container.NetworkSettings{},
	}
	return s, c
}

func TestAgrees(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		change func(*surroundings, *container.InspectResponse)
		want   bool
	}{
		"this one": {func(*surroundings, *container.InspectResponse) {}, true},
		"one that has ended": {func(_ *surroundings, c *container.InspectResponse) {
			c.State.Running = false
		}, false},
		"one with another mount": {func(_ *surroundings, c *container.InspectResponse) {
			c.Mounts[0].Destination = "/other"
		}, false},
		"one whose files are elsewhere": {func(_ *surroundings, c *container.InspectResponse) {
			_, other := hereIn(outer)
			c.HostnamePath, c.HostsPath, c.ResolvConfPath = other.HostnamePath, other.HostsPath, other.ResolvConfPath
		}, false},
		"one around this one, which the groups name": {func(s *surroundings, c *container.InspectResponse) {
			_, other := hereIn(outer)
			*c = *other
			s.groups = []string{outer}
		}, false},
		"a process on the host": {func(s *surroundings, _ *container.InspectResponse) {
			s.mounts = map[string]string{"/": "/", "/work": "/srv/work"}
		}, false},
		"all of the engine's files replaced": {func(s *surroundings, c *container.InspectResponse) {
			for _, file := range engineFiles {
				s.mounts[file] = "/@/srv" + file
				c.Mounts = append(c.Mounts, container.MountPoint{Source: "/srv" + file, Destination: file})
			}
		}, false},
		"all of them replaced, and the groups name it": {func(s *surroundings, c *container.InspectResponse) {
			for _, file := range engineFiles {
				s.mounts[file] = "/@/srv" + file
				c.Mounts = append(c.Mounts, container.MountPoint{Source: "/srv" + file, Destination: file})
			}
			s.groups = []string{c.ID}
		}, true},
	} {
		s, c := hereIn(inner)
		test.change(s, c)
		if got := s.agrees(c); got != test.want {
			t.Errorf("%s: %t", name, got)
		}
	}
}

func TestHints(t *testing.T) {
	t.Parallel()
	s, _ := hereIn(inner)
	s.groups = []string{outer}
	if diff := cmp.Diff(unique([]string{inner, outer, inner[:12]}), s.hints()); diff != "" {
		t.Errorf("in a container (-want +got):\n%s", diff)
	}
	s.mounts, s.groups = map[string]string{"/": "/"}, nil
	if got := s.hints(); len(got) != 0 {
		t.Errorf("on a host: %q", got)
	}
}
