package stage

import (
	"context"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/gantry-worker/gantry/services/internal/girder"
	"github.com/gantry-worker/gantry/services/internal/volume"
	"github.com/gantry-worker/gantry/services/transfer/internal/cache"
)

// mostPlaced is how many files are remembered for other steps of their tasks.
const mostPlaced = 10_000

// aLongWait is how long somebody else may need for a file, which nobody knows.
const aLongWait = time.Hour

// Fetches knows what the steps of a process fetch, so that nothing is fetched
// twice at a time, and where on their volumes the files are that they have
// brought.
type Fetches struct {
	mu     sync.Mutex
	turns  map[cache.ID]*turn
	placed map[cache.ID]placedAt
	oldest []cache.ID // of those placed, in their order

	giveAgain time.Duration
}

// turn is who may fetch a file.
type turn struct {
	token chan struct{} // has one while nobody fetches
	users int
}

// placedAt is a file on a volume, as it was when it came there.
type placedAt struct {
	volume, path string
	state        state
}

// state tells whether a file was touched at all: other than its size and its
// times, nobody can set back when it was changed.
type state struct {
	Local
	changed int64 // nanoseconds
}

func stateOf(info os.FileInfo) state {
	now := state{Local: localOf(info)}
	if stat, ok := info.Sys().(*syscall.Stat_t); ok {
		now.changed = stat.Ctim.Nano()
	}
	return now
}

// NewFetches is for all steps of a process.
func NewFetches() *Fetches {
	return &Fetches{turns: map[cache.ID]*turn{}, placed: map[cache.ID]placedAt{}, giveAgain: 5 * time.Second}
}

// take waits until nobody else fetches a file. What it returns lets the next
// one, and may be called more than once. Whoever fetches it may have to wait for
// a place that the step has by now: it gives it away, again and again, since
// another file of the step may have taken it back.
func (f *Fetches) take(ctx context.Context, id cache.ID, turns girder.Turns) (leave func(), err error) {
	t := f.enter(id)
	again := time.NewTicker(f.giveAgain)
	defer again.Stop()
	for {
		if turns != nil {
			turns.Give(aLongWait)
		}
		select {
		case <-t.token:
			return f.leaver(id, t), nil
		case <-again.C:
		case <-ctx.Done():
			f.left(id, t)
			return nil, context.Cause(ctx)
		}
	}
}

// takeFree is take where nobody fetches the file.
func (f *Fetches) takeFree(id cache.ID) (leave func(), free bool) {
	t := f.enter(id)
	select {
	case <-t.token:
		return f.leaver(id, t), true
	default:
		f.left(id, t)
		return nil, false
	}
}

func (f *Fetches) leaver(id cache.ID, t *turn) func() {
	return sync.OnceFunc(func() {
		t.token <- struct{}{}
		f.left(id, t)
	})
}

func (f *Fetches) enter(id cache.ID) *turn {
	f.mu.Lock()
	defer f.mu.Unlock()
	t := f.turns[id]
	if t == nil {
		t = &turn{token: make(chan struct{}, 1)}
		t.token <- struct{}{}
		f.turns[id] = t
	}
	t.users++
	return t
}

func (f *Fetches) left(id cache.ID, t *turn) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if t.users--; t.users == 0 {
		delete(f.turns, id)
	}
}

// place remembers where a file is, in place of the oldest that is remembered.
func (f *Fetches) place(id cache.ID, at placedAt) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, known := f.placed[id]; !known {
		f.oldest = append(f.oldest, id)
	}
	f.placed[id] = at
	if len(f.oldest) > mostPlaced {
		delete(f.placed, f.oldest[0])
		f.oldest = f.oldest[1:]
	}
}

// find opens a file that a step has brought and that is as it left it.
func (f *Fetches) find(id cache.ID) (*os.File, placedAt) {
	f.mu.Lock()
	at, known := f.placed[id]
	f.mu.Unlock()
	if !known {
		return nil, at
	}
	root, err := volume.OpenRoot(at.volume)
	if err != nil {
		return nil, at
	}
	defer root.Close()
	file, _, err := open(root, at.path)
	if err != nil {
		return nil, at
	}
	if !at.isAsItWas(file) {
		_ = file.Close() // it was only read
		return nil, at
	}
	return file, at
}

func (at placedAt) isAsItWas(file *os.File) bool {
	info, err := file.Stat()
	return err == nil && stateOf(info) == at.state
}

// knows reports whether a step has brought a file.
func (f *Fetches) knows(id cache.ID) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	_, known := f.placed[id]
	return known
}

// share lets other steps of the task find a file that is in its place, which has
// the name in a folder that is open.
func (s *staging) share(folder *os.Root, name string, doc girder.File, path string, local Local) {
	id, ok := s.shared(doc)
	if !ok {
		return
	}
	info, err := folder.Lstat(name)
	if err != nil || localOf(info) != local { // somebody else has put his own there
		return
	}
	s.Fetches.place(id, placedAt{s.Volume, path, stateOf(info)})
}

// key is what a file of Girder is known by in the cache.
func (s *staging) key(doc girder.File) cache.Key {
	return cache.Key{Girder: s.Girder, File: string(doc.ID), Size: *doc.Size, Created: doc.Created, Updated: doc.Updated, SHA512: doc.SHA512}
}

// shared is what a file is known by among the steps of the task. One whose size
// is not known is not known at all.
func (s *staging) shared(doc girder.File) (id cache.ID, ok bool) {
	if s.Fetches == nil || s.Task == "" || doc.Size == nil || *doc.Size == 0 {
		return id, false
	}
	key := s.key(doc)
	key.Girder = s.Task + " " + key.Girder
	return key.ID(), true
}

// cached reports whether a file may be found in the cache.
func (s *staging) cached(doc girder.File) bool {
	return s.Cache != nil && s.Girder != "" && doc.Size != nil && *doc.Size > 0
}

// kept reports whether a file goes into the cache when it was fetched.
func (s *staging) kept(doc girder.File) bool {
	return s.cached(doc) && !s.Exposed && s.Cache.Takes(*doc.Size)
}

// turn waits until the file is not fetched for anybody else: on the whole node
// if they would find it in the cache, else for the same task.
func (s *staging) turn(ctx context.Context, doc girder.File) (leave func(), err error) {
	id, ok := s.shared(doc)
	if s.Fetches != nil && s.kept(doc) {
		id, ok = s.key(doc).ID(), true
	}
	return s.turnOf(ctx, id, ok)
}

// turnOf is turn for what a file is known by, if it is known at all.
func (s *staging) turnOf(ctx context.Context, id cache.ID, known bool) (leave func(), err error) {
	if !known {
		return func() {}, nil
	}
	if leave, free := s.Fetches.takeFree(id); free {
		return leave, nil
	}
	s.waits(ErrFetched)
	if leave, err = s.Fetches.take(ctx, id, s.Retry.Turns); err != nil {
		return nil, err
	}
	if s.Retry.Turns != nil {
		err = s.Retry.Turns.Take(ctx)
	}
	if err != nil {
		leave()
		return nil, err
	}
	return leave, nil
}
