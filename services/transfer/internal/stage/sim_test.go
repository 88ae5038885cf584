package stage

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/gantry-worker/gantry/contracts/client/testport"
	"github.com/gantry-worker/gantry/services/internal/girder"
	"github.com/gantry-worker/gantry/tools/girder-sim/girdersim"
)

// site is a simulated Girder and a client of it that tries each request once.
type site struct {
	*girdersim.Server
	*girder.Client
	item  girdersim.Item
	token string
}

func startSite(t testing.TB) *site {
	t.Helper()
	return startSiteWith(t, girdersim.Options{})
}

func startSiteWith(t testing.TB, options girdersim.Options) *site {
	t.Helper()
	options.Addr = testport.Address(t)
	sim, err := girdersim.Start(options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = sim.Close() })
	user, err := sim.CreateUser("alice", "password")
	if err != nil {
		t.Fatal(err)
	}
	folder, err := sim.CreateFolder(user.ID, "data", false)
	if err != nil {
		t.Fatal(err)
	}
	item, err := sim.CreateItem(folder.ID, "item")
	if err != nil {
		t.Fatal(err)
	}
	token, err := sim.UserToken(user.ID, girdersim.ScopeDataRead, girdersim.ScopeDataWrite)
	if err != nil {
		t.Fatal(err)
	}
	c, err := girder.New(girder.Options{APIURL: sim.APIURL(), Token: token, Retry: girder.Retry{Total: -1}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.CloseIdle)
	return &site{Server: sim, Client: c, item: item, token: token}
}

func (s *site) add(t *testing.T, name string, content io.Reader) girder.FileID {
	t.Helper()
	file, err := s.AddFile(s.item.ID, name, content)
	if err != nil {
		t.Fatal(err)
	}
	return girder.FileID(file.ID)
}

func (s *site) out(volume, path string) Out {
	return Out{Sink: s.Client, Item: girder.ItemID(s.item.ID), Volume: volume, Path: path, MustExist: true, Retry: quick}
}

// noise is bytes without a period that a chunk could hide.
func noise(n int) []byte {
	out := make([]byte, 0, n+sha256.Size)
	for i := 0; len(out) < n; i++ {
		sum := sha256.Sum256(fmt.Append(nil, i))
		out = append(out, sum[:]...)
	}
	return out[:n]
}

func TestSimStageInThroughCutsAndErrors(t *testing.T) {
	t.Parallel()
	s, volume := startSite(t), t.TempDir()
	data := noise(3 << 20)
	id := s.add(t, "in.bin", bytes.NewReader(data))
	var requests atomic.Int32
	s.SetFault(func(r *http.Request) *girdersim.Fault {
		if !strings.HasSuffix(r.URL.Path, "/download") {
			return nil
		}
		switch n := requests.Add(1); {
		case n%4 == 1:
			return &girdersim.Fault{Status: http.StatusServiceUnavailable}
		case n%4 == 2:
			return &girdersim.Fault{Close: true}
		case n < 20:
			return &girdersim.Fault{CutAfter: 300_000}
		}
		return nil
	})
	staged, err := In{Source: s.Client, File: id, Volume: volume, Filename: "in.bin", Retry: quick}.Run(t.Context())
	if err != nil || staged.Bytes != int64(len(data)) || requests.Load() < 8 {
		t.Fatal(staged, err, requests.Load())
	}
	got, err := os.ReadFile(filepath.Join(volume, "in.bin"))
	if err != nil || !bytes.Equal(got, data) {
		t.Fatalf("other bytes: %v", err)
	}
}

func TestSimStageInWhileGirderIsDown(t *testing.T) {
	t.Parallel()
	s, volume := startSite(t), t.TempDir()
	id := s.add(t, "in.bin", strings.NewReader("content"))
	s.Down()
	ended := make(chan error, 1)
	go func() {
		_, err := In{Source: s.Client, File: id, Volume: volume, Filename: "n", Retry: quick}.Run(t.Context())
		ended <- err
	}()
	if err := s.Up(); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err != nil || files(t, volume)["n"] != "content" {
		t.Fatal(err)
	}
	s.Down()
	_, err := In{Source: s.Client, File: id, Volume: volume, Filename: "again", Retry: impatient}.Run(t.Context())
	if !girder.IsTemporary(err) || IsFailure(err) {
		t.Fatal(err)
	}
}

func TestSimStageInOfLostBytes(t *testing.T) {
	t.Parallel()
	s, volume := startSite(t), t.TempDir()
	id := s.add(t, "in.bin", strings.NewReader("content"))
	if err := s.LoseBytes(string(id)); err != nil {
		t.Fatal(err)
	}
	_, err := In{Source: s.Client, File: id, Volume: volume, Retry: quick}.Run(t.Context())
	if !errors.Is(err, girder.ErrServer) || !IsFailure(err) || len(files(t, volume)) != 0 {
		t.Fatal(err)
	}
}

func TestSimStageInOfANameThatGirderCannotSend(t *testing.T) {
	t.Parallel()
	s, volume := startSite(t), t.TempDir()
	for name, sent := range map[string]bool{"Fläche é.tif": true, "世界.tif": true, "Größe.tif": false, "50°.csv": false} {
		id := s.add(t, name, strings.NewReader("content"))
		_, err := In{Source: s.Client, File: id, Volume: volume, Retry: quick}.Run(t.Context())
		if errors.Is(err, ErrUnservable) == sent || (err == nil) != sent || IsFailure(err) == sent {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestSimStageOutThroughErrors(t *testing.T) {
	t.Parallel()
	s, volume := startSite(t), t.TempDir()
	data := noise(12 << 20)
	if err := os.WriteFile(filepath.Join(volume, "r.bin"), data, 0o600); err != nil {
		t.Fatal(err)
	}
	var requests atomic.Int32
	s.SetFault(func(*http.Request) *girdersim.Fault {
		switch requests.Add(1) % 5 {
		case 1:
			return &girdersim.Fault{Status: http.StatusBadGateway}
		case 3:
			return &girdersim.Fault{Perform: true, Close: true} // done, and nobody hears of it
		}
		return nil
	})
	o := s.out(volume, "r.bin")
	o.Chunk = girder.MinChunk
	for range 2 { // new, and then replaced
		sent, err := o.Run(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		found := s.Files(s.item.ID)
		if len(found) != 1 || found[0].ID != sent[0].FileID || found[0].SHA512 != sent[0].SHA512 || found[0].Size != int64(len(data)) {
			t.Fatalf("%+v of %+v", sent, found)
		}
	}
}

func TestSimStageOutIsCanceled(t *testing.T) {
	t.Parallel()
	s, volume := startSite(t), t.TempDir()
	write(t, volume, "r.bin", string(noise(12<<20)))
	ctx, cancel := context.WithCancelCause(t.Context())
	revoked := errors.New("revoked")
	s.SetFault(func(r *http.Request) *girdersim.Fault {
		if strings.Contains(r.URL.RawQuery, "offset=5242880") {
			cancel(revoked)
		}
		return nil
	})
	o := s.out(volume, "r.bin")
	o.Chunk = girder.MinChunk
	_, err := o.Run(ctx)
	if !errors.Is(err, revoked) || s.OpenUploads() != 0 || len(s.Files(s.item.ID)) != 0 {
		t.Fatalf("%v; %d uploads, files %v", err, s.OpenUploads(), s.Files(s.item.ID))
	}
}

// TestSimStageOutIsCanceledWhileItBegins ends the context after Girder has
// begun the upload and before anybody knows its id.
func TestSimStageOutIsCanceledWhileItBegins(t *testing.T) {
	t.Parallel()
	s, volume := startSite(t), t.TempDir()
	write(t, volume, "r", "result")
	ctx, cancel := context.WithCancel(t.Context())
	s.SetFault(func(r *http.Request) *girdersim.Fault {
		if r.Method == http.MethodPost {
			cancel()
		}
		return nil
	})
	_, err := s.out(volume, "r").Run(ctx)
	if !errors.Is(err, context.Canceled) || s.OpenUploads() != 0 || len(s.Files(s.item.ID)) != 0 {
		t.Fatalf("%v; %d uploads, files %v", err, s.OpenUploads(), s.Files(s.item.ID))
	}
	for _, r := range s.Requests() {
		if strings.HasSuffix(r.Path, "/chunk") {
			t.Error("bytes were sent after the context ended")
		}
	}
}

// TestSimMemoryStaysFlat moves far more bytes than it may hold.
func TestSimMemoryStaysFlat(t *testing.T) {
	s, volume := startSite(t), t.TempDir()
	const size, room = 192 << 20, 48 << 20
	id := s.add(t, "big", io.LimitReader(zeros{}, size))
	var peak uint64
	sample := func(_ string, _, _ int64) {
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		peak = max(peak, m.HeapAlloc)
	}
	var calls int
	every := func(what string, done, total int64) {
		if calls++; calls%256 == 0 {
			sample(what, done, total)
		}
	}
	runtime.GC()
	sample("", 0, 0)
	before := peak
	if _, err := (In{Source: s.Client, File: id, Volume: volume, Filename: "big2", Retry: quick, Progress: every}).Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	o := s.out(volume, "big2")
	o.Progress = every
	sent, err := o.Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if grown := peak - before; grown > room {
		t.Errorf("%d MiB more in memory for a file of %d MiB", grown>>20, size>>20)
	}
	sum := sha256.New()
	if _, err := io.CopyN(sum, zeros{}, size); err != nil {
		t.Fatal(err)
	}
	if got, err := s.SHA256(sent[0].FileID); err != nil || got != hex.EncodeToString(sum.Sum(nil)) {
		t.Fatal("other bytes", err)
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }
