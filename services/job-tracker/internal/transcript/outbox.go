package transcript

import (
	"cmp"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/gantry-worker/gantry/contracts"
)

const (
	// MaxEntry is the largest entry of a log in Girder, in bytes.
	MaxEntry = 64 << 10
	// girderLog is the number from which Girder reckons how many entries it
	// keeps: no more than girderLog / the characters of the newest.
	girderLog = 4194304
	// crowded is the number of entries from which new ones would have to be
	// small. They are then put into one.
	crowded = 1000
)

// Outbox holds the text that Girder does not have yet. Of a log that is longer
// than the limit Girder gets the first half as it comes, and at the end the last
// half, with a line between them that says how much is left out.
type Outbox struct {
	limit   int64 // in bytes
	length  int64 // of the text that was let through, in bytes
	pending []byte
	marks   []mark // positions in pending, in order
	breaks  []int  // places in pending where an entry must end
	last    Position

	over    bool
	tail    []byte
	gaps    []gap // in the tail, in order
	dropped int64

	most    int  // bytes of an entry, where Girder takes less than MaxEntry
	apart   bool // the entries cannot be put into one
	refused bool // no more is sent

	cursor  contracts.MirrorCursor
	chars   int64 // characters in Girder's log
	entries int   // of Girder's log
	there   []there
}

// mark says that pending, up to end, is the text up to a position.
type mark struct {
	end int
	at  Position
}

// gap says that bytes of the log are missing at a place in the tail, which the
// text there says as well.
type gap struct {
	at    int
	bytes int64
}

// there is an entry that Girder has behind the cursor: our own, whose sending
// was not noted before a crash, or somebody else's.
type there struct {
	text  string
	start int64 // in characters of the whole log
}

// NewOutbox returns an outbox for a log of which Girder has these entries, and
// whose position is known up to the cursor. midLine says whether the text up to
// the cursor ends within a line.
func NewOutbox(limit int64, log []string, cursor contracts.MirrorCursor) (o *Outbox, midLine bool) {
	o = &Outbox{limit: limit, entries: len(log), last: Position{cursor.Attempt, cursor.Seq}}
	for _, entry := range log {
		known := entry
		if over := o.chars + int64(utf8.RuneCountInString(entry)) - cursor.Characters; over > 0 {
			rest := lastRunes(entry, over)
			known = entry[:len(entry)-len(rest)]
			o.there = append(o.there, there{rest, max(o.chars, cursor.Characters)})
		}
		o.chars += int64(utf8.RuneCountInString(entry))
		o.length += int64(len(known))
		if known != "" {
			midLine = !strings.HasSuffix(known, "\n")
		}
	}
	cursor.Characters = min(cursor.Characters, o.chars)
	o.cursor = cursor
	return o, midLine
}

// lastRunes returns the last n characters of s, all of it if it has fewer.
func lastRunes(s string, n int64) string {
	at := len(s)
	for ; n > 0 && at > 0; n-- {
		_, size := utf8.DecodeLastRuneInString(s[:at])
		at -= size
	}
	return s[at:]
}

// Add takes the next text of a log. at is the position behind it, where clean
// says that all of it up to there is in the text.
func (o *Outbox) Add(text string, at Position, clean bool) {
	if o.refused {
		return
	}
	room := o.limit/2 - o.length
	switch {
	case o.over:
		o.keep(text)
	case int64(len(text)) > room:
		cut := max(0, int(room))
		for cut > 0 && !utf8.RuneStart(text[cut]) {
			cut--
		}
		o.push(text[:cut])
		o.over = true
		o.keep(text[cut:])
	default:
		o.push(text)
	}
	if !clean {
		return
	}
	o.last = at
	if !o.over {
		o.mark()
	}
}

// Miss says that bytes of the log are missing where the next text is added.
func (o *Outbox) Miss(bytes int64) {
	if o.over && bytes > 0 {
		o.gaps = append(o.gaps, gap{len(o.tail), bytes})
	}
}

func (o *Outbox) push(text string) {
	o.pending = append(o.pending, text...)
	o.length += int64(len(text))
}

// mark notes the position at the end of pending.
func (o *Outbox) mark() {
	if len(o.pending) == 0 && len(o.there) == 0 {
		o.cursor = contracts.MirrorCursor{Attempt: o.last.Attempt, Seq: o.last.Seq, Characters: o.chars}
		return
	}
	if n := len(o.marks); n > 0 && o.marks[n-1].end == len(o.pending) {
		o.marks = o.marks[:n-1]
	}
	o.marks = append(o.marks, mark{len(o.pending), o.last})
}

// keep holds text back, and of that no more than the last half of the limit.
func (o *Outbox) keep(text string) {
	o.tail = append(o.tail, text...)
	if extra := int64(len(o.tail)) - o.limit/2; extra > o.limit/4 {
		o.drop(extra)
	}
}

func (o *Outbox) drop(extra int64) {
	for extra < int64(len(o.tail)) && !utf8.RuneStart(o.tail[extra]) {
		extra++
	}
	o.tail = append(o.tail[:0], o.tail[extra:]...)
	o.dropped += extra
	for len(o.gaps) > 0 && int64(o.gaps[0].at) < extra { // with the line that told of it
		o.dropped += o.gaps[0].bytes
		o.gaps = o.gaps[1:]
	}
	for i := range o.gaps {
		o.gaps[i].at -= int(extra)
	}
}

// Finish says that the log is complete: what was held back may go.
func (o *Outbox) Finish() {
	if !o.over || o.refused {
		return
	}
	if extra := int64(len(o.tail)) - o.limit/2; extra > 0 {
		o.drop(extra)
	}
	if o.dropped > 0 {
		o.push(fmt.Sprintf("\n[gantry: %d bytes of the log are left out here, behind the first %d]\n", o.dropped, o.length))
	}
	o.push(string(o.tail))
	o.tail, o.gaps, o.over = nil, nil, false
	o.limit = 1 << 62 // what comes now are the last words
	o.mark()
}

// Break makes the text that follows an entry of its own.
func (o *Outbox) Break() {
	if len(o.pending) > 0 {
		o.breaks = append(o.breaks, len(o.pending))
	}
}

// Empty reports whether there is nothing to send at present.
func (o *Outbox) Empty() bool { return len(o.pending) == 0 }

// Crowded reports whether Girder's log has so many entries that they should be
// put into one before more are added.
func (o *Outbox) Crowded() bool { return o.entries >= crowded && !o.apart }

// StayApart says that the entries of Girder's log cannot be put into one. New
// ones get smaller then, the more there are.
func (o *Outbox) StayApart() { o.apart = true }

// leastEntry is the size, in bytes, below which no smaller entry is tried.
const leastEntry = 4 << 10

// Shrink makes the entries smaller than one that Girder found too large. It
// reports false where they are as small as they may be.
func (o *Outbox) Shrink(entry string) bool {
	if len(entry) <= leastEntry {
		return false
	}
	o.most = max(len(entry)/2, leastEntry)
	return true
}

// Refuse says that Girder takes no more of the log. What it does not have is
// forgotten, and so is all that follows.
func (o *Outbox) Refuse() {
	o.refused = true
	o.pending, o.tail, o.gaps, o.marks, o.breaks, o.there = nil, nil, nil, nil, nil, nil
}

// Next returns the next entry to send, empty if there is none yet. complete
// says that all text is in the outbox.
func (o *Outbox) Next(complete bool) string {
	for len(o.there) > 0 {
		first := o.there[0]
		waiting := string(o.pending[:min(len(o.pending), len(first.text))])
		switch {
		case waiting == first.text:
			o.sent(len(first.text), first.start)
		case !complete && strings.HasPrefix(first.text, waiting):
			return "" // more text will tell
		}
		o.there = o.there[1:]
	}
	end := min(len(o.pending), cmp.Or(o.most, MaxEntry))
	if len(o.breaks) > 0 {
		end = min(end, o.breaks[0])
	}
	runes, most := 0, girderLog/(o.entries+1)
	for at := 0; at < end; runes++ {
		_, size := utf8.DecodeRune(o.pending[at:])
		if at+size > end || runes == most {
			end = at
			break
		}
		at += size
	}
	return string(o.pending[:end])
}

// Sent says that Girder has the entry that Next returned.
func (o *Outbox) Sent(entry string) {
	start := o.chars
	o.chars += int64(utf8.RuneCountInString(entry))
	o.entries++
	o.sent(len(entry), start)
}

// sent removes the first n bytes of pending, which are in Girder's log from the
// character start on.
func (o *Outbox) sent(n int, start int64) {
	passed := 0
	for _, m := range o.marks {
		if m.end > n {
			break
		}
		chars := start + int64(utf8.RuneCount(o.pending[:m.end]))
		o.cursor = contracts.MirrorCursor{Attempt: m.at.Attempt, Seq: m.at.Seq, Characters: chars}
		passed++
	}
	o.marks = o.marks[passed:]
	for i := range o.marks {
		o.marks[i].end -= n
	}
	for len(o.breaks) > 0 && o.breaks[0] <= n {
		o.breaks = o.breaks[1:]
	}
	for i := range o.breaks {
		o.breaks[i] -= n
	}
	o.pending = append(o.pending[:0], o.pending[n:]...)
}

// Found looks, after a request whose outcome is not known, for the entry in
// Girder's log as it is now. If it is there, it counts as sent.
func (o *Outbox) Found(log []string, entry string) bool {
	before, chars := o.chars, int64(0)
	found, start := false, int64(0)
	for _, present := range log {
		if chars >= before && !found && present == entry {
			found, start = true, chars
		}
		chars += int64(utf8.RuneCountInString(present))
	}
	o.chars, o.entries = chars, len(log)
	if found {
		o.sent(len(entry), start)
	}
	return found
}

// Joined says that the log's entries were put into one, of so many characters.
func (o *Outbox) Joined(chars int64) { o.chars, o.entries = chars, 1 }

// Cursor returns the position up to which Girder has the log.
func (o *Outbox) Cursor() contracts.MirrorCursor { return o.cursor }
