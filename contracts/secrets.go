package contracts

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"regexp"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// Secret is a token or a header's value in a task specification. After
// [Task.Redact] it is a reference to the value in the bucket of secrets.
type Secret string

// String hides the value, so that a secret that reaches a log does no harm.
func (s Secret) String() string {
	switch {
	case s == "":
		return ""
	case s.IsReference():
		return string(s)
	default:
		return hidden
	}
}

// GoString hides the value from %#v.
func (s Secret) GoString() string { return s.String() }

// SecretKind says which service may read a secret.
type SecretKind string

// The kinds, each a key <job>.<kind> in the bucket [BucketSecrets].
const (
	// SecretIO is for transfer: data tokens, headers of HTTP sinks.
	SecretIO SecretKind = "io"
	// SecretJob is for job-tracker: tokens of Girder jobs.
	SecretJob SecretKind = "job"
	// SecretContainer is for executors: what the task hands to its container.
	SecretContainer SecretKind = "container"
)

// SecretKinds lists the kinds.
var SecretKinds = []SecretKind{SecretIO, SecretJob, SecretContainer}

// Secrets are the values of one kind and job, by the path of their field.
type Secrets map[string]string

// String hides the values.
func (s Secrets) String() string { return fmt.Sprintf("%d secrets", len(s)) }

// GoString hides the values from %#v.
func (s Secrets) GoString() string { return s.String() }

const secretPrefix = "secret:"

// IsReference reports whether the secret is a reference, not a value.
func (s Secret) IsReference() bool { return strings.HasPrefix(string(s), secretPrefix) }

// Resolve returns the value that a reference stands for. A secret that is no
// reference stands for itself.
func (s Secret) Resolve(values Secrets) (string, error) {
	if !s.IsReference() {
		return string(s), nil
	}
	_, path, _ := strings.Cut(strings.TrimPrefix(string(s), secretPrefix), "/")
	value, ok := values[path]
	if !ok {
		return "", fmt.Errorf("the secret of %s is gone", path)
	}
	return value, nil
}

// Redact returns a copy of the task whose secrets are references, and the
// secrets by kind. Two are there twice, for each of the kinds that resolves the
// same reference: the token of a task that hands it to its container, with
// [GirderToken], under [SecretContainer] as well as [SecretIO], and the session of
// a task with a Girder job under [SecretJob], too.
func (t *Task) Redact() (*Task, map[SecretKind]Secrets, error) {
	data, err := t.Encode()
	if err != nil {
		return nil, nil, fmt.Errorf("redact task: %w", err)
	}
	redacted, err := ReadTask(data)
	if err != nil {
		return nil, nil, fmt.Errorf("redact task: %w", err)
	}
	secrets := map[SecretKind]Secrets{}
	if token := t.tokenForContainer(); token != "" && !token.IsReference() {
		secrets[SecretContainer] = Secrets{tokenPath: string(token)}
	}
	redacted.visitSecrets(func(kind SecretKind, path string, secret Secret) Secret {
		if secret == "" || secret.IsReference() {
			return secret
		}
		if secrets[kind] == nil {
			secrets[kind] = Secrets{}
		}
		secrets[kind][path] = string(secret)
		if strings.HasPrefix(path, sessionPath+".") && t.HasGirderJob() {
			if secrets[SecretJob] == nil {
				secrets[SecretJob] = Secrets{}
			}
			secrets[SecretJob][path] = string(secret)
		}
		return Secret(secretPrefix + string(kind) + "/" + path)
	})
	return redacted, secrets, nil
}

const tokenPath = "girder.token"

// tokenForContainer returns the task's Girder token if an argument asks for it.
func (t *Task) tokenForContainer() Secret {
	var token Secret
	t.visitTransforms(func(_ string, transform Transform) {
		if _, asks := transform.(*GirderToken); asks && t.Girder != nil {
			token = t.Girder.Token
		}
	})
	return token
}

// Hash returns the SHA-256 of the task without its secrets, in hexadecimal
// digits: two submissions with one hash ask for the same work.
func (t *Task) Hash() (string, error) {
	redacted, _, err := t.Redact()
	if err != nil {
		return "", err
	}
	data, err := redacted.Encode()
	if err != nil {
		return "", fmt.Errorf("hash task: %w", err)
	}
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:]), nil
}

// visitSecrets calls replace for every secret of the task and stores what it
// returns: the one list of where secrets stand.
func (t *Task) visitSecrets(replace func(kind SecretKind, path string, secret Secret) Secret) {
	access := func(path string, own *GirderAccess) {
		if own != nil {
			own.Token = replace(SecretIO, path+".girder.token", own.Token)
		}
	}
	headers := func(kind SecretKind, path string, values map[string]Secret) {
		for name, value := range values {
			values[name] = replace(kind, path+"."+name, value)
		}
	}
	if g := t.Girder; g != nil {
		g.Token = replace(SecretIO, tokenPath, g.Token)
		if g.Session != nil {
			g.Session.visitSecrets(func(path string, secret Secret) Secret { return replace(SecretIO, path, secret) })
		}
		if g.Job != nil {
			g.Job.Token = replace(SecretJob, "girder.job.token", g.Job.Token)
		}
		if g.JobInfo != nil {
			headers(SecretJob, "girder.job_info.headers", g.JobInfo.Headers)
		}
	}
	output := func(path string, spec OutputSpec) {
		switch o := spec.(type) {
		case *GirderUploadItem:
			access(path, o.Girder)
		case *GirderUploadFolder:
			access(path, o.Girder)
		case *GirderJobArtifact:
			access(path, o.Girder)
		}
	}
	t.visitTransforms(func(path string, transform Transform) {
		switch v := transform.(type) {
		case *GirderFile:
			access(path, v.Girder)
		case *GirderItem:
			access(path, v.Girder)
		case *GirderFolder:
			access(path, v.Girder)
		case *GirderFileStream:
			access(path, v.Girder)
		case *GirderFilePath:
			access(path, v.Girder)
		case *GirderItemPath:
			access(path, v.Girder)
		case *GirderFolderPath:
			access(path, v.Girder)
		case *GirderItemMetadata:
			access(path, v.Girder)
		case *ChunkedStream:
			headers(SecretIO, path+".headers", v.Headers)
		case *Connect:
			output(path+".input", v.Input.Output)
			output(path+".output", v.Output.Output)
		}
	})
	for i, o := range t.Outputs {
		output(fmt.Sprintf("outputs[%d]", i), o.OutputSpec)
	}
}

// visitTransforms calls visit for every transform of the task with its path,
// a connect before its ends.
func (t *Task) visitTransforms(visit func(path string, transform Transform)) {
	if t.Docker == nil {
		return
	}
	connect := func(path string, c *Connect) {
		visit(path, c)
		if c.Input.Transform != nil {
			visit(path+".input", c.Input.Transform)
		}
		if c.Output.Transform != nil {
			visit(path+".output", c.Output.Transform)
		}
	}
	for i, arg := range t.Docker.Args {
		path := fmt.Sprintf("docker.args[%d]", i)
		if c, ok := arg.Transform.(*Connect); ok {
			connect(path, c)
		} else if arg.Transform != nil {
			visit(path, arg.Transform)
		}
	}
	for i := range t.Docker.Streams {
		connect(fmt.Sprintf("docker.streams[%d]", i), &t.Docker.Streams[i])
	}
}

// MaxDeadPayload is how much of a payload that cannot be read is kept in a
// dead letter, in bytes.
const MaxDeadPayload = 64 << 10

var (
	secretNames   = regexp.MustCompile(`(?i)^headers$|` + secretWords)
	secretFields  = regexp.MustCompile(`(?i)("(?:headers|[^"]*` + secretWords + `[^"]*)"\s*:\s*)` + jsonString)
	secretObjects = regexp.MustCompile(`(?i)("(?:headers|[^"]*` + secretWords + `[^"]*)"\s*:\s*)[\[{](?:[^"}\]]|` + jsonString + `)*[\]}]?`)
	tokenShapes   = regexp.MustCompile(`[A-Za-z0-9]{40,}`)
)

const (
	secretWords = `(?:token|password|secret|authorization|api_?key|cookie|cert|proxies)`
	jsonString  = `"(?:[^"\\]|\\.)*"?`
	hidden      = "***"
)

// ScrubPayload removes what looks like a secret from a payload that was
// refused, and cuts it to [MaxDeadPayload]. What stays is for a person to read,
// and valid UTF-8.
func ScrubPayload(payload []byte) []byte {
	if scrubbed, ok := scrubJSON(payload); ok {
		payload = scrubbed
	} else {
		payload = secretFields.ReplaceAll(payload, []byte(`$1"`+hidden+`"`))
		payload = secretObjects.ReplaceAll(payload, []byte(`$1"`+hidden+`"`))
	}
	payload = tokenShapes.ReplaceAll(payload, []byte(hidden))
	payload = bytes.ToValidUTF8(payload, []byte("\uFFFD"))
	if len(payload) <= MaxDeadPayload {
		return payload
	}
	return bytes.ToValidUTF8(payload[:MaxDeadPayload], nil)
}

// scrubJSON is more lenient than [DecodeTask], whose refusals it must read.
func scrubJSON(payload []byte) ([]byte, bool) {
	var tree any
	if err := json.Unmarshal(payload, &tree, jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true)); err != nil {
		return nil, false
	}
	scrubbed, err := json.Marshal(scrub(tree, false), json.Deterministic(true))
	return scrubbed, err == nil
}

// scrub hides text and numbers, all of them or those below a name that says
// what they are.
func scrub(tree any, hide bool) any {
	switch v := tree.(type) {
	case map[string]any:
		for name, value := range v {
			v[name] = scrub(value, hide || secretNames.MatchString(name))
		}
	case []any:
		for i, value := range v {
			v[i] = scrub(value, hide)
		}
	case string, float64:
		if hide {
			return hidden
		}
	}
	return tree
}
