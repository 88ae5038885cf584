package bus

import (
	"fmt"
	"net/http"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// TestOutages: the server's own trouble is waited out, and its refusals are not.
func TestOutages(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name      string
		code      int
		errorCode jetstream.ErrorCode
		want      bool
	}{
		{"no leader", http.StatusServiceUnavailable, 10008, true},
		{"the stream is full", http.StatusServiceUnavailable, 10077, true},
		{"the account is full", http.StatusBadRequest, 10002, true},
		{"no peers", http.StatusBadRequest, 10005, true},
		{"not assigned", http.StatusInternalServerError, 10007, true},
		{"not the leader", http.StatusInternalServerError, 10009, true},
		{"consumer closed", http.StatusInternalServerError, 10012, true},
		{"the disk is full", http.StatusInternalServerError, 10047, true},
		{"stream closed", http.StatusInternalServerError, 10051, true},
		{"stream is offline", http.StatusInternalServerError, 10118, true},
		{"an earlier copy is on its way", http.StatusConflict, 10158, true},
		{"configuration", http.StatusInternalServerError, 10052, false},
		{"three replicas on one server", http.StatusInternalServerError, 10074, false},
		{"wrong sequence", http.StatusBadRequest, 10071, false},
		{"message too large", http.StatusBadRequest, 10054, false},
		{"no such consumer", http.StatusNotFound, 10014, false},
	} {
		err := fmt.Errorf("purge: %w", &jetstream.APIError{Code: tt.code, ErrorCode: tt.errorCode})
		if got := isOutage(err); got != tt.want {
			t.Errorf("%s: %v, want %v", tt.name, got, tt.want)
		}
	}
	for description, want := range map[string]bool{
		"max waiting can not be updated":                  false,
		"ack policy can not be updated":                   false,
		"can not update pull consumer to push based":      false,
		"consumer store could not be made: no space left": true,
	} {
		err := fmt.Errorf("create consumer: %w", &jetstream.APIError{
			Code: http.StatusInternalServerError, ErrorCode: consumerNotMade, Description: description,
		})
		if got := isOutage(err); got != want {
			t.Errorf("%s: %v, want %v", description, got, want)
		}
	}
	if !isOutage(fmt.Errorf("append: %w", nats.ErrConnectionClosed)) {
		t.Error("a connection that was closed for good refused nothing")
	}
}
