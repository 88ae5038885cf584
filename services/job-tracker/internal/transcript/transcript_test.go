package transcript

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/gantry-worker/gantry/contracts"
)

func chunk(attempt int, seq uint64, stream contracts.LogStream, data string) *contracts.LogChunk {
	c := &contracts.LogChunk{Attempt: attempt, Seq: seq, Stream: stream}
	c.SetBytes([]byte(data))
	return c
}

func TestToValid(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ in, text, rest string }{
		{"", "", ""},
		{"plain", "plain", ""},
		{"a\xc3", "a", "\xc3"},
		{"a\xf0\x9f\x98", "a", "\xf0\x9f\x98"},
		{"\xf0\x9f\x98\x80", "😀", ""},
		{"\xffb", "\ufffdb", ""},
		{"a\xc3(\xe2\x82", "a\ufffd(", "\xe2\x82"},
		{"\x80\x80\x80\x80", strings.Repeat("\ufffd", 4), ""},
		{"\xed\xa0\x80", strings.Repeat("\ufffd", 3), ""}, // half a surrogate pair
		{"a\xc0", "a\ufffd", ""},
	} {
		text, rest := toValid([]byte(c.in))
		if text != c.text || string(rest) != c.rest {
			t.Errorf("%q: got %q and %q, want %q and %q", c.in, text, rest, c.text, c.rest)
		}
	}
}

// However bytes are cut into pieces, the text is the same.
func FuzzTranscript(f *testing.F) {
	f.Add([]byte("a\xe2\x82\xac \xff\xc3"), uint8(1))
	f.Add([]byte("\xf0\x9f\x98\x80\x80"), uint8(2))
	f.Fuzz(func(t *testing.T, data []byte, size uint8) {
		whole := New(Position{Attempt: 1}, false)
		want := whole.Take(chunk(1, 1, contracts.LogStdout, string(data))) + whole.End()
		pieces := New(Position{Attempt: 1}, false)
		var got strings.Builder
		for seq := uint64(1); len(data) > 0; seq++ {
			n := min(len(data), int(size)+1)
			got.WriteString(pieces.Take(chunk(1, seq, contracts.LogStdout, string(data[:n]))))
			data = data[n:]
		}
		got.WriteString(pieces.End())
		if got.String() != want || !utf8.ValidString(want) {
			t.Errorf("got %q, want %q", got.String(), want)
		}
	})
}

func TestOrder(t *testing.T) {
	t.Parallel()
	tr := New(Position{Attempt: 2, Seq: 3}, false)
	for _, c := range []struct {
		attempt int
		seq     uint64
		want    Place
	}{
		{1, 9, Old}, {2, 3, Old}, {2, 4, Next}, {2, 6, Ahead}, {3, 1, Further},
	} {
		if got := tr.Place(chunk(c.attempt, c.seq, contracts.LogStdout, "x")); got != c.want {
			t.Errorf("piece %d of attempt %d: %v, want %v", c.seq, c.attempt, got, c.want)
		}
	}
	text := tr.Take(chunk(2, 4, contracts.LogStdout, "a\xc3"))
	if tr.Clean() {
		t.Error("clean within a character")
	}
	text += tr.Take(chunk(2, 7, contracts.LogStderr, "b"))
	text += tr.EndAttempt("over")
	text += tr.Take(chunk(3, 1, contracts.LogStdout, "c"))
	want := "a\ufffd\n[gantry: the log has a gap here, 2 pieces of it are lost]\nb\nover\nc"
	if text != want {
		t.Errorf("got %q, want %q", text, want)
	}
}

// Where the pieces say how long the log is, a gap is told in bytes, also by a
// transcript that goes on behind the piece before it.
func TestAGapInBytes(t *testing.T) {
	t.Parallel()
	first, later := chunk(1, 3, contracts.LogStdout, "ab"), chunk(1, 9, contracts.LogStdout, "z")
	first.Offset, later.Offset = 10, 1012
	const want = "\n[gantry: 1000 bytes of the log are missing here, behind the first 12]\nz"
	tr := New(Position{Attempt: 1, Seq: 2}, false)
	tr.Take(first)
	if n := tr.Missing(later); n != 1000 {
		t.Errorf("%d bytes are missing, want 1000", n)
	}
	if text := tr.Take(later); text != want {
		t.Errorf("got %q, want %q", text, want)
	}
	again := New(Position{Attempt: 1, Seq: 3}, true)
	again.Recall(first)
	if text := again.Take(later); text != want {
		t.Errorf("a later transcript got %q, want %q", text, want)
	}
}

// What is missing in the middle that is left out is counted with it.
func TestTheMiddleLeftOutHasAGap(t *testing.T) {
	t.Parallel()
	o, _ := NewOutbox(20, nil, contracts.MirrorCursor{})
	at := Position{Attempt: 1}
	for _, text := range []string{"0123456789", "middle", "more of it", "0123456789"} {
		at.Seq++
		if text == "more of it" {
			o.Miss(1000)
		}
		o.Add(text, at, true)
	}
	o.Finish()
	var got strings.Builder
	for entry := o.Next(true); entry != ""; entry = o.Next(true) {
		got.WriteString(entry)
		o.Sent(entry)
	}
	if want := "0123456789\n[gantry: 1016 bytes of the log are left out here, behind the first 10]\n0123456789"; got.String() != want {
		t.Errorf("got %q, want %q", got.String(), want)
	}
}

// girderLogOf appends entries as Girder does.
type girderLogOf []string

func (g *girderLogOf) append(entry string) {
	*g = append(*g, entry)
	if keep := girderLog / utf8.RuneCountInString(entry); len(*g) > keep {
		*g = (*g)[len(*g)-keep:]
	}
}

// A mirror that ends anywhere, also after an entry was sent and before that was
// noted, leaves a log that another one completes without repeat or gap, also
// where somebody else writes into it.
func TestRestartsAnywhere(t *testing.T) {
	t.Parallel()
	for seed := range uint64(200) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			rng := rand.New(rand.NewPCG(seed, 1))
			pieces := make([]string, 40)
			for i := range pieces {
				pieces[i] = strings.Repeat(fmt.Sprintf("%d€\xf0 ", i), 1+rng.IntN(12))
				if rng.IntN(4) == 0 {
					pieces[i] += "\n\xe2\x82"
				}
			}
			limit := int64(200 + rng.IntN(6000))
			want := ship(t, pieces, limit, nil, nil)
			got := ship(t, pieces, limit, rng, nil)
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("after restarts: %s", diff)
			}
			// Where the middle is left out depends on all that is in the log.
			want = ship(t, pieces, 1<<30, nil, nil)
			got = ship(t, pieces, 1<<30, rng, []string{"<foreign>"})
			if diff := cmp.Diff(want, strings.ReplaceAll(got, "<foreign>", "")); diff != "" {
				t.Errorf("with others: %s", diff)
			}
		})
	}
}

// ship sends pieces and last words; with rng it starts over now and then.
func ship(t *testing.T, pieces []string, limit int64, rng *rand.Rand, foreign []string) string {
	t.Helper()
	log := girderLogOf{"base\n"}
	cursor := contracts.MirrorCursor{Attempt: 1, Characters: 5}
	sometimes := func(n int) bool { return rng != nil && rng.IntN(n) == 0 }
	for {
		box, midLine := NewOutbox(limit, log, cursor)
		tr := New(Position{cursor.Attempt, cursor.Seq}, midLine)
		crashed := false
		flush := func(complete bool) {
			for entry := box.Next(complete); entry != "" && !crashed; entry = box.Next(complete) {
				if len(foreign) > 0 && sometimes(5) {
					log.append(foreign[0])
				}
				if box.Found(log, "no such entry") {
					t.Error("found what was never sent")
				}
				log.append(entry)
				if crashed = sometimes(6); crashed {
					return
				}
				if !sometimes(3) {
					box.Sent(entry)
				} else if !box.Found(log, entry) {
					t.Error("not found what was sent")
				}
			}
			if !crashed && !sometimes(3) {
				cursor = box.Cursor()
			}
		}
		for seq := cursor.Seq + 1; seq <= uint64(len(pieces)) && tr.At().Attempt == 1 && !crashed; seq++ {
			box.Add(tr.Take(chunk(1, seq, contracts.LogStdout, pieces[seq-1])), tr.At(), tr.Clean())
			if rng == nil || sometimes(2) {
				flush(false)
			}
		}
		if crashed {
			continue
		}
		box.Add(tr.End(), tr.At(), true)
		box.Finish()
		if tr.At().Attempt == 1 {
			box.Break()
			box.Add(tr.EndAttempt("last words"), tr.At(), true)
		}
		flush(true)
		if !crashed {
			return strings.Join(log, "")
		}
	}
}

func TestEntries(t *testing.T) {
	t.Parallel()
	box, _ := NewOutbox(8<<20, nil, contracts.MirrorCursor{Attempt: 1})
	text := strings.Repeat("€", MaxEntry)
	box.Add(text, Position{1, 1}, true)
	var log girderLogOf
	for entry := box.Next(false); entry != ""; entry = box.Next(false) {
		if len(entry) > MaxEntry || !utf8.ValidString(entry) {
			t.Errorf("an entry of %d bytes", len(entry))
		}
		log.append(entry)
		box.Sent(entry)
	}
	if strings.Join(log, "") != text {
		t.Error("the text is not whole")
	}
	want := contracts.MirrorCursor{Attempt: 1, Seq: 1, Characters: MaxEntry}
	if diff := cmp.Diff(want, box.Cursor()); diff != "" {
		t.Error(diff)
	}
}

// With many entries in Girder's log a new one must not push any of them out.
func TestManyEntriesArePutIntoOne(t *testing.T) {
	t.Parallel()
	box, _ := NewOutbox(8<<20, nil, contracts.MirrorCursor{Attempt: 1})
	var log girderLogOf
	var want strings.Builder
	for i := range uint64(3000) {
		text := fmt.Sprintf("line %d\n", i)
		if i%500 == 499 {
			text = strings.Repeat("x", MaxEntry)
		}
		want.WriteString(text)
		box.Add(text, Position{1, i + 1}, true)
		if box.Crowded() {
			all := strings.Join(log, "")
			log = girderLogOf{all}
			box.Joined(int64(len(all)))
		}
		for entry := box.Next(false); entry != ""; entry = box.Next(false) {
			log.append(entry)
			box.Sent(entry)
		}
	}
	if got := strings.Join(log, ""); got != want.String() {
		t.Errorf("%d bytes, want %d", len(got), want.Len())
	}
}

// Where the entries cannot be put into one, new ones are small enough for Girder
// to keep them all.
func TestManyEntriesThatStayApart(t *testing.T) {
	t.Parallel()
	box, _ := NewOutbox(8<<20, nil, contracts.MirrorCursor{Attempt: 1})
	box.StayApart()
	var log girderLogOf
	var want strings.Builder
	for i := range uint64(1500) {
		text := fmt.Sprintf("line %d\n", i)
		if i%500 == 499 {
			text = strings.Repeat("€", MaxEntry/3)
		}
		want.WriteString(text)
		box.Add(text, Position{1, i + 1}, true)
		if box.Crowded() {
			t.Fatal("to be put into one")
		}
		for entry := box.Next(false); entry != ""; entry = box.Next(false) {
			log.append(entry)
			box.Sent(entry)
		}
	}
	if got := strings.Join(log, ""); got != want.String() {
		t.Errorf("%d bytes, want %d", len(got), want.Len())
	}
}

func TestEntriesShrink(t *testing.T) {
	t.Parallel()
	box, _ := NewOutbox(1<<20, nil, contracts.MirrorCursor{Attempt: 1})
	box.Add(strings.Repeat("€", MaxEntry), Position{1, 1}, true)
	sizes := 0
	for entry := box.Next(false); box.Shrink(entry); entry = box.Next(false) {
		sizes++
		if next := box.Next(false); len(next) >= len(entry) || len(next) < len(entry)/2-3 && len(next) < leastEntry-3 || !utf8.ValidString(next) {
			t.Fatalf("%d bytes behind %d", len(next), len(entry))
		}
	}
	if sizes == 0 || len(box.Next(false)) > leastEntry {
		t.Errorf("after %d steps %d bytes", sizes, len(box.Next(false)))
	}
}

func TestARefusedLogIsForgotten(t *testing.T) {
	t.Parallel()
	box, _ := NewOutbox(100, nil, contracts.MirrorCursor{Attempt: 1})
	box.Add(strings.Repeat("x", 200), Position{1, 1}, true)
	sent := box.Next(false)
	box.Sent(sent)
	before := box.Cursor()
	box.Add(strings.Repeat("y", 200), Position{1, 2}, true)
	box.Refuse()
	box.Add("more", Position{1, 3}, true)
	box.Finish()
	box.Break()
	box.Add("last words", Position{2, 0}, true)
	if left := box.Next(true); left != "" || !box.Empty() || box.Cursor() != before {
		t.Errorf("left is %q, cursor %+v", left, box.Cursor())
	}
}
