package bus

import (
	"context"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/gantry-worker/gantry/contracts"
)

const (
	// pullWait is how long one waiting pull lasts.
	pullWait = 25 * time.Second
	// pullBeat is how often the server says that a pull waits.
	pullBeat = 5 * time.Second
	// pullAgain is the pause after a pull that was answered with an error.
	pullAgain = 250 * time.Millisecond
	// pullAnswer is how long a pull that does not wait may take.
	pullAnswer = requestTimeout
)

var (
	waitingPull = fmt.Appendf(nil, `{"batch":1,"expires":%d,"idle_heartbeat":%d}`, pullWait.Nanoseconds(), pullBeat.Nanoseconds())
	onePull     = []byte(`{"batch":1,"no_wait":true}`)
)

// taker takes messages from durable consumers, one at a time, for one
// goroutine.
//
// It never withdraws a pull that waits: a message that is on its way by then
// would reach nobody before its lease is over. A pull stays for the next call
// of take; a message that comes while nobody takes is given back at once. So
// too for pulls of before a reconnect, beside which new ones are made at once.
type taker struct {
	bus         *Bus
	reconnected chan nats.Status
	answer      time.Duration // that a pull which does not wait may take
	// ended says that a pull has ended without a message, and why; trouble is
	// what it said last.
	ended   chan error
	trouble error

	mu    sync.Mutex
	pulls map[string]*pull
	// waiting gets the next message, where somebody waits for it.
	waiting chan<- *nats.Msg
}

// pull is the standing request to one consumer.
type pull struct {
	name    string
	subject string // of requests
	inbox   string // of replies, followed by the request's number
	sub     *nats.Subscription
	number  int
	stands  bool      // a request waits at the server, as far as is known
	heard   time.Time // when the server last spoke of it, or the request was sent
}

func newTaker(b *Bus) *taker {
	return &taker{
		bus: b, reconnected: b.Conn().StatusChanged(nats.CONNECTED),
		answer: pullAnswer, ended: make(chan error, 1), pulls: map[string]*pull{},
	}
}

// take returns the next message of the consumers, asking them in order and then
// waiting at all of them; nil if none came for a while. A consumer that answers
// with an error is asked again after a pause: elections and restarts are told
// that way. The error says why one could not be asked all the while.
func (t *taker) take(ctx context.Context, consumers []contracts.Consumer) (*Message, error) {
	if err := t.awaitConnected(ctx); err != nil {
		return nil, err
	}
	messages := t.begin()
	defer t.rest(messages)
	pulls, err := t.open(consumers)
	if err != nil {
		return nil, err
	}
	subjects := make([]string, len(pulls))
	for i, p := range pulls {
		subjects[i] = p.subject
	}
	ctx, cancel := t.bus.UntilRefused(ctx, subjects...)
	defer cancel()
	for _, p := range pulls {
		if t.standing(p) {
			continue // it would have got what there is
		}
		if err := t.request(p, onePull, false); err != nil {
			return nil, err
		}
		if msg, err := t.next(ctx, messages, t.answer); msg != nil || err != nil {
			return msg, err
		}
	}
	for end := time.Now().Add(pullWait); time.Now().Before(end); {
		for _, p := range pulls {
			if t.standing(p) {
				continue
			}
			if err := t.request(p, waitingPull, true); err != nil {
				return nil, err
			}
		}
		if msg, err := t.next(ctx, messages, pullBeat); msg != nil || err != nil {
			return msg, err
		}
	}
	for _, p := range pulls {
		if !t.standing(p) {
			return nil, t.trouble
		}
	}
	return nil, nil
}

// awaitConnected returns when the connection stands. What was asked for over
// an earlier one counts no more.
func (t *taker) awaitConnected(ctx context.Context) error {
	for {
		connected := t.bus.Conn().IsConnected()
		select {
		case <-t.reconnected:
			t.forget()
			continue
		default:
		}
		if connected {
			return ctx.Err()
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-t.reconnected:
			t.forget()
		}
	}
}

// next waits for a message, for a while. It returns early where something
// else happened that pulls depend on.
func (t *taker) next(ctx context.Context, messages <-chan *nats.Msg, patience time.Duration) (*Message, error) {
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	case <-timer.C:
		return nil, nil
	case <-t.reconnected:
		t.forget()
		return nil, nil
	case t.trouble = <-t.ended:
		if t.trouble != nil {
			pause(ctx, pullAgain)
		}
		return nil, nil
	case msg := <-messages:
		return newPulled(msg)
	}
}

// begin makes the next message go to the channel returned.
func (t *taker) begin() chan *nats.Msg {
	t.mu.Lock()
	defer t.mu.Unlock()
	select {
	case <-t.ended: // of an earlier call
	default:
	}
	messages := make(chan *nats.Msg, 1)
	t.waiting = messages
	return messages
}

// rest ends the wait of a call of take, which may have ended for another
// reason just when a message came.
func (t *taker) rest(messages <-chan *nats.Msg) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.waiting = nil
	select {
	case msg := <-messages:
		giveBackAtOnce(msg)
	default:
	}
}

func (t *taker) open(consumers []contracts.Consumer) ([]*pull, error) {
	pulls := make([]*pull, len(consumers))
	for i, consumer := range consumers {
		p, err := t.pull(consumer)
		if err != nil {
			return nil, fmt.Errorf("pull from %s: %w", consumer.Durable, err)
		}
		pulls[i] = p
	}
	return pulls, nil
}

func (t *taker) pull(consumer contracts.Consumer) (*pull, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	name := consumer.Stream + "." + consumer.Durable
	if p := t.pulls[name]; p != nil {
		return p, nil
	}
	p := &pull{name: name, subject: "$JS.API.CONSUMER.MSG.NEXT." + name, inbox: t.bus.Conn().NewInbox() + "."}
	sub, err := t.bus.Conn().Subscribe(p.inbox+"*", func(msg *nats.Msg) { t.hear(p, msg) })
	if err != nil {
		return nil, err
	}
	p.sub = sub
	t.pulls[name] = p
	return p, nil
}

// standing reports whether a request waits at the server that has lately said
// so.
func (t *taker) standing(p *pull) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return p.stands && time.Since(p.heard) < 2*pullBeat+pullBeat/2
}

func (t *taker) request(p *pull, body []byte, waits bool) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if refused := t.bus.Refused(p.heard, p.subject); refused != nil && p.number > 0 {
		p.heard = time.Now()
		return fmt.Errorf("pull from %s: %w", p.name, refused)
	}
	p.number++
	p.stands, p.heard = waits, time.Now()
	if err := t.bus.Conn().PublishRequest(p.subject, p.inbox+strconv.Itoa(p.number), body); err != nil {
		p.stands = false
		return fmt.Errorf("pull from %s: %w", p.name, err)
	}
	return nil
}

// forget takes no request for standing: after a reconnect, none may be.
func (t *taker) forget() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, p := range t.pulls {
		p.stands = false
	}
}

// hear handles what the server sends for a pull.
func (t *taker) hear(p *pull, msg *nats.Msg) {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch status := msg.Header.Get("Status"); {
	case status == "":
		p.stands = false
		t.arrive(msg)
	case msg.Subject != p.inbox+strconv.Itoa(p.number):
		// Of a request that another has replaced.
	case status == "100":
		p.heard = time.Now()
	default:
		p.stands = false
		err := pullEnd(status, msg.Header.Get("Description"))
		if err != nil {
			err = fmt.Errorf("pull from %s: %w", p.name, err)
		}
		select {
		case t.ended <- err:
		default:
		}
	}
}

// arrive is called with mu held.
func (t *taker) arrive(msg *nats.Msg) {
	if t.waiting == nil {
		giveBackAtOnce(msg)
		return
	}
	t.waiting <- msg
	t.waiting = nil
}

func giveBackAtOnce(msg *nats.Msg) {
	_ = msg.Respond(nakBody) // without a connection AckWait does it
}

// pullEnd returns why a pull ended without a message, nil where there was none
// in its time.
func pullEnd(status, description string) error {
	switch status {
	case "404", "408":
		return nil
	case "503":
		return nats.ErrNoResponders // there is no such consumer, or nobody leads it
	default:
		return fmt.Errorf("status %s: %s", status, description)
	}
}

func newPulled(msg *nats.Msg) (*Message, error) {
	meta, err := msg.Metadata()
	if err != nil {
		return nil, fmt.Errorf("read message on %s: %w", msg.Subject, err)
	}
	return &Message{
		Subject: msg.Subject, Data: msg.Data, ID: msg.Header.Get(nats.MsgIdHdr),
		Seq: meta.Sequence.Stream, Time: meta.Timestamp.UTC(), Reply: msg.Reply,
	}, nil
}

// closeTimeout bounds the end of a taker while NATS is away.
const closeTimeout = 2 * time.Second

// close ends all pulls. What the server sent before it knew is given back, which
// it cannot be without a connection.
func (t *taker) close() {
	t.bus.Conn().RemoveStatusListener(t.reconnected)
	ctx, cancel := context.WithTimeout(t.bus.link(), closeTimeout)
	defer cancel()
	for _, p := range t.pulls {
		if t.bus.Connected() != nil {
			_ = p.sub.Unsubscribe()
			continue
		}
		closed := p.sub.StatusChanged(nats.SubscriptionClosed)
		if err := p.sub.Drain(); err != nil {
			continue // the connection is closed
		}
		select {
		case <-closed:
		case <-ctx.Done():
		}
	}
}
