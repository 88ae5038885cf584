package mirror

import (
	"context"
	"errors"
	"reflect"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/services/internal/bus"
)

// readRef reads the last word on the job's Girder job.
func (m *mirror) readRef(ctx context.Context) error {
	ref, seq, err := m.bus.GirderJob(ctx, m.job)
	if err != nil {
		return err
	}
	m.ref, m.refSeq = contracts.GirderJobRef{}, seq
	if ref != nil {
		m.ref = *ref
	}
	return nil
}

// tell changes the word on the job's Girder job. It says what no projection
// needs to say as well, so that one can be built from nothing. change is called
// again where the word is another by now, which may be our own whose answer was
// lost.
func (m *mirror) tell(ctx context.Context, change func(*contracts.GirderJobRef)) error {
	for {
		next := m.ref
		change(&next)
		if reflect.DeepEqual(next, m.ref) {
			return nil
		}
		seq, err := m.bus.PutGirderJob(ctx, m.job, m.refSeq, next)
		if err == nil {
			next.Version = contracts.Version
			m.ref, m.refSeq = next, seq
			return nil
		}
		if !errors.Is(err, bus.ErrOvertaken) {
			return err
		}
		if err := m.readRef(ctx); err != nil {
			return err
		}
	}
}
