package query

import (
	"cmp"
	"context"
	"fmt"

	"github.com/go-json-experiment/json"

	"github.com/gantry-worker/gantry/contracts"
)

// maxAnswer bounds a page of log as it is sent, in bytes: what is text there may
// be several times as long as it is.
const maxAnswer = 768 << 10

// log answers with what is there of a job's log from a place on.
func (x *Index) log(ctx context.Context, request contracts.LogRequest) (*contracts.LogPage, error) {
	if request.From < 0 {
		return nil, invalid("from", fmt.Sprintf("%d is below zero", request.From))
	}
	if request.Limit < 0 || request.Limit > contracts.MaxLogPage {
		return nil, invalid("limit", fmt.Sprintf("%d is not between 0 and %d bytes", request.Limit, contracts.MaxLogPage))
	}
	job, err := x.job(ctx, jobRequest{request.Job})
	if err != nil {
		return nil, err
	}
	page := &contracts.LogPage{Pieces: []contracts.LogPiece{}, Next: request.From, Complete: job.Status.Terminal()}
	size, answer := 0, 0
	for piece, err := range x.bus.LogFrom(ctx, request.Job, request.From, false) {
		if err != nil {
			return nil, err
		}
		written, err := json.Marshal(piece)
		if err != nil {
			return nil, err
		}
		size += len(piece.Bytes())
		answer += len(written)
		if len(page.Pieces) > 0 && (size > cmp.Or(request.Limit, contracts.DefaultLogPage) || answer > maxAnswer) {
			page.Complete = false
			break
		}
		page.Pieces = append(page.Pieces, piece)
		page.Next = piece.Place + int64(len(piece.Bytes()))
	}
	return page, nil
}
