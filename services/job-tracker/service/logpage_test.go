package service_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/gantry-worker/gantry/contracts"
)

// pages reads a log page by page.
func (r *run) pages(from int64, limit int) (text string, pages int) {
	r.t.Helper()
	for {
		page, err := r.bus.LogPage(r.ctx, contracts.LogRequest{Job: r.id, From: from, Limit: limit})
		r.must(err)
		for _, piece := range page.Pieces {
			if piece.Place != from {
				r.t.Fatalf("a piece at %d behind %d", piece.Place, from)
			}
			text += string(piece.Bytes())
			from += int64(len(piece.Bytes()))
		}
		if page.Next != from {
			r.t.Fatalf("next is %d behind %d", page.Next, from)
		}
		pages++
		if page.Complete {
			return text, pages
		}
	}
}

func TestPagesOfALog(t *testing.T) {
	t.Parallel()
	for name, places := range map[string]bool{"of pieces that say where they are": true, "of pieces that do not": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			pagesOfALog(t, places)
		})
	}
}

func pagesOfALog(t *testing.T, places bool) {
	s := newSite(t)
	s.start()
	r := s.submit(task(nil))
	r.places = places
	r.begin()
	r.print(contracts.LogStdout, "one\xff\n")
	page, err := s.bus.LogPage(s.ctx, contracts.LogRequest{Job: r.id, From: 2})
	if err != nil || page.Complete || page.Next != 5 || len(page.Pieces) != 1 || string(page.Pieces[0].Bytes()) != "e\xff\n" {
		t.Errorf("page %+v, error %v", page, err)
	}
	want := "one\xff\n"
	for range 4 {
		// As text, each of these bytes takes six.
		piece := strings.Repeat("\x01", contracts.MaxLogChunk)
		r.print(contracts.LogStderr, piece)
		want += piece
	}
	r.entry(&contracts.Failed{Kind: contracts.FailureInfrastructure, Message: "gone", WillRetry: true, LogSeq: r.seq})
	r.entry(&contracts.Queued{Lane: contracts.LaneNormal, Queue: contracts.DefaultQueue, Kind: contracts.KindDocker, Reason: contracts.QueuedRetry})
	r.begin()
	r.print(contracts.LogStdout, "two\n")
	r.succeed()
	want += "two\n"
	for _, from := range []int64{3, 70000, int64(len(want)) - 1, int64(len(want))} {
		text, pages := r.pages(from, 0)
		if text != want[from:] {
			t.Errorf("from %d: %d bytes in %d pages, want %d", from, len(text), pages, int64(len(want))-from)
		}
	}
	if _, pages := r.pages(0, contracts.MaxLogPage); pages < 4 {
		t.Errorf("%d pages: they are too long to be sent", pages)
	}
	for field, request := range map[string]contracts.LogRequest{
		"from": {Job: r.id, From: -1}, "limit": {Job: r.id, Limit: contracts.MaxLogPage + 1}, "job": {Job: "nobody"},
	} {
		var refusal *contracts.RequestError
		if _, err := s.bus.LogPage(s.ctx, request); !errors.As(err, &refusal) || refusal.Field != field {
			t.Errorf("%s: error %v", field, err)
		}
	}
}
