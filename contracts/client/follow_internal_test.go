package client

import (
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/gantry-worker/gantry/contracts"
)

func meta(seq uint64, at time.Time) *jetstream.MsgMetadata {
	return &jetstream.MsgMetadata{Sequence: jetstream.SequencePair{Stream: seq}, Timestamp: at}
}

// TestPositionSurvivesALossOfLogs: a server that lost its last messages uses
// their sequences again, for later ones.
func TestPositionSurvivesALossOfLogs(t *testing.T) {
	t.Parallel()
	start := time.Now()
	at := position{seq: 6}
	if config := at.config(contracts.StreamLive, nil); config.OptStartSeq != 7 || config.OptStartTime != nil {
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
	} {
		if got := at.pass(meta(tt.seq, start.Add(time.Duration(tt.second)*time.Second))); got != tt.isNew {
			t.Errorf("%d of second %d is new: %v, want %v", tt.seq, tt.second, got, tt.isNew)
		}
	}
	config := at.config(contracts.StreamLive, nil)
	if config.OptStartSeq != 0 || !config.OptStartTime.Equal(start.Add(6*time.Second)) {
		t.Errorf("logs go on with %+v", config)
	}
	if config := at.config(contracts.StreamJobs, nil); config.OptStartSeq != 12 || config.OptStartTime != nil {
		t.Errorf("lives go on with %+v", config)
	}
}
