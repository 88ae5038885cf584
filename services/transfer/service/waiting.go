package service

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"syscall"
	"time"

	"github.com/rs/zerolog"

	"github.com/gantry-worker/gantry/services/internal/girder"
	"github.com/gantry-worker/gantry/services/transfer/internal/stage"
)

// itsTurn is what a step without a place waits for.
const itsTurn = "its turn among the steps of this node"

// waits tells why nothing moves: what went wrong before another try.
func (w *work) waits(why error) { w.meter.waits(reason(why)) }

// triedAgain is waits for a [girder.Retry].
func (w *work) triedAgain(err error, _ time.Duration) { w.waits(err) }

// reason says in a few words why something is tried again, or not begun. Neither
// a path nor a query is in it.
func reason(err error) string {
	var refusal *girder.Error
	var broken *girder.Unreachable
	switch {
	case errors.Is(err, stage.ErrFetched):
		return err.Error()
	case errors.Is(err, stage.ErrChecksum), errors.Is(err, stage.ErrIncomplete):
		return "Girder sends other bytes than those of the file"
	case errors.Is(err, stage.ErrOtherBytes):
		return "Girder has other bytes than were sent"
	case errors.As(err, &broken):
		return whoever(broken.Host) + " does not answer: " + breakage(broken.Err)
	case errors.As(err, &refusal):
		return fmt.Sprintf("%s answers %d %s", whoever(refusal.Host), refusal.Status, http.StatusText(refusal.Status))
	}
	return "the last try failed"
}

// whoever is Girder, or the host that it redirected us to.
func whoever(host string) string {
	if host == "" {
		return "Girder"
	}
	return host
}

// breakage says what became of a connection.
func breakage(err error) string {
	var name *net.DNSError
	var network net.Error
	var number syscall.Errno
	switch {
	case errors.As(err, &name):
		return "its host is not known"
	case errors.As(err, &number):
		return number.Error()
	case errors.As(err, &network) && network.Timeout(), errors.Is(err, context.DeadlineExceeded):
		return "it takes too long"
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return "the connection broke"
	}
	return "none came, or none that can be read"
}

// waitsItsTurn is called before the step waits for a place. One that has not
// begun is noted, so that the next process has it at once, and not when its
// message comes again.
func (w *work) waitsItsTurn(ctx context.Context) {
	w.meter.waits(itsTurn)
	if w.entry != nil {
		return
	}
	entry, err := w.journal.Begin(w.step)
	if err == nil {
		err = entry.Close()
	}
	if err != nil {
		zerolog.Ctx(ctx).Warn().Err(err).Msg("not noted that a step waits for a place")
	}
}
