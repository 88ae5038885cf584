package projection

import (
	"context"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/rs/zerolog"
	"golang.org/x/sync/errgroup"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/services/internal/bus"
)

// notesInterval is the least time between two writes of what notes say.
const notesInterval = 500 * time.Millisecond

// said is the last that an attempt said of itself.
type said struct {
	attempt  int
	phase    *contracts.Phase
	progress *contracts.Progress
	// early says that the projection does not know the attempt yet.
	early bool
}

// notes collects what notes say and stores it now and then.
type notes struct {
	bus     *bus.Bus
	arrived chan *noteOf
}

type noteOf struct {
	job  contracts.JobID
	note *contracts.Note
}

func newNotes(b *bus.Bus) *notes {
	return &notes{bus: b, arrived: make(chan *noteOf)}
}

func (n *notes) run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return n.read(ctx) })
	group.Go(func() error { return n.store(ctx) })
	return group.Wait()
}

// read passes on the notes of the jobs that run now, from their first one, and
// of all jobs from now on.
func (n *notes) read(ctx context.Context) error {
	last, err := n.bus.LastSeq(ctx, contracts.StreamLive, contracts.NotesAll)
	if err != nil {
		return err
	}
	for job, err := range n.bus.Projections(ctx) {
		if err != nil {
			return err
		}
		if job == nil {
			break
		}
		if !job.Status.Terminal() && job.Attempt > 0 {
			if err := n.replay(ctx, job.ID); err != nil {
				return err
			}
		}
	}
	for msg, err := range n.bus.Messages(ctx, contracts.StreamLive, last+1, contracts.NotesAll) {
		if err != nil {
			return err
		}
		n.pass(ctx, contracts.JobOfSubject(msg.Subject()), msg.Data())
	}
	return context.Cause(ctx)
}

func (n *notes) replay(ctx context.Context, job contracts.JobID) error {
	last, err := n.bus.LastSeq(ctx, contracts.StreamLive, contracts.NotesSubject(job))
	if err != nil || last == 0 {
		return err
	}
	for msg, err := range n.bus.Messages(ctx, contracts.StreamLive, 1, contracts.NotesSubject(job)) {
		if err != nil {
			return err
		}
		n.pass(ctx, job, msg.Data())
		if meta, err := msg.Metadata(); err != nil || meta.Sequence.Stream >= last {
			return nil
		}
	}
	return context.Cause(ctx)
}

func (n *notes) pass(ctx context.Context, job contracts.JobID, data []byte) {
	note := new(contracts.Note)
	if json.Unmarshal(data, note) != nil {
		return
	}
	select {
	case n.arrived <- &noteOf{job, note}:
	case <-ctx.Done():
	}
}

// store writes what is new at most once per interval.
func (n *notes) store(ctx context.Context) error {
	fresh := map[contracts.JobID]*said{}
	ticker := time.NewTicker(notesInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case arrived := <-n.arrived:
			if fresh[arrived.job] == nil {
				fresh[arrived.job] = &said{}
			}
			fresh[arrived.job].hear(arrived.note)
		case <-ticker.C:
			for job, said := range fresh {
				if _, err := n.bus.UpdateProjection(ctx, job, said.apply); err != nil && ctx.Err() == nil {
					zerolog.Ctx(ctx).Warn().Err(err).Str("job", string(job)).Msg("progress not stored")
				}
				if !said.early {
					delete(fresh, job)
				}
			}
		}
	}
}

// hear takes in a note; what an earlier attempt said no longer counts.
func (s *said) hear(note *contracts.Note) {
	if note.Attempt < s.attempt {
		return
	}
	if note.Attempt > s.attempt {
		*s = said{attempt: note.Attempt}
	}
	switch note.Type {
	case contracts.NotePhase:
		if phase := new(contracts.Phase); json.Unmarshal(note.Data, phase) == nil {
			s.phase = phase
		}
	case contracts.NoteProgress:
		if progress := new(contracts.Progress); json.Unmarshal(note.Data, progress) == nil {
			s.progress = progress
		}
	}
}

func (s *said) apply(job *contracts.Job) bool {
	s.early = job.LifeSeq > 0 && job.Attempt < s.attempt
	if job.LifeSeq == 0 || job.Attempt != s.attempt || s.phase == nil && s.progress == nil {
		return false
	}
	if s.phase != nil {
		job.Phase = s.phase
	}
	if s.progress != nil {
		job.Progress = s.progress
	}
	return true
}
