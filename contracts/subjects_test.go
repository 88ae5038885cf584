package contracts

import (
	"slices"
	"strings"
	"testing"
)

// natsMatches reports whether a filter matches a subject as NATS does: * is one
// token, > at the end is one or more.
func natsMatches(filter, subject string) bool {
	want, have := strings.Split(filter, "."), strings.Split(subject, ".")
	for i, token := range want {
		switch {
		case i >= len(have):
			return false
		case token == ">":
			return i == len(want)-1
		case token != "*" && token != have[i]:
			return false
		}
	}
	return len(want) == len(have)
}

// overlap reports whether some subject is matched by both filters.
func overlap(a, b string) bool {
	left, right := strings.Split(a, "."), strings.Split(b, ".")
	for i := range min(len(left), len(right)) {
		switch {
		case left[i] == ">" || right[i] == ">":
			return true
		case left[i] != "*" && right[i] != "*" && left[i] != right[i]:
			return false
		}
	}
	return len(left) == len(right)
}

const (
	testJob  JobID      = "01JD9ZK3N6Y1T0Q8W5M7R2C4XA"
	testNode NodeID     = "node_1"
	testExec ExecutorID = "node-7f3a"
)

var subjectsOfStreams = []struct {
	subject string
	stream  string
	filters []string
}{
	{SubmitAny, StreamSubmit, []string{SubmitAny}},
	{SubmitSubject("q-1"), StreamSubmit, []string{SubmitQueues}},
	{
		ReadySubject(LaneHigh, "q-1", KindDocker, testJob, 3), StreamReady,
		[]string{ReadyAll, ReadyFilter(LaneHigh, "q-1", KindDocker), ReadyJobFilter(LaneHigh, "q-1", KindDocker, testJob)},
	},
	{LaterSubject(testJob, LaterRetry), StreamLater, []string{LaterAll}},
	{DueSubject(testJob, LaterRetry), StreamLater, []string{DueAll}},
	{RevokeSubject(testJob), StreamRevoke, []string{RevokeAll}},
	{DeadSubject("q-1"), StreamDead, []string{DeadAll}},
	{
		TransferSubject(testNode, testJob, 2, "in-0"), StreamTransfers,
		[]string{TransferAll, TransferFilter(testNode), TransferJobFilter(testJob)},
	},
	{LifeSubject(testJob), StreamJobs, []string{JobsAll, LifeAll}},
	{GirderSubject(testJob), StreamJobs, []string{JobsAll, GirderAll}},
	{LogHeadSubject(testJob), StreamLive, []string{LogsAll, LogFilter(testJob)}},
	{LogTailSubject(testJob), StreamLive, []string{LogsAll, LogFilter(testJob)}},
	{NotesSubject(testJob), StreamLive, []string{NotesAll}},
}

func TestSubjectsMatchTheirFiltersAndNoOthers(t *testing.T) {
	t.Parallel()
	var filters []string
	for _, s := range subjectsOfStreams {
		filters = append(filters, s.filters...)
	}
	for _, s := range subjectsOfStreams {
		for _, filter := range filters {
			if got, want := natsMatches(filter, s.subject), slices.Contains(s.filters, filter); got != want {
				t.Errorf("filter %s matches %s: %t, want %t", filter, s.subject, got, want)
			}
		}
	}
}

func TestFiltersOfOneJobAndNodeLeaveOthersAlone(t *testing.T) {
	t.Parallel()
	for filter, subject := range map[string]string{
		ReadyFilter(LaneHigh, "q", KindDocker): ReadySubject(LaneLow, "q", KindDocker, testJob, 1),
		ReadyFilter(LaneLow, "q", KindDocker):  ReadySubject(LaneLow, "q2", KindDocker, testJob, 1),
		ReadyFilter(LaneLow, "q", "plugin-x"):  ReadySubject(LaneLow, "q", KindDocker, testJob, 1),
		TransferFilter("a"):                    TransferSubject("b", testJob, 1, "in-0"),
		TransferJobFilter("a"):                 TransferSubject("a", testJob, 1, "in-0"),
		LogFilter("a"):                         LogHeadSubject("b"),
	} {
		if natsMatches(filter, subject) {
			t.Errorf("filter %s matches %s", filter, subject)
		}
	}
}

func TestEachSubjectBelongsToOneStream(t *testing.T) {
	t.Parallel()
	for _, s := range subjectsOfStreams {
		var streams []string
		for _, stream := range Streams {
			for _, subjects := range stream.Subjects {
				if natsMatches(subjects, s.subject) {
					streams = append(streams, stream.Name)
				}
			}
		}
		if !slices.Equal(streams, []string{s.stream}) {
			t.Errorf("%s is stored in %v, want %s", s.subject, streams, s.stream)
		}
	}
	for _, request := range []string{
		OwnsSubject(testExec), JobsGetSubject, JobsListSubject, JobsLogSubject, JobsGateSubject, WorkersListSubject, DeadListSubject, DeadShowSubject,
	} {
		for _, stream := range Streams {
			for _, subjects := range stream.Subjects {
				if natsMatches(subjects, request) {
					t.Errorf("the request %s would be stored in %s", request, stream.Name)
				}
			}
		}
	}
}

func TestStreamsDoNotOverlap(t *testing.T) {
	t.Parallel()
	type owned struct{ stream, subjects string }
	var all []owned
	for _, stream := range Streams {
		for _, subjects := range stream.Subjects {
			all = append(all, owned{stream.Name, subjects})
		}
	}
	for i, a := range all {
		for _, b := range all[i+1:] {
			if overlap(a.subjects, b.subjects) {
				t.Errorf("%s of %s and %s of %s overlap", a.subjects, a.stream, b.subjects, b.stream)
			}
		}
	}
}

// A consumer's filters lie in its stream, and two of one work queue stream
// never get the same message.
func TestConsumersFitTheirStreams(t *testing.T) {
	t.Parallel()
	consumers := []Consumer{
		SubmitConsumer, DueConsumer, ProjectionConsumer, TransferConsumer("a"), TransferConsumer("b"),
	}
	for _, lane := range Lanes {
		for _, queue := range []Queue{"q", "q-1"} {
			consumers = append(consumers, ReadyConsumer(lane, queue, KindDocker))
		}
	}
	for i, c := range consumers {
		at := slices.IndexFunc(Streams, func(s Stream) bool { return s.Name == c.Stream })
		if at < 0 {
			t.Errorf("%s is a consumer of %s, which is no stream", c.Durable, c.Stream)
			continue
		}
		for _, filter := range c.Filters {
			if !slices.ContainsFunc(Streams[at].Subjects, func(s string) bool { return overlap(s, filter) }) {
				t.Errorf("%s reads %s, which is not in %s", c.Durable, filter, c.Stream)
			}
		}
		for _, other := range consumers[i+1:] {
			if other.Stream != c.Stream {
				continue
			}
			if other.Durable == c.Durable {
				t.Errorf("two consumers of %s are called %s", c.Stream, c.Durable)
			}
			if Streams[at].WorkQueue && overlap(c.Filters[0], other.Filters[0]) {
				t.Errorf("%s and %s read the same messages of a work queue", c.Durable, other.Durable)
			}
		}
	}
}

func TestSubjectsAreReadBack(t *testing.T) {
	t.Parallel()
	if job, offer, err := ParseReady(ReadySubject(LaneLow, "q", "plugin-x", testJob, 12)); job != testJob || offer != 12 || err != nil {
		t.Errorf("%s, %d, %v", job, offer, err)
	}
	if job, what, err := ParseDue(DueSubject(testJob, LaterRetry)); job != testJob || what != LaterRetry || err != nil {
		t.Errorf("%s, %s, %v", job, what, err)
	}
	if job := RevokedJob(RevokeSubject(testJob)); job != testJob {
		t.Errorf("revoked job %q", job)
	}
	for _, subject := range []string{LifeSubject(testJob), GirderSubject(testJob), LogTailSubject(testJob), NotesSubject(testJob)} {
		if job := JobOfSubject(subject); job != testJob {
			t.Errorf("job of %s is %q", subject, job)
		}
	}
	if job := JobOfSubject("jobs"); job != "" {
		t.Errorf("job of no subject is %q", job)
	}
	if queue := SubmittedQueue(SubmitSubject("q-1")); queue != "q-1" {
		t.Errorf("queue %q", queue)
	}
	if queue := SubmittedQueue(SubmitAny); queue != "" {
		t.Errorf("queue %q of a subject that names none", queue)
	}
}

func TestForeignSubjectsAreRefused(t *testing.T) {
	t.Parallel()
	for _, subject := range []string{
		"", "tasks.ready", "tasks.ready.high.q.docker.j", "tasks.ready.high.q.docker.j.1.2", "tasks.ready.high.q.docker.j.x",
		"tasks.ready.high.q.docker.*.1", "tasks.ready.high.q.docker..1", "tasks.dead.high.q.docker.j.1", "a.b.c.d.e.f.1",
	} {
		if job, offer, err := ParseReady(subject); err == nil {
			t.Errorf("%q is read as job %s, offer %d", subject, job, offer)
		}
	}
	for _, subject := range []string{
		"", "tasks.due.j", "tasks.due.j.retry.x", "tasks.later.j.retry", "tasks.due..retry", "tasks.due.j.", "a.b.c.d",
	} {
		if job, what, err := ParseDue(subject); err == nil {
			t.Errorf("%q is read as job %s, %s", subject, job, what)
		}
	}
}
