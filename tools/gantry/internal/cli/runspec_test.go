package cli_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/google/go-cmp/cmp"

	"github.com/gantry-worker/gantry/contracts"
)

const fileID, itemID, folderID = "5f0c00000000000000000001", "5f0e00000000000000000002", "5f0f00000000000000000003"

func TestRunFlagsBecomeATask(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		args []string
		want string
	}{
		"image only": {[]string{"img"}, `{"version":1,"id":"x","task":"docker_run","docker":{"image":"img","pull":"missing"}}`},
		"everything after the image is the container's": {
			[]string{"--pull=never", "img", "--pull", "always", "-e", "A=1", "--", "-x", "--unknown"},
			`{"version":1,"id":"x","task":"docker_run","docker":{"image":"img","pull":"never","args":["--pull","always","-e","A=1","--","-x","--unknown"]}}`,
		},
		"options": {
			[]string{
				"-e", "A=1,2=3", "--env=EMPTY=", "-e", "NOT_SET_HERE", "--memory=512m", "--cpus=1.5", "--network=none", "--user=1000:1000",
				"--workdir=/w", "--entrypoint=python '/my app.py'", "--queue=gpu", "--priority=0", "--label=project=lung,left", "img",
			},
			`{"version":1,"id":"x","task":"docker_run","queue":"gpu","priority":0,"labels":{"project":"lung,left"},"docker":{"image":"img","pull":"missing","entrypoint":["python","/my app.py"],"options":{
				"environment":{"A":"1,2=3","EMPTY":""},"mem_limit":536870912,"nano_cpus":1500000000,"network_mode":"none","user":"1000:1000","working_dir":"/w"}}}`,
		},
		"placeholders": {
			[]string{
				"--girder-url=http://g/api/v1", "--girder-token=t", "--upload", "out/a=b.csv=item:" + itemID,
				"img", "@file:" + fileID + ":in/a:b.tif", "@file:" + fileID, "@path:out/a=b.csv", "@progress", "@volume", "@@progress", "user@host",
			},
			`{"version":1,"id":"x","task":"docker_run","docker":{"image":"img","pull":"missing","args":[
				{"type":"girder_file","id":"` + fileID + `","filename":"in/a:b.tif"},{"type":"girder_file","id":"` + fileID + `"},
				{"type":"volume_path","path":"out/a=b.csv"},{"type":"progress_pipe"},{"type":"temporary_volume"},"@progress","user@host"]},
				"outputs":[{"type":"girder_upload_item","path":{"type":"volume_path","path":"out/a=b.csv"},"item_id":"` + itemID + `"}],
				"girder":{"api_url":"http://g/api/v1","token":"t"}}`,
		},
		"inputs and outputs of every kind": {
			[]string{
				"--girder-url=http://g/api/v1", "--girder-token=t", "--girder-job-token=j", "--title=T", "--upload=out=folder:" + folderID,
				"--upload=a.csv=item:" + itemID, "--artifact=debug", "--artifact=b=c.log",
				"img", "@item:" + itemID, "@folder:" + folderID, "@folder:" + folderID + ":in", "@stream:" + fileID, "@stream:" + fileID, "@girder-url", "@girder-token",
			},
			`{"version":1,"id":"x","task":"docker_run","docker":{"image":"img","pull":"missing","args":[
				{"type":"girder_item","id":"` + itemID + `"},{"type":"girder_folder","id":"` + folderID + `"},{"type":"girder_folder","id":"` + folderID + `","folder_name":"in"},
				{"type":"connect","input":{"type":"girder_file_stream","id":"` + fileID + `"},"output":{"type":"named_input_pipe","name":".girder_stream_3"}},
				{"type":"connect","input":{"type":"girder_file_stream","id":"` + fileID + `"},"output":{"type":"named_input_pipe","name":".girder_stream_4"}},
				{"type":"girder_api_url"},{"type":"girder_token"}]},
				"outputs":[{"type":"girder_upload_folder","path":{"type":"volume_path","path":"out"},"folder_id":"` + folderID + `"},
				{"type":"girder_upload_item","path":{"type":"volume_path","path":"a.csv"},"item_id":"` + itemID + `"},
				{"type":"girder_job_artifact","path":{"type":"volume_path","path":"debug"},"upload_on_exception":true},
				{"type":"girder_job_artifact","path":{"type":"volume_path","path":"b=c.log"},"upload_on_exception":true}],
				"girder":{"api_url":"http://g/api/v1","token":"t","job":{"token":"j","title":"T","type":"docker_run"}}}`,
		},
		"volumes, limits, a container that stays": {
			[]string{"-v", "/srv/data:/data:ro,z", "--volume=/srv/out:/out", "--time-limit=12h", "--soft-time-limit=11h30m", "--keep-container", "img"},
			`{"version":1,"id":"x","task":"docker_run","docker":{"image":"img","pull":"missing","remove_container":false,"volumes":[
				{"type":"bind_mount","host_path":"/srv/data","container_path":"/data","mode":"ro,z"},
				{"type":"bind_mount","host_path":"/srv/out","container_path":"/out"}]},"limits":{"time":"12h0m0s","soft_time":"11h30m0s"}}`,
		},
		"girder job": {
			[]string{"--girder-url=http://g/api/v1", "--girder-job-token=j", "--title=Segment", "img"},
			`{"version":1,"id":"x","task":"docker_run","docker":{"image":"img","pull":"missing"},
				"girder":{"api_url":"http://g/api/v1","job":{"token":"j","title":"Segment","type":"docker_run"}}}`,
		},
	} {
		x := newTerminal()
		if code := x.run(append([]string{"run", "--dry-run", "--id=x"}, c.args...)...); code != 0 {
			t.Errorf("%s: exit code %d: %s", name, code, x.stderr.String())
			continue
		}
		if diff := cmp.Diff(canonical(t, c.want), canonical(t, x.stdout.String())); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
		if _, err := contracts.DecodeTask([]byte(x.stdout.String())); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func canonical(t *testing.T, text string) string {
	t.Helper()
	value := jsontext.Value(text)
	if err := value.Canonicalize(); err != nil {
		t.Fatalf("%v in %s", err, text)
	}
	if err := value.Indent(); err != nil {
		t.Fatal(err)
	}
	return string(value)
}

func TestRunRefusesWrongFlags(t *testing.T) {
	t.Parallel()
	for want, args := range map[string][]string{
		`write "@@what" to pass it as it is`:                  {"img", "@what"},
		`argument "@file"`:                                    {"img", "@file"},
		`--memory: "much" is not a size`:                      {"--memory=much", "img"},
		`-e: "=x" has no name`:                                {"-e", "=x", "img"},
		`--upload: "out.csv" is not PATH=item:ID or`:          {"--upload=out.csv", "img"},
		`--upload: "out=job:1" is not PATH=item:ID or`:        {"--upload=out=job:1", "img"},
		`@file needs --girder-url`:                            {"img", "@file:" + fileID},
		`@girder-url needs --girder-url`:                      {"img", "@girder-url"},
		"girder.token: missing; docker.args[1] needs it":      {"--girder-url=http://g", "img", "@girder-url", "@file:" + fileID},
		`@stream needs --girder-url`:                          {"img", "@stream:" + fileID},
		`@girder-token needs --girder-url`:                    {"img", "@girder-token"},
		`--upload needs --girder-url`:                         {"--upload=a=item:" + itemID, "img"},
		`--artifact needs --girder-url`:                       {"--artifact=a", "img"},
		`--artifact attaches to the Girder job`:               {"--girder-url=http://g", "--girder-token=t", "--artifact=a", "img"},
		`--volume: "/a" is not HOST:CONTAINER`:                {"-v", "/a", "img"},
		`docker.volumes[0].mode: "rx" is not rw or ro`:        {"-v", "/a:/b:rx", "img"},
		`docker.volumes[0].host_path: "a" is not an absolute`: {"-v", "a:/b", "img"},
		`--time-limit: -1s is below zero`:                     {"--time-limit=-1s", "img"},
		`--time-limit`:                                        {"--time-limit=soon", "img"},
		`limits.soft_time: 2h0m0s is not below limits.time`:   {"--time-limit=1h", "--soft-time-limit=2h", "img"},
		`--girder-url is missing`:                             {"--girder-token=t", "img"},
		`--title is the title of a Girder job`:                {"--title=t", "img"},
		`--entrypoint: "a 'b" cannot be split`:                {"--entrypoint=a 'b", "img"},
		"\n  docker.args[0].path: \"../x\" leaves the volume": {"img", "@path:../x"},
		"\n  id: ":                        {"--id=a b", "img"},
		"\n  priority: 12 is not between": {"--priority=12", "img"},
	} {
		x := newTerminal()
		if code := x.run(append([]string{"run", "--dry-run"}, args...)...); code != 125 {
			t.Errorf("%q: exit code %d", args, code)
		}
		x.wantStderr(t, want)
	}
}

func TestSubmitReadsJSONAndYAML(t *testing.T) {
	t.Parallel()
	const asYAML = `
# a comment
id: from-yaml
task: docker_run
docker:
  image: my/image:1.2
  args: ["--threads", 4, {type: volume_path, path: out.csv}]
  options:
    mem_limit: 2g
    environment: {A: "1"}
labels:
  project: lung
`
	const asJSON = `{"version":1,"id":"from-json","task":"docker_run","docker":{"image":"img"}}`
	server := newSubmissions(t)
	file := filepath.Join(t.TempDir(), "task.yaml")
	if err := os.WriteFile(file, []byte(asYAML), 0o600); err != nil {
		t.Fatal(err)
	}
	x := newTerminal()
	if code := x.run(append(at(server.Server), "submit", "-f", file)...); code != 0 || x.stdout.String() != "from-yaml\n" {
		t.Fatalf("exit code %d, stdout %q, stderr %q", code, x.stdout.String(), x.stderr.String())
	}
	task := server.next(t)
	if task.Docker.Image != "my/image:1.2" || task.Docker.Args[1].Text != "4" || task.Docker.Options.MemLimit != 2<<30 || task.Labels["project"] != "lung" {
		t.Errorf("published %+v", task)
	}
	x = newTerminal()
	x.stdin = strings.NewReader(asJSON)
	if code := x.run(append(at(server.Server), "submit", "-f", "-")...); code != 0 || x.stdout.String() != "from-json\n" {
		t.Fatalf("exit code %d, stdout %q, stderr %q", code, x.stdout.String(), x.stderr.String())
	}
	if task := server.next(t); task.ID != "from-json" {
		t.Errorf("published %+v", task)
	}
}

func TestSubmitNamesWhatIsWrong(t *testing.T) {
	t.Parallel()
	for want, text := range map[string]string{
		"docker.imagee: unknown field":                  "task: docker_run\ndocker: {imagee: x}\n",
		"docker.args[1].id: \"5f\" is not a Girder id":  "task: docker_run\ngirder: {api_url: http://g/api/v1, token: t}\ndocker: {image: x, args: [a, {type: girder_file, id: 5f}]}\n",
		"docker.options.tty: this option cannot be set": `{"task":"docker_run","docker":{"image":"x","options":{"tty":true}}}`,
		"not JSON":              `{"task":`,
		"neither JSON nor YAML": "task: [1\n",
		"the file is empty":     " \n",
		"read task: the file holds no task specification": "# a comment\n",
		": the file holds no task specification":          "[1, 2]",
		"the file holds no task specification\n":          "only text\n",
		"task: a list found where a string is wanted":     "task: [docker_run]\ndocker: {image: x}\n",
		"docker.image: missing":                           "task: docker_run\ndocker: {}\n",
		"the specification has":                           `{"task":"` + strings.Repeat("x", 600<<10) + `"}`,
	} {
		x := newTerminal()
		x.stdin = strings.NewReader(text)
		if code := x.run("submit", "-f", "-"); code != 1 {
			t.Errorf("%.60q: exit code %d", text, code)
		}
		x.wantStderr(t, want)
	}
	x := newTerminal()
	if code := x.run("submit", "-f", "/nowhere/task.json"); code != 1 {
		t.Errorf("missing file: exit code %d", code)
	}
	x.wantStderr(t, "/nowhere/task.json")
}
