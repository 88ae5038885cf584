// Package policy decides what a task may touch on this node, by the operator's
// settings. By default that is little: no folder of the host, any image, no
// option that leads out of the container.
package policy

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/gantry-worker/gantry/contracts"
)

// The settings that a refusal names.
const (
	SettingBind    = "GANTRY_ALLOW_BIND"
	SettingImages  = "GANTRY_ALLOW_IMAGES"
	SettingOptions = "GANTRY_ALLOW_OPTIONS"
	SettingTime    = "GANTRY_MAX_TIME"
	SettingMemory  = "GANTRY_MAX_MEMORY"
	SettingCPUs    = "GANTRY_MAX_CPUS"
	// SettingRunOptions is what [ReadRunOptions] reads.
	SettingRunOptions = "GANTRY_DOCKER_RUN_OPTIONS"
)

// Config is what the operator allows.
type Config struct {
	AllowBind    []string // "<host path>" or "<host path>:ro", read-only; "<host path>:rw", both; with all below
	AllowImages  []string // patterns in which * stands for anything; none: all images
	AllowOptions []string // of [Guarded], or "all"
	// RunOptions are the operator's own options for every container; a task's
	// win. Volumes are mounted into every container.
	RunOptions contracts.DockerOptions
	Volumes    []contracts.Volume
	Caps       Caps
}

// GirderWorker returns a Config that allows all that Girder Worker did: every
// image, every option, every folder of the host.
func GirderWorker() Config {
	return Config{AllowBind: []string{"/:rw"}, AllowOptions: []string{allOptions}}
}

// Mode is how a bind mount may be used, in the words of a task specification.
type Mode string

// The modes.
const (
	ReadOnly  Mode = "ro"
	ReadWrite Mode = "rw"
)

// Refusal is a task's wish that the policy does not grant. It is the task's
// failure: on this node another try ends the same.
type Refusal struct {
	What    string // that was wished for, with its place in the task
	Reason  string
	Setting string // that would allow it, empty where none can
	Value   string // for the setting
}

// Error names the wish, the reason and the setting that would allow it.
func (r *Refusal) Error() string {
	text := r.What + " is refused: " + r.Reason
	if r.Setting != "" {
		text += fmt.Sprintf("; the operator of this node can allow it with %s=%s", r.Setting, r.Value)
	}
	return text
}

// Policy answers for one Config. It never changes.
type Policy struct {
	binds   []bind
	images  []pattern
	options []string
	run     contracts.DockerOptions
	volumes []contracts.Volume
	caps    Caps
}

type bind struct {
	prefix string
	mode   Mode
}

// New returns the policy, or an error that names every entry which is wrong.
func New(cfg Config) (*Policy, error) {
	p := &Policy{run: cfg.RunOptions, volumes: cfg.Volumes, caps: cfg.Caps}
	errs := []error{cfg.Caps.validate()}
	for _, entry := range cfg.AllowBind {
		b, err := parseBind(entry)
		errs = append(errs, err)
		p.binds = append(p.binds, b)
	}
	for _, entry := range cfg.AllowImages {
		if strings.TrimSpace(entry) == "" {
			errs = append(errs, fmt.Errorf("%s: empty pattern", SettingImages))
		}
		p.images = append(p.images, newPattern(entry))
	}
	for _, entry := range cfg.AllowOptions {
		if entry != allOptions && !slices.Contains(Guarded, entry) {
			errs = append(errs, fmt.Errorf("%s: unknown option %q: want %s, or some of %s", SettingOptions, entry, allOptions, strings.Join(Guarded, ", ")))
		}
		p.options = append(p.options, entry)
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return p, nil
}

func parseBind(entry string) (bind, error) {
	b := bind{prefix: entry, mode: ReadOnly}
	if rest, found := strings.CutSuffix(entry, ":rw"); found {
		b = bind{prefix: rest, mode: ReadWrite}
	} else if rest, found := strings.CutSuffix(entry, ":ro"); found {
		b.prefix = rest
	}
	if !filepath.IsAbs(b.prefix) || filepath.Clean(b.prefix) != b.prefix || strings.ContainsRune(b.prefix, 0) {
		return b, fmt.Errorf("%s: %q: want an absolute path without . and .., and :ro or :rw behind it", SettingBind, entry)
	}
	return b, nil
}

// Bind returns the host path, with its symbolic links resolved, that a task's
// volume may be bound to, or a *Refusal. What is mounted has to be the path that
// it returns: the other one may lead elsewhere by then.
func (p *Policy) Bind(volume, hostPath string, mode Mode) (string, error) {
	return p.bind(volume, hostPath, mode, filepath.EvalSymlinks)
}

// BindNew is Bind, for writing, of a folder that may have to be made: what it is
// to be made in has to exist.
func (p *Policy) BindNew(volume, hostPath string) (string, error) {
	return p.bind(volume, hostPath, ReadWrite, resolveNew)
}

// resolveNew follows the symbolic links of a path whose last element may be
// missing.
func resolveNew(path string) (string, error) {
	resolved, err := filepath.EvalSymlinks(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return resolved, err
	}
	if _, err := os.Lstat(path); err == nil {
		return "", fmt.Errorf("%s is a symbolic link that leads nowhere", path)
	}
	parent, err := filepath.EvalSymlinks(filepath.Dir(path))
	return filepath.Join(parent, filepath.Base(path)), err
}

func (p *Policy) bind(volume, hostPath string, mode Mode, resolve func(path string) (string, error)) (string, error) {
	refuse := func(setting, reason string) (string, error) {
		r := &Refusal{What: fmt.Sprintf("host path %q of volume %q (%s)", hostPath, volume, mode), Reason: reason, Setting: setting}
		r.Value = hostPath + ":" + string(mode)
		return "", r
	}
	switch {
	case mode != ReadOnly && mode != ReadWrite:
		return refuse("", "its mode is neither ro nor rw")
	case strings.ContainsRune(hostPath, 0):
		return refuse("", "it has a NUL byte")
	case !filepath.IsAbs(hostPath):
		return refuse("", "it is not absolute")
	case filepath.Clean(hostPath) != hostPath:
		return refuse("", "it is not clean: write "+filepath.Clean(hostPath))
	case len(p.binds) == 0:
		return refuse(SettingBind, "this node allows no bind mounts")
	}
	// Whoever may mount nothing here is not told what exists.
	readOnlyPrefix := ""
	within := false
	resolved, err := resolve(hostPath)
	for _, b := range p.binds {
		if err != nil {
			within = within || inside(b.prefix, hostPath)
			continue
		}
		prefix, prefixErr := resolve(b.prefix)
		if prefixErr != nil || !inside(prefix, resolved) {
			continue
		}
		if mode == ReadOnly || b.mode == ReadWrite {
			return resolved, nil
		}
		readOnlyPrefix = b.prefix
	}
	switch {
	case within:
		return refuse("", "it cannot be resolved: "+err.Error())
	case readOnlyPrefix != "":
		return refuse(SettingBind, "this node allows "+readOnlyPrefix+" read-only")
	case err == nil && resolved != hostPath:
		return refuse(SettingBind, "behind its symbolic links it is outside of what this node allows")
	default:
		return refuse(SettingBind, "it is outside of what this node allows")
	}
}

// inside reports whether a clean path is the prefix or below it.
func inside(prefix, path string) bool {
	return path == prefix || strings.HasPrefix(path, strings.TrimSuffix(prefix, "/")+"/")
}
