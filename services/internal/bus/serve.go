package bus

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"
	"github.com/rs/zerolog"

	"github.com/gantry-worker/gantry/contracts"
)

// Endpoint answers the requests on one subject of the micro service
// [contracts.ServiceName]. Make one with NewEndpoint.
type Endpoint struct {
	subject string
	answer  func(ctx context.Context, body []byte) (any, error)
}

// NewEndpoint returns an endpoint whose answer gets the decoded request and
// returns what is sent back as JSON. An error that is a
// [*contracts.RequestError] is sent as it is, any other as an internal one.
func NewEndpoint[Request, Reply any](subject string, answer func(context.Context, Request) (Reply, error)) Endpoint {
	return Endpoint{subject: subject, answer: func(ctx context.Context, body []byte) (any, error) {
		var request Request
		if len(body) > 0 {
			if err := json.Unmarshal(body, &request); err != nil {
				return nil, &contracts.RequestError{Code: contracts.CodeInvalid, Message: fmt.Sprintf("the request is not readable: %v", err)}
			}
		}
		return answer(ctx, request)
	}}
}

// Serve answers requests until the context ends, each in a goroutine of its
// own, and returns when all are answered. Several instances that serve the same
// subject share its requests.
func (b *Bus) Serve(ctx context.Context, description string, endpoints ...Endpoint) error {
	service, err := micro.AddService(b.Conn(), micro.Config{Name: contracts.ServiceName, Version: "1.0.0", Description: description})
	if err != nil {
		return fmt.Errorf("serve requests: %w", err)
	}
	var (
		mu        sync.Mutex // held where an answer begins, which none does after the end
		answering sync.WaitGroup
	)
	for _, endpoint := range endpoints {
		handler := micro.HandlerFunc(func(request micro.Request) {
			mu.Lock()
			defer mu.Unlock()
			if ctx.Err() == nil {
				answering.Go(func() { b.serveRequest(ctx, endpoint, request) })
			}
		})
		if err := service.AddEndpoint(endpointName(endpoint.subject), handler, micro.WithEndpointSubject(endpoint.subject)); err != nil {
			return errors.Join(fmt.Errorf("serve %s: %w", endpoint.subject, err), service.Stop())
		}
	}
	<-ctx.Done()
	err = service.Stop()
	mu.Lock()
	defer mu.Unlock()
	answering.Wait()
	return err
}

// serveTimeout bounds an answer: who asked has given up by then.
const serveTimeout = 30 * time.Second

func (b *Bus) serveRequest(ctx context.Context, e Endpoint, request micro.Request) {
	ctx, cancel := context.WithTimeout(ctx, serveTimeout)
	defer cancel()
	reply, err := e.answer(ctx, request.Data())
	if err == nil {
		err = b.respond(request, reply)
	}
	if err != nil { // also where NATS refuses the reply, as one that is too large
		err = b.refuse(request, err)
	}
	if err != nil {
		zerolog.Ctx(ctx).Warn().Err(err).Str("subject", e.subject).Msg("request not answered")
	}
}

func (b *Bus) respond(request micro.Request, reply any) error {
	body, err := json.Marshal(reply)
	if err != nil {
		return err
	}
	return b.reply(request, nil, body)
}

// reply answers by the connection: a request's own methods are for the goroutine
// of its handler, which has returned by then.
func (b *Bus) reply(request micro.Request, header nats.Header, body []byte) error {
	return b.Conn().PublishMsg(&nats.Msg{Subject: request.Reply(), Header: header, Data: body})
}

func (b *Bus) refuse(request micro.Request, cause error) error {
	var refusal *contracts.RequestError
	if !errors.As(cause, &refusal) {
		refusal = &contracts.RequestError{Code: contracts.CodeInternal, Message: cause.Error()}
	}
	body, err := json.Marshal(map[string]*contracts.RequestError{"error": refusal})
	if err != nil {
		return err
	}
	header := nats.Header{micro.ErrorHeader: {refusal.Message}, micro.ErrorCodeHeader: {refusal.Code}}
	return b.reply(request, header, body)
}

// endpointName turns a subject into a name that micro accepts.
func endpointName(subject string) string {
	name := []byte(subject)
	for i, c := range name {
		if c == '.' {
			name[i] = '-'
		}
	}
	return string(name)
}
