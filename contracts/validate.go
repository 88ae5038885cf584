package contracts

import (
	"fmt"
	"net/url"
	"path"
	"strings"
	"unicode"
)

// Validate checks every field of a task that was read. It returns nil or an
// [*InvalidTaskError] with everything that is wrong.
func (t *Task) Validate() error {
	v := &validator{task: t}
	v.head()
	v.girder()
	v.docker()
	v.outputs()
	return invalid(v.problems...)
}

type validator struct {
	task     *Task
	problems []*FieldError
}

func (v *validator) fail(path, format string, args ...any) {
	v.problems = append(v.problems, fieldError(path, format, args...))
}

func (v *validator) unsupported(path, what string) {
	v.fail(path, "%s is not supported by this version of Gantry", what)
}

func (v *validator) head() {
	t := v.task
	if t.Version != Version {
		v.fail("version", "%d is not a known version; write %d", t.Version, Version)
	}
	if t.ID != "" {
		if _, err := ParseJobID(string(t.ID)); err != nil {
			v.fail("id", "%v", err)
		}
	}
	if t.Queue != "" {
		v.name("queue", string(t.Queue))
	}
	if t.Priority != nil && (*t.Priority < 0 || *t.Priority > 9) {
		v.fail("priority", "%d is not between 0 and 9", *t.Priority)
	}
	if t.Schedule != nil {
		v.unsupported("schedule", "a schedule")
	}
	if t.Limits != nil {
		v.unsupported("limits", "a time limit")
	}
	v.retry()
	for name := range t.Labels {
		if name == "" || len(name) > 128 || len(t.Labels[name]) > 1024 {
			v.fail("labels", "%q: names have 1 to 128 bytes, values at most 1024", name)
		}
	}
}

func (v *validator) retry() {
	r := v.task.Retry
	if r == nil {
		return
	}
	if n := r.Crashes(); n < 0 || n > 100 {
		v.fail("retry.max_crashes", "%d is not between 0 and 100", n)
	}
	if r.MaxFailures < 0 || r.MaxFailures > 100 {
		v.fail("retry.max_failures", "%d is not between 0 and 100", r.MaxFailures)
	}
}

func (v *validator) girder() {
	g := v.task.Girder
	if g == nil {
		return
	}
	v.secret("girder.token", g.Token)
	if g.APIURL != "" {
		v.url("girder.api_url", g.APIURL)
	}
	if g.Session != nil {
		v.unsupported("girder.session", "a session")
	}
	if g.Job != nil && g.JobInfo != nil {
		v.fail("girder.job", "give either job or job_info, not both")
	}
	if g.Job != nil {
		v.girderJob(g)
	}
	if g.JobInfo != nil {
		v.jobInfo(g.JobInfo)
	}
}

func (v *validator) girderJob(g *Girder) {
	if g.APIURL == "" {
		v.fail("girder.api_url", "missing; girder.job needs it")
	}
	if g.Job.Token == "" {
		v.fail("girder.job.token", "missing; creating a job needs a token with the scope jobs.rest.create_job")
	}
	v.secret("girder.job.token", g.Job.Token)
	for _, name := range []string{"handler", "celeryTaskId", "status", "log", "progress"} {
		if _, ok := g.Job.OtherFields[name]; ok {
			v.fail("girder.job.other_fields."+name, "this field is set by Gantry")
		}
	}
}

func (v *validator) jobInfo(info *GirderJobInfo) {
	if info.Method != "PUT" {
		v.fail("girder.job_info.method", "%q is not PUT", info.Method)
	}
	v.url("girder.job_info.url", info.URL)
	if parts := strings.Split(strings.TrimSuffix(info.URL, "/"), "/"); !girderIDPattern.MatchString(parts[len(parts)-1]) {
		v.fail("girder.job_info.url", "%q does not end with /job/<id>", info.URL)
	}
	if info.Headers["Girder-Token"] == "" {
		v.fail("girder.job_info.headers.Girder-Token", "missing")
	}
	for name, value := range info.Headers {
		v.secret("girder.job_info.headers."+name, value)
	}
}

func (v *validator) docker() {
	t := v.task
	if t.Name == "" {
		v.fail("task", "missing; write %q", TaskDockerRun)
		return
	}
	if t.Name != TaskDockerRun {
		v.unsupported("task", fmt.Sprintf("%q", t.Name))
		return
	}
	if t.Args != nil {
		v.fail("args", "is for plugin tasks; the arguments of docker_run are docker.args")
	}
	if t.Kwargs != nil {
		v.fail("kwargs", "is for plugin tasks; the arguments of docker_run are in docker")
	}
	d := t.Docker
	if d == nil {
		v.fail("docker", "missing; docker_run needs it")
		return
	}
	if d.Image == "" {
		v.fail("docker.image", "missing")
	} else if strings.ContainsFunc(d.Image, func(r rune) bool { return unicode.IsSpace(r) || unicode.IsControl(r) }) || len(d.Image) > 1024 {
		v.fail("docker.image", "%q is not an image reference", d.Image)
	}
	switch d.PullOrDefault() {
	case PullAlways, PullMissing, PullNever:
	default:
		v.fail("docker.pull", "%q is not always, missing or never", d.Pull)
	}
	if d.RemoveContainer != nil && !*d.RemoveContainer {
		v.unsupported("docker.remove_container", "keeping the container")
	}
	for i, word := range d.Entrypoint {
		v.noNUL(fmt.Sprintf("docker.entrypoint[%d]", i), word)
	}
	v.options(&d.Options)
	v.volumes(d.Volumes)
	v.transforms()
}

func (v *validator) volumes(volumes []Volume) {
	seen := map[string]bool{}
	for i := range volumes {
		at, volume := fmt.Sprintf("docker.volumes[%d]", i), &volumes[i]
		v.name(at+".name", volume.Name)
		if seen[volume.Name] {
			v.fail(at+".name", "%q is the name of two volumes", volume.Name)
		}
		seen[volume.Name] = true
		switch volume.Type {
		case VolumeBindMount:
			v.bindMount(at, volume)
		case VolumeTemporary:
			v.unsupported(at+".type", "a named temporary volume")
		default:
			v.fail(at+".type", "%q is not bind_mount or temporary", volume.Type)
		}
	}
}

func (v *validator) bindMount(at string, volume *Volume) {
	for field, value := range map[string]string{".host_path": volume.HostPath, ".container_path": volume.ContainerPath} {
		if !path.IsAbs(value) || strings.ContainsRune(value, 0) {
			v.fail(at+field, "%q is not an absolute path", value)
		}
	}
	if volume.Mode != "" && volume.Mode != "rw" && volume.Mode != "ro" {
		v.fail(at+".mode", "%q is not rw or ro", volume.Mode)
	}
	if volume.HostDir != "" {
		v.fail(at+".host_dir", "is for temporary volumes")
	}
}

func (v *validator) transforms() {
	for i := range v.task.Docker.Streams {
		v.unsupported(fmt.Sprintf("docker.streams[%d]", i), "a stream")
	}
	pipes := map[string]bool{}
	for i, arg := range v.task.Docker.Args {
		at := fmt.Sprintf("docker.args[%d]", i)
		v.noNUL(at, arg.Text)
		switch t := arg.Transform.(type) {
		case nil, *TemporaryVolume:
		case *GirderFile:
			v.girderID(at+".id", t.ID)
			v.volume(at+".volume", t.Volume)
			if t.Filename != "" {
				v.fileName(at+".filename", t.Filename)
			}
			v.access(at, t.Girder)
		case *VolumePath:
			v.volumePath(at, t)
		case *VolumeRef:
			if t.Volume == "" {
				v.fail(at+".volume", "missing")
			}
			v.volume(at+".volume", t.Volume)
		case *ProgressPipe:
			v.volume(at+".volume", t.Volume)
			v.fileName(at+".name", t.NameOrDefault())
			if pipes[t.Volume+"/"+t.NameOrDefault()] {
				v.fail(at, "is the second progress pipe of that name")
			}
			pipes[t.Volume+"/"+t.NameOrDefault()] = true
		default:
			v.unsupported(at+".type", string(t.TransformType()))
		}
	}
}

func (v *validator) outputs() {
	for i, output := range v.task.Outputs {
		at := fmt.Sprintf("outputs[%d]", i)
		upload, ok := output.OutputSpec.(*GirderUploadItem)
		if !ok {
			v.unsupported(at+".type", string(output.OutputType()))
			continue
		}
		v.volumePath(at+".path", &upload.Path.VolumePath)
		v.girderID(at+".item_id", upload.ItemID)
		for name := range upload.UploadKwargs {
			if name != "reference" {
				v.fail(at+".upload_kwargs."+name, "unknown; only reference is passed on")
			}
		}
		v.access(at, upload.Girder)
	}
}

func (v *validator) volumePath(at string, p *VolumePath) {
	v.volume(at+".volume", p.Volume)
	v.relativePath(at+".path", p.Path)
}

func (v *validator) volume(at, name string) {
	if name == "" || v.task.Docker == nil {
		return
	}
	for i := range v.task.Docker.Volumes {
		if v.task.Docker.Volumes[i].Name == name {
			return
		}
	}
	v.fail(at, "%q is not the name of one of docker.volumes", name)
}

func (v *validator) relativePath(at, p string) {
	switch {
	case p == "":
		v.fail(at, "missing")
	case strings.ContainsRune(p, 0):
		v.fail(at, "%q holds a NUL character", p)
	case path.IsAbs(p):
		v.fail(at, "%q must be relative to the volume", p)
	case p != "." && !isLocal(p):
		v.fail(at, "%q leaves the volume", p)
	}
}

// fileName is relativePath for something that is a file, not the volume itself.
func (v *validator) fileName(at, p string) {
	if path.Clean(p) == "." || strings.HasSuffix(p, "/") {
		v.fail(at, "%q names a folder, not a file", p)
		return
	}
	v.relativePath(at, p)
}

func isLocal(p string) bool {
	clean := path.Clean(p)
	return clean != ".." && !strings.HasPrefix(clean, "../")
}

func (v *validator) noNUL(at, text string) {
	if strings.ContainsRune(text, 0) {
		v.fail(at, "holds a NUL character")
	}
}

func (v *validator) girderID(at, id string) {
	if !girderIDPattern.MatchString(id) {
		v.fail(at, "%q is not a Girder id (24 hexadecimal digits)", id)
	}
}

func (v *validator) access(at string, own *GirderAccess) {
	if own != nil && own.APIURL != "" {
		v.url(at+".girder.api_url", own.APIURL)
	}
	if own != nil {
		v.secret(at+".girder.token", own.Token)
	}
	access := v.task.GirderFor(own)
	if access.APIURL == "" {
		v.fail("girder.api_url", "missing; %s needs it", at)
	}
	if access.Token == "" {
		v.fail("girder.token", "missing; %s needs it", at)
	}
}

// secret refuses a value that would be taken for a reference: a client that
// writes one could make a service read another task's secret.
func (v *validator) secret(at string, s Secret) {
	if s.IsReference() {
		v.fail(at, "starts with %q, which is reserved", secretPrefix)
	}
}

func (v *validator) name(at, name string) {
	if _, err := ParseName[string](name); err != nil {
		v.fail(at, "%v", err)
	}
}

func (v *validator) url(at, raw string) {
	u, err := url.Parse(raw)
	switch {
	case err != nil:
		v.fail(at, "is not a URL")
	case u.User != nil:
		// It would stay in the job's life; tokens have fields of their own.
		v.fail(at, "has a user name or password; give a token instead")
	case (u.Scheme != "http" && u.Scheme != "https") || u.Host == "":
		v.fail(at, "%q is not an http or https URL", raw)
	case u.RawQuery != "" || u.Fragment != "":
		v.fail(at, "has a query or a fragment; give the address alone")
	}
}
