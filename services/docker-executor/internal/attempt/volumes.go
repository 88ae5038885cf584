package attempt

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/services/docker-executor/internal/engine"
	"github.com/gantry-worker/gantry/services/docker-executor/internal/folder"
	"github.com/gantry-worker/gantry/services/docker-executor/internal/policy"
)

const (
	// mountRoot is where containers see temporary volumes, below a random name,
	// as with Girder Worker.
	mountRoot = "/mnt/girder_worker/"
	// directRoot is where they see files that are mounted and not downloaded.
	directRoot = "/mnt/girder_direct_worker/"
	// temporaryPrefix begins the names of temporary volumes.
	temporaryPrefix = "gantry-"
	// temporaryMode lets every user of a container write.
	temporaryMode = 0o777 | fs.ModeSetgid
)

// makeVolumes decides which folders of the host the container will see, by the
// node's policy, and notes them, before it makes those that are ours: whoever
// adopts the attempt finds its inputs where they are, and all there is to remove.
func (a *Attempt) makeVolumes() error {
	if err := a.tools.Policy.Image(a.task.Docker.Image); err != nil {
		return err
	}
	if len(a.folder.Volumes) > 0 { // a former owner got so far
		if err := a.confirmVolumes(); err != nil {
			return err
		}
		return a.makeTemporary()
	}
	if err := a.tools.Policy.Task(a.task); err != nil {
		return err
	}
	volumes, err := a.decideVolumes()
	if err != nil {
		return err
	}
	token := contracts.NewToken()
	a.folder.Volumes = append(volumes, folder.Volume{
		Kind: folder.TemporaryVolume, Host: filepath.Join(a.folder.VolumesDir(), temporaryPrefix+token), Container: mountRoot + token,
	})
	if err := a.note(); err != nil {
		return err
	}
	return a.makeTemporary()
}

func (a *Attempt) decideVolumes() (volumes []folder.Volume, err error) {
	for i := range a.task.Docker.Volumes {
		v, err := a.decideVolume(i)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", volumeField(i), err)
		}
		volumes = append(volumes, v)
	}
	for _, asked := range a.pipeFolders() {
		at := slices.IndexFunc(volumes, func(v folder.Volume) bool { return v.Container == asked.container })
		if at >= 0 { // the plan finds out whether it is the same folder
			volumes[at].Fields = append(volumes[at].Fields, asked.field)
			continue
		}
		host, err := a.tools.Policy.Bind(asked.field, asked.host, policy.ReadWrite)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", asked.field, err)
		}
		volumes = append(volumes, folder.Volume{Host: host, Container: asked.container, Asked: asked.host, Fields: []string{asked.field}})
	}
	for i, arg := range a.task.Docker.Args {
		if file, ok := arg.Transform.(*contracts.GirderFile); ok && file.DirectPath != "" {
			volumes = a.decideDirect(volumes, fmt.Sprintf("docker.args[%d]", i), file)
		}
	}
	return volumes, nil
}

func volumeField(i int) string { return fmt.Sprintf("docker.volumes[%d]", i) }

func (a *Attempt) decideVolume(i int) (folder.Volume, error) {
	v := &a.task.Docker.Volumes[i]
	decided := folder.Volume{Name: v.Name, Fields: []string{volumeField(i)}}
	if v.Type == contracts.VolumeTemporary {
		token := contracts.NewToken()
		decided.Kind, decided.Container, decided.Asked = folder.TemporaryVolume, mountRoot+token, v.HostDir
		dir := a.folder.VolumesDir()
		if v.HostDir != "" {
			var err error
			if dir, err = a.tools.Policy.BindNew(v.Name, v.HostDir); err != nil {
				return decided, err
			}
		}
		decided.Host = filepath.Join(dir, temporaryPrefix+token)
		return decided, nil
	}
	host, err := a.bind(v)
	decided.Host, decided.Container, decided.Asked = host, path.Clean(v.ContainerPath), v.HostPath
	decided.ReadOnly, decided.Relabel = v.ReadOnly(), v.Relabel()
	return decided, err
}

// bind asks the policy for a bind mount: for writing too where the container, or
// Gantry on its behalf, writes there, or the engine new labels to all that is in
// it.
func (a *Attempt) bind(v *contracts.Volume) (host string, err error) {
	mode := policy.ReadOnly
	if !v.ReadOnly() || v.Relabel() != "" || a.writesTo(v) {
		mode = policy.ReadWrite
	}
	return a.tools.Policy.Bind(v.Name, v.HostPath, mode)
}

// writesTo reports whether Gantry itself puts something on a volume of the task,
// or removes something there.
func (a *Attempt) writesTo(v *contracts.Volume) bool {
	for _, asked := range a.pipeFolders() {
		if asked.container == path.Clean(v.ContainerPath) {
			return true
		}
	}
	if v.Name == "" {
		return false
	}
	for _, t := range a.transforms() {
		var name string
		switch t := t.Transform.(type) {
		case *contracts.GirderFile:
			name = t.Volume
		case *contracts.GirderItem:
			name = t.Volume
		case *contracts.GirderFolder:
			name = t.Volume
		case *contracts.ProgressPipe:
			name = t.Volume
		case *contracts.NamedInputPipe:
			name = t.Volume
		case *contracts.NamedOutputPipe:
			name = t.Volume
		}
		if name == v.Name {
			return true
		}
	}
	return slices.ContainsFunc(a.task.Outputs, func(o contracts.Output) bool {
		return o.From().Volume == v.Name && deletes(o.OutputSpec)
	})
}

func deletes(spec contracts.OutputSpec) bool {
	switch o := spec.(type) {
	case *contracts.GirderUploadItem:
		return o.DeleteFile
	case *contracts.GirderUploadFolder:
		return o.DeleteFile
	default:
		return false
	}
}

// placed is a transform and the field of the task that it stands in.
type placed struct {
	contracts.Transform
	field string
}

// transforms returns the transforms of a task, of a connect its two ends.
func (a *Attempt) transforms() (all []placed) {
	connect := func(field string, c *contracts.Connect) {
		all = append(all, placed{c.Input.Transform, field}, placed{c.Output.Transform, field})
	}
	for i, arg := range a.task.Docker.Args {
		field := fmt.Sprintf("docker.args[%d]", i)
		if c, ok := arg.Transform.(*contracts.Connect); ok {
			connect(field, c)
		} else {
			all = append(all, placed{arg.Transform, field})
		}
	}
	for i := range a.task.Docker.Streams {
		connect(fmt.Sprintf("docker.streams[%d]", i), &a.task.Docker.Streams[i])
	}
	return all
}

// pipeFolder is a folder of the host that a named pipe brings along.
type pipeFolder struct{ field, host, container string }

func (a *Attempt) pipeFolders() (folders []pipeFolder) {
	for _, t := range a.transforms() {
		var host, container string
		switch t := t.Transform.(type) {
		case *contracts.NamedInputPipe:
			host, container = t.HostPath, t.ContainerPath
		case *contracts.NamedOutputPipe:
			host, container = t.HostPath, t.ContainerPath
		}
		if host != "" {
			folders = append(folders, pipeFolder{t.field, host, path.Clean(container)})
		}
	}
	return folders
}

// decideDirect adds a file that is mounted where it is, if the policy allows it
// and it can be read; else it is downloaded.
func (a *Attempt) decideDirect(volumes []folder.Volume, field string, t *contracts.GirderFile) []folder.Volume {
	host, err := a.direct(field, t)
	if err != nil {
		a.log.Info().Err(err).Str("field", field).Msg("file is not mounted but downloaded")
		return volumes
	}
	name := path.Base(t.DirectPath)
	if t.Filename != "" {
		name = path.Base(t.Filename)
	}
	at := directRoot + name
	for n := 1; ; n++ {
		same := slices.IndexFunc(volumes, func(v folder.Volume) bool { return v.Container == at })
		if same < 0 {
			break
		}
		if v := &volumes[same]; v.Kind == folder.DirectFile && v.Host == host {
			v.Fields = append(v.Fields, field)
			return volumes
		}
		at = path.Join(directRoot, strconv.Itoa(n), name)
	}
	return append(volumes, folder.Volume{
		Kind: folder.DirectFile, Host: host, Container: at, ReadOnly: true, Asked: t.DirectPath, Fields: []string{field},
	})
}

// direct returns where a file is that can be mounted.
func (a *Attempt) direct(field string, t *contracts.GirderFile) (string, error) {
	host, err := a.tools.Policy.Bind(field, t.DirectPath, policy.ReadOnly)
	if err != nil {
		return "", err
	}
	file, err := os.OpenFile(host, os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOFOLLOW, 0)
	if err != nil {
		return "", err
	}
	defer file.Close() //nolint:errcheck // nothing was written
	info, err := file.Stat()
	if err != nil {
		return "", err
	}
	if !info.Mode().IsRegular() {
		return "", fmt.Errorf("%s is no regular file", host)
	}
	_, err = a.tools.OnHost(host)
	return host, err
}

// confirmVolumes checks again, before they are mounted, that the policy allows
// the task's volumes and that they lead where they led when they were decided.
func (a *Attempt) confirmVolumes() error {
	if err := a.tools.Policy.Task(a.task); err != nil {
		return err
	}
	for i := range a.folder.Volumes {
		if err := a.confirm(&a.folder.Volumes[i]); err != nil {
			return err
		}
	}
	return nil
}

func (a *Attempt) confirm(v *folder.Volume) error {
	switch {
	case v.Asked != "":
	case v.IsDefault(), v.Kind == folder.TemporaryVolume:
		return nil
	default:
		return &Infrastructure{fmt.Sprintf("it was not noted what volume %q stands for", v.Name)}
	}
	field, host, err := v.Fields[0], v.Host, error(nil)
	var now string
	switch {
	case v.Kind == folder.DirectFile:
		// A new attempt downloads it.
		if now, err = a.tools.Policy.Bind(field, v.Asked, policy.ReadOnly); err != nil || now != host {
			return &Infrastructure{fmt.Sprintf("%s: the file at %q is not any more what it was when the attempt began", field, v.Asked)}
		}
		return nil
	case v.Kind == folder.TemporaryVolume:
		if now, err = a.tools.Policy.BindNew(v.Name, v.Asked); err == nil {
			err = stillOurs(v)
		}
		host = filepath.Dir(host)
	default:
		now, err = a.confirmBind(v)
	}
	if err == nil && now != host {
		err = &policy.Refusal{
			What:   fmt.Sprintf("host path %q of volume %q", v.Asked, v.Name),
			Reason: "it leads elsewhere than when the attempt began",
		}
	}
	if err != nil {
		return fmt.Errorf("%s: %w", field, err)
	}
	return nil
}

// stillOurs returns a *policy.Refusal if somebody who sees the folder above put
// something else, such as a link, in the place of a temporary volume.
func stillOurs(v *folder.Volume) error {
	info, err := os.Lstat(v.Host)
	if err != nil || info.IsDir() { // one that is not there is not made yet, or the engine finds it missing
		return nil
	}
	return &policy.Refusal{
		What: fmt.Sprintf("volume %q in %q", v.Name, v.Asked), Reason: "somebody put something else in the place of its folder",
	}
}

func (a *Attempt) confirmBind(v *folder.Volume) (string, error) {
	for i := range a.task.Docker.Volumes {
		if volumeField(i) == v.Fields[0] {
			return a.bind(&a.task.Docker.Volumes[i])
		}
	}
	return a.tools.Policy.Bind(v.Fields[0], v.Asked, policy.ReadWrite)
}

// makeTemporary makes the volumes that are ours.
func (a *Attempt) makeTemporary() error {
	for i := range a.folder.Volumes {
		v := &a.folder.Volumes[i]
		if v.Kind != folder.TemporaryVolume {
			continue
		}
		if v.Asked != "" {
			err := a.makeHostDir(v)
			switch {
			case err == nil:
			case isTasksFault(err), errors.Is(err, fs.ErrPermission):
				return &Failure{fmt.Sprintf("%s.host_dir: %v", v.Fields[0], err)}
			default:
				return &Infrastructure{fmt.Sprintf("%s.host_dir: %v", v.Fields[0], err)}
			}
		}
		if err := makeFolder(v.Host, v.Host+unfinished, temporaryMode); err != nil {
			return &Infrastructure{fmt.Sprintf("make temporary volume: %v", err)}
		}
	}
	return nil
}

// makeHostDir makes the folder for a temporary volume, with exactly the mode
// that the task asks for, where there is none.
func (a *Attempt) makeHostDir(v *folder.Volume) error {
	mode := fs.FileMode(0o777)
	for i := range a.task.Docker.Volumes {
		if volumeField(i) == v.Fields[0] {
			mode = a.task.Docker.Volumes[i].DirMode()
		}
	}
	return makeFolder(filepath.Dir(v.Host), unfinishedHostDir(v), mode)
}

// unfinished ends the name that a folder has until it has its mode. It goes with
// the attempt, should that be all there is of the folder.
const unfinished = ".new"

func unfinishedHostDir(v *folder.Volume) string {
	return filepath.Join(filepath.Dir(filepath.Dir(v.Host)), filepath.Base(v.Host)+unfinished)
}

// makeFolder makes a folder with exactly this mode, whatever the umask is; one
// that is there is left as it is, also if somebody else just made it. A folder
// never has its name before its mode: temporary, beside it, is the name until
// then. A symbolic link in its place is not followed.
func makeFolder(dir, temporary string, mode fs.FileMode) error {
	if info, err := os.Lstat(dir); err == nil && !info.IsDir() {
		return unix.ENOTDIR
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.Remove(temporary); err != nil && !errors.Is(err, fs.ErrNotExist) { // what a crash left
		return err
	}
	if err := os.Mkdir(temporary, 0o700); err != nil {
		return err
	}
	err := setMode(temporary, mode)
	if err == nil {
		if err = rename(temporary, dir); err == nil {
			return nil
		}
	}
	err = errors.Join(err, os.Remove(temporary))
	if info, statErr := os.Lstat(dir); statErr == nil && info.IsDir() {
		return nil // somebody else was faster
	}
	return err
}

// setMode gives a folder its mode, and nothing that a link leads to.
func setMode(dir string, mode fs.FileMode) error {
	made, err := os.OpenFile(dir, os.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	return errors.Join(made.Chmod(mode), made.Close())
}

// rename gives a folder its name, if nothing has it: on a file system that cannot
// see to that, if no more than an empty folder has it.
func rename(from, to string) error {
	err := unix.Renameat2(unix.AT_FDCWD, from, unix.AT_FDCWD, to, unix.RENAME_NOREPLACE)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) {
		return os.Rename(from, to)
	}
	return err
}

// mounts returns what the container sees of the host.
func (a *Attempt) mounts() ([]engine.Mount, error) {
	var mounts []engine.Mount
	for _, v := range a.folder.Volumes {
		host, err := a.tools.OnHost(v.Host)
		if err != nil {
			return nil, &policy.Refusal{What: fmt.Sprintf("host path %q", v.Host), Reason: err.Error()}
		}
		mounts = append(mounts, engine.Mount{HostPath: host, ContainerPath: v.Container, ReadOnly: v.ReadOnly, SELinux: v.Relabel})
	}
	for _, v := range a.tools.Policy.Volumes() { // a task's own win
		at := path.Clean(v.ContainerPath)
		if !slices.ContainsFunc(mounts, func(m engine.Mount) bool { return m.ContainerPath == at }) {
			mounts = append(mounts, engine.Mount{HostPath: v.HostPath, ContainerPath: at, ReadOnly: v.ReadOnly(), SELinux: v.Relabel()})
		}
	}
	return mounts, nil
}

// isOurs reports whether a path is below the attempt's folder, and goes with it.
func isOurs(f *folder.Folder, path string) bool { return strings.HasPrefix(path, f.Path()+"/") }
