package scenarios

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/e2e/setup"
	"github.com/gantry-worker/gantry/tools/girder-sim/girdersim"
)

// process reads the file $1 and writes it in capitals to $2, and says in the
// pipe $3 how far it is.
const process = `
echo '{"total": 3, "current": 1, "message": "reading"}' > "$3"
echo "read $(wc -c < "$1") bytes"
echo "no errors so far" >&2
tr a-z A-Z < "$1" > "$2"
echo '{"total": 3, "current": 2}' > "$3"
echo '{"total": 3, "current": 3, "message": "done"}' > "$3"
echo "last line"`

// input is more than one chunk of an upload.
func input() []byte {
	letters := []byte("abcdefghij \n")
	content := make([]byte, 11<<20)
	for i := range content {
		content[i] = letters[rand.N(len(letters))]
	}
	return content
}

func TestTheWholePath(t *testing.T) {
	t.Parallel()
	g := setup.Start(t, setup.Config{Hold: []string{setup.Executor}})
	content := input()
	file, result := g.Girder.File("in.txt", content), g.Girder.Item("result")
	task := g.Shell(process, &contracts.GirderFile{ID: file.ID, Filename: "in.txt"}, &contracts.VolumePath{Path: "out.txt"}, &contracts.ProgressPipe{})
	task.Outputs = []contracts.Output{setup.UploadTo(result, "out.txt")}
	task.Girder = g.Girder.Of("the whole path")

	job := g.MustSubmit(task)
	created, err := g.Girder.Job(g.AwaitGirderJob(job).ID)
	if err != nil {
		t.Fatal(err)
	}
	if created.Status != girdersim.Inactive || created.TaskID != string(job) || created.Handler != girdersim.CeleryHandler {
		t.Errorf("before it runs the Girder job is %+v", created)
	}
	g.Services[setup.Executor].Start()
	succeeded := g.AwaitSuccess(job)
	if types := g.Types(job); types != "submitted queued claimed started pushing pushed succeeded" {
		t.Errorf("life: %s", types)
	}
	checkPath(t, g, job, g.AwaitMirrored(job), result, content)
	if len(succeeded.Outputs) != 1 || succeeded.Outputs[0].SHA512 != setup.SHA512(bytes.ToUpper(content)) {
		t.Errorf("the job's outputs are %+v", succeeded.Outputs)
	}
}

// TestPlainJSON publishes with nothing but a NATS connection.
func TestPlainJSON(t *testing.T) {
	t.Parallel()
	g := setup.Start(t, setup.Config{})
	content := input()
	file, result := g.Girder.File("in.txt", content), g.Girder.Item("result")
	message := fmt.Sprintf(`{
		"version": 1, "id": "plain", "task": "docker_run",
		"docker": {
			"image": %q, "pull": "never", "entrypoint": ["/bin/sh", "-c"],
			"args": [%q, "sh",
				{"type": "girder_file", "id": %q, "filename": "in.txt"},
				{"type": "volume_path", "path": "out.txt"},
				{"type": "progress_pipe"}
			]
		},
		"outputs": [{"type": "girder_upload_item", "path": {"type": "volume_path", "path": "out.txt"}, "item_id": %q}],
		"girder": {"api_url": %q, "token": %q, "job": {"token": %q, "title": "plain JSON"}}
	}`, g.Engine.Image, process, file.ID, result.ID, g.Girder.APIURL(), g.Girder.DataAccess, g.Girder.JobAccess)

	conn, err := nats.Connect(g.URL, nats.Token(g.Token))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	reply, err := conn.RequestWithContext(g.Context(), "tasks.submit", []byte(message))
	if err != nil {
		t.Fatal(err)
	}
	var ack struct {
		Stream string
		Seq    uint64
	}
	if err := json.Unmarshal(reply.Data, &ack); err != nil || ack.Stream != contracts.StreamSubmit || ack.Seq == 0 {
		t.Fatalf("acknowledged with %s, %v", reply.Data, err)
	}
	g.AwaitSuccess("plain")
	checkPath(t, g, "plain", g.AwaitMirrored("plain"), result, content)
}

// TestGirdersOwnJob takes over a job that Girder made.
func TestGirdersOwnJob(t *testing.T) {
	t.Parallel()
	g := setup.Start(t, setup.Config{})
	content := input()
	file, result := g.Girder.File("in.txt", content), g.Girder.Item("result")
	made, err := g.Girder.CreateJob(girdersim.JobSpec{Title: "Girder's own", UserID: g.Girder.User.ID})
	if err != nil {
		t.Fatal(err)
	}
	task := g.Shell(process, &contracts.GirderFile{ID: file.ID}, &contracts.VolumePath{Path: "out.txt"}, &contracts.ProgressPipe{})
	task.Outputs = []contracts.Output{setup.UploadTo(result, "out.txt")}
	task.Girder = g.Girder.Of("")
	task.Girder.Job = nil
	task.Girder.JobInfo = &contracts.GirderJobInfo{
		Method: "PUT", URL: made.URL, Reference: made.ID, Headers: map[string]contracts.Secret{"Girder-Token": contracts.Secret(made.Token)}, LogPrint: true,
	}
	job := g.MustSubmit(task)
	g.AwaitSuccess(job)
	mirrored, err := g.Girder.AwaitJob(g.Context(), made.ID, func(j girdersim.Job) bool { return contracts.GirderStatus(j.Status).Terminal() })
	if err != nil {
		t.Fatal(err)
	}
	checkPath(t, g, job, mirrored, result, content)
}

// checkPath checks what a person sees who looks at Girder.
func checkPath(t *testing.T, g *setup.Gantry, job contracts.JobID, mirrored girdersim.Job, result girdersim.Item, content []byte) {
	t.Helper()
	if got := setup.Statuses(mirrored); !slices.Equal(got, []string{"RUNNING", "SUCCESS"}) {
		t.Errorf("Girder's history: %v", got)
	}
	uploaded, bytesUploaded := g.Girder.Uploaded(result.ID)
	if want := setup.SHA512(bytes.ToUpper(content)); uploaded.SHA512 != want || setup.SHA512(bytesUploaded) != want || uploaded.Name != "out.txt" {
		t.Errorf("uploaded %s of %d bytes with checksum %s, want %s", uploaded.Name, uploaded.Size, uploaded.SHA512, want)
	}
	all, streams := g.JobLog(job)
	want := map[contracts.LogStream]string{
		contracts.LogStdout: fmt.Sprintf("read %d bytes\nlast line\n", len(content)),
		contracts.LogStderr: "no errors so far\n",
	}
	for stream, text := range want {
		if streams[stream] != text {
			t.Errorf("%s is %q, want %q", stream, streams[stream], text)
		}
	}
	if got := setup.LogOf(mirrored); got != all {
		t.Errorf("Girder's log is %q, ours %q", got, all)
	}
	progress := mirrored.Progress
	if progress == nil || progress.Total == nil || progress.Current == nil || progress.Message == nil ||
		*progress.Total != 3 || *progress.Current != 3 || *progress.Message != "done" {
		t.Errorf("Girder's progress is %+v", progress)
	}
	shown := g.AwaitJob(job, func(j *contracts.Job) bool { return j.Status.Terminal() && j.Girder != nil && j.Girder.Done })
	if shown.Status != contracts.StatusSucceeded || shown.ExitCode == nil || *shown.ExitCode != 0 {
		t.Errorf("the projection is %+v", shown)
	}
	if text := g.MustGantry("jobs", "show", string(job)); !strings.Contains(text, "succeeded") || !strings.Contains(text, mirrored.ID) {
		t.Errorf("gantry jobs show:\n%s", text)
	}
}
