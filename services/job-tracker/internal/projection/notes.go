package projection

import (
	"context"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/rs/zerolog"
	"golang.org/x/sync/errgroup"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/contracts/client"
	"github.com/gantry-worker/gantry/services/internal/bus"
)

// notesInterval is the least time between two writes of what notes say.
const notesInterval = 500 * time.Millisecond

// said is the last that an attempt said of itself.
type said struct {
	at       client.Position // of the last note
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
	at   client.Position
	note *contracts.Note
}

func newNotes(b *bus.Bus) *notes {
	return &notes{bus: b, arrived: make(chan *noteOf)}
}

func (n *notes) run(ctx context.Context) error {
	last, err := n.bus.LastPosition(ctx, contracts.StreamLive, contracts.NotesAll)
	if err != nil {
		return err
	}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return n.follow(ctx, last) })
	group.Go(func() error { return n.makeUp(ctx, time.Now()) })
	group.Go(func() error { return n.store(ctx) })
	return group.Wait()
}

// follow passes on the notes of all jobs behind a position.
func (n *notes) follow(ctx context.Context, behind client.Position) error {
	for msg, err := range n.bus.MessagesBehind(ctx, contracts.StreamLive, behind, contracts.NotesAll) {
		if err != nil {
			return err
		}
		if meta, err := msg.Metadata(); err == nil {
			n.pass(ctx, contracts.JobOfSubject(msg.Subject()), client.PositionOf(meta), msg.Data())
		}
	}
	return context.Cause(ctx)
}

// makeUp passes on what was said before the start: by the jobs that had not
// ended then, by those of which nothing is known although they ran, and by those
// that the projection did not know yet.
func (n *notes) makeUp(ctx context.Context, start time.Time) error {
	known := map[contracts.JobID]bool{}
	scanned := false
	for job, err := range n.bus.Projections(ctx) {
		switch {
		case err != nil:
			return err
		case job == nil:
			scanned = true
			continue
		case known[job.ID] || job.SubmittedAt.After(start):
			continue
		}
		known[job.ID] = true
		if job.Status.Terminal() && !scanned && (job.StartedAt.IsZero() || job.Phase != nil || job.Progress != nil) {
			continue
		}
		if err := n.replay(ctx, job.ID); err != nil {
			return err
		}
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
		meta, err := msg.Metadata()
		if err != nil {
			continue
		}
		n.pass(ctx, job, client.PositionOf(meta), msg.Data())
		if meta.Sequence.Stream >= last {
			return nil
		}
	}
	return context.Cause(ctx)
}

func (n *notes) pass(ctx context.Context, job contracts.JobID, at client.Position, data []byte) {
	note := new(contracts.Note)
	if json.Unmarshal(data, note) != nil {
		return
	}
	select {
	case n.arrived <- &noteOf{job, at, note}:
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
			fresh[arrived.job].hear(arrived.at, arrived.note)
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

// hear takes in a note. What an earlier attempt said no longer counts, nor what
// was said before.
func (s *said) hear(at client.Position, note *contracts.Note) {
	if note.Attempt < s.attempt || at.Seq < s.at.Seq && !at.Time.After(s.at.Time) {
		return
	}
	if note.Attempt > s.attempt {
		*s = said{attempt: note.Attempt}
	}
	s.at = at
	switch note.Type {
	case contracts.NotePhase:
		if phase := new(contracts.Phase); json.Unmarshal(note.Data, phase) == nil {
			s.phase = phase
		}
	case contracts.NoteProgress:
		if progress := new(contracts.Progress); json.Unmarshal(note.Data, progress) == nil {
			progress.Message = shorten(progress.Message, maxMessage)
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
