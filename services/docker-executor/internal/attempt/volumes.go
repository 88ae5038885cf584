package attempt

import (
	"errors"
	"fmt"
	"io/fs"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/services/docker-executor/internal/engine"
	"github.com/gantry-worker/gantry/services/docker-executor/internal/folder"
	"github.com/gantry-worker/gantry/services/docker-executor/internal/policy"
	"github.com/gantry-worker/gantry/services/internal/fifo"
	"github.com/gantry-worker/gantry/services/internal/volume"
)

// mountRoot is where containers see their default temporary volume, below a
// random name, as with Girder Worker.
const mountRoot = "/mnt/girder_worker/"

// makeVolumes decides which folders of the host the container will see, by the
// node's policy, and notes them: whoever adopts the attempt finds its inputs
// where they are.
func (a *Attempt) makeVolumes() error {
	docker := a.task.Docker
	if err := a.tools.Policy.Image(docker.Image); err != nil {
		return err
	}
	if len(a.folder.Volumes) > 0 {
		return a.confirmVolumes() // a former owner got so far
	}
	if err := a.tools.Policy.Options(&docker.Options); err != nil {
		return fmt.Errorf("docker.options: %w", err)
	}
	var volumes []folder.Volume
	for i := range docker.Volumes {
		v := &docker.Volumes[i]
		host, err := a.bind(v)
		if err != nil {
			return fmt.Errorf("docker.volumes[%d]: %w", i, err)
		}
		volumes = append(volumes, folder.Volume{Name: v.Name, Host: host, Container: v.ContainerPath, ReadOnly: v.ReadOnly()})
	}
	temporary, err := volume.Make(a.folder.VolumesDir(), mountRoot+contracts.NewToken())
	if err != nil {
		return &Infrastructure{err.Error()}
	}
	a.folder.Volumes = append(volumes, folder.Volume{Host: temporary.Host, Container: temporary.Container})
	return a.note()
}

func (a *Attempt) bind(v *contracts.Volume) (host string, err error) {
	mode := policy.ReadWrite
	if v.ReadOnly() {
		mode = policy.ReadOnly
	}
	return a.tools.Policy.Bind(v.Name, v.HostPath, mode)
}

// confirmVolumes checks again, before they are mounted, that the policy allows
// the task's volumes and that they lead where they led when they were decided.
func (a *Attempt) confirmVolumes() error {
	if err := a.tools.Policy.Options(&a.task.Docker.Options); err != nil {
		return fmt.Errorf("docker.options: %w", err)
	}
	for i := range a.task.Docker.Volumes {
		v := &a.task.Docker.Volumes[i]
		host, err := a.bind(v)
		if err == nil && host != a.folder.Volumes[i].Host {
			err = &policy.Refusal{
				What:   fmt.Sprintf("host path %q of volume %q", v.HostPath, v.Name),
				Reason: "it leads elsewhere than when the attempt began",
			}
		}
		if err != nil {
			return fmt.Errorf("docker.volumes[%d]: %w", i, err)
		}
	}
	return nil
}

func (a *Attempt) mounts() []engine.Mount {
	var mounts []engine.Mount
	for _, v := range a.folder.Volumes {
		mounts = append(mounts, engine.Mount{HostPath: v.Host, ContainerPath: v.Container, ReadOnly: v.ReadOnly})
	}
	return mounts
}

// makePipes makes the plan's named pipes. Those on folders of the host are noted
// first, for whoever has to remove them.
func (a *Attempt) makePipes() error {
	a.folder.Pipes = nil
	for _, p := range a.plan.pipes {
		if p.Volume != a.plan.volumes[""].Host { // the default volume goes with the folder
			a.folder.Pipes = append(a.folder.Pipes, p)
		}
	}
	if len(a.folder.Pipes) > 0 {
		if err := a.note(); err != nil {
			return err
		}
	}
	for _, p := range a.plan.pipes {
		err := fifo.Make(volume.Volume{Host: p.Volume}, p.Name)
		if err != nil && isTasksFault(err) {
			return &Failure{fmt.Sprintf("docker.args[%d]: %v", a.plan.pipeArg[p], err)}
		}
		if err != nil {
			return &Infrastructure{err.Error()}
		}
	}
	return nil
}

// isTasksFault reports whether a pipe could not be made for what the task, or
// somebody's folder, has at its place.
func isTasksFault(err error) bool {
	for _, fault := range []error{volume.ErrPath, volume.ErrSymlink, fs.ErrExist, fs.ErrNotExist} {
		if errors.Is(err, fault) {
			return true
		}
	}
	return false
}

// RemovePipes removes the named pipes that an attempt made on folders of the
// host, where they would stay.
func RemovePipes(f *folder.Folder) error {
	var errs []error
	for _, p := range f.Pipes {
		errs = append(errs, fifo.Remove(volume.Volume{Host: p.Volume}, p.Name))
	}
	return errors.Join(errs...)
}
