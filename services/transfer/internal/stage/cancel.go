package stage

import (
	"context"
	"errors"
	"time"

	"github.com/gantry-worker/gantry/services/internal/girder"
)

// cleanupTime is how long canceling an upload in Girder may take. Tests in which
// that always ends well wait for longer.
var cleanupTime = 10 * time.Second

// cancel throws an unfinished upload away, on time of its own: the context may
// have ended. One that is suspended stays.
func (u *upload) cancel(ctx context.Context) error {
	if u.id == "" || errors.Is(context.Cause(ctx), ErrSuspended) {
		return nil
	}
	clean, stop := context.WithTimeout(context.WithoutCancel(ctx), cleanupTime)
	defer stop()
	canceled, err := Cancel(clean, u.Sink, u.id)
	if err != nil {
		u.Log.Warn().Err(err).Str("upload", string(u.id)).Msg("an unfinished upload stays in girder")
		return nil // the caller learns why the upload ended; the memory still has it
	}
	if !canceled && u.summed {
		return nil // it may have become a file, which a later attempt has to look for
	}
	return u.Remember.note(Note{Canceled: u.id})
}

// Canceler throws away unfinished uploads.
type Canceler interface {
	CancelUpload(ctx context.Context, id girder.UploadID) error
}

// Cancel throws an unfinished upload away, tried again while the context lasts,
// and reports whether it was there: one that Girder does not know is no error.
func Cancel(ctx context.Context, c Canceler, id girder.UploadID) (canceled bool, err error) {
	err = girder.Retry{Total: cleanupTime, Foreign: true}.Do(ctx, nil, func() (bool, error) { return false, c.CancelUpload(ctx, id) })
	if errors.Is(err, girder.ErrNotFound) {
		return false, nil
	}
	return err == nil, err
}
