package mirror

import (
	"context"
	"errors"

	"github.com/rs/zerolog"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/services/internal/girder"
)

// reach finds out how the task's Girder is reached. What it finds is kept until
// [mirror.letGo].
func (m *mirror) reach(secrets contracts.Secrets) error {
	if m.http != nil {
		return nil
	}
	session, err := m.task.Girder.Session.Resolve(secrets)
	if err != nil {
		return &badTaskError{err}
	}
	m.http, m.release, err = m.manager.clients.For(session)
	return err
}

func (m *mirror) letGo() {
	if m.release != nil {
		m.release()
	}
}

// options are those of all clients of the mirror. Patience is the mirror's.
func (m *mirror) options(ctx context.Context) girder.Options {
	return girder.Options{HTTPClient: m.http, Traffic: m.manager.traffic, Retry: singly, Logger: *zerolog.Ctx(ctx)}
}

// settle lets the gate go on: it is known how the Girder job is reached.
func (m *mirror) settle() {
	if m.client != nil && !m.isAttached() {
		close(m.attached)
	}
}

// reached reports whether there was a way to the Girder job before. What is wrong
// with it since is an outage: somebody changed a certificate or a setting.
func (m *mirror) reached() bool { return m.isAttached() || m.ref.LogBefore != nil }

// refuseSession refuses a task whose session leads nowhere, before anything of it
// runs.
func (m *mirror) refuseSession(ctx context.Context, err error) error {
	var fault *girder.SessionError
	if !errors.As(err, &fault) || m.reached() {
		return err
	}
	m.client = nil
	if m.task.Girder.JobInfo != nil {
		return m.refuse(ctx, fault.Error())
	}
	return m.refuseCreation(ctx, fault.Error())
}

// outage makes what is wrong with a way that was there before temporary.
func (m *mirror) outage(err error) error {
	var silence *girder.Unreachable
	var fault *girder.SessionError
	if !m.reached() || !errors.As(err, &fault) || !errors.As(err, &silence) {
		return err
	}
	return &girder.Unreachable{Method: silence.Method, Path: silence.Path, Host: silence.Host, Err: errors.New(fault.Error())}
}
