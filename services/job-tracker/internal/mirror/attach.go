package mirror

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/go-json-experiment/json"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/services/internal/girder"
	"github.com/gantry-worker/gantry/services/job-tracker/internal/transcript"
)

// Keys of a created Girder job among the secrets of kind job.
const (
	createdID      = "girder.job.created.id"
	createdURL     = "girder.job.created.url"
	createdHandler = "girder.job.created.handler"
	createdToken   = "girder.job.created.token"
)

// errCreateRefused says that Girder will not create the job.
var errCreateRefused = errors.New("girder refuses to create the job")

// attach creates the Girder job or takes over the one that exists, and finds
// out what it has. A job that Girder refuses to create sets refused instead.
func (m *mirror) attach(ctx context.Context) error {
	job, err := m.find(ctx)
	if err != nil {
		err = m.refuseSession(ctx, err)
	}
	if errors.Is(err, errCreateRefused) {
		return nil
	}
	m.settle()
	if err != nil {
		return err
	}
	m.handler = contracts.GirderHandler(job.Handler)
	m.saw(ctx, job.Status)
	return m.resume(ctx, job)
}

// find reads the Girder job when there is one.
func (m *mirror) find(ctx context.Context) (girder.Job, error) {
	spec, host, err := m.findJob(ctx)
	if err != nil {
		return girder.Job{}, err
	}
	client, err := girder.NewJobClient(spec, m.options(ctx))
	if err != nil {
		return girder.Job{}, &badTaskError{err}
	}
	if !m.isAttached() {
		m.client, m.host = client, host
	}
	return m.patiently(ctx, m.client.Get)
}

// resume goes on behind the log that Girder has.
func (m *mirror) resume(ctx context.Context, job girder.Job) error {
	cursor := m.noted.Cursor
	if cursor.Attempt == 0 {
		before, err := m.logBefore(ctx, job)
		if err != nil {
			return err
		}
		cursor = contracts.MirrorCursor{Attempt: 1, Characters: before}
	}
	m.readSeq, m.reread, m.flushAt = 0, transcript.Position{}, time.Time{}
	m.bar = barOf(m.attempt, m.said, job.Progress != nil && m.noted.Cursor.Attempt > 0)
	var midLine bool
	m.box, midLine = transcript.NewOutbox(m.manager.cfg.LogLimit, job.Log, cursor)
	m.text = transcript.New(transcript.Position{Attempt: cursor.Attempt, Seq: cursor.Seq}, midLine)
	return m.note(ctx, func(g *contracts.GirderMirror) {
		g.Status, g.Cursor = m.status, m.box.Cursor()
	})
}

// logBefore returns how much log the Girder job had before anything of ours. It
// is stored before the first entry is sent: a projection that is built from
// nothing has no cursor, and what is there then is ours.
func (m *mirror) logBefore(ctx context.Context, job girder.Job) (int64, error) {
	err := m.tell(ctx, func(ref *contracts.GirderJobRef) {
		if ref.LogBefore != nil {
			return
		}
		var characters int64
		for _, entry := range job.Log {
			characters += int64(utf8.RuneCountInString(entry))
		}
		ref.LogBefore = &characters
	})
	if err != nil {
		return 0, err
	}
	return *m.ref.LogBefore, nil
}

// findJob returns how the Girder job is reached, creating it if need be.
func (m *mirror) findJob(ctx context.Context) (girder.JobSpec, *host, error) {
	secrets, err := m.awaitSecrets(ctx)
	if err != nil {
		return girder.JobSpec{}, nil, err
	}
	if err := m.reach(secrets); err != nil {
		return girder.JobSpec{}, nil, err
	}
	if info := m.task.Girder.JobInfo; info != nil {
		return m.takeOver(ctx, info, secrets)
	}
	return m.create(ctx, secrets)
}

// secretsPatience is how long a job may be without its secrets: the dispatcher
// stores them right after the first entry, and may die in between.
const (
	secretsPatience = time.Minute
	secretsPause    = 200 * time.Millisecond
)

// awaitSecrets returns the secrets of the Girder job, or none where they do not
// come.
func (m *mirror) awaitSecrets(ctx context.Context) (contracts.Secrets, error) {
	for began := time.Now(); ; {
		secrets, err := m.bus.Secrets(ctx, m.job, contracts.SecretJob)
		if err != nil || len(secrets) > 0 || time.Since(began) > secretsPatience {
			return secrets, err
		}
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-time.After(secretsPause):
		}
	}
}

func (m *mirror) takeOver(ctx context.Context, info *contracts.GirderJobInfo, secrets contracts.Secrets) (girder.JobSpec, *host, error) {
	url, err := girder.Rewrite(strings.TrimRight(info.URL, "/"), m.manager.cfg.GirderAPIURL)
	if err != nil {
		return girder.JobSpec{}, nil, &badTaskError{err}
	}
	headers := make(map[string]string, len(info.Headers))
	for name, secret := range info.Headers {
		if headers[name], err = secret.Resolve(secrets); err != nil {
			return girder.JobSpec{}, nil, &badTaskError{err}
		}
	}
	host, err := m.manager.hosts.of(m.http, url)
	if err != nil {
		return girder.JobSpec{}, nil, &badTaskError{err}
	}
	id := url[strings.LastIndex(url, "/")+1:]
	if err := m.tell(ctx, func(ref *contracts.GirderJobRef) { ref.ID, ref.URL = id, info.URL }); err != nil {
		return girder.JobSpec{}, nil, err
	}
	err = m.note(ctx, func(g *contracts.GirderMirror) { g.ID, g.URL = id, info.URL })
	return girder.JobSpec{Method: info.Method, URL: url, Reference: id, Headers: headers}, host, err
}

// create makes the Girder job, or finds the one that was made before a crash.
//
// The first word on the Girder job's subject is that it is being created; then
// its token is stored as a secret, then its id is told. A crash before the token
// is stored, or an answer of Girder that was lost, may leave a Girder job that
// nobody knows of: with the token that creates, Girder shows nothing of what it
// created, and the job's celeryTaskId it shows to site admins only. So whether
// there is one cannot be known, and another one is created. What may be left is
// an inactive job without a log.
func (m *mirror) create(ctx context.Context, secrets contracts.Secrets) (girder.JobSpec, *host, error) {
	api, err := girder.Rewrite(strings.TrimRight(m.task.Girder.APIURL, "/"), m.manager.cfg.GirderAPIURL)
	if err != nil {
		return girder.JobSpec{}, nil, &badTaskError{err}
	}
	host, err := m.manager.hosts.of(m.http, api)
	if err != nil {
		return girder.JobSpec{}, nil, &badTaskError{err}
	}
	err = m.tell(ctx, func(ref *contracts.GirderJobRef) {
		ref.Creating = ref.ID == "" && ref.Refused == ""
	})
	if err != nil {
		return girder.JobSpec{}, nil, err
	}
	if m.ref.Refused != "" {
		return girder.JobSpec{}, nil, m.refuse(ctx, m.ref.Refused)
	}
	if secrets[createdID] == "" {
		if m.host == nil {
			m.host = host
		}
		made, err := m.post(ctx, api, secrets)
		if err != nil {
			return girder.JobSpec{}, nil, m.whyNotCreated(ctx, err)
		}
		if secrets, err = m.keep(ctx, made); err != nil {
			return girder.JobSpec{}, nil, err
		}
	}
	id := secrets[createdID]
	err = m.tell(ctx, func(ref *contracts.GirderJobRef) {
		if ref.ID == "" {
			ref.Creating, ref.ID, ref.URL, ref.Handler = false, id, secrets[createdURL], contracts.GirderHandler(secrets[createdHandler])
			ref.LogBefore = new(int64)
		}
	})
	if err != nil {
		return girder.JobSpec{}, nil, err
	}
	spec := girder.JobSpec{URL: api + "/job/" + id, Reference: id, Headers: map[string]string{girder.TokenHeader: secrets[createdToken]}}
	err = m.note(ctx, func(g *contracts.GirderMirror) { g.ID, g.URL = m.ref.ID, m.ref.URL })
	return spec, host, err
}

// namelessTask stands for title and type, which Girder requires, of a task that
// was rejected because it has no name.
const namelessTask = "task"

func (m *mirror) post(ctx context.Context, api string, secrets contracts.Secrets) (girder.Job, error) {
	wanted := m.task.Girder.Job
	token, err := wanted.Token.Resolve(secrets)
	if err != nil {
		return girder.Job{}, &badTaskError{err}
	}
	options := m.options(ctx)
	options.APIURL, options.Token = api, token
	client, err := girder.New(options)
	if err != nil {
		return girder.Job{}, &badTaskError{err}
	}
	fields := map[string]any{"celeryTaskId": m.job}
	for name, value := range wanted.OtherFields {
		fields[name] = value
	}
	other, err := json.Marshal(fields, json.Deterministic(true))
	if err != nil {
		return girder.Job{}, &badTaskError{err}
	}
	request := girder.NewJob{
		Title: cmp.Or(m.task.Title(), namelessTask), Type: cmp.Or(wanted.Type, m.task.Name, namelessTask),
		Handler: string(contracts.HandlerCelery), Public: wanted.Public, OtherFields: []byte(other),
	}
	// A URL that is none of Girder's is the task's fault and not to be waited for.
	return m.persist(ctx, false, func(ctx context.Context) (girder.Job, error) { return client.CreateJob(ctx, request) })
}

// keep stores how a created job is reached, beside the secrets that are there,
// and returns all. Another tracker may have created one as well, while both took
// themselves for the active one: the first that is stored is the job's.
func (m *mirror) keep(ctx context.Context, made girder.Job) (contracts.Secrets, error) {
	kept := contracts.Secrets{createdID: string(made.ID), createdHandler: made.Handler}
	if made.Spec != nil {
		kept[createdURL], kept[createdToken] = made.Spec.URL, made.Spec.Headers[girder.TokenHeader]
	}
	return m.bus.AddSecrets(ctx, m.job, contracts.SecretJob, kept)
}

// whyNotCreated tells a refusal, which is the task's fault, from everything else.
func (m *mirror) whyNotCreated(ctx context.Context, err error) error {
	var refusal *girder.Error
	if !errors.As(err, &refusal) || girder.IsTemporary(err) {
		return err
	}
	sentence := fmt.Sprintf("Girder refuses to create the job: %v", err)
	if errors.Is(err, girder.ErrUnauthorized) || errors.Is(err, girder.ErrForbidden) {
		sentence = fmt.Sprintf("girder.job.token: Girder refuses to create the job, the token needs the scope jobs.rest.create_job (%v)", err)
	}
	return m.refuseCreation(ctx, sentence)
}

func (m *mirror) refuseCreation(ctx context.Context, sentence string) error {
	if err := m.tell(ctx, func(ref *contracts.GirderJobRef) { ref.Creating, ref.Refused = false, sentence }); err != nil {
		return err
	}
	return m.refuse(ctx, sentence)
}

func (m *mirror) refuse(ctx context.Context, sentence string) error {
	if !m.isAttached() {
		m.refused = sentence
		close(m.attached)
	}
	if err := m.note(ctx, func(g *contracts.GirderMirror) { g.Problem = sentence }); err != nil {
		return err
	}
	return errCreateRefused
}
