package contracts

import (
	"bytes"
	"math"
	"testing"

	"github.com/go-json-experiment/json"
)

func TestLogChunkKeepsTheBytes(t *testing.T) {
	t.Parallel()
	for _, want := range []string{
		"", "text\n", "ä\u2028\x00\x1b[31m", "\xff", "a\xc3", "\xa4b", "\xed\xa0\x80", "ok \xf0\x9f\x98 cut", "\uFFFD",
	} {
		var chunk, read LogChunk
		chunk.SetBytes([]byte(want))
		if !bytes.Equal(chunk.Bytes(), []byte(want)) {
			t.Errorf("%q is kept as %q", want, chunk.Bytes())
		}
		data, err := json.Marshal(&chunk)
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(data, &read); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(read.Bytes(), []byte(want)) {
			t.Errorf("%q is sent as %s and read as %q", want, data, read.Bytes())
		}
	}
}

func TestLogChunkIsFilledAgain(t *testing.T) {
	t.Parallel()
	var chunk LogChunk
	buffer := []byte("\xfftwo")
	chunk.SetBytes(buffer)
	copy(buffer, "other")
	if got := string(chunk.Bytes()); got != "\xfftwo" {
		t.Errorf("%q after the buffer was used again", got)
	}
	chunk.SetBytes([]byte("text"))
	if chunk.DataB64 != nil || chunk.Data != "text" {
		t.Errorf("%+v", chunk)
	}
	chunk.SetBytes([]byte{0xfe})
	if chunk.Data != "" || len(chunk.DataB64) != 1 {
		t.Errorf("%+v", chunk)
	}
}

func TestNewNote(t *testing.T) {
	t.Parallel()
	half := 0.5
	note, err := NewNote(NoteProgress, 2, 7, Progress{Current: &half, Message: "tiles"})
	if err != nil {
		t.Fatal(err)
	}
	if note.Version != Version || note.Type != NoteProgress || note.Attempt != 2 || note.Seq != 7 || note.Time.IsZero() {
		t.Errorf("%+v", note)
	}
	if string(note.Data) != `{"current":0.5,"message":"tiles"}` {
		t.Errorf("data %s", note.Data)
	}
	nan := math.NaN()
	if note, err := NewNote(NoteProgress, 1, 1, Progress{Current: &nan}); err == nil {
		t.Errorf("a progress that is no number is sent as %s", note.Data)
	}
}
