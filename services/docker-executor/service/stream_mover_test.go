package service_test

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"github.com/go-json-experiment/json"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/services/internal/bus"
	"github.com/gantry-worker/gantry/services/internal/fifo"
	"github.com/gantry-worker/gantry/services/internal/volume"
)

// mover is a transfer that moves the bytes of streams, from and to memory. What
// else is asked of it, it does at once.
type mover struct {
	s     *stage
	files map[string][]byte // of Girder, by ID
	// breaks returns the result of a stream that breaks after so many bytes, nil
	// to go on.
	breaks func(step *contracts.Step, moved int64) *contracts.StepResult
	moved  chan string // gets the name of each step at its first bytes, if it is not nil
	stuck  <-chan struct{}
	// uploads is called when a stream has ended, before its result is there.
	uploads func(step *contracts.Step)
	loses   int64 // bytes that finish does not hear of
	deaf    bool  // it begins no stream
	eager   bool  // it feeds pipes that the container has not opened
	ctx     context.Context
	cancel  context.CancelFunc
	all     sync.WaitGroup

	beginning, finishing chan struct{} // closed when it was asked to
	once                 [2]sync.Once

	mu      sync.Mutex
	running map[string]*moving
	got     map[string][]byte
	steps   []contracts.Step
}

// moving is one stream.
type moving struct {
	end     func() // of its pipe, when the container has ended
	written *int64 // what finish says
	held    io.Closer
	over    bool
}

func (s *stage) moves(files map[string][]byte) *mover {
	s.t.Helper()
	m := &mover{
		s: s, files: files, running: map[string]*moving{}, got: map[string][]byte{},
		beginning: make(chan struct{}), finishing: make(chan struct{}),
	}
	m.ctx, m.cancel = context.WithCancel(context.Background())
	consumer := contracts.TransferConsumer(s.node())
	if err := s.bus.DeclareConsumer(s.ctx, consumer); err != nil {
		s.t.Fatal(err)
	}
	m.all.Go(func() {
		_ = s.bus.Work(m.ctx, consumer, 4, func(_ context.Context, msg *bus.Message) error { return m.serve(msg.Data) })
	})
	s.t.Cleanup(m.stop)
	return m
}

// stop ends it, with all that it holds.
func (m *mover) stop() {
	m.cancel()
	m.all.Wait()
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, stream := range m.running {
		if err := stream.held.Close(); err != nil {
			m.s.t.Error(err)
		}
	}
	clear(m.running)
}

func (m *mover) serve(body []byte) error {
	step := new(contracts.Step)
	if err := json.Unmarshal(body, step); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.steps = append(m.steps, *step)
	switch step.Kind {
	case contracts.StepStream:
		m.once[0].Do(func() { close(m.beginning) })
		if m.deaf {
			return nil
		}
		if m.running[key(step, step.Step)] == nil && !m.has(step) {
			m.begin(step)
		}
		return nil
	case contracts.StepFinish:
		m.once[1].Do(func() { close(m.finishing) })
		for name, stream := range m.running {
			if filepath.Dir(name) == step.Folder && !stream.over {
				if n, ok := step.Written[filepath.Base(name)]; ok {
					n += m.loses
					stream.written = &n
				}
				stream.end()
			}
		}
		return m.write(step, &contracts.StepResult{Outcome: contracts.StepDone})
	case contracts.StepStageIn:
		return m.write(step, bring(*step))
	case contracts.StepStageOut:
		return m.write(step, sent(*step))
	default:
		return m.write(step, m.s.bringSendOrHold(*step))
	}
}

func key(step *contracts.Step, name string) string { return filepath.Join(step.Folder, name) }

func (m *mover) path(step *contracts.Step, name string) string {
	return filepath.Join(m.s.root, step.Folder, "steps", name)
}

func (m *mover) has(step *contracts.Step) bool {
	_, err := os.Stat(m.path(step, step.Step+".json"))
	return err == nil
}

// begin opens the stream's pipe and says so; the lock is held.
func (m *mover) begin(step *contracts.Step) {
	stream := &moving{}
	var move func() *contracts.StepResult
	if pipe := step.Stream.To.Pipe; pipe != nil {
		writer, err := fifo.OpenWriter(volume.Volume{Host: pipe.Volume}, pipe.Name, fifo.Beside)
		if err != nil {
			m.s.t.Error(err)
			return
		}
		stream.held, stream.end = writer, writer.End
		context.AfterFunc(m.ctx, func() { writer.Interrupt(m.ctx.Err()) })
		move = func() *contracts.StepResult { return m.feed(step, writer) }
	} else {
		pipe := step.Stream.From.Pipe
		reader, err := fifo.OpenReader(volume.Volume{Host: pipe.Volume}, pipe.Name, fifo.Beside)
		if err != nil {
			m.s.t.Error(err)
			return
		}
		stream.held, stream.end = reader, reader.End
		context.AfterFunc(m.ctx, func() { reader.Interrupt(m.ctx.Err()) })
		move = func() *contracts.StepResult { return m.take(step, stream, reader) }
	}
	m.running[key(step, step.Step)] = stream
	if err := os.WriteFile(m.path(step, contracts.StreamingMark(step.Step)), nil, 0o600); err != nil {
		m.s.t.Error(err)
	}
	m.tell(step, false)
	m.all.Go(func() {
		result := move()
		if result == nil {
			return
		}
		m.mu.Lock()
		defer m.mu.Unlock()
		stream.over = true
		if err := m.write(step, result); err != nil {
			m.s.t.Error(err)
		}
		if result.Outcome != contracts.StepDone {
			return // its end is held on
		}
		if err := stream.held.Close(); err != nil {
			m.s.t.Error(err)
		}
	})
}

// feed moves a file into a pipe, as soon as the container has that open: what is
// in a pipe that nobody has open is lost with the last of its holders.
func (m *mover) feed(step *contracts.Step, to *fifo.Writer) *contracts.StepResult {
	data := m.files[step.Stream.From.FileID]
	if result := m.broken(step, 0); result != nil {
		return result
	}
	if !m.eager {
		if err := to.Opened(m.ctx); err != nil && !errors.Is(err, fifo.ErrLeft) {
			return nil
		}
	}
	for done := 0; done < len(data); {
		if result := m.broken(step, int64(done)); result != nil {
			return result
		}
		n, err := to.Write(data[done:min(len(data), done+100_000)])
		done += n
		m.tellMoved(step)
		switch {
		case errors.Is(err, fifo.ErrLeft):
			return &contracts.StepResult{Outcome: contracts.StepDone, Bytes: to.Taken()}
		case err != nil:
			return nil
		}
	}
	return &contracts.StepResult{Outcome: contracts.StepDone, Bytes: int64(len(data))}
}

// take moves what comes out of a pipe.
func (m *mover) take(step *contracts.Step, stream *moving, from *fifo.Reader) *contracts.StepResult {
	buf := make([]byte, 64<<10)
	for moved := int64(0); ; {
		if result := m.broken(step, moved); result != nil {
			return result
		}
		if m.ctx.Err() != nil {
			return nil
		}
		n, err := from.Read(buf)
		moved += int64(n)
		m.mu.Lock()
		m.got[step.Step] = append(m.got[step.Step], buf[:n]...)
		written := stream.written
		m.mu.Unlock()
		switch {
		case errors.Is(err, io.EOF) && written != nil && *written != moved:
			return &contracts.StepResult{Outcome: contracts.StepInfrastructure, Message: step.Stream.Field + ": bytes are missing"}
		case errors.Is(err, io.EOF):
			if m.uploads != nil {
				m.uploads(step)
			}
			return &contracts.StepResult{Outcome: contracts.StepDone, Bytes: moved, Files: filesOf(step)}
		case err != nil:
			return nil
		}
		m.tellMoved(step)
	}
}

// filesOf returns what a stream put into Girder.
func filesOf(step *contracts.Step) []contracts.GirderSent {
	if to := step.Stream.To; to.ItemID != "" || to.FolderID != "" {
		return []contracts.GirderSent{{Name: to.Name, FileID: "file-" + to.Name, ItemID: to.ItemID}}
	}
	return nil
}

func (m *mover) tellMoved(step *contracts.Step) {
	if m.moved == nil {
		return
	}
	select {
	case m.moved <- step.Step:
	default:
	}
}

func (m *mover) broken(step *contracts.Step, moved int64) *contracts.StepResult {
	if m.breaks == nil {
		return nil
	}
	return m.breaks(step, moved)
}

// write writes a step's result, once; the lock is held. Nobody asks for one whose
// attempt is over, with its folder gone.
func (m *mover) write(step *contracts.Step, result *contracts.StepResult) error {
	result.Version, result.Step = contracts.Version, step.Step
	data, err := json.Marshal(result)
	if err != nil {
		return err
	}
	path := m.path(step, step.Step+".json")
	if err = os.WriteFile(path+".new", data, 0o600); err == nil {
		err = os.Rename(path+".new", path)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	m.tell(step, true)
	return err
}

func (m *mover) tell(step *contracts.Step, done bool) {
	note, err := contracts.NewNote(contracts.NoteTransfer, step.Attempt, 1, contracts.TransferNote{ID: step.Step, Direction: step.Kind, Done: done})
	if err == nil {
		err = m.s.bus.Hint(step.Job, note)
	}
	if err != nil {
		m.s.t.Error(err)
	}
}

// taken returns what came out of a stream's pipe.
func (m *mover) taken(step string) string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return string(m.got[step])
}

// asked returns the steps of a kind that were asked for.
func (m *mover) asked(kind contracts.StepKind) []contracts.Step {
	m.mu.Lock()
	defer m.mu.Unlock()
	var steps []contracts.Step
	for _, step := range m.steps {
		if step.Kind == kind {
			steps = append(steps, step)
		}
	}
	return steps
}
