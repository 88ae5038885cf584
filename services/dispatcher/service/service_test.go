package service_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/contracts/client"
	"github.com/gantry-worker/gantry/contracts/client/natstest"
	"github.com/gantry-worker/gantry/services/dispatcher/internal/dispatchtest"
	"github.com/gantry-worker/gantry/services/dispatcher/service"
	"github.com/gantry-worker/gantry/services/internal/bus/bustest"
	"github.com/gantry-worker/gantry/services/internal/config"
)

// run runs a dispatcher until the function returned is called, which waits for
// its end, or the test ends.
func run(t *testing.T, server natstest.NATS, change func(*service.Config)) (stop func()) {
	t.Helper()
	var cfg service.Config
	if err := config.Defaults(&cfg); err != nil {
		t.Fatal(err)
	}
	ready := make(chan struct{})
	cfg.NATS, cfg.Replicas, cfg.OnReady = server.Config(), replicas(server), func() { close(ready) }
	if change != nil {
		change(&cfg)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- service.Run(ctx, cfg) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("dispatcher ended with %v", err)
		}
	})
	t.Cleanup(stop)
	select {
	case <-ready:
	case err := <-ended:
		ended <- err
		t.Fatalf("dispatcher did not start: %v", err)
	}
	return stop
}

// acknowledged returns a function that waits until the dispatchers have
// acknowledged n further submissions. Call it when they run.
func acknowledged(t *testing.T, c *client.Client) func(n int) {
	t.Helper()
	consumer := contracts.SubmitConsumer
	handle, err := c.JetStream().Consumer(t.Context(), consumer.Stream, consumer.Durable)
	if err != nil {
		t.Fatal(err)
	}
	sampled := handle.CachedInfo().Config
	sampled.SampleFrequency = "100%"
	metrics, err := c.Conn().SubscribeSync("$JS.EVENT.METRIC.CONSUMER.ACK." + consumer.Stream + "." + consumer.Durable)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.JetStream().UpdateConsumer(t.Context(), consumer.Stream, sampled); err != nil {
		t.Fatal(err)
	}
	return func(n int) {
		t.Helper()
		for range n {
			if _, err := metrics.NextMsgWithContext(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// taken waits until no submission is left: what becomes of one is stored before
// that, and a dispatcher that is stopped in between gives it back.
func taken(t *testing.T, c *client.Client) {
	t.Helper()
	await(t, func() string {
		if n := bustest.Count(t, c, contracts.StreamSubmit, ">"); n != 0 {
			return fmt.Sprintf("%d submissions are left", n)
		}
		return ""
	})
}

// letter waits for the nth dead letter.
func letter(t *testing.T, c *client.Client, n int) client.NumberedDeadLetter {
	t.Helper()
	for msg, err := range c.Messages(t.Context(), contracts.StreamDead, 1, contracts.DeadAll) {
		if err != nil {
			t.Fatal(err)
		}
		if n--; n > 0 {
			continue
		}
		meta, err := msg.Metadata()
		if err != nil {
			t.Fatal(err)
		}
		shown, err := c.DeadLetter(t.Context(), meta.Sequence.Stream)
		if err != nil {
			t.Fatal(err)
		}
		return *shown
	}
	t.Fatal("no dead letter")
	return client.NumberedDeadLetter{}
}

func TestSubmissionBecomesAReadyMessage(t *testing.T) {
	t.Parallel()
	for name, subject := range map[string]string{"any": contracts.SubmitAny, "queue": contracts.SubmitSubject("gpu")} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server, c := dispatchtest.Server(t)
			stop := run(t, server, func(cfg *service.Config) { cfg.Queues = []contracts.Queue{contracts.DefaultQueue, "gpu"} })
			task := dispatchtest.SecretTask("job", dispatchtest.Token)
			priority := 8
			task.Priority = &priority
			bustest.Publish(t, c, subject, "", dispatchtest.Encode(t, task))
			queued := dispatchtest.Await(t, c, "job", contracts.EntryQueued, 1)
			queue := contracts.DefaultQueue
			if name == "queue" {
				queue = "gpu"
			}
			want := contracts.Queued{Lane: contracts.LaneHigh, Queue: queue, Kind: contracts.KindDocker, Reason: contracts.QueuedSubmit}
			if got := *queued.Data.(*contracts.Queued); got != want {
				t.Errorf("queued as %+v, want %+v", got, want)
			}
			msg := bustest.Next(t, c, contracts.ReadyConsumer(contracts.LaneHigh, queue, contracts.KindDocker))
			if want := contracts.ReadySubject(contracts.LaneHigh, queue, contracts.KindDocker, "job", 1); msg.Subject != want {
				t.Errorf("ready on %s, want %s", msg.Subject, want)
			}
			got, err := contracts.ReadTask(msg.Data)
			if err != nil || got.Docker.Image != "img" || got.Queue != queue || got.Girder.Token != "secret:io/girder.token" {
				t.Errorf("ready task %+v, %v", got, err)
			}
			if life := dispatchtest.Life(t, c, "job"); life != "submitted queued" {
				t.Errorf("life %s", life)
			}
			taken(t, c)
			stop()
		})
	}
}

func TestSecretsAreInTheirBucketAlone(t *testing.T) {
	t.Parallel()
	server, c := dispatchtest.Server(t)
	stop := run(t, server, nil)
	publish := func(task *contracts.Task, mangle func(string) string) {
		text := string(dispatchtest.Encode(t, task))
		if mangle != nil {
			text = mangle(text)
		}
		bustest.Publish(t, c, contracts.SubmitAny, "", []byte(text))
	}
	good := dispatchtest.SecretTask("good", dispatchtest.Token)
	good.Docker.Args = append(good.Docker.Args, contracts.Arg{Transform: &contracts.GirderToken{}})
	publish(good, nil)
	publish(dispatchtest.SecretTask("typo", dispatchtest.Token), func(text string) string {
		return strings.Replace(text, `"docker"`, `"dokcer"`, 1)
	})
	publish(dispatchtest.SecretTask("cut", dispatchtest.Token), func(text string) string { return text[:len(text)-5] })
	inURL := dispatchtest.SecretTask("url", dispatchtest.Token)
	inURL.Girder.JobInfo.URL += "?token=" + dispatchtest.Token
	publish(inURL, nil)
	dispatchtest.Await(t, c, "good", contracts.EntryQueued, 1)
	letter(t, c, 3)
	taken(t, c)
	stop()

	b := dispatchtest.Open(t, server.Config())
	for _, kind := range contracts.SecretKinds {
		secrets, err := b.Secrets(t.Context(), "good", kind)
		if err != nil || len(secrets) != 1 {
			t.Fatalf("%d %s secrets, %v", len(secrets), kind, err)
		}
		for path, value := range secrets {
			if value != dispatchtest.Token {
				t.Errorf("%s is %q", path, value)
			}
		}
	}
	if found := holding(t, c, dispatchtest.Token); !slices.Equal(found, []string{
		"KV_secrets $KV.secrets.good.container", "KV_secrets $KV.secrets.good.io", "KV_secrets $KV.secrets.good.job", "KV_secrets $KV.secrets.typo.job",
	}) {
		t.Errorf("the token is in %q", found)
	}
}

// holding returns stream and subject of every message with text in it.
func holding(t *testing.T, c *client.Client, text string) []string {
	t.Helper()
	var found []string
	names := c.JetStream().StreamNames(t.Context())
	for name := range names.Name() {
		stream, err := c.JetStream().Stream(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		state := stream.CachedInfo().State
		for seq := state.FirstSeq; seq > 0 && seq <= state.LastSeq; seq++ {
			msg, err := stream.GetMsg(t.Context(), seq)
			if errors.Is(err, jetstream.ErrMsgNotFound) {
				continue
			}
			if err != nil {
				t.Fatal(err)
			}
			if strings.Contains(string(msg.Data)+fmt.Sprint(msg.Header), text) {
				found = append(found, name+" "+msg.Subject)
			}
		}
	}
	if names.Err() != nil {
		t.Fatal(names.Err())
	}
	slices.Sort(found)
	return found
}

func TestIDs(t *testing.T) {
	t.Parallel()
	server, c := dispatchtest.Server(t)
	run(t, server, nil)
	wait := acknowledged(t, c)
	bustest.Publish(t, c, contracts.SubmitAny, "message", dispatchtest.Encode(t, dispatchtest.Task("own")))
	bustest.Publish(t, c, contracts.SubmitAny, "of-the-message", dispatchtest.Encode(t, dispatchtest.Task("")))
	bustest.Publish(t, c, contracts.SubmitAny, "not an id", dispatchtest.Encode(t, dispatchtest.Task("")))
	bustest.Publish(t, c, contracts.SubmitAny, "", dispatchtest.Encode(t, dispatchtest.Task("")))
	wait(4)
	for _, job := range []contracts.JobID{"own", "of-the-message"} {
		if life := dispatchtest.Life(t, c, job); life != "submitted queued" {
			t.Errorf("life of %s: %s", job, life)
		}
	}
	if n := bustest.Count(t, c, contracts.StreamJobs, contracts.LifeAll); n != 8 {
		t.Errorf("%d entries, want 8: four jobs", n)
	}
	offered := map[contracts.JobID]bool{}
	for len(offered) < 4 { // one that nobody acknowledges comes again
		job, _, err := contracts.ParseReady(dispatchtest.NextReady(t, c).Subject)
		if err != nil {
			t.Fatal(err)
		}
		offered[job] = true
	}
	ulids := 0
	for job := range offered {
		if len(job) == 26 {
			ulids++
		}
	}
	if ulids != 2 {
		t.Errorf("%d generated ids, want 2", ulids)
	}
}

func TestSameTaskRunsOnce(t *testing.T) {
	t.Parallel()
	server, c := dispatchtest.Server(t)
	run(t, server, nil)
	run(t, server, nil)
	wait := acknowledged(t, c)
	var all sync.WaitGroup
	for n := range 20 {
		all.Go(func() {
			// Another token and another way to the same queue: the same task.
			task := dispatchtest.SecretTask("job", fmt.Sprintf("token-%d", n))
			subject := contracts.SubmitAny
			if n%2 == 0 {
				subject = contracts.SubmitSubject(contracts.DefaultQueue)
			}
			bustest.Publish(t, c, subject, "", dispatchtest.Encode(t, task))
		})
	}
	all.Wait()
	wait(20)
	if life := dispatchtest.Life(t, c, "job"); life != "submitted queued" {
		t.Errorf("life %s", life)
	}
	if n := dispatchtest.Ready(t, c, "job"); n != 1 {
		t.Errorf("%d ready messages, want 1", n)
	}
	if n := bustest.Count(t, c, contracts.StreamDead, contracts.DeadAll); n != 0 {
		t.Errorf("%d dead letters of the same task", n)
	}
}

func TestUsedID(t *testing.T) {
	t.Parallel()
	server, c := dispatchtest.Server(t)
	run(t, server, nil)
	bustest.Publish(t, c, contracts.SubmitAny, "", dispatchtest.Encode(t, dispatchtest.Task("job")))
	dispatchtest.Await(t, c, "job", contracts.EntryQueued, 1)
	other := dispatchtest.Task("job")
	other.Docker.Image = "another"
	bustest.Publish(t, c, contracts.SubmitAny, "", dispatchtest.Encode(t, other))
	if l := letter(t, c, 1); !strings.Contains(l.Reason, "already used") || l.Job != "job" || !strings.Contains(l.Payload, "another") {
		t.Errorf("dead letter %+v", l)
	}
	wrong := strings.Replace(string(dispatchtest.Encode(t, other)), `"docker"`, `"dokcer"`, 1)
	bustest.Publish(t, c, contracts.SubmitAny, "", []byte(wrong))
	if l := letter(t, c, 2); !strings.Contains(l.Reason, "dokcer") {
		t.Errorf("dead letter %+v", l)
	}
	if life := dispatchtest.Life(t, c, "job"); life != "submitted queued" {
		t.Errorf("life %s", life)
	}
}

func TestRefused(t *testing.T) {
	t.Parallel()
	const jobInfo = `"job_info":{"method":"PUT","url":"https://g/api/v1/job/0123456789abcdef01234567","headers":{"Girder-Token":"tok"}}`
	tests := []struct {
		name, subject, msgID, payload string
		reason                        string
		job                           contracts.JobID // empty: no job
		queue                         contracts.Queue
		girder                        bool
	}{
		{name: "no JSON", payload: "run this", reason: "not JSON"},
		{name: "no JSON with a message id", msgID: "mine", payload: "{", reason: "not JSON"},
		{name: "wrong type", payload: `{"version":1,"id":"j","task":"docker_run","docker":{"image":7}}`, reason: "docker.image: a number found where a string is wanted", job: "j"},
		{name: "unknown field", payload: `{"version":1,"id":"j","task":"docker_run","docker":{"image":"i","imgae":"x"}}`, reason: "docker.imgae: unknown field", job: "j"},
		{name: "message id", msgID: "mine", payload: `{"version":1,"task":"docker_run","docker":{}}`, reason: "docker.image: missing", job: "mine"},
		{name: "bad id", msgID: "mine", payload: `{"version":1,"id":"a b","task":"docker_run","docker":{"image":"i"}}`, reason: "not a job id"},
		{name: "unknown queue", subject: contracts.SubmitSubject("gpu"), payload: `{"version":1,"id":"j","task":"docker_run","docker":{"image":"i"}}`, reason: `queue: "gpu" is unknown`, job: "j", queue: "gpu"},
		{name: "queue disagrees", subject: contracts.SubmitSubject("gpu"), payload: `{"version":1,"id":"j","task":"docker_run","queue":"cpu","docker":{"image":"i"}}`, reason: "does not agree with the subject", job: "j", queue: "cpu"},
		{name: "bad queue", subject: "tasks.submit.GPU", payload: `{"version":1,"id":"j","task":"docker_run","docker":{"image":"i"}}`, reason: `queue: "GPU" is not a name`, job: "j"},
		{name: "reserved", payload: `{"version":1,"id":"j","task":"docker_run","parent":"x","docker":{"image":"i"}}`, reason: "parent: this field is reserved", job: "j"},
		{name: "plugin", payload: `{"version":1,"id":"j","task":"gwexample.fib","args":[1]}`, reason: `task: "gwexample.fib" is not supported`, job: "j"},
		{name: "job info", payload: `{"version":1,"id":"j","task":"docker_run","docker":{"imgae":"x"},"girder":{` + jobInfo + `}}`, reason: "docker.imgae", job: "j", girder: true},
		{name: "job info beside nonsense", payload: `{"version":1,"id":"j","task":"docker_run","docker":{"image":"i"},"girder":{"token":7,` + jobInfo + `}}`, reason: "girder.token", job: "j", girder: true},
		{name: "unsound job info", payload: `{"version":1,"id":"j","task":"docker_run","docker":{"image":"i"},"girder":{"job_info":{"method":"GET"}}}`, reason: "girder.job_info.method", job: "j"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			server, c := dispatchtest.Server(t)
			stop := run(t, server, func(cfg *service.Config) { cfg.Queues = []contracts.Queue{contracts.DefaultQueue, "cpu"} })
			subject := tt.subject
			if subject == "" {
				subject = contracts.SubmitAny
			}
			bustest.Publish(t, c, subject, tt.msgID, []byte(tt.payload))
			l := letter(t, c, 1)
			want := tt.queue
			if want == "" {
				want = contracts.DefaultQueue
			}
			if !strings.Contains(l.Reason, tt.reason) || l.Job != tt.job || l.Queue != want || strings.Contains(l.Payload, `"tok"`) {
				t.Errorf("dead letter %+v", l)
			}
			taken(t, c)
			stop()
			if tt.job == "" {
				if n := bustest.Count(t, c, contracts.StreamJobs, ">"); n != 0 {
					t.Errorf("%d entries of no job", n)
				}
				return
			}
			checkRejected(t, server, c, tt.job, tt.reason, tt.girder)
		})
	}
}

func checkRejected(t *testing.T, server *natstest.Server, c *client.Client, job contracts.JobID, reason string, girder bool) {
	t.Helper()
	life, err := c.Life(t.Context(), job)
	if err != nil || len(life) != 2 {
		t.Fatalf("life of %d entries, %v", len(life), err)
	}
	failed, ok := life[1].Data.(*contracts.Failed)
	if !ok || failed.Kind != contracts.FailureRejected || failed.WillRetry || !strings.Contains(failed.Message, reason) {
		t.Errorf("end %+v", life[1].Data)
	}
	task := life[0].Data.(*contracts.Submitted).Task
	if task.HasGirderJob() != girder {
		t.Errorf("the task kept %+v of Girder, want a job: %v", task.Girder, girder)
	}
	secrets, err := dispatchtest.Open(t, server.Config()).Secrets(t.Context(), job, contracts.SecretJob)
	if err != nil || (len(secrets) == 1) != girder {
		t.Errorf("%d secrets, %v", len(secrets), err)
	}
}

// TestRefusedWithoutID: nobody knows the job but Girder, which must be told.
func TestRefusedWithoutID(t *testing.T) {
	t.Parallel()
	server, c := dispatchtest.Server(t)
	run(t, server, nil)
	task := dispatchtest.SecretTask("", dispatchtest.Token)
	task.Docker.Image = ""
	bustest.Publish(t, c, contracts.SubmitAny, "", dispatchtest.Encode(t, task))
	l := letter(t, c, 1)
	if l.Job == "" {
		t.Fatalf("dead letter %+v has no job", l)
	}
	checkRejected(t, server, c, l.Job, "docker.image: missing", true)
}

func TestRefusedWithThousandsOfProblems(t *testing.T) {
	t.Parallel()
	server, c := dispatchtest.Server(t)
	run(t, server, nil)
	args := strings.Repeat(`{"type":"volume_path","path":"/x"},`, 2000)
	payload := `{"version":1,"id":"j","task":"docker_run","docker":{"image":"i","args":[` + strings.TrimSuffix(args, ",") + `]}}`
	for n := range 20 {
		bustest.Publish(t, c, contracts.SubmitAny, "", []byte(strings.Replace(payload, `"j"`, fmt.Sprintf(`"j-%d"`, n), 1)))
	}
	l := letter(t, c, 20)
	if !strings.Contains(l.Reason, "docker.args[0].path") || !strings.HasSuffix(l.Reason, "(cut)") || l.Payload == "" {
		t.Errorf("dead letter with a reason of %d bytes and a payload of %d", len(l.Reason), len(l.Payload))
	}
	letters, err := c.DeadLetters(t.Context(), 100)
	if err != nil || len(letters) != 20 {
		t.Errorf("listed %d, %v", len(letters), err)
	}
}

func TestDeadLetterQueries(t *testing.T) {
	t.Parallel()
	server, c := dispatchtest.Server(t)
	run(t, server, nil)
	if letters, err := c.DeadLetters(t.Context(), 10); err != nil || len(letters) != 0 {
		t.Errorf("listed %v, %v", letters, err)
	}
	for n := range 3 {
		bustest.Publish(t, c, contracts.SubmitAny, "", fmt.Appendf(nil, "letter %d", n))
		letter(t, c, n+1)
	}
	letters, err := c.DeadLetters(t.Context(), 2)
	if err != nil || len(letters) != 2 || letters[0].Seq != 3 || letters[1].Seq != 2 || letters[0].Submission != 3 {
		t.Errorf("listed %+v, %v", letters, err)
	}
	if shown, err := c.DeadLetter(t.Context(), 2); err != nil || shown.Payload != "letter 1" {
		t.Errorf("shown %+v, %v", shown, err)
	}
	_, err = c.DeadLetter(t.Context(), 99)
	var refused *contracts.RequestError
	if !errors.As(err, &refused) || refused.Code != contracts.CodeNotFound || refused.Field != "seq" {
		t.Errorf("show of a letter that is not there: %v", err)
	}
	reply, err := c.Conn().RequestWithContext(t.Context(), contracts.DeadShowSubject, []byte("2"))
	if err != nil || reply.Header.Get("Nats-Service-Error-Code") != contracts.CodeInvalid {
		t.Errorf("an unreadable request was answered %v, %v", reply, err)
	}
}

func TestValidate(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		change func(*service.Config)
		want   string
	}{
		{func(*service.Config) {}, ""},
		{func(c *service.Config) { c.Queues = []contracts.Queue{"GPU"} }, "--queues"},
		{func(c *service.Config) { c.MaxQueued = 0 }, "--max-queued"},
		{func(c *service.Config) { c.SweepInterval = 0 }, "--sweep-interval"},
		{func(c *service.Config) { c.LostAfter = time.Second }, "--lost-after"},
	} {
		var cfg service.Config
		if err := config.Defaults(&cfg); err != nil {
			t.Fatal(err)
		}
		tt.change(&cfg)
		err := config.Validate(&cfg)
		if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("got %v, want %q", err, tt.want)
		}
	}
}

func TestRunEndsWithoutNATS(t *testing.T) {
	t.Parallel()
	server, _ := dispatchtest.Server(t)
	lost := make(chan struct{})
	stop := run(t, server, nil)
	server.Client().Conn().SetDisconnectErrHandler(func(*nats.Conn, error) { close(lost) })
	server.Stop()
	<-lost
	stop()
}

func quick(interval time.Duration) func(*service.Config) {
	return func(cfg *service.Config) { cfg.SweepInterval = interval }
}
