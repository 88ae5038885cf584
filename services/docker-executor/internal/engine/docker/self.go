package docker

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/filters"

	"github.com/gantry-worker/gantry/services/docker-executor/internal/engine"
)

// Self returns the container that this process runs in, nil where that is none
// of this engine.
//
// What a process can see of its container are hints: the files that the engine
// mounts into it, its control groups, its hostname. A container counts as this
// one only if what the engine says of it agrees with what is mounted here. Of
// those that share their network, and with it the engine's files, it is the one
// that the control groups name, or else the only one whose mounts are here.
func (e *Engine) Self(ctx context.Context) (*engine.Self, error) {
	own, err := look()
	if err != nil {
		return nil, &engine.Error{Op: "find", Subject: "own container", Kind: engine.ErrFailed, Detail: err.Error()}
	}
	self, err := e.self(ctx, own)
	return self, e.wrap(ctx, "find", "own container", err)
}

func (e *Engine) self(ctx context.Context, own *surroundings) (*engine.Self, error) {
	ids := own.hints()
	if len(ids) == 0 {
		return nil, nil
	}
	sharing, err := e.sharingNetworks(ctx)
	if err != nil {
		return nil, err
	}
	var found []*container.InspectResponse
	for _, id := range unique(append(ids, sharing...)) {
		one, err := e.inspect(ctx, id)
		if errdefs.IsNotFound(err) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if own.agrees(one) && !slices.ContainsFunc(found, func(f *container.InspectResponse) bool { return f.ID == one.ID }) {
			found = append(found, one)
		}
	}
	if len(found) > 1 {
		found = slices.DeleteFunc(found, func(f *container.InspectResponse) bool { return !slices.Contains(own.groups, f.ID) })
		if len(found) != 1 {
			return nil, errors.New("several containers share one network and have the same mounts: it may be any of them")
		}
	}
	if len(found) == 0 {
		return nil, nil
	}
	return e.describe(ctx, own, found[0])
}

func (e *Engine) inspect(ctx context.Context, id string) (*container.InspectResponse, error) {
	call, cancel := e.bounded(ctx)
	defer cancel()
	found, err := e.api().ContainerInspect(call, id)
	return &found, err
}

// sharingNetworks returns the running containers that live in the network of
// another one.
func (e *Engine) sharingNetworks(ctx context.Context) ([]string, error) {
	call, cancel := e.bounded(ctx)
	defer cancel()
	list, err := e.api().ContainerList(call, container.ListOptions{Filters: filters.NewArgs(filters.Arg("status", "running"))})
	var ids []string
	for _, c := range list {
		if container.NetworkMode(c.HostConfig.NetworkMode).IsContainer() {
			ids = append(ids, c.ID)
		}
	}
	return ids, err
}

func (e *Engine) describe(ctx context.Context, own *surroundings, c *container.InspectResponse) (*engine.Self, error) {
	self := &engine.Self{ID: c.ID}
	for _, m := range c.Mounts {
		at, _ := own.point(m.Destination)
		self.Mounts = append(self.Mounts, engine.SelfMount{Source: m.Source, Destination: at, ReadOnly: !m.RW})
	}
	for destination := range c.HostConfig.Tmpfs {
		at, _ := own.point(destination)
		self.Mounts = append(self.Mounts, engine.SelfMount{Destination: at})
	}
	if mode := c.HostConfig.NetworkMode; mode.IsContainer() {
		other, err := e.inspect(ctx, mode.ConnectedContainer())
		if err != nil {
			return nil, err
		}
		c = other
	}
	for name := range c.NetworkSettings.Networks {
		if container.NetworkMode(name).IsUserDefined() {
			self.Networks = append(self.Networks, name)
		}
	}
	first := c.HostConfig.NetworkMode.UserDefined()
	slices.SortFunc(self.Networks, func(a, b string) int {
		switch first {
		case a:
			return -1
		case b:
			return 1
		}
		return strings.Compare(a, b)
	})
	return self, nil
}

// surroundings are what a process can see of the container that it may be in.
type surroundings struct {
	mounts   map[string]string // by mount point: the path on its file system
	groups   []string          // containers that its control groups are named for
	hostname string
}

// engineFiles are what an engine mounts into each container, from a folder that
// is named for it.
var engineFiles = []string{"/etc/hostname", "/etc/hosts", "/etc/resolv.conf"}

func look() (*surroundings, error) {
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	groups, err := os.ReadFile("/proc/self/cgroup")
	if err != nil && !errors.Is(err, fs.ErrNotExist) { // a kernel may be without
		return nil, err
	}
	hostname, err := os.Hostname()
	return &surroundings{mounts: parseMounts(mounts), groups: parseGroups(groups), hostname: hostname}, err
}

// parseMounts reads a mountinfo file. Of what is mounted on top of each other
// the last counts.
func parseMounts(text []byte) map[string]string {
	mounts := map[string]string{}
	lines := bufio.NewScanner(bytes.NewReader(text))
	lines.Buffer(nil, 1<<20) // options of overlays are long
	for lines.Scan() {
		if fields := strings.Fields(lines.Text()); len(fields) > 4 {
			mounts[unescape(fields[4])] = unescape(fields[3])
		}
	}
	return mounts
}

var escaped = regexp.MustCompile(`\\[0-7]{3}`)

// unescape puts back the white space and backslashes of a path in mountinfo.
func unescape(field string) string {
	return escaped.ReplaceAllStringFunc(field, func(code string) string {
		return string([]byte{(code[1]-'0')<<6 | (code[2]-'0')<<3 | (code[3] - '0')})
	})
}

// containerID is how an engine names folders and control groups after containers.
var containerID = regexp.MustCompile(`[0-9a-f]{64}`)

// parseGroups returns the innermost container of each control group, such as
// /docker/<id> and /system.slice/docker-<id>.scope.
func parseGroups(text []byte) []string {
	var ids []string
	for line := range strings.Lines(string(text)) {
		if found := containerID.FindAllString(line, -1); len(found) > 0 {
			ids = append(ids, found[len(found)-1])
		}
	}
	return unique(ids)
}

// hints returns the containers that this may be, as the engine knows them. The
// hostname, which may be any, is one only where the engine's files are mounted.
func (s *surroundings) hints() []string {
	ids := slices.Clone(s.groups)
	for _, file := range engineFiles {
		root, mounted := s.mounts[file]
		if id := path.Base(path.Dir(root)); mounted && containerID.MatchString(id) && len(id) == 64 {
			ids = append(ids, id)
		}
		if mounted && s.hostname != "" {
			ids = append(ids, s.hostname)
		}
	}
	return unique(ids)
}

// agrees reports whether this process can be in the container: the engine's
// files are that one's, and all of its mounts are here.
func (s *surroundings) agrees(c *container.InspectResponse) bool {
	if c.State == nil || !c.State.Running || c.HostConfig == nil || c.NetworkSettings == nil {
		return false
	}
	covered := map[string]bool{}
	for _, m := range c.Mounts {
		at, here := s.point(m.Destination)
		if !here {
			return false
		}
		covered[at] = true
	}
	proof := slices.Contains(s.groups, c.ID)
	for i, file := range []string{c.HostnamePath, c.HostsPath, c.ResolvConfPath} {
		if covered[engineFiles[i]] || file == "" {
			continue
		}
		// Only the end is the same: the file system's root may be anywhere.
		id, name := path.Base(path.Dir(file)), path.Base(file)
		if !strings.HasSuffix(s.mounts[engineFiles[i]], "/"+id+"/"+name) {
			return false
		}
		proof = true
	}
	return proof
}

// point returns where something that was to be mounted at destination is
// mounted: a link on the way, such as /var/run, has been followed.
func (s *surroundings) point(destination string) (string, bool) {
	at := path.Clean(destination)
	if _, here := s.mounts[at]; here {
		return at, true
	}
	real, err := filepath.EvalSymlinks(at)
	if err != nil {
		return at, false
	}
	_, here := s.mounts[real]
	return real, here
}

func unique(list []string) []string {
	slices.Sort(list)
	return slices.Compact(list)
}
