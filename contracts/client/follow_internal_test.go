package client

import (
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

func meta(seq uint64, at time.Time) *jetstream.MsgMetadata {
	return &jetstream.MsgMetadata{Sequence: jetstream.SequencePair{Stream: seq}, Timestamp: at}
}

// TestPositionSurvivesALoss: a server that lost its last messages uses their
// sequences again, for later ones.
func TestPositionSurvivesALoss(t *testing.T) {
	t.Parallel()
	start := time.Now()
	at := Position{Seq: 6}
	if config := at.Behind(); config.OptStartSeq != 7 || config.OptStartTime != nil {
		t.Errorf("begins with %+v", config)
	}
	for _, tt := range []struct {
		seq    uint64
		second int
		isNew  bool
	}{
		{7, 0, true}, {9, 1, true}, {10, 1, true},
		{9, 1, false}, {10, 1, false}, // read again after an interruption
		{9, 5, true}, {10, 6, true}, // stored in place of what was lost
		{10, 6, false}, {11, 6, true},
		{12, 4, true}, {11, 6, false}, {12, 4, false}, // by a member whose clock is behind
	} {
		if got := at.Pass(meta(tt.seq, start.Add(time.Duration(tt.second)*time.Second))); got != tt.isNew {
			t.Errorf("%d of second %d is new: %v, want %v", tt.seq, tt.second, got, tt.isNew)
		}
	}
	if config := at.Behind(); config.OptStartSeq != 13 || !config.OptStartTime.Equal(start.Add(6*time.Second)) {
		t.Errorf("goes on with %+v", config)
	}
}

// TestPositionReachesWhatCameAfterALoss: a sequence that was read before the loss is
// not that of the message which took its place.
func TestPositionReachesWhatCameAfterALoss(t *testing.T) {
	t.Parallel()
	start := time.Now()
	at := func(seq uint64, second int) Position {
		return Position{Seq: seq, Time: start.Add(time.Duration(second) * time.Second)}
	}
	read := at(9, 1)
	for _, tt := range []struct {
		last    Position
		reached bool
	}{
		{Position{}, true}, {at(9, 1), true}, {at(8, 0), true},
		{at(9, 0), true}, // stored by a member whose clock is behind
		{at(10, 2), false}, {at(7, 5), false}, {at(9, 5), false},
	} {
		if got := read.reaches(tt.last); got != tt.reached {
			t.Errorf("%+v is reached: %v, want %v", tt.last, got, tt.reached)
		}
	}
	if read.Pass(meta(7, start.Add(5*time.Second))); !read.reaches(at(7, 5)) {
		t.Error("what was read is not reached")
	}
}
