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

// upload is the way of one file into an item. Requests that change something
// in Girder have an unknown finish when no answer comes; before anything is
// sent again, Girder is asked what it has.
type upload struct {
	out     Out
	path    string
	name    string
	size    int64
	local   Local
	content *content
	moved   func(bytes int64)

	id      girder.UploadID // of the upload under way, empty for none
	offset  int64           // what the server has, unless asking
	asking  bool            // the offset is not known
	unsure  bool            // the file may be complete already
	seen    bool            // the item was listed at the start
	old     *girder.File    // the file of this name that was in the item then
	current *girder.File    // the file of this name in the last listing
	wrong   int             // how often Girder had other bytes in the end
}

func newUpload(o Out, path, name string, file *os.File, local Local) *upload {
	return &upload{out: o, path: path, name: name, size: local.Size, local: local, content: newContent(file)}
}

// resume goes on with an upload of an earlier process, of which it is not
// known how far it came.
func (u *upload) resume(p *Pending) {
	u.id, u.asking, u.seen = p.ID, true, true
	if p.OldID != "" {
		u.old = &girder.File{ID: p.OldID, Created: p.OldCreated}
	}
}

func (u *upload) run(ctx context.Context) (girder.File, error) {
	var done *girder.File
	err := u.out.Retry.Do(ctx, u.out.waiting, func() (progress bool, err error) {
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
	*u = upload{
		out: u.out, path: u.path, name: u.name, size: u.size, local: u.local, content: newContent(u.content.file),
		moved: u.moved, wrong: u.wrong + 1,
	}
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
	offset, err := u.out.Sink.UploadOffset(ctx, u.id)
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
		if err := u.out.allowed(ctx); err != nil {
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
	return nil, errors.Join(u.remember(), context.Cause(ctx))
}

// start asks for an upload. The request is not cut off when the context ends:
// only its answer says what to cancel then.
func (u *upload) start(ctx context.Context) (girder.Upload, error) {
	ctx, stop := lasting(ctx, answerTime)
	defer stop()
	if u.current != nil {
		return u.out.Sink.ReplaceContents(ctx, u.current.ID, u.size, u.out.Reference)
	}
	return u.out.Sink.StartUpload(ctx, girder.NewFile{
		Parent: girder.InItem(u.out.Item), Name: u.name, Size: u.size, MIMEType: mimeType(u.name), Reference: u.out.Reference,
	})
}

// look finds the file of this name in the item; of several the first.
func (u *upload) look(ctx context.Context) error {
	u.current = nil
	for file, err := range u.out.Sink.ListItemFiles(ctx, u.out.Item) {
		if err != nil {
			return err
		}
		if file.Name == u.name {
			u.current = &file
			break
		}
	}
	if !u.seen {
		u.seen, u.old = true, u.current
	}
	return nil
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
		length := min(u.out.Chunk, u.size-u.offset)
		if u.offset+length == u.size {
			if err := u.out.allowed(ctx); err != nil {
				return nil, err
			}
		}
		body := u.content.chunk(u.offset, length, u.moved)
		up, err := u.out.Sink.UploadChunk(ctx, u.id, u.offset, body, length)
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
	err := Cancel(clean, u.out.Sink, u.id)
	if err != nil {
		u.out.Log.Warn().Err(err).Str("upload", string(u.id)).Msg("an unfinished upload stays in girder")
		return nil // the caller learns why the upload ended; the memory still has it
	}
	return u.out.Remember.note(Note{Canceled: u.id})
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

// remember notes the upload before a byte of it is sent.
func (u *upload) remember() error {
	pending := Pending{Path: u.path, Local: u.local, ID: u.id}
	if u.old != nil {
		pending.OldID, pending.OldCreated = u.old.ID, u.old.Created
	}
	if err := u.out.Remember.note(Note{Pending: &pending}); err != nil {
		return fmt.Errorf("write down upload %s: %w", u.id, err)
	}
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
