package stage

import (
	"context"
	"fmt"
	"io"
	"iter"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"

	"github.com/go-json-experiment/json"

	"github.com/gantry-worker/gantry/services/internal/girder"
)

// network is between a process and a fakeGirder, and the process's disk. What
// the process asks for waits in it, twice: before it is done, and before the
// process hears of it. The test lets one thing go on after the other, or ends
// the process with all that is on its way, each of it done or not.
//
// It runs in a bubble of synctest: when all goroutines of the process wait, it
// is known what is on its way at the same time.
type network struct {
	*fakeGirder
	disk *keeper
	dice *rand.Rand // guarded by mu

	arrived chan struct{} // something waits

	mu      sync.Mutex
	waiting []*event
	dead    bool
	most    int // requests that waited at a time
	loss    int // of so many events one is lost

	lines  [][]byte // written to the disk
	synced int      // of which a crash of the machine leaves so many

	noted map[girder.UploadID]bool // whose ids reached the disk
	begun map[string][]girder.UploadID
}

// event is something that waits.
type event struct {
	what string
	pass chan fate
}

// fate is how it goes on.
type fate int

const (
	passes fate = iota
	lost        // or not: only the process does not know
	never       // the process was dead
)

func newNetwork(f *fakeGirder, seed uint64) *network {
	return &network{
		fakeGirder: f, disk: new(keeper), dice: rand.New(rand.NewPCG(seed, 0)),
		arrived: make(chan struct{}, 1), noted: map[girder.UploadID]bool{}, begun: map[string][]girder.UploadID{},
	}
}

// wait is where what is on its way waits.
func (n *network) wait(ctx context.Context, what string) fate {
	n.mu.Lock()
	if n.dead {
		n.mu.Unlock()
		return never
	}
	e := &event{what: what, pass: make(chan fate, 1)}
	n.waiting = append(n.waiting, e)
	n.mu.Unlock()
	select {
	case n.arrived <- struct{}{}:
	default:
	}
	select {
	case how := <-e.pass:
		return how
	case <-ctx.Done():
		n.mu.Lock()
		defer n.mu.Unlock()
		n.waiting = slices.DeleteFunc(n.waiting, func(other *event) bool { return other == e })
		return lost
	}
}

// flip is one of two, each as likely.
func (n *network) flip() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.dice.IntN(2) == 0
}

// carry takes a request there and its answer back. One that is lost on its way
// there may have come to Girder all the same.
func (n *network) carry(ctx context.Context, what string, do func() error) error {
	switch n.wait(ctx, what) {
	case never:
		return errCut
	case lost:
		if n.flip() {
			_ = do()
		}
		return errCut
	case passes:
	}
	if err := do(); err != nil {
		return err
	}
	if n.wait(ctx, what+" answered") != passes {
		return errCut
	}
	return nil
}

// step lets one thing of what waits go on, or be lost. It reports whether
// anything did wait.
func (n *network) step() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(n.waiting) == 0 {
		return false
	}
	n.most = max(n.most, len(n.waiting))
	slices.SortStableFunc(n.waiting, func(a, b *event) int { return strings.Compare(a.what, b.what) })
	i := n.dice.IntN(len(n.waiting))
	how := passes
	if n.loss > 0 && !strings.HasPrefix(n.waiting[i].what, "note") && n.dice.IntN(n.loss) == 0 {
		how = lost
	}
	n.waiting[i].pass <- how
	n.waiting = slices.Delete(n.waiting, i, i+1)
	return true
}

// die ends the process: nothing of it is heard of any more.
func (n *network) die() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.dead = true
	for _, e := range n.waiting {
		e.pass <- lost
	}
	n.waiting = nil
}

// remember is the disk. A process that dies before a note is written may have
// written it, or not.
func (n *network) remember(note Note) error {
	if how := n.wait(context.Background(), "note"); how == never || how == lost && n.flip() {
		return errCut
	}
	if err := n.write(note); err != nil {
		return err
	}
	if n.wait(context.Background(), "note written") != passes {
		return errCut
	}
	return nil
}

func (n *network) write(note Note) error {
	line, err := json.Marshal(note)
	if err != nil {
		return err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.lines = append(n.lines, line)
	if !note.Later && (note.Pending != nil || note.Begun != nil) {
		n.synced = len(n.lines)
	}
	if note.Pending != nil {
		n.noted[note.Pending.ID] = true
	}
	return n.disk.read(line)
}

// cutPower takes from the disk what need not have reached it.
func (n *network) cutPower() error {
	n.lines = n.lines[:n.synced]
	n.disk = new(keeper)
	clear(n.noted)
	for _, line := range n.lines {
		var note Note
		if err := json.Unmarshal(line, &note); err != nil {
			return err
		}
		if note.Pending != nil {
			n.noted[note.Pending.ID] = true
		}
		if note.Begun != nil && note.Begun.Boot != "" {
			note.Begun.Boot = "before the crash"
		}
		n.disk.Add(note)
	}
	return nil
}

func (n *network) GetFile(ctx context.Context, id girder.FileID) (doc girder.File, err error) {
	err = n.carry(ctx, "get", func() error { doc, err = n.fakeGirder.GetFile(ctx, id); return err })
	return doc, err
}

func (n *network) GetItem(ctx context.Context, id girder.ItemID) (doc girder.Item, err error) {
	err = n.carry(ctx, "get item", func() error { doc, err = n.fakeGirder.GetItem(ctx, id); return err })
	return doc, err
}

func (n *network) ListItemFiles(ctx context.Context, id girder.ItemID) iter.Seq2[girder.File, error] {
	var files iter.Seq2[girder.File, error]
	err := n.carry(ctx, "list", func() error { files = n.fakeGirder.ListItemFiles(ctx, id); return nil })
	if err != nil {
		return func(yield func(girder.File, error) bool) { yield(girder.File{}, err) }
	}
	return files
}

func (n *network) FilesPage(ctx context.Context, id girder.ItemID, offset int) (page []girder.File, err error) {
	err = n.carry(ctx, "files", func() error { page, err = n.fakeGirder.FilesPage(ctx, id, offset); return err })
	return page, err
}

func (n *network) NewestItems(ctx context.Context, id girder.FolderID, offset int) (page []girder.Item, err error) {
	err = n.carry(ctx, "newest", func() error { page, err = n.fakeGirder.NewestItems(ctx, id, offset); return err })
	return page, err
}

// CreateFolder takes off the space around a name, as Girder does.
func (n *network) CreateFolder(ctx context.Context, parent girder.FolderID, name string, reuse bool) (doc girder.Folder, err error) {
	err = n.carry(ctx, "create folder", func() error {
		doc, err = n.fakeGirder.CreateFolder(ctx, parent, strings.TrimSpace(name), reuse)
		return err
	})
	return doc, err
}

func (n *network) DownloadFile(ctx context.Context, id girder.FileID, offset int64) (body *girder.Download, err error) {
	err = n.carry(ctx, "download", func() error { body, err = n.fakeGirder.DownloadFile(ctx, id, offset); return err })
	return body, err
}

func (n *network) StartUpload(ctx context.Context, f girder.NewFile) (up girder.Upload, err error) {
	err = n.carry(ctx, "start "+f.Name, func() error { up, err = n.fakeGirder.StartUpload(ctx, f); return n.begins(f.Name, up, err) })
	return up, err
}

func (n *network) ReplaceContents(ctx context.Context, id girder.FileID, size int64, reference string) (up girder.Upload, err error) {
	err = n.carry(ctx, "replace", func() error {
		up, err = n.fakeGirder.ReplaceContents(ctx, id, size, reference)
		return n.begins(string(id), up, err)
	})
	return up, err
}

func (n *network) begins(what string, up girder.Upload, err error) error {
	if up.ID != "" {
		n.mu.Lock()
		defer n.mu.Unlock()
		n.begun[what] = append(n.begun[what], up.ID)
	}
	return err
}

// UploadChunk of which the connection breaks amid the bytes leaves some of them,
// or none.
func (n *network) UploadChunk(ctx context.Context, id girder.UploadID, offset int64, body io.Reader, length int64) (up girder.Upload, err error) {
	what := fmt.Sprint("chunk ", offset)
	switch n.wait(ctx, what) {
	case never:
		return up, errCut
	case lost:
		if part := n.part(length); part < length {
			n.take(id, offset, io.LimitReader(body, part))
		} else {
			_, _ = n.fakeGirder.UploadChunk(ctx, id, offset, body, length)
		}
		return up, errCut
	case passes:
	}
	if up, err = n.fakeGirder.UploadChunk(ctx, id, offset, body, length); err != nil {
		return up, err
	}
	if n.wait(ctx, what+" answered") != passes {
		return girder.Upload{}, errCut
	}
	return up, nil
}

func (n *network) part(length int64) int64 {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.dice.Int64N(length + 1)
}

// take leaves the begin of a chunk in Girder.
func (n *network) take(id girder.UploadID, offset int64, body io.Reader) {
	n.fakeGirder.mu.Lock()
	defer n.fakeGirder.mu.Unlock()
	if u := n.uploads[id]; u != nil && int64(u.data.Len()) == offset {
		_, _ = io.Copy(&u.data, body)
	}
}

func (n *network) UploadOffset(ctx context.Context, id girder.UploadID) (offset int64, err error) {
	err = n.carry(ctx, "offset", func() error { offset, err = n.fakeGirder.UploadOffset(ctx, id); return err })
	return offset, err
}

func (n *network) CancelUpload(ctx context.Context, id girder.UploadID) error {
	return n.carry(ctx, "cancel", func() error { return n.fakeGirder.CancelUpload(ctx, id) })
}
