package mirror

import (
	"bytes"
	"runtime"
	"testing"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/services/job-tracker/internal/transcript"
)

// While Girder takes nothing, a mirror keeps no more of a log than its limit,
// and a little more while it cuts, however much comes. Not parallel: others would
// be counted as well.
func TestFloodWithFlatMemory(t *testing.T) {
	const limit = 2 << 20
	m := newMirror(NewManager(nil, Config{LogLimit: limit}), "job")
	m.text = transcript.New(transcript.Position{Attempt: 1}, false)
	m.box, _ = transcript.NewOutbox(limit, nil, contracts.MirrorCursor{Attempt: 1})
	line := bytes.Repeat([]byte("0123456789abcd\xff\n"), contracts.MaxLogChunk/16)
	seq := uint64(0)
	// flood lets so many bytes arrive and returns what the heap has then.
	flood := func(size int) int {
		for range size / len(line) {
			seq++
			chunk := &contracts.LogChunk{Attempt: 1, Seq: seq, Stream: contracts.LogStdout}
			chunk.SetBytes(line)
			if err := m.hear(t.Context(), heard{seq: seq, chunk: chunk}); err != nil {
				t.Fatal(err)
			}
		}
		runtime.GC()
		var stats runtime.MemStats
		runtime.ReadMemStats(&stats)
		return int(stats.HeapAlloc)
	}
	before := flood(0)
	first := flood(4 * limit)
	second := flood(30 << 20)
	t.Logf("heap: %d KiB before, %d KiB after %d MiB, %d KiB after 30 MiB more", before>>10, first>>10, 4*limit>>20, second>>10)
	if second > before+4*limit {
		t.Errorf("the mirror holds %d bytes of a log whose limit is %d", second-before, limit)
	}
	if second > first+limit/2 {
		t.Errorf("the mirror grew from %d to %d bytes", first, second)
	}
	m.box.Finish()
	sent := 0
	for entry := m.box.Next(true); entry != ""; entry = m.box.Next(true) {
		m.box.Sent(entry)
		sent += len(entry)
	}
	if sent < limit || sent > limit+200 {
		t.Errorf("%d bytes are sent in the end", sent)
	}
}
