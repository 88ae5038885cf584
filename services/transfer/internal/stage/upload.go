package stage

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/services/internal/girder"
)

// answerTime is how long the answer to the beginning of an upload is waited for
// after the context's end. Tests in which it always comes wait for longer.
var answerTime = 3 * time.Second

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
	to      *contracts.GirderSent // the result
	told    int64                 // how much of it the progress has

	foretold Local           // what was noted of it before
	id       girder.UploadID // of the upload under way, empty for none
	offset   int64           // what the server has, unless asking
	asking   bool            // the offset is not known
	unsure   bool            // the file may be complete already
	summed   bool            // its checksum is noted
	seen     bool            // it was looked what was there at the start
	old      *girder.File    // the file that was there then, to be replaced
	current  *girder.File    // the same, or ours, at the last look
	relisted bool            // the item was listed for this file alone
	wrong    int             // how often Girder had other bytes in the end
	spoiled  girder.FileID   // the file that has them
}

// afresh is the upload without what it came to.
func (u *upload) afresh() *upload {
	return &upload{
		sending: u.sending, path: u.path, name: u.name, into: u.into, size: u.size, local: u.local,
		content: u.content, to: u.to, told: u.told, foretold: u.foretold,
	}
}

// deliver brings the file into Girder.
func (u *upload) deliver(ctx context.Context) error {
	file, local, err := open(u.root, u.path)
	if u.path != u.sending.path && errors.Is(err, ErrMissing) {
		err = about(u.path, ErrVanished)
	}
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
	doc, err := u.run(ctx)
	if err != nil {
		return about(u.path, err)
	}
	u.arrived(contracts.GirderSent{
		Name: doc.Name, FileID: string(doc.ID), ItemID: string(doc.ItemID), Size: u.size, SHA512: u.content.checksum(),
	})
	return nil
}

// opened takes in which state of the file is sent.
func (u *upload) opened(local Local) {
	u.expect(local.Size - u.size)
	u.size, u.local = local.Size, local
}

// isSent reports whether an earlier process sent the file as it is.
func (u *upload) isSent() bool {
	sent, ok := u.Memory.Sent[NotedPath(u.path)]
	if !ok || sent.Local != u.local {
		return false
	}
	*u.to = sent.File
	u.found(u.size)
	return true
}

// arrived takes in that the file is in Girder.
func (u *upload) arrived(sent contracts.GirderSent) {
	*u.to = sent
	u.take(sent)
	if err := u.Remember.note(Note{Sent: &Sent{Path: NotedPath(u.path), Local: u.local, File: sent}}); err != nil {
		u.Log.Warn().Err(err).Msg("not noted that a file is in girder")
	}
}

// moved tells the progress how much of the file was sent. What is sent again
// does not count again.
func (u *upload) moved(bytes int64) { u.tell(bytes, false) }

// found tells the progress how much of the file was in Girder before.
func (u *upload) found(bytes int64) { u.tell(bytes, true) }

func (u *upload) tell(bytes int64, found bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	more := bytes - u.told
	if more <= 0 {
		return
	}
	u.told = bytes
	u.done += more
	if found && u.Found != nil {
		u.Found(more)
	}
	if u.Progress != nil {
		u.Progress(u.what(u.name), u.done, max(u.done, u.total))
	}
}

// resume goes on with what an earlier process began, of which it is not known
// how far it came. An upload of another state of the file is canceled.
func (u *upload) resume(ctx context.Context) error {
	path := NotedPath(u.path)
	if begun, ok := u.Memory.Begun[path]; ok && begun.mayBeSent() && begun.Local == u.local && u.into != nil {
		u.unsure, u.seen = true, true
		u.replaces(begun.OldID, begun.OldCreated)
	}
	p, ok := u.Memory.Pending[path]
	if !ok {
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
	if err := u.resume(ctx); err != nil {
		return girder.File{}, err
	}
	var done *girder.File
	err := u.Retry.Do(ctx, u.waiting, func() (progress bool, err error) {
		before := u.offset
		done, err = u.step(ctx)
		return u.offset > before, u.blame(err)
	})
	if err != nil {
		return girder.File{}, errors.Join(err, u.cancel(ctx))
	}
	return *done, u.unchanged()
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
	if u.isOurs(*done) {
		return done, nil
	}
	if err := u.noteSpoiled(done); err != nil {
		return nil, err
	}
	wrong := u.wrong + 1
	*u = *u.afresh()
	u.wrong, u.spoiled = wrong, done.ID
	u.content.restart()
	if u.wrong < wrongBytes {
		return nil, &girder.Unreachable{Method: "POST", Path: "file/chunk", Err: ErrOtherBytes}
	}
	return nil, ErrOtherBytes
}

// noteSpoiled notes that a file with other bytes is ours, to be replaced. A
// process that dies before that leaves it: nothing tells it from somebody else's.
func (u *upload) noteSpoiled(file *girder.File) error {
	pending := Pending{
		Path: NotedPath(u.path), Local: u.local, ID: u.id, SHA512: u.content.checksum(), OldID: file.ID, OldCreated: file.Created,
	}
	if err := u.Remember.note(Note{Pending: &pending}); err != nil {
		return fmt.Errorf("write down what upload %s came to: %w", u.id, err)
	}
	return nil
}

// isOurs reports whether a file in Girder has the bytes of ours, where Girder
// tells. All of ours is hashed.
func (u *upload) isOurs(file girder.File) bool {
	return file.SHA512 == "" || strings.EqualFold(file.SHA512, u.content.checksum())
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
	u.found(offset)
	return nil
}

// begin starts an upload, or returns the file where it turns out to be there.
func (u *upload) begin(ctx context.Context) (*girder.File, error) {
	if err := u.look(ctx); err != nil {
		return nil, err
	}
	if u.unsure && u.isNew() {
		u.found(u.size)
		return u.current, nil
	}
	if u.size == 0 {
		if err := u.last(ctx); err != nil {
			return nil, err
		}
	}
	if u.into != nil && u.length() == u.size { // one chunk, and one note, without delay behind the answer
		if err := u.content.hashTo(u.size); err != nil {
			return nil, err
		}
	}
	up, err := u.start(ctx)
	if u.isGone(err) {
		*u = *u.afresh()
		u.relisted = true
		return nil, tryAgain(err)
	}
	if err != nil {
		u.unsure = u.unsure || girder.IsOutage(err)
		return nil, err
	}
	if up.File != nil {
		return up.File, nil
	}
	u.id, u.offset, u.asking, u.unsure = up.ID, up.Received, false, false
	return nil, errors.Join(u.remember(), context.Cause(ctx))
}

// isGone reports whether the file to be replaced was in the item when that was
// listed for all files, and is not any more.
func (u *upload) isGone(err error) bool {
	return u.current != nil && u.into == nil && !u.relisted && errors.Is(err, girder.ErrNotFound)
}

// start asks for an upload. The request is not cut off when the context ends:
// only its answer says what to cancel then.
func (u *upload) start(ctx context.Context) (girder.Upload, error) {
	if ctx.Err() != nil {
		return girder.Upload{}, context.Cause(ctx)
	}
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

// isForetold reports whether a note from before the beginning says all that a
// later process has to know to find the file.
func (u *upload) isForetold() bool { return u.foretold == u.local && u.old == nil }

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
	// A file that goes into an item is found there by its name.
	later := u.isForetold() || u.into == nil && u.isSmall(u.size)
	if err := u.Remember.note(Note{Pending: &pending, Later: later}); err != nil {
		return fmt.Errorf("write down upload %s: %w", u.id, err)
	}
	u.summed = pending.SHA512 != ""
	return nil
}
