package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// TestElections: what passes with an election is told from what stays.
func TestElections(t *testing.T) {
	t.Parallel()
	answer := func(code int, errorCode jetstream.ErrorCode) error {
		return &jetstream.APIError{Code: code, ErrorCode: errorCode}
	}
	for _, tt := range []struct {
		name string
		err  error
		want bool
	}{
		{"no leader", answer(http.StatusServiceUnavailable, 10008), true},
		{"no peers", answer(http.StatusBadRequest, 10005), true},
		{"not assigned", answer(http.StatusInternalServerError, 10007), true},
		{"not the leader", answer(http.StatusInternalServerError, 10009), true},
		{"an earlier copy is on its way", answer(http.StatusConflict, 10158), true},
		{"the stream is full", answer(http.StatusServiceUnavailable, notStored), false},
		{"no such stream", answer(http.StatusNotFound, 10059), false},
		{"wrong sequence", answer(http.StatusBadRequest, 10071), false},
		{"no answer", context.DeadlineExceeded, true},
		{"nobody answers", nats.ErrNoResponders, true},
		{"too much to send later", nats.ErrReconnectBufExceeded, true},
		{"socket", io.EOF, true},
		{"closed for good", nats.ErrConnectionClosed, false},
		{"too large", nats.ErrMaxPayload, false},
		{"something else", errors.New("x"), false},
	} {
		if got := isElection(fmt.Errorf("publish: %w", tt.err)); got != tt.want {
			t.Errorf("%s: %v, want %v", tt.name, got, tt.want)
		}
	}
}
