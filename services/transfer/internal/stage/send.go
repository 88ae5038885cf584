package stage

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/gantry-worker/gantry/services/internal/girder"
)

// send sends chunks until the server has all of the file.
func (u *upload) send(ctx context.Context) (*girder.File, error) {
	if err := u.content.hashTo(u.offset); err != nil { // what an earlier process sent
		return nil, err
	}
	for {
		length := u.length()
		if u.offset+length == u.size {
			if err := u.last(ctx); err != nil {
				return nil, err
			}
		}
		body := u.content.chunk(u.offset, length, u.moved)
		up, err := u.Sink.UploadChunk(ctx, u.id, u.offset, body, length)
		u.content.close() // its buffers, which one that waits for its turn needs none of
		if isTooLarge(err) {
			u.asking = true
			return nil, u.shorten(length, err)
		}
		if err != nil {
			u.asking = true
			return nil, u.refused(ctx, err)
		}
		if up.File != nil {
			u.offset = u.size
			u.moved(u.size)
			return up.File, nil
		}
		if up.Received <= u.offset {
			u.asking = true
			return nil, fmt.Errorf("girder took %d bytes and has %d of %d", length, up.Received, u.size)
		}
		u.offset = up.Received
	}
}

// length is how much the next chunk has.
func (u *upload) length() int64 {
	left := u.size - u.offset
	most := u.most.Load()
	if u.into != nil && !u.summed && left <= most && left > longTail {
		return left - shortTail
	}
	return min(most, left)
}

// isTooLarge reports whether something refuses a request for its size.
func isTooLarge(err error) bool {
	var refusal *girder.Error
	return errors.As(err, &refusal) && refusal.Status == http.StatusRequestEntityTooLarge
}

// shorten makes the chunks of all files half as long, where a proxy before Girder
// takes none of this length. Girder wants no shorter ones than the least.
func (u *upload) shorten(length int64, err error) error {
	if length <= girder.MinChunk {
		return fmt.Errorf("%w: what is before Girder has to let requests of %d MiB pass, as nginx does with client_max_body_size", err, girder.MinChunk>>20)
	}
	half := max(length/2, girder.MinChunk)
	for most := u.most.Load(); half < most && !u.most.CompareAndSwap(most, half); most = u.most.Load() {
	}
	return tryAgain(err)
}

// refused decides about a refused chunk: one for an upload that is not there
// any more, or that has another offset, may be the echo of a chunk that did
// arrive, and Girder is asked again.
func (u *upload) refused(ctx context.Context, err error) error {
	var refusal *girder.Error
	if girder.IsOutage(err) || !errors.As(err, &refusal) || refusal.Status != 400 {
		return err
	}
	had := u.offset
	if asked := u.ask(ctx); asked != nil {
		return asked
	}
	if u.id != "" && u.offset == had {
		return err // Girder has what we thought, and refuses what follows
	}
	return tryAgain(err)
}

// tryAgain makes a temporary error of a refusal that another try may not meet.
func tryAgain(err error) error {
	var refusal *girder.Error
	if !errors.As(err, &refusal) {
		return err
	}
	return &girder.Unreachable{Method: refusal.Method, Path: refusal.Path, Err: errors.New(refusal.Message)}
}
