package cli_test

import (
	"testing"

	"github.com/go-json-experiment/json"
	"github.com/nats-io/nats.go"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/contracts/client"
	"github.com/gantry-worker/gantry/contracts/client/natstest"
)

// submissions is a server with somebody who sees what is submitted.
type submissions struct {
	*natstest.Server
	client *client.Client
	sub    *nats.Subscription
	seen   map[contracts.JobID]bool
}

func newSubmissions(t *testing.T) *submissions {
	t.Helper()
	server := natstest.Start(t)
	c := server.Client()
	sub, err := c.Conn().SubscribeSync(contracts.SubmitQueues)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Conn().Flush(); err != nil {
		t.Fatal(err)
	}
	return &submissions{Server: server, client: c, sub: sub, seen: map[contracts.JobID]bool{}}
}

// next returns the next task that is submitted. One that is submitted again, where
// an answer took long, is left out.
func (s *submissions) next(t *testing.T) *contracts.Task {
	t.Helper()
	for {
		msg, err := s.sub.NextMsgWithContext(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		task, err := contracts.DecodeTask(msg.Data)
		if err != nil {
			t.Fatal(err)
		}
		if !s.seen[task.ID] {
			s.seen[task.ID] = true
			return task
		}
	}
}

// life writes a job's life as dispatcher and executor would.
type life struct {
	t    *testing.T
	c    *client.Client
	job  contracts.JobID
	last *contracts.Entry
	seq  uint64
}

func (s *submissions) begin(t *testing.T, task *contracts.Task) *life {
	t.Helper()
	named := *task
	named.Queue = task.QueueOrDefault() // as the dispatcher writes it down
	hash, err := named.Hash()
	if err != nil {
		t.Fatal(err)
	}
	l := &life{t: t, c: s.client, job: task.ID}
	l.say(&contracts.Submitted{Task: &named, Hash: hash})
	l.say(&contracts.Queued{Lane: contracts.LaneNormal, Queue: contracts.DefaultQueue, Kind: contracts.KindDocker, Reason: contracts.QueuedSubmit})
	return l
}

// run brings the job to where its container runs.
func (l *life) run() *life {
	l.t.Helper()
	l.say(&contracts.Claimed{Node: "node-1", Executor: "ex-1"})
	l.say(&contracts.Started{Container: "c"})
	return l
}

func (l *life) say(data contracts.EntryData) {
	l.t.Helper()
	next := contracts.NextEntry(l.last, l.job, "test", data)
	if err := contracts.CheckNext(l.last, next); err != nil {
		l.t.Fatal(err)
	}
	body, err := next.Encode()
	if err != nil {
		l.t.Fatal(err)
	}
	l.publish(contracts.LifeSubject(l.job), body)
	l.last = next
}

func (l *life) log(stream contracts.LogStream, data string) { l.logAt(0, stream, data) }

// logAt has a piece at an offset of the attempt's log.
func (l *life) logAt(offset int64, stream contracts.LogStream, data string) {
	l.t.Helper()
	l.seq++
	chunk := contracts.LogChunk{Version: contracts.Version, Job: l.job, Attempt: l.last.Attempt, Seq: l.seq, Offset: offset, Stream: stream}
	chunk.SetBytes([]byte(data))
	body, err := json.Marshal(chunk)
	if err != nil {
		l.t.Fatal(err)
	}
	l.publish(contracts.LogHeadSubject(l.job), body)
}

func (l *life) note(kind contracts.NoteType, data any) {
	l.t.Helper()
	l.seq++
	note, err := contracts.NewNote(kind, l.last.Attempt, l.seq, data)
	if err != nil {
		l.t.Fatal(err)
	}
	body, err := json.Marshal(note)
	if err != nil {
		l.t.Fatal(err)
	}
	l.publish(contracts.NotesSubject(l.job), body)
}

func (l *life) publish(subject string, body []byte) {
	l.t.Helper()
	if _, err := l.c.JetStream().Publish(l.t.Context(), subject, body); err != nil {
		l.t.Fatal(err)
	}
}

// answer answers a query of the service gantry, as job-tracker would.
func answer(t *testing.T, c *client.Client, subject string, reply func(request []byte) any) {
	t.Helper()
	_, err := c.Conn().Subscribe(subject, func(msg *nats.Msg) {
		out := nats.NewMsg(msg.Reply)
		value := reply(msg.Data)
		if refused, ok := value.(*contracts.RequestError); ok {
			out.Header.Set("Nats-Service-Error", refused.Message)
			out.Header.Set("Nats-Service-Error-Code", "404")
			value = map[string]any{"error": refused}
		}
		var err error
		if out.Data, err = json.Marshal(value); err != nil {
			t.Error(err)
		}
		if err := msg.RespondMsg(out); err != nil {
			t.Error(err)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Conn().Flush(); err != nil {
		t.Fatal(err)
	}
}
