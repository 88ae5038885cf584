package stage

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/services/internal/girder"
)

// Attacher takes files that belong to a job.
type Attacher interface {
	UploadArtifact(ctx context.Context, id girder.JobID, a girder.Artifact, body io.Reader) (girder.File, error)
	JobArtifacts(ctx context.Context, id girder.JobID) ([]girder.File, error)
}

// Attach attaches a file, or every file directly in a folder, to a Girder job,
// each in one request. job is asked which one only if there is anything to
// attach. What Girder refuses is left out, and the error says what and why; the
// others are attached all the same, unless Girder has no endpoint for it at all
// ([girder.ErrNoRoute]) or cannot be reached.
func (o Out) Attach(ctx context.Context, to Attacher, job func(context.Context) (girder.JobID, error)) ([]contracts.GirderSent, error) {
	o.Flat = true
	s := newSending(o)
	err := s.onVolume(func() error { return s.attach(ctx, to, job) })
	if err != nil {
		return s.sent(), fmt.Errorf("attach %s: %w", o.Path, err)
	}
	return s.sent(), nil
}

func (s *sending) attach(ctx context.Context, to Attacher, job func(context.Context) (girder.JobID, error)) error {
	info, err := s.root.Lstat(s.path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return onVolume(s.path, err)
	}
	files := []output{{path: s.path, size: info.Size()}}
	if info.IsDir() {
		found, err := s.list(s.path, true)
		if err != nil || len(found.files) == 0 {
			return err
		}
		files = found.files
	} else {
		s.expect(info.Size())
	}
	id, err := job(ctx)
	if err != nil {
		return err
	}
	var refused error
	for _, one := range files {
		u := &upload{sending: s, path: one.path, name: s.nameOf(one.path), size: one.size, to: s.result()}
		err := u.attach(ctx, to, id)
		if err != nil && (errors.Is(err, girder.ErrNoRoute) || girder.IsOutage(err) || context.Cause(ctx) != nil) {
			return err
		}
		refused = errors.Join(refused, err)
	}
	return refused
}

// attach attaches the file, unless an earlier process did.
func (u *upload) attach(ctx context.Context, to Attacher, job girder.JobID) error {
	file, local, err := open(u.root, u.path)
	if err != nil {
		return err
	}
	defer file.Close()
	u.opened(local)
	if u.isSent() {
		return nil
	}
	u.content = newContent(file, u.size)
	defer u.content.close()
	begun, ok := u.Memory.Begun[NotedPath(u.path)]
	u.unsure = ok && begun.Local == local
	var doc girder.File
	err = u.Retry.Do(ctx, u.waiting, func() (bool, error) {
		var err error
		if err = u.lookBefore(ctx, to, job); err != nil {
			return false, err
		}
		doc, err = u.request(ctx, to, job)
		return false, u.blame(err)
	})
	if err == nil {
		err = u.content.hashTo(u.size)
	}
	if err == nil {
		err = u.unchanged()
	}
	if err == nil && !u.isOurs(doc) {
		err = ErrOtherBytes // and to attach it once more would not take these away
	}
	if err != nil {
		return about(u.path, err)
	}
	if u.known != nil {
		u.known[doc.ID] = true
	}
	u.arrived(contracts.GirderSent{Name: u.name, FileID: string(doc.ID), Size: u.size, SHA512: u.content.checksum()})
	return nil
}

// lookBefore learns, once, what was attached to the job before the first request
// of this step, as by an earlier attempt, and notes it. Where Girder does not
// list it, that stays unknown.
func (s *sending) lookBefore(ctx context.Context, to Attacher, job girder.JobID) error {
	if s.looked {
		return nil
	}
	before := s.Memory.Attached
	if before == nil {
		files, err := to.JobArtifacts(ctx, job)
		if girder.IsOutage(err) || err != nil && context.Cause(ctx) != nil {
			return err
		}
		s.looked = true
		if err != nil {
			s.Log.Warn().Err(err).Msg("not known what is attached to the job; an artifact whose answer is lost is sent again")
			return nil
		}
		before = new(Attached)
		for _, file := range files {
			before.IDs = append(before.IDs, file.ID)
		}
		if err := s.Remember.note(Note{Attached: before}); err != nil {
			return fmt.Errorf("write down what is attached: %w", err)
		}
	}
	s.looked, s.known = true, map[girder.FileID]bool{}
	for _, id := range before.IDs {
		s.known[id] = true
	}
	for _, sent := range s.Memory.Sent {
		s.known[girder.FileID(sent.File.FileID)] = true
	}
	return nil
}

// request sends the file, unless a request of unknown finish did: then there is
// one of its name and size that was not there before.
func (u *upload) request(ctx context.Context, to Attacher, job girder.JobID) (girder.File, error) {
	if u.unsure && u.known != nil {
		files, err := to.JobArtifacts(ctx, job)
		if girder.IsOutage(err) {
			return girder.File{}, err
		}
		for _, file := range files {
			if !u.known[file.ID] && file.Name == u.name && file.Size != nil && *file.Size == u.size {
				return file, nil
			}
		}
	}
	if err := u.unchanged(); err != nil {
		return girder.File{}, err
	}
	if err := u.Remember.note(Note{Begun: &Begun{Path: NotedPath(u.path), Local: u.local}}); err != nil {
		return girder.File{}, fmt.Errorf("write down that it begins: %w", err)
	}
	if err := u.allowed(ctx); err != nil {
		return girder.File{}, err
	}
	body := u.content.chunk(0, u.size, u.moved)
	file, err := to.UploadArtifact(ctx, job, girder.Artifact{Name: u.name, Size: u.size, MIMEType: mimeType(u.name)}, body)
	u.unsure = u.unsure || girder.IsOutage(err)
	return file, err
}
