package stream

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/gantry-worker/gantry/services/internal/fifo"
	"github.com/gantry-worker/gantry/services/internal/girder"
	"github.com/gantry-worker/gantry/tools/girder-sim/girdersim"
)

func isDownload(r *http.Request) bool { return strings.HasSuffix(r.URL.Path, "/download") }

// TestFeedIsExact has every size around those of a buffer and of a pipe.
func TestFeedIsExact(t *testing.T) {
	t.Parallel()
	for _, size := range []int{0, 1, 4095, 4096, 65535, 65536, 65537, 196_638, 2_100_000} {
		b := setup(t).girder()
		id, content := b.file(size)
		ended := b.feed(t.Context(), id, patient)
		got, err := b.read(4096)()
		b.must(err)
		if f := b.awaitFed(ended); f.err != nil || f.bytes != int64(size) {
			t.Errorf("%d bytes: %+v", size, f)
		}
		if !bytes.Equal(got, content) {
			t.Errorf("of %d bytes the container has %d", size, len(got))
		}
	}
}

// TestFeedASlowReader: what Girder Worker lost most of. The reader takes 4 KiB at a time.
func TestFeedASlowReader(t *testing.T) {
	b := setup(t).girder()
	size := 64 << 20
	if testing.Short() {
		size = 4 << 20
	}
	id, content := b.file(size)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	ended := b.feed(t.Context(), id, patient)
	f, err := os.Open(b.path)
	b.must(err)
	defer f.Close()
	p := make([]byte, 4096)
	for at := 0; ; {
		n, err := f.Read(p)
		if !bytes.Equal(p[:n], content[at:at+n]) {
			t.Fatalf("other bytes at %d", at)
		}
		at += n
		if err != nil && at == size {
			break
		}
		if err != nil {
			t.Fatalf("%v after %d of %d", err, at, size)
		}
		if at%(1<<20) < n {
			runtime.Gosched() // everybody else is ahead of it
		}
	}
	if f := b.awaitFed(ended); f.err != nil || f.bytes != int64(size) {
		t.Errorf("%+v", f)
	}
	runtime.ReadMemStats(&after)
	// The server of the test is in this process; both together stay far below the file's size.
	if grown := int64(after.HeapSys) - int64(before.HeapSys); size == 64<<20 && grown > 32<<20 {
		t.Errorf("the heap grew by %d MiB", grown>>20)
	}
}

// TestFeedBehindBrokenConnections cuts each answer short.
func TestFeedBehindBrokenConnections(t *testing.T) {
	t.Parallel()
	b := setup(t).girder()
	id, content := b.file(1 << 20)
	var downloads atomic.Int64
	b.sim.SetFault(func(r *http.Request) *girdersim.Fault {
		switch n := downloads.Load(); {
		case !isDownload(r):
			return nil
		case n%3 == 1:
			downloads.Add(1)
			return &girdersim.Fault{Status: 503}
		case n%3 == 2:
			downloads.Add(1)
			return &girdersim.Fault{Close: true}
		default:
			downloads.Add(1)
			return &girdersim.Fault{CutAfter: 150_001}
		}
	})
	ended := b.feed(t.Context(), id, patient)
	got, err := b.read(10_000)()
	b.must(err)
	if f := b.awaitFed(ended); f.err != nil || !bytes.Equal(got, content) {
		t.Errorf("%+v, the container has %d", f, len(got))
	}
	if n := downloads.Load(); n < 15 {
		t.Errorf("%d downloads", n)
	}
}

// TestFeedBehindAStall: a connection that gives nothing for a while is broken.
func TestFeedBehindAStall(t *testing.T) {
	t.Parallel()
	b := setup(t).girder()
	id, content := b.file(300_000)
	hang := make(chan struct{})
	defer close(hang)
	var downloads atomic.Int64
	asked := make(chan struct{})
	b.sim.SetFault(func(r *http.Request) *girdersim.Fault {
		if !isDownload(r) {
			return nil
		}
		switch downloads.Add(1) {
		case 1:
			close(asked)
			return &girdersim.Fault{Hang: hang}
		case 2:
			return &girdersim.Fault{CutAfter: 100_000}
		}
		return nil
	})
	source := &stalling{Source: b.client, asked: asked}
	file, err := Open(t.Context(), source, id, patient, zerolog.Nop(), nil)
	b.must(err)
	pipe := b.writer()
	ended := make(chan fed, 1)
	go func() {
		n, err := file.Feed(t.Context(), pipe, func(int64, int64) {})
		ended <- fed{n, errors.Join(err, pipe.Close())}
	}()
	got, err := b.read(4096)()
	b.must(err)
	if f := b.awaitFed(ended); f.err != nil || !bytes.Equal(got, content) || downloads.Load() != 3 {
		t.Errorf("%+v, the container has %d after %d downloads", f, len(got), downloads.Load())
	}
}

// stalling gives up the first request when it has been asked and is not answered.
type stalling struct {
	Source
	asked <-chan struct{}
	gave  bool
}

func (s *stalling) DownloadFile(ctx context.Context, id girder.FileID, offset int64) (*girder.Download, error) {
	if s.gave {
		return s.Source.DownloadFile(ctx, id, offset)
	}
	s.gave = true
	short, cancel := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() {
		_, err := s.Source.DownloadFile(short, id, offset)
		ended <- err
	}()
	<-s.asked
	cancel()
	return nil, &girder.Unreachable{Method: "GET", Path: "download", Err: <-ended}
}

// wrong is a source that is wrong about a file.
type wrong struct {
	docs     []girder.File // one for each time that it is asked, the last one for ever
	asked    int
	download func(offset int64) (*girder.Download, error)
}

func (w *wrong) GetFile(context.Context, girder.FileID) (girder.File, error) {
	doc := w.docs[min(w.asked, len(w.docs)-1)]
	w.asked++
	return doc, nil
}

func (w *wrong) DownloadFile(_ context.Context, _ girder.FileID, offset int64) (*girder.Download, error) {
	return w.download(offset)
}

func size(n int64) *int64 { return &n }

// sends gives so many bytes and says that the file has as many as said.
func sends(bytes int, said int64) func(int64) (*girder.Download, error) {
	return func(offset int64) (*girder.Download, error) {
		rest := strings.Repeat("x", max(0, bytes-int(offset)))
		return &girder.Download{ReadCloser: io.NopCloser(strings.NewReader(rest)), Size: said}, nil
	}
}

// TestFeedOfAWrongSource: whatever is wrong, the container sees no end of file.
func TestFeedOfAWrongSource(t *testing.T) {
	t.Parallel()
	short := girder.Retry{Total: 50 * time.Millisecond, First: time.Millisecond, Max: time.Millisecond}
	sum := strings.Repeat("0", 128)
	for name, c := range map[string]struct {
		source *wrong
		is     error
	}{
		"ends short":          {&wrong{docs: []girder.File{{Size: size(100)}}, download: sends(60, -1)}, ErrIncomplete},
		"says less":           {&wrong{docs: []girder.File{{Size: size(100)}}, download: sends(60, 60)}, ErrIncomplete},
		"says more":           {&wrong{docs: []girder.File{{Size: size(100)}}, download: sends(160, 160)}, ErrIncomplete},
		"sends more":          {&wrong{docs: []girder.File{{Size: size(100)}}, download: sends(160, 100)}, ErrIncomplete},
		"sends more, silent":  {&wrong{docs: []girder.File{{Size: size(100)}}, download: sends(160, -1)}, ErrIncomplete},
		"less than it says":   {&wrong{docs: []girder.File{{}}, download: sends(60, 100)}, ErrIncomplete},
		"other bytes":         {&wrong{docs: []girder.File{{Size: size(100), SHA512: sum}}, download: sends(100, 100)}, ErrChecksum},
		"new contents":        {&wrong{docs: []girder.File{{Size: size(100), Created: "a"}, {Size: size(100), Created: "b"}}, download: sends(100, 100)}, ErrChanged},
		"new size":            {&wrong{docs: []girder.File{{Size: size(100)}, {Size: size(101)}}, download: sends(100, 100)}, ErrChanged},
		"size gone":           {&wrong{docs: []girder.File{{Size: size(100)}, {}}, download: sends(100, 100)}, ErrChanged},
		"changed at a resume": {&wrong{docs: []girder.File{{Size: size(100), Created: "a"}, {Size: size(100), Created: "b"}}, download: sends(60, 100)}, ErrChanged},
		"access lost": {&wrong{docs: []girder.File{{Size: size(100)}}, download: func(int64) (*girder.Download, error) {
			return nil, &girder.Error{Status: 401}
		}}, girder.ErrUnauthorized},
		"away": {&wrong{docs: []girder.File{{Size: size(100)}}, download: func(int64) (*girder.Download, error) {
			return nil, &girder.Unreachable{Err: io.ErrUnexpectedEOF}
		}}, io.ErrUnexpectedEOF},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			retry := short
			if c.is == ErrChanged { // which it has to be asked again for
				retry = patient
			}
			file, err := Open(t.Context(), c.source, "5f0c5f0c5f0c5f0c5f0c5f0c", retry, zerolog.Nop(), nil)
			b.must(err)
			pipe := b.writer()
			eof := b.container(func() error { // the container: reads until the end of file
				_, err := b.read(4096)()
				return err
			})
			_, err = file.Feed(t.Context(), pipe, func(int64, int64) {})
			if !errors.Is(err, c.is) || IsFailure(err) {
				t.Errorf("%v, failure %t", err, IsFailure(err))
			}
			select {
			case <-eof:
				t.Error("the container has seen an end of file")
			default:
			}
			b.must(pipe.Close())
			b.must(b.await(eof))
		})
	}
}

// TestFeedBehindAnOddAnswer: one whose size is not the file's may come from
// something between Girder and us. One that stays so is given up.
func TestFeedBehindAnOddAnswer(t *testing.T) {
	t.Parallel()
	for odd, is := range map[int]error{1: nil, oddAnswers - 1: nil, oddAnswers: ErrIncomplete, 100: ErrIncomplete} {
		b := setup(t)
		answers := 0
		source := &wrong{docs: []girder.File{{Size: size(100)}}, download: func(offset int64) (*girder.Download, error) {
			if answers++; answers <= odd {
				return sends(160, 160)(offset)
			}
			return sends(100, 100)(offset)
		}}
		file, err := Open(t.Context(), source, "f", patient, zerolog.Nop(), nil)
		b.must(err)
		pipe := b.writer()
		got := b.container(func() error {
			_, err := b.read(4096)()
			return err
		})
		n, err := file.Feed(t.Context(), pipe, func(int64, int64) {})
		if !errors.Is(err, is) || is == nil && n != 100 || answers > oddAnswers {
			t.Errorf("%d odd answers: %d bytes, %v after %d downloads", odd, n, err, answers)
		}
		b.must(pipe.Close())
		b.must(b.await(got))
	}
}

// TestFeedWithoutASize is for a link of which Girder knows no size.
func TestFeedWithoutASize(t *testing.T) {
	t.Parallel()
	for _, said := range []int64{-1, 100_000} {
		b := setup(t)
		file, err := Open(t.Context(), &wrong{docs: []girder.File{{}}, download: sends(100_000, said)}, "f", patient, zerolog.Nop(), nil)
		b.must(err)
		pipe := b.writer()
		got := b.container(func() error {
			all, err := b.read(4096)()
			if err == nil && len(all) != 100_000 {
				err = io.ErrShortBuffer
			}
			return err
		})
		n, err := file.Feed(t.Context(), pipe, func(int64, int64) {})
		if n != 100_000 || err != nil {
			t.Errorf("%d %v", n, err)
		}
		b.must(pipe.Close())
		b.must(b.await(got))
	}
}

// TestFeedOfAContainerThatLeaves: that is no error, however little it took, and
// known when it has ended.
func TestFeedOfAContainerThatLeaves(t *testing.T) {
	t.Parallel()
	b := setup(t).girder()
	id, content := b.file(1 << 20)
	ctx, ends := context.WithCancelCause(t.Context())
	ended := b.feed(ctx, id, patient)
	out, err := exec.Command("head", "-c", "100000", b.path).Output()
	b.must(err)
	if !bytes.Equal(out, content[:100_000]) {
		t.Error("other bytes")
	}
	ends(fifo.ErrLeft)
	if f := b.awaitFed(ended); f.err != nil || f.bytes < 100_000 || f.bytes >= 1<<20 {
		t.Errorf("%+v", f)
	}
}

// TestFeedOfAContainerThatComesBack opens the pipe again and again, and gets
// each byte once.
func TestFeedOfAContainerThatComesBack(t *testing.T) {
	t.Parallel()
	b := setup(t).girder()
	id, content := b.file(1 << 20)
	ended := b.feed(t.Context(), id, patient)
	var got []byte
	for range 10 {
		f, err := os.Open(b.path)
		b.must(err)
		part := make([]byte, 70_001)
		_, err = io.ReadFull(f, part)
		b.must(err)
		b.must(f.Close())
		got = append(got, part...)
	}
	rest, err := b.read(4096)()
	b.must(err)
	if f := b.awaitFed(ended); f.err != nil || f.bytes != 1<<20 || !bytes.Equal(append(got, rest...), content) {
		t.Errorf("%+v, the container has %d", f, len(got)+len(rest))
	}
}

// TestFeedEndsWithItsContainer has the container end in each state of the stream.
func TestFeedEndsWithItsContainer(t *testing.T) {
	t.Parallel()
	revoked := errors.New("revoked")
	for name, cause := range map[string]error{"container ended": fifo.ErrLeft, "revoked": revoked} {
		for state, reach := range map[string]func(b *bench) func(){
			"pipe never opened": func(*bench) func() { return func() {} },
			"opened, nothing read": func(b *bench) func() {
				f, err := os.OpenFile(b.path, os.O_RDONLY, 0)
				b.must(err)
				return func() { _ = f.Close() }
			},
			"reader stands still": func(b *bench) func() {
				f, err := os.OpenFile(b.path, os.O_RDONLY, 0)
				b.must(err)
				_, err = io.ReadFull(f, make([]byte, 10_000))
				b.must(err)
				return func() { _ = f.Close() }
			},
			"girder hangs": func(b *bench) func() {
				hang := make(chan struct{})
				b.sim.SetFault(func(r *http.Request) *girdersim.Fault {
					if isDownload(r) {
						return &girdersim.Fault{Hang: hang}
					}
					return nil
				})
				f, err := os.OpenFile(b.path, os.O_RDONLY, 0)
				b.must(err)
				return func() { close(hang); _ = f.Close() }
			},
			"girder away": func(b *bench) func() {
				b.sim.Down()
				f, err := os.OpenFile(b.path, os.O_RDONLY, 0)
				b.must(err)
				return func() { _ = f.Close() }
			},
		} {
			t.Run(name+", "+state, func(t *testing.T) {
				t.Parallel()
				b := setup(t).girder()
				id, _ := b.file(1 << 20)
				ctx, cancel := context.WithCancelCause(t.Context())
				defer cancel(nil)
				ended := b.feed(ctx, id, patient)
				defer reach(b)()
				cancel(cause)
				f := b.awaitFed(ended)
				if cause == revoked && !errors.Is(f.err, revoked) || cause != revoked && f.err != nil || f.bytes >= 1<<20 {
					t.Errorf("%+v", f)
				}
			})
		}
	}
}

// TestOpenOfAFileThatIsNotThere fails before any container begins.
func TestOpenOfAFileThatIsNotThere(t *testing.T) {
	t.Parallel()
	b := setup(t).girder()
	for _, id := range []girder.FileID{"5f0c5f0c5f0c5f0c5f0c5f0c", "no id"} {
		if _, err := Open(t.Context(), b.client, id, patient, zerolog.Nop(), nil); err == nil {
			t.Errorf("%s is there", id)
		}
	}
}
