package bus

import (
	"context"
	"errors"
	"fmt"

	"github.com/go-json-experiment/json"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nats.go/micro"

	"github.com/gantry-worker/gantry/contracts"
)

// Publish stores a message and waits for the server's word, also through an
// outage of NATS. id is the message's Nats-Msg-Id, empty for none.
func (b *Bus) Publish(ctx context.Context, subject, id string, message any) error {
	data, err := json.Marshal(message)
	if err != nil {
		return fmt.Errorf("publish to %s: %w", subject, err)
	}
	var options []jetstream.PublishOpt
	if id != "" {
		options = append(options, jetstream.WithMsgID(id))
	}
	return b.publish(ctx, &nats.Msg{Subject: subject, Data: data}, options...)
}

// PublishOnce stores a message unless one is on the subject already, which is
// no error: asking twice is asking once.
func (b *Bus) PublishOnce(ctx context.Context, subject string, data []byte) error {
	_, err := b.PublishMissing(ctx, subject, data)
	return err
}

// PublishMissing is [Bus.PublishOnce], and reports whether there was none. After
// an answer that was lost it does not know its own message.
func (b *Bus) PublishMissing(ctx context.Context, subject string, data []byte) (missing bool, err error) {
	err = b.publish(ctx, &nats.Msg{Subject: subject, Data: data}, jetstream.WithExpectLastSequencePerSubject(0))
	if isWrongSequence(err) {
		return false, nil
	}
	return err == nil, err
}

func (b *Bus) publish(ctx context.Context, msg *nats.Msg, options ...jetstream.PublishOpt) error {
	err := b.persist(ctx, func(ctx context.Context) error {
		_, err := b.JetStream().PublishMsg(ctx, msg, options...)
		return err
	}, msg.Subject)
	if err != nil {
		return fmt.Errorf("publish to %s: %w", msg.Subject, err)
	}
	return nil
}

// Hint publishes a note and waits for nothing: notes are hints.
func (b *Bus) Hint(job contracts.JobID, note *contracts.Note) error {
	data, err := json.Marshal(note)
	if err != nil {
		return fmt.Errorf("note of %s: %w", job, err)
	}
	return b.Conn().Publish(contracts.NotesSubject(job), data)
}

// OnNotes calls handle for each note of a job from now on, until the returned
// function is called. Notes may be missed.
func (b *Bus) OnNotes(job contracts.JobID, handle func(*contracts.Note)) (stop func(), err error) {
	subscription, err := b.Conn().Subscribe(contracts.NotesSubject(job), func(msg *nats.Msg) {
		note := new(contracts.Note)
		if json.Unmarshal(msg.Data, note) == nil {
			handle(note)
		}
	})
	if err != nil {
		return nil, fmt.Errorf("subscribe to notes of %s: %w", job, err)
	}
	return func() { _ = subscription.Unsubscribe() }, nil
}

// Answer serves requests on a subject until the returned function is called:
// answer gets the request's body and returns what is sent back as JSON.
func Answer[Request, Reply any](b *Bus, subject string, answer func(Request) Reply) (stop func(), err error) {
	subscription, err := b.Conn().Subscribe(subject, func(msg *nats.Msg) {
		var request Request
		if json.Unmarshal(msg.Data, &request) != nil {
			return
		}
		if reply, err := json.Marshal(answer(request)); err == nil {
			_ = msg.Respond(reply)
		}
	})
	if err != nil {
		return nil, fmt.Errorf("answer %s: %w", subject, err)
	}
	return func() { _ = subscription.Unsubscribe() }, nil
}

// Ask sends a request and returns the reply, or an error when the context ends
// or nobody is there. A refusal by who is there is a [*contracts.RequestError].
func Ask[Reply any](ctx context.Context, b *Bus, subject string, request any) (*Reply, error) {
	body, err := json.Marshal(request)
	if err != nil {
		return nil, fmt.Errorf("ask %s: %w", subject, err)
	}
	msg, err := b.Conn().RequestWithContext(ctx, subject, body)
	if err != nil {
		return nil, fmt.Errorf("ask %s: %w", subject, err)
	}
	if err := refusal(msg); err != nil {
		return nil, fmt.Errorf("ask %s: %w", subject, err)
	}
	reply := new(Reply)
	if err := json.Unmarshal(msg.Data, reply); err != nil {
		return nil, fmt.Errorf("ask %s: %w", subject, err)
	}
	return reply, nil
}

// refusal returns the error that a micro service answers with, if it is one.
func refusal(msg *nats.Msg) error {
	if msg.Header.Get(micro.ErrorCodeHeader) == "" {
		return nil
	}
	var refused struct {
		Error *contracts.RequestError `json:"error"`
	}
	if json.Unmarshal(msg.Data, &refused) == nil && refused.Error != nil {
		return refused.Error
	}
	return errors.New(msg.Header.Get(micro.ErrorHeader))
}
