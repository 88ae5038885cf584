package service_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/go-json-experiment/json"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/services/docker-executor/service"
)

// streamTask is a task whose container sees the folder data of the stage, where
// the connects have their pipes. It is tried once.
func (s *stage) streamTask(steps []string, connects ...contracts.Connect) *contracts.Task {
	s.t.Helper()
	data := filepath.Join(s.root, "data")
	if err := os.MkdirAll(data, 0o777); err != nil {
		s.t.Fatal(err)
	}
	none := 0
	task := script(steps...)
	task.Docker.Volumes = []contracts.Volume{{Name: "data", Type: contracts.VolumeBindMount, HostPath: data, ContainerPath: "/data"}}
	task.Docker.Streams = connects
	task.Retry = &contracts.Retry{MaxCrashes: &none}
	task.Girder = &contracts.Girder{APIURL: "http://127.0.0.1:1/api/v1"}
	return task
}

// streams starts an executor that runs stream tasks.
func (s *stage) streams() (stop func()) {
	s.t.Helper()
	return s.start(func(cfg *service.Config) { cfg.AllowBind = []string{s.root + ":rw"} })
}

func end(t contracts.Transform) contracts.Endpoint        { return contracts.Endpoint{Transform: t} }
func uploadEnd(o contracts.OutputSpec) contracts.Endpoint { return contracts.Endpoint{Output: o} }

func fromPipe(name string, to contracts.Endpoint) contracts.Connect {
	return contracts.Connect{Input: end(&contracts.NamedOutputPipe{Name: name, Volume: "data"}), Output: to}
}

func fromStdout(to contracts.Endpoint) contracts.Connect {
	return contracts.Connect{Input: end(&contracts.ContainerStdout{}), Output: to}
}

func fromStderr(to contracts.Endpoint) contracts.Connect {
	return contracts.Connect{Input: end(&contracts.ContainerStderr{}), Output: to}
}

func fromGirder(id, pipe string) contracts.Connect {
	return contracts.Connect{
		Input: end(&contracts.GirderFileStream{ID: id}), Output: end(&contracts.NamedInputPipe{Name: pipe, Volume: "data"}),
	}
}

func parsed(c contracts.Connect) contracts.Connect {
	c.Parse = "slicer"
	return c
}

var (
	toHTTP   = end(&contracts.ChunkedStream{URL: "http://127.0.0.1:1/take?a=b"})
	toItem   = uploadEnd(&contracts.GirderUploadItem{ItemID: "item", UploadKwargs: map[string]string{"reference": "ref"}})
	toFolder = uploadEnd(&contracts.GirderUploadFolder{FolderID: "folder"})
	toOut    = end(&contracts.HostStdout{})
	toErr    = end(&contracts.HostStderr{})
)

// big is more than a few pipes hold.
var big = strings.Repeat("abc", 65_546)

func TestEachConnectMovesItsBytes(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		steps    []string
		connects []contracts.Connect
		out, err string            // of the job's log
		taken    map[string]string // by transfer
		sent     []string          // names in Girder
	}{
		"a file of Girder into a pipe": {
			steps: []string{"cat:/data/in"}, connects: []contracts.Connect{fromGirder("big", "in")}, out: big,
		},
		"an empty file of Girder into a pipe": {
			steps: []string{"cat:/data/in", "out:end"}, connects: []contracts.Connect{fromGirder("empty", "in")}, out: "end",
		},
		"a pipe to a server": {
			steps: []string{"write:/data/out:one", "write:/data/out:two\n", "out:log\n"}, connects: []contracts.Connect{fromPipe("out", toHTTP)},
			taken: map[string]string{"stream-0": "onetwo\n"}, out: "log\n",
		},
		"a pipe to an item": {
			steps: []string{"write:/data/out.csv:text"}, connects: []contracts.Connect{fromPipe("out.csv", toItem)},
			taken: map[string]string{"stream-0": "text"}, sent: []string{"out.csv"},
		},
		"a pipe to a folder": {
			steps: []string{"write:/data/out.csv:text"}, connects: []contracts.Connect{fromPipe("out.csv", toFolder)},
			taken: map[string]string{"stream-0": "text"}, sent: []string{"out.csv"},
		},
		"a pipe to the log": {
			steps: []string{"write:/data/out:Dydh da"}, connects: []contracts.Connect{fromPipe("out", toOut)}, out: "Dydh da",
		},
		"a pipe to the log's standard error": {
			steps: []string{`write:/data/out:\0377\0376`, "out:o"}, connects: []contracts.Connect{fromPipe("out", toErr)}, out: "o", err: "\xff\xfe",
		},
		"two pipes to the log": {
			steps:    []string{"write:/data/a:first", "write:/data/b:second"},
			connects: []contracts.Connect{fromPipe("a", toOut), fromPipe("b", toErr)}, out: "first", err: "second",
		},
		"standard output to a server": {
			steps: []string{"out:one\n", "err:e\n", "fill:200000:x", "out:end"}, connects: []contracts.Connect{fromStdout(toHTTP)},
			taken: map[string]string{"stream-0": "one\n" + strings.Repeat("x", 200_000) + "end"}, err: "e\n",
		},
		"standard error to an item": {
			steps: []string{"out:o\n", "err:e"}, connects: []contracts.Connect{fromStderr(toItem)},
			taken: map[string]string{"stream-0": "e"}, out: "o\n", sent: []string{"stderr"},
		},
		"both to elsewhere": {
			steps: []string{"out:o\n", "err:e"}, connects: []contracts.Connect{fromStderr(toHTTP), fromStdout(toFolder)},
			taken: map[string]string{"stream-0": "e", "stream-1": "o\n"}, sent: []string{"stdout"},
		},
		"standard output as standard error": {
			steps: []string{"out:o\n", "err:e\n"}, connects: []contracts.Connect{fromStdout(toErr), fromStderr(toOut)}, out: "e\n", err: "o\n",
		},
		"standard output as it is": {
			steps: []string{"out:o\n", "err:e\n"}, connects: []contracts.Connect{fromStdout(toOut)}, out: "o\n", err: "e\n",
		},
		"standard output without its progress": {
			steps:    []string{"out:a\n<filter-pro", "out:gress>0.5</filter-progress>\nb\n", "err:e"},
			connects: []contracts.Connect{parsed(fromStdout(toOut))}, out: "a\nb\n", err: "e",
		},
		"standard output without its progress, as standard error": {
			steps: []string{"out:a\n<filter-progress>0.5</filter-progress>\nb"}, connects: []contracts.Connect{parsed(fromStdout(toErr))}, err: "a\nb",
		},
		"standard output without its progress to a server": {
			steps: []string{"out:a\n<filter-progress>0.5</filter-progress>\nb<fil"}, connects: []contracts.Connect{parsed(fromStdout(toHTTP))},
			taken: map[string]string{"stream-0": "a\nb<fil"},
		},
		"a pipe that is never opened to a server": {
			steps: []string{"out:o"}, connects: []contracts.Connect{fromPipe("out", toHTTP)}, taken: map[string]string{"stream-0": ""}, out: "o",
		},
		"a pipe that is never opened to the log": {
			steps: []string{"out:o"}, connects: []contracts.Connect{fromPipe("out", toErr)}, out: "o",
		},
		"a file of Girder that nobody reads": {
			steps: []string{"out:o"}, connects: []contracts.Connect{fromGirder("big", "in")}, out: "o",
		},
		"a container that says nothing": {
			connects: []contracts.Connect{fromStdout(toItem), fromStderr(toHTTP)}, steps: []string{"exit:0"},
			taken: map[string]string{"stream-0": "", "stream-1": ""}, sent: []string{"stdout"},
		},
		"through": {
			steps: []string{"cat:/data/in", "write:/data/out:x"}, connects: []contracts.Connect{fromGirder("big", "in"), fromStdout(toHTTP), fromPipe("out", toOut)},
			taken: map[string]string{"stream-1": big}, out: "x",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newStage(t)
			m := s.moves(map[string][]byte{"big": []byte(big), "empty": {}})
			stop := s.streams()
			s.offer("job", s.streamTask(test.steps, test.connects...))
			succeeded := s.succeeds("job")
			if out, err := s.output("job", contracts.LogStdout), s.output("job", contracts.LogStderr); out != test.out || err != test.err {
				t.Errorf("stdout is %.60q (%d bytes), stderr %.60q, want %.60q (%d) and %.60q", out, len(out), err, test.out, len(test.out), test.err)
			}
			s.lastSeq("job", succeeded.LogSeq)
			for step, want := range test.taken {
				if got := m.taken(step); got != want {
					t.Errorf("%s took %.60q (%d bytes), want %.60q (%d)", step, got, len(got), want, len(want))
				}
			}
			var sent []string
			for _, file := range succeeded.Outputs {
				sent = append(sent, file.Name)
			}
			if fmt.Sprint(sent) != fmt.Sprint(test.sent) {
				t.Errorf("outputs are %q, want %q", sent, test.sent)
			}
			stop()
			m.stop()
			s.clean()
			if left, err := os.ReadDir(filepath.Join(s.root, "data")); err != nil || len(left) > 0 {
				t.Errorf("left on the volume: %v, error %v", left, err)
			}
		})
	}
}

// What transfer is asked for says all that it has to know.
func TestTheStepsOfStreams(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	m := s.moves(map[string][]byte{"aa": []byte("text")})
	s.streams()
	task := s.streamTask([]string{"cat:/data/in", "write:/data/sub.txt:12345", "err:four"}, fromStderr(toItem), fromPipe("sub.txt", toFolder))
	task.Docker.Args = append(task.Docker.Args, contracts.Arg{Text: "exit:0"})
	connect := fromGirder("aa", "in")
	task.Docker.Args = append(task.Docker.Args, contracts.Arg{Transform: &connect})
	s.offer("job", task)
	s.succeeds("job")
	steps := map[string]contracts.Step{}
	for _, step := range m.asked(contracts.StepStream) {
		steps[step.Step] = step
		if step.Folder != "attempts/job.1" || step.Attempt != 1 || step.Job != "job" {
			t.Errorf("step %+v", step)
		}
	}
	if len(steps) != 3 {
		t.Fatalf("steps are %+v", steps)
	}
	data := filepath.Join(s.root, "data")
	in, stderr, pipe := steps["stream-0"].Stream, steps["stream-1"].Stream, steps["stream-2"].Stream
	if in.Field != "docker.args[4]" || in.From.FileID != "aa" || in.From.Girder.APIURL != task.Girder.APIURL ||
		*in.To.Pipe != (contracts.Pipe{Volume: data, Name: "in", End: contracts.PipeWrite}) {
		t.Errorf("the input is %+v", in)
	}
	if stderr.Field != "docker.streams[0]" || stderr.To.ItemID != "item" || stderr.To.Name != "stderr" || stderr.To.Reference != "ref" ||
		*stderr.From.Pipe != (contracts.Pipe{Volume: filepath.Join(s.root, "attempts", "job.1"), Name: "streams/stream-1", End: contracts.PipeRead}) {
		t.Errorf("standard error is %+v", stderr)
	}
	if pipe.To.FolderID != "folder" || pipe.To.Name != "sub.txt" || *pipe.From.Pipe != (contracts.Pipe{Volume: data, Name: "sub.txt", End: contracts.PipeRead}) {
		t.Errorf("the pipe is %+v", pipe)
	}
	finish := m.asked(contracts.StepFinish)
	if len(finish) != 1 || len(finish[0].Written) != 1 || finish[0].Written["stream-1"] != 4 {
		t.Errorf("finish is %+v", finish)
	}
}

// The progress in a container's output is told as that of a pipe is, the last of
// it in any case.
func TestTheLastProgressOfTheOutputIsThere(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	s.streams()
	steps := []string{"out:<filter-start>\n<filter-name>Median</filter-name>\n</filter-start>\n"}
	for i := range 100 {
		steps = append(steps, fmt.Sprintf("out:<filter-progress>%v</filter-progress>\n", float64(i)/100))
	}
	s.offer("job", s.streamTask(append(steps, "out:text\n<filter-progress>1</filter-progress>"), parsed(fromStdout(toOut))))
	s.succeeds("job")
	var last contracts.Progress
	for _, note := range s.notes("job") {
		if note.Type != contracts.NoteProgress {
			continue
		}
		last = contracts.Progress{}
		if err := json.Unmarshal(note.Data, &last); err != nil {
			t.Fatal(err)
		}
	}
	if last.Current == nil || *last.Current != 1 || *last.Total != 1 || last.Message != "Median" {
		t.Errorf("the last progress is %+v", last)
	}
	if got := s.output("job", contracts.LogStdout); got != "text\n" {
		t.Errorf("the log is %q", got)
	}
}
