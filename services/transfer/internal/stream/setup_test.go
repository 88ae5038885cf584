package stream

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/gantry-worker/gantry/contracts/client/leaktest"
	"github.com/gantry-worker/gantry/contracts/client/testport"
	"github.com/gantry-worker/gantry/services/internal/fifo"
	"github.com/gantry-worker/gantry/services/internal/girder"
	"github.com/gantry-worker/gantry/services/internal/volume"
	"github.com/gantry-worker/gantry/tools/girder-sim/girdersim"
)

func TestMain(m *testing.M) { leaktest.Main(m) }

// timeout is longer than anything takes that comes at all, on whatever machine.
const timeout = 5 * time.Minute

// patient tries again at once, for as long as a test may take.
var patient = girder.Retry{Total: timeout, First: time.Millisecond, Max: 10 * time.Millisecond}

// bench is a volume with a pipe, and a Girder.
type bench struct {
	t      *testing.T
	volume volume.Volume
	path   string // of the pipe
	sim    *girdersim.Server
	item   girdersim.Item
	client *girder.Client
}

func setup(t *testing.T) *bench {
	t.Helper()
	b := &bench{t: t, volume: volume.Volume{Host: t.TempDir()}}
	b.path = filepath.Join(b.volume.Host, "pipe")
	b.must(fifo.Make(b.volume, "pipe"))
	return b
}

func (b *bench) must(err error) {
	b.t.Helper()
	if err != nil {
		b.t.Fatal(err)
	}
}

// girder starts a Girder with one item.
func (b *bench) girder() *bench {
	b.t.Helper()
	var err error
	b.sim, err = girdersim.Start(girdersim.Options{Addr: testport.Address(b.t)})
	b.must(err)
	b.t.Cleanup(func() { _ = b.sim.Close() })
	user, err := b.sim.CreateUser("alice", "password")
	b.must(err)
	folder, err := b.sim.CreateFolder(user.ID, "data", false)
	b.must(err)
	b.item, err = b.sim.CreateItem(folder.ID, "item")
	b.must(err)
	token, err := b.sim.UserToken(user.ID, girdersim.ScopeDataRead)
	b.must(err)
	clients := girder.NewClients(girder.ClientLimits{})
	b.t.Cleanup(clients.Close)
	shared, done, err := clients.For(nil)
	b.must(err)
	b.t.Cleanup(done)
	b.client, err = girder.New(girder.Options{
		APIURL: b.sim.APIURL(), Token: token, HTTPClient: shared, Logger: zerolog.Nop(), Retry: girder.Retry{Total: -1},
	})
	b.must(err)
	return b
}

// file adds a file of random bytes to Girder.
func (b *bench) file(size int) (id girder.FileID, content []byte) {
	b.t.Helper()
	content = noise(size)
	f, err := b.sim.AddFile(b.item.ID, "in.bin", bytes.NewReader(content))
	b.must(err)
	return girder.FileID(f.ID), content
}

func noise(size int) []byte {
	content := make([]byte, size)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(content) // never fails
	return content
}

func (b *bench) writer() *fifo.Writer {
	b.t.Helper()
	w, err := fifo.OpenWriter(b.volume, "pipe", fifo.Beside)
	b.must(err)
	b.t.Cleanup(func() { _ = w.Close() })
	return w
}

func (b *bench) outlet() *Outlet {
	b.t.Helper()
	r, err := fifo.OpenReader(b.volume, "pipe", fifo.Beside)
	b.must(err)
	b.t.Cleanup(func() { _ = r.Close() })
	return &Outlet{Pipe: r, Moved: func(int64, int64) {}}
}

// fed is what a stream from Girder ended with.
type fed struct {
	bytes int64
	err   error
}

// feed streams a file into the pipe and closes our end where all went well, as
// those do who hold it.
func (b *bench) feed(ctx context.Context, id girder.FileID, retry girder.Retry) <-chan fed {
	b.t.Helper()
	file, err := Open(ctx, b.client, id, retry, zerolog.New(zerolog.NewTestWriter(b.t)), nil)
	b.must(err)
	pipe := b.writer()
	ended := make(chan fed, 1)
	go func() {
		n, err := file.Feed(ctx, pipe, func(int64, int64) {})
		if err == nil {
			err = pipe.Close()
		}
		ended <- fed{n, err}
	}()
	return ended
}

// container runs f as the container, and waits for it at the test's end.
func (b *bench) container(f func() error) <-chan error {
	done := make(chan error, 1)
	go func() { done <- f() }()
	return done
}

// read is a container that reads the whole pipe, size bytes at a time.
func (b *bench) read(size int) func() ([]byte, error) {
	return func() ([]byte, error) {
		f, err := os.Open(b.path)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		var all bytes.Buffer
		_, err = io.CopyBuffer(struct{ io.Writer }{&all}, struct{ io.Reader }{f}, make([]byte, size))
		return all.Bytes(), err
	}
}

func (b *bench) await(ended <-chan error) error {
	b.t.Helper()
	select {
	case err := <-ended:
		return err
	case <-time.After(timeout):
		b.t.Fatal("it does not end")
		return nil
	}
}

func (b *bench) awaitFed(ended <-chan fed) fed {
	b.t.Helper()
	select {
	case f := <-ended:
		return f
	case <-time.After(timeout):
		b.t.Fatal("the stream does not end")
		return fed{}
	}
}

// write is a container that writes to the pipe in pieces.
func (b *bench) write(pieces ...string) error {
	f, err := os.OpenFile(b.path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	return writeTo(f, pieces...)
}

// writing is such a container, which has the pipe open by now: who opens one that
// nobody reads any more waits.
func (b *bench) writing(pieces ...string) (wrote <-chan error) {
	b.t.Helper()
	f, err := os.OpenFile(b.path, os.O_WRONLY, 0)
	b.must(err)
	return b.container(func() error { return writeTo(f, pieces...) })
}

func writeTo(f *os.File, pieces ...string) error {
	for _, piece := range pieces {
		if _, err := io.Copy(f, strings.NewReader(piece)); err != nil {
			return errors.Join(err, f.Close())
		}
	}
	return f.Close()
}
