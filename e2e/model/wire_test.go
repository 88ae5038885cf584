package model

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
)

// frame is one operation of NATS's protocol, in either direction.
type frame struct {
	raw     []byte
	verb    string
	subject string // of a message
	reply   string
	body    []byte
}

// published reports whether the operation is a message of a client.
func (f *frame) published() bool { return f.verb == "PUB" || f.verb == "HPUB" }

var payloads = map[string]bool{"PUB": true, "HPUB": true, "MSG": true, "HMSG": true}

func readFrame(reader *bufio.Reader) (*frame, error) {
	line, err := reader.ReadBytes('\n')
	if err != nil {
		return nil, err
	}
	fields := bytes.Fields(line)
	if len(fields) == 0 {
		return &frame{raw: line}, nil
	}
	f := &frame{raw: line, verb: string(fields[0])}
	if !payloads[f.verb] {
		return f, nil
	}
	size, err := strconv.Atoi(string(fields[len(fields)-1]))
	if err != nil {
		return nil, fmt.Errorf("size of a message: %w", err)
	}
	body := make([]byte, size+len("\r\n"))
	if _, err := io.ReadFull(reader, body); err != nil {
		return nil, err
	}
	f.raw, f.body = append(line, body...), body
	f.subject, f.reply = string(fields[1]), replyOf(f.verb, fields)
	return f, nil
}

// replyOf finds the reply subject, which may be absent, behind the subject and,
// in messages to clients, the subscription.
func replyOf(verb string, fields [][]byte) string {
	at, sizes := 2, 1
	if strings.HasSuffix(verb, "MSG") {
		at = 3
	}
	if verb[0] == 'H' {
		sizes = 2
	}
	if len(fields) == at+1+sizes {
		return string(fields[at])
	}
	return ""
}

// queue hands on frames in order, without a bound: a network holds what nobody
// reads.
type queue struct {
	mu     sync.Mutex
	frames []*frame
	ended  bool
	more   chan struct{}
}

func newQueue() *queue { return &queue{more: make(chan struct{}, 1)} }

func (q *queue) put(f *frame) {
	q.mu.Lock()
	q.frames = append(q.frames, f)
	q.mu.Unlock()
	q.wake()
}

func (q *queue) end() {
	q.mu.Lock()
	q.ended = true
	q.mu.Unlock()
	q.wake()
}

func (q *queue) wake() {
	select {
	case q.more <- struct{}{}:
	default:
	}
}

// take returns the next frame, or nil at the end.
func (q *queue) take() *frame {
	for {
		q.mu.Lock()
		if len(q.frames) > 0 {
			f := q.frames[0]
			q.frames = q.frames[1:]
			q.mu.Unlock()
			return f
		}
		ended := q.ended
		q.mu.Unlock()
		if ended {
			return nil
		}
		<-q.more
	}
}

// link is one connection of an actor to NATS.
type link struct {
	actor  *actor
	client net.Conn // our end of the actor's connection
	server net.Conn
	once   sync.Once
	asked  *queue // what the actor said and the server does not have yet
	told   *queue // what the server said and the actor does not have yet
	lost   chan struct{}
}

func newLink(a *actor, client, server net.Conn) *link {
	return &link{actor: a, client: client, server: server, asked: newQueue(), told: newQueue(), lost: make(chan struct{})}
}

func (l *link) run() {
	go l.read(l.client, l.asked)
	go l.read(l.server, l.told)
	go l.answer()
	l.ask()
}

func (l *link) read(from io.Reader, to *queue) {
	defer to.end()
	reader := bufio.NewReader(from)
	for {
		f, err := readFrame(reader)
		if err != nil {
			return
		}
		l.actor.world.heard(l.actor, f)
		to.put(f)
	}
}

// ask passes on what the actor says, message by message, each at its turn.
func (l *link) ask() {
	defer l.server.Close() //nolint:errcheck // what the server says to it is nobody's any more
	for f := l.asked.take(); f != nil; f = l.asked.take() {
		verdict := pass
		if f.published() {
			verdict = l.actor.world.atGate(l.actor, l, describe(f), f.subject)
		}
		if verdict == drop {
			l.cut()
			return
		}
		if verdict == loseAnswer {
			l.cut()
		}
		if _, err := l.server.Write(f.raw); err != nil || verdict == loseAnswer {
			return
		}
	}
}

func (l *link) answer() {
	defer l.cut()
	for f := l.told.take(); f != nil; f = l.told.take() {
		if !l.actor.awaitReached(l.lost) {
			return
		}
		if _, err := l.client.Write(f.raw); err != nil {
			return
		}
	}
}

// cut breaks the connection on the actor's side.
func (l *link) cut() {
	l.once.Do(func() {
		close(l.lost)
		_ = l.client.Close()
	})
}

// network is how an actor reaches NATS.
type network struct{ actor *actor }

var errUnreachable = errors.New("no way to the server")

// Dial connects to the server, if it is there.
func (n network) Dial(string, string) (net.Conn, error) {
	return n.actor.world.connect(n.actor)
}

// describe says what a message of a client is, for the trace.
func describe(f *frame) string {
	text := f.subject
	for _, cut := range []string{"$JS.API.", "$JS."} {
		text = strings.TrimPrefix(text, cut)
	}
	if i := bytes.Index(f.body, []byte(`"type":"`)); i >= 0 {
		text += " " + upTo(f.body[i+len(`"type":"`):], '"')
	} else if i := bytes.Index(f.body, []byte(`"last_by_subj":"`)); i >= 0 {
		text += " " + upTo(f.body[i+len(`"last_by_subj":"`):], '"')
	}
	if strings.HasPrefix(f.subject, "$JS.ACK.") {
		text += " " + strings.TrimSpace(string(f.body))
	}
	return text
}

func upTo(text []byte, end byte) string {
	if i := bytes.IndexByte(text, end); i >= 0 {
		text = text[:i]
	}
	return string(text)
}
