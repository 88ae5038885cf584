package contracts

import (
	"testing"

	"github.com/go-json-experiment/json"
)

func TestPlacesInALog(t *testing.T) {
	t.Parallel()
	var places LogPlaces
	for i, piece := range []struct {
		attempt int
		offset  int64
		data    string
		want    int64
	}{
		{1, 0, "abc", 0},
		{1, 3, "de\xff", 3},
		{1, 0, "x", 6},      // an executor that does not count
		{1, 100, "y", 100},  // behind pieces that were dropped
		{2, 0, "zz", 101},   // another attempt
		{2, 50, "z", 151},   // with a gap of its own
		{4, 10, "end", 162}, // whose first pieces are gone
	} {
		chunk := &LogChunk{Attempt: piece.attempt, Offset: piece.offset}
		chunk.SetBytes([]byte(piece.data))
		if got := places.Place(chunk); got != piece.want {
			t.Errorf("piece %d is at %d, want %d", i, got, piece.want)
		}
	}
}

func TestAPieceFromAPlace(t *testing.T) {
	t.Parallel()
	piece := LogPiece{Place: 10, LogChunk: LogChunk{Attempt: 2, Seq: 3, Offset: 4, Data: "aäb"}}
	for from, want := range map[int64]string{0: "aäb", 10: "aäb", 11: "äb", 12: "\xa4b", 13: "b"} {
		cut, some := piece.From(from)
		if !some || string(cut.Bytes()) != want || cut.Place != max(10, from) || cut.Offset-cut.Place != -6 || cut.Seq != 3 {
			t.Errorf("from %d: %t, %+v", from, some, cut)
		}
	}
	for _, from := range []int64{14, 1000} {
		if cut, some := piece.From(from); some {
			t.Errorf("from %d: %+v", from, cut)
		}
	}
	if piece.Data != "aäb" {
		t.Error("the piece itself was changed")
	}
	data, err := json.Marshal(piece)
	if err != nil {
		t.Fatal(err)
	}
	var again LogPiece
	if err := json.Unmarshal(data, &again); err != nil || string(again.Bytes()) != "aäb" || again.Place != 10 || again.Offset != 4 {
		t.Errorf("%s is read as %+v, error %v", data, again, err)
	}
}

func FuzzPieceFrom(f *testing.F) {
	f.Add([]byte("a€\xff"), int64(5), int64(6))
	f.Fuzz(func(t *testing.T, data []byte, place, from int64) {
		place, from = max(0, place%1000), max(0, from%2000)
		piece := LogPiece{Place: place}
		piece.SetBytes(data)
		cut, some := piece.From(from)
		if !some {
			if from < place+int64(len(data)) {
				t.Fatalf("nothing from %d of %d bytes at %d", from, len(data), place)
			}
			return
		}
		if cut.Place != max(place, from) || string(data[cut.Place-place:]) != string(cut.Bytes()) {
			t.Fatalf("from %d of %d bytes at %d: %d bytes at %d", from, len(data), place, len(cut.Bytes()), cut.Place)
		}
	})
}
