package contracts

import (
	"fmt"
	"net/url"
	"strings"
	"time"
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
	if l := t.Limits; l != nil && l.Time > 0 && l.SoftTime >= l.Time {
		v.fail("limits.soft_time", "%s is not below limits.time, %s: the container would be killed before it is warned",
			time.Duration(l.SoftTime), time.Duration(l.Time))
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
		v.session(g.Session)
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
	before := len(v.problems)
	v.url("girder.job_info.url", info.URL)
	parts := strings.Split(strings.TrimSuffix(info.URL, "/"), "/")
	if len(v.problems) == before && !girderIDPattern.MatchString(parts[len(parts)-1]) {
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
	for i, word := range d.Entrypoint {
		v.noNUL(fmt.Sprintf("docker.entrypoint[%d]", i), word)
	}
	v.options(&d.Options)
	v.volumes(d.Volumes)
	v.transforms()
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
	if u := v.address(at, raw); u != nil && (u.RawQuery != "" || u.Fragment != "") {
		v.fail(at, "has a query or a fragment; give the address alone")
	}
}

// address checks a URL that may have a query. Its user name would stay in the
// job's life; tokens have fields of their own.
func (v *validator) address(at, raw string) *url.URL {
	u, err := url.Parse(raw)
	switch {
	case err != nil:
		v.fail(at, "is not a URL")
	case u.User != nil:
		v.fail(at, "has a user name or password; give a token instead")
	case (u.Scheme != "http" && u.Scheme != "https") || u.Host == "":
		place, _, _ := strings.Cut(raw, "?") // what follows may be a key
		v.fail(at, "%q is not an http or https URL", place)
	default:
		return u
	}
	return nil
}
