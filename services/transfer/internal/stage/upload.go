package stage

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/gantry-worker/gantry/services/internal/girder"
)

// cleanupTime is how long canceling an upload in Girder may take, answerTime
// how long the answer to its beginning is waited for after the context's end.
const (
	cleanupTime = 10 * time.Second
	answerTime  = 3 * time.Second
)

// wrongBytes is how often bytes that Girder has and nobody sent are replaced.
const wrongBytes = 3

// upload is the way of one file into Girder. Requests that change something
// there have an unknown finish when no answer comes; before anything is sent
// again, Girder is asked what it has.
type upload struct {
	*sending
	path    string
	name    string
	into    *Target // nil: into the item
	size    int64
	local   Local
	content *content
	moved   func(bytes int64)

	id      girder.UploadID // of the upload under way, empty for none
	offset  int64           // what the server has, unless asking
	asking  bool            // the offset is not known
	unsure  bool            // the file may be complete already
	summed  bool            // its checksum is noted
	seen    bool            // it was looked what was there at the start
	old     *girder.File    // the file that was there then, to be replaced
	current *girder.File    // the same, or ours, at the last look
	wrong   int             // how often Girder had other bytes in the end
	spoiled girder.FileID   // the file that has them
}

// afresh is the upload without what it came to.
func (u *upload) afresh() *upload {
	return &upload{
		sending: u.sending, path: u.path, name: u.name, into: u.into, size: u.size, local: u.local, content: u.content, moved: u.moved,
	}
}

// resume goes on with what an earlier process began, of which it is not known
// how far it came. An upload of another state of the file is canceled.
func (u *upload) resume(ctx context.Context) error {
	if begun := u.Memory.Begun; begun != nil && begun.Path == NotedPath(u.path) && begun.Local == u.local && u.into != nil {
		u.unsure, u.seen = true, true
		u.replaces(begun.OldID, begun.OldCreated)
	}
	p := u.Memory.Pending
	if p == nil || p.Path != NotedPath(u.path) {
		return nil
	}
	u.id, u.asking, u.seen, u.summed = p.ID, true, true, p.SHA512 != ""
	u.replaces(p.OldID, p.OldCreated)
	if p.Local == u.local {
		return nil
	}
	err := u.cancel(ctx)
	*u = *u.afresh()
	return err
}

func (u *upload) replaces(id girder.FileID, created string) {
	if id != "" {
		u.old = &girder.File{ID: id, Created: created}
	}
}

func (u *upload) run(ctx context.Context) (girder.File, error) {
	var done *girder.File
	err := u.Retry.Do(ctx, u.waiting, func() (progress bool, err error) {
		before := u.offset
		done, err = u.step(ctx)
		return u.offset > before, u.blame(err)
	})
	if err != nil {
		return girder.File{}, errors.Join(err, u.cancel(ctx))
	}
	return *done, nil
}

// blame puts an error of the disk before what it did to the request.
func (u *upload) blame(err error) error {
	if err != nil && u.content.err != nil {
		return u.content.err
	}
	return err
}

// step goes from whatever state the last error left to the finished file, and
// sends it anew where Girder has other bytes.
func (u *upload) step(ctx context.Context) (*girder.File, error) {
	done, err := u.advance(ctx)
	if done == nil || err != nil {
		return nil, err
	}
	if err := u.content.hashTo(u.size); err != nil {
		return nil, err
	}
	if done.SHA512 == "" || strings.EqualFold(done.SHA512, u.content.checksum()) {
		return done, nil
	}
	wrong := u.wrong + 1
	*u = *u.afresh()
	u.content, u.wrong, u.spoiled = newContent(u.content.file), wrong, done.ID
	if u.wrong < wrongBytes {
		return nil, &girder.Unreachable{Method: "POST", Path: "file/chunk", Err: ErrOtherBytes}
	}
	return nil, ErrOtherBytes
}

func (u *upload) advance(ctx context.Context) (*girder.File, error) {
	if u.id != "" && u.asking {
		if err := u.ask(ctx); err != nil {
			return nil, err
		}
	}
	if u.id == "" {
		if done, err := u.begin(ctx); done != nil || err != nil {
			return done, err
		}
	}
	return u.send(ctx)
}

// ask learns how much of the upload the server has. An upload that it does not
// know any more was finished, or canceled by somebody.
func (u *upload) ask(ctx context.Context) error {
	offset, err := u.Sink.UploadOffset(ctx, u.id)
	switch {
	case errors.Is(err, girder.ErrNotFound):
		u.id, u.offset, u.unsure = "", 0, true
		return nil
	case err != nil:
		return err
	case offset < 0 || offset > u.size:
		return fmt.Errorf("girder has %d bytes of a file of %d", offset, u.size)
	}
	u.offset, u.asking = offset, false
	return nil
}

// begin starts an upload, or returns the file where it turns out to be there.
func (u *upload) begin(ctx context.Context) (*girder.File, error) {
	if err := u.look(ctx); err != nil {
		return nil, err
	}
	if u.unsure && u.isNew() {
		return u.current, nil
	}
	if u.size == 0 {
		if err := u.last(ctx); err != nil {
			return nil, err
		}
	}
	up, err := u.start(ctx)
	if err != nil {
		u.unsure = u.unsure || girder.IsTemporary(err)
		return nil, err
	}
	if up.File != nil {
		return up.File, nil
	}
	u.id, u.offset, u.asking, u.unsure = up.ID, up.Received, false, false
	if u.into != nil && u.size <= u.Chunk { // one chunk, and one note
		err = u.content.hashTo(u.size)
	}
	return nil, errors.Join(u.remember(), err, context.Cause(ctx))
}

// start asks for an upload. The request is not cut off when the context ends:
// only its answer says what to cancel then.
func (u *upload) start(ctx context.Context) (girder.Upload, error) {
	ctx, stop := lasting(ctx, answerTime)
	defer stop()
	if u.current != nil {
		return u.Sink.ReplaceContents(ctx, u.current.ID, u.size, u.Reference)
	}
	parent := girder.InItem(u.Item)
	if u.into != nil {
		parent = girder.InFolder(u.into.ID)
	}
	return u.Sink.StartUpload(ctx, girder.NewFile{
		Parent: parent, Name: u.name, Size: u.size, MIMEType: mimeType(u.name), Reference: u.Reference,
	})
}

// last is called before the request that makes the file appear: nothing can be
// taken back after it.
func (u *upload) last(ctx context.Context) error {
	if err := u.unchanged(); err != nil {
		return err
	}
	if u.into != nil {
		if err := u.noteLast(); err != nil {
			return err
		}
	}
	return u.allowed(ctx)
}

// noteLast notes how the file is to be known in the folder.
func (u *upload) noteLast() error {
	if u.size > 0 {
		if u.summed {
			return nil
		}
		if err := u.content.hashTo(u.size); err != nil {
			return err
		}
		return u.remember()
	}
	begun := Begun{Path: NotedPath(u.path), Local: u.local}
	if u.old != nil {
		begun.OldID, begun.OldCreated = u.old.ID, u.old.Created
	}
	if err := u.Remember.note(Note{Begun: &begun}); err != nil {
		return fmt.Errorf("write down that it begins: %w", err)
	}
	return nil
}

// unchanged looks whether the file is the one that was opened.
func (u *upload) unchanged() error {
	info, err := u.root.Lstat(u.path)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return ErrVanished
	case err != nil:
		return onVolume(u.path, err)
	case localOf(info) != u.local:
		return ErrChanged
	}
	return nil
}

// look finds the file that is there already: one of this name in the item, or
// the one that this job put into the folder.
func (u *upload) look(ctx context.Context) (err error) {
	first := !u.seen
	switch {
	case u.into == nil:
		u.current, err = u.inItem(ctx)
	case first && u.spoiled != "":
		u.current, err = u.still(ctx, string(u.spoiled), u.into)
	case first:
		u.current, err = u.before(ctx, u.path, u.name, u.into)
	default:
		u.current, err = u.inFolder(ctx)
	}
	if err == nil && first {
		u.seen, u.old = true, u.current
	}
	return err
}

// inItem finds the file of this name in the item; of several the first.
func (u *upload) inItem(ctx context.Context) (*girder.File, error) {
	for file, err := range u.Sink.ListItemFiles(ctx, u.Item) {
		if err != nil {
			return nil, err
		}
		if file.Name == u.name {
			return &file, nil
		}
	}
	return nil, nil
}

// inFolder finds the file that is being replaced, or what a new one has become.
func (u *upload) inFolder(ctx context.Context) (*girder.File, error) {
	if u.old != nil {
		if file, err := u.still(ctx, string(u.old.ID), u.into); file != nil || err != nil {
			return file, err
		}
	}
	if !u.unsure {
		return nil, nil
	}
	if err := u.content.hashTo(u.size); err != nil {
		return nil, err
	}
	return u.find(ctx, *u.into, u.name, u.size, u.content.checksum())
}

// isNew reports whether the last listing shows what an upload of ours left: a
// file of the size that was not there, or was created anew, as Girder says of
// a file whose contents were replaced.
func (u *upload) isNew() bool {
	is := u.current
	if is == nil || is.Size == nil || *is.Size != u.size {
		return false
	}
	return u.old == nil || u.old.ID != is.ID || u.old.Created != is.Created
}

// send sends chunks until the server has all of the file.
func (u *upload) send(ctx context.Context) (*girder.File, error) {
	if err := u.content.hashTo(u.offset); err != nil { // what an earlier process sent
		return nil, err
	}
	for {
		length := min(u.Chunk, u.size-u.offset)
		if u.offset+length == u.size {
			if err := u.last(ctx); err != nil {
				return nil, err
			}
		}
		body := u.content.chunk(u.offset, length, u.moved)
		up, err := u.Sink.UploadChunk(ctx, u.id, u.offset, body, length)
		if err != nil {
			u.asking = true
			return nil, u.refused(ctx, err)
		}
		if up.File != nil {
			u.offset = u.size
			u.moved(u.size)
			return up.File, nil
		}
		if up.Received <= u.offset {
			u.asking = true
			return nil, fmt.Errorf("girder took %d bytes and has %d of %d", length, up.Received, u.size)
		}
		u.offset = up.Received
	}
}

// refused decides about a refused chunk: one for an upload that is not there
// any more, or that has another offset, may be the echo of a chunk that did
// arrive, and Girder is asked again.
func (u *upload) refused(ctx context.Context, err error) error {
	var refusal *girder.Error
	if girder.IsTemporary(err) || !errors.As(err, &refusal) || refusal.Status != 400 {
		return err
	}
	had := u.offset
	if asked := u.ask(ctx); asked != nil {
		return asked
	}
	if u.id != "" && u.offset == had {
		return err // Girder has what we thought, and refuses what follows
	}
	return &girder.Unreachable{Method: refusal.Method, Path: refusal.Path, Err: err}
}

// cancel throws an unfinished upload away, on time of its own: the context may
// have ended. One that is suspended stays.
func (u *upload) cancel(ctx context.Context) error {
	if u.id == "" || errors.Is(context.Cause(ctx), ErrSuspended) {
		return nil
	}
	clean, stop := context.WithTimeout(context.WithoutCancel(ctx), cleanupTime)
	defer stop()
	err := Cancel(clean, u.Sink, u.id)
	if err != nil {
		u.Log.Warn().Err(err).Str("upload", string(u.id)).Msg("an unfinished upload stays in girder")
		return nil // the caller learns why the upload ended; the memory still has it
	}
	return u.Remember.note(Note{Canceled: u.id})
}

// lasting returns a context that ends some time after its parent.
func lasting(parent context.Context, d time.Duration) (ctx context.Context, stop func()) {
	ctx, cancel := context.WithCancelCause(context.WithoutCancel(parent))
	unhook := context.AfterFunc(parent, func() {
		time.AfterFunc(d, func() { cancel(context.Cause(parent)) }) // does nothing after stop
	})
	return ctx, func() {
		unhook()
		cancel(nil)
	}
}

// remember notes the upload before a byte of it is sent, and its checksum
// before the last one is.
func (u *upload) remember() error {
	pending := Pending{Path: NotedPath(u.path), Local: u.local, ID: u.id}
	if u.content.hashed == u.size {
		pending.SHA512 = u.content.checksum()
	}
	if u.old != nil {
		pending.OldID, pending.OldCreated = u.old.ID, u.old.Created
	}
	if err := u.Remember.note(Note{Pending: &pending}); err != nil {
		return fmt.Errorf("write down upload %s: %w", u.id, err)
	}
	u.summed = pending.SHA512 != ""
	return nil
}

// Canceler throws away unfinished uploads.
type Canceler interface {
	CancelUpload(ctx context.Context, id girder.UploadID) error
}

// Cancel throws an unfinished upload away, tried again while the context lasts. One that is gone is no error.
func Cancel(ctx context.Context, c Canceler, id girder.UploadID) error {
	err := girder.Retry{Total: cleanupTime}.Do(ctx, nil, func() (bool, error) { return false, c.CancelUpload(ctx, id) })
	if errors.Is(err, girder.ErrNotFound) {
		return nil
	}
	return err
}
