package client_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/go-json-experiment/json"
	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/contracts/client"
	"github.com/gantry-worker/gantry/contracts/client/natstest"
)

// author ships the log of a job as an executor does, with head and tail.
type author struct {
	t       *testing.T
	c       *client.Client
	job     contracts.JobID
	subject string
	attempt int
	shipped []*contracts.LogChunk // of the attempt
	// silent is one that does not say where its pieces are.
	silent bool
}

func (a *author) begin() { a.attempt, a.shipped = a.attempt+1, nil }

// ship stores the next piece.
func (a *author) ship(text string) {
	a.t.Helper()
	chunk := &contracts.LogChunk{Version: 1, Job: a.job, Attempt: a.attempt, Seq: uint64(len(a.shipped) + 1), Stream: contracts.LogStdout}
	if n := len(a.shipped); n > 0 && !a.silent {
		chunk.Offset = a.shipped[n-1].Offset + int64(len(a.shipped[n-1].Bytes()))
	}
	chunk.SetBytes([]byte(text))
	a.shipped = append(a.shipped, chunk)
	a.store(chunk)
}

func (a *author) store(chunk *contracts.LogChunk) {
	a.t.Helper()
	data, err := json.Marshal(chunk)
	if err == nil {
		_, err = a.c.JetStream().Publish(a.t.Context(), a.subject, data)
	}
	if err != nil {
		a.t.Fatal(err)
	}
}

// again ships the last pieces once more.
func (a *author) again(n int) {
	a.t.Helper()
	for _, chunk := range a.shipped[max(0, len(a.shipped)-n):] {
		a.store(chunk)
	}
}

// drop removes all of the tail but for its last pieces.
func (a *author) drop(keep int) {
	a.t.Helper()
	live, err := a.c.JetStream().Stream(a.t.Context(), contracts.StreamLive)
	if err == nil {
		err = live.Purge(a.t.Context(), jetstream.WithPurgeSubject(contracts.LogTailSubject(a.job)), jetstream.WithPurgeKeep(uint64(keep)))
	}
	if err != nil {
		a.t.Fatal(err)
	}
}

func collect(t *testing.T, c *client.Client, job contracts.JobID, from int64) (pieces []contracts.LogPiece) {
	t.Helper()
	for piece, err := range c.LogFrom(t.Context(), job, from, false) {
		if err != nil {
			t.Fatal(err)
		}
		pieces = append(pieces, piece)
	}
	return pieces
}

// TestLogFromIsAPartOfTheWhole: whatever became of a log, what is read from a
// place on is what one who reads all of it has there.
func TestLogFromIsAPartOfTheWhole(t *testing.T) {
	t.Parallel()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	c := natstest.Start(t).Client()
	other := &author{t: t, c: c, job: "other", subject: contracts.LogHeadSubject("other"), attempt: 1}
	for n := range 10 {
		job := contracts.JobID(fmt.Sprintf("job-%d", n))
		a := &author{t: t, c: c, job: job, subject: contracts.LogHeadSubject(job), silent: n%10 == 9}
		for range 1 + random.IntN(4) {
			a.begin()
			for range random.IntN(25) {
				a.ship(strings.Repeat("0123456789", 1+random.IntN(3)))
				switch random.IntN(12) {
				case 0:
					a.again(1 + random.IntN(6))
				case 1:
					a.subject = contracts.LogTailSubject(job)
				case 2:
					a.drop(1 + random.IntN(8))
				case 3:
					other.ship("noise")
				}
			}
		}
		whole := collect(t, c, job, 0)
		end := int64(0)
		for _, piece := range whole {
			end = piece.Place + int64(len(piece.Bytes()))
		}
		for range 20 {
			from := random.Int64N(end + 10)
			var want []contracts.LogPiece
			for _, piece := range whole {
				if part, some := piece.From(from); some {
					want = append(want, part)
				}
			}
			if diff := cmp.Diff(want, collect(t, c, job, from)); diff != "" {
				t.Errorf("%s from %d: %s", job, from, diff)
			}
		}
	}
}

// A page of a long log costs what it holds, wherever it is, and what is read
// ahead, twice where the machine stood still: not what comes before it.
func TestALatePageOfALongLogIsCheap(t *testing.T) {
	t.Parallel()
	const attempts, pieces = 3, 1000
	server := natstest.Start(t)
	a := &author{t: t, c: server.Client(), job: "job", subject: contracts.LogHeadSubject("job")}
	text := strings.Repeat("0123456789abcde\n", 10)
	for range attempts {
		a.begin()
		for range pieces {
			a.ship(text)
		}
	}
	size := int64(attempts * pieces * len(text))
	for _, from := range []int64{1, size / 2, size - int64(len(text))/2} {
		reader := server.Client()
		before := reader.Conn().Stats()
		for piece, err := range reader.LogFrom(t.Context(), "job", from, false) {
			if err != nil || piece.Place != from {
				t.Errorf("from %d: a piece at %d, %v", from, piece.Place, err)
			}
			break
		}
		after := reader.Conn().Stats()
		requests, messages := after.OutMsgs-before.OutMsgs, after.InMsgs-before.InMsgs
		t.Logf("from %d: %d requests, %d messages", from, requests, messages)
		if requests > 100 || messages > 1300 {
			t.Errorf("from %d: %d requests, %d messages of %d", from, requests, messages, attempts*pieces)
		}
	}
}
