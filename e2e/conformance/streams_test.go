package conformance

// Section 4.5: streams and pipes.

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/e2e/conformance/program/pattern"
	"github.com/gantry-worker/gantry/e2e/setup"
)

// 4.5 the argument is <container path>/<name>
func TestAPipesArgumentIsItsPathInTheContainer(t *testing.T) {
	s := start(t)
	file := s.Girder.File("in", []byte("x"))
	host := folder(t)
	task := s.script(`for p in "$@"; do echo "$p"; [ -p "$p" ] || exit 9; done; cat "$1" > /dev/null; exec 3> "$2"`,
		connect(&contracts.GirderFileStream{ID: file.ID}, &contracts.NamedInputPipe{Name: "in"}),
		connect(&contracts.NamedOutputPipe{Name: "out", ContainerPath: "/pipes", HostPath: host}, &contracts.HostStdout{}))
	lines := s.succeed(task).lines()
	if root, ok := strings.CutSuffix(lines[0], "/in"); len(lines) != 2 || !ok || !mounted.MatchString(root) || lines[1] != "/pipes/out" {
		t.Errorf("the log is %q", lines)
	}
	s.awaitNothing("pipes", func() []string { return entries(t, host) })
}

// 4.5 pipes on a named volume
func TestAPipeMayBeOnAnyVolume(t *testing.T) {
	s := start(t)
	host := folder(t)
	task := s.script(`echo "$1" > "$1"`, connect(&contracts.NamedOutputPipe{Name: "out", Volume: "data"}, &contracts.HostStdout{}))
	task.Docker.Volumes = []contracts.Volume{bindMount("data", host, "/data", "rw")}
	s.succeed(task).wrote("/data/out\n")
	s.awaitNothing("pipes", func() []string { return entries(t, host) })
}

// 4.5 the slot of a connect that has no pipe
func TestAConnectOfAStandardStreamIsNoArgument(t *testing.T) {
	s := start(t)
	s.succeed(s.script(`for a in "$@"; do echo "[$a]"; done`, "a", connect(&contracts.ContainerStdout{}, &contracts.HostStderr{}), "b")).
		wrote("[a]\n[b]\n")
}

// 4.5 read streams are open before the container starts: its first write finds a reader
func TestAnOutputPipeHasAReaderFromTheStart(t *testing.T) {
	s := start(t)
	s.succeed(s.command("program", "now", connect(&contracts.NamedOutputPipe{Name: "out"}, &contracts.HostStdout{}), "at once")).wrote("at once")
}

// 4.5 host streams: an output pipe goes to the log's stdout or stderr
func TestOutputPipesGoToTheStreamOfTheLogThatIsNamed(t *testing.T) {
	s := start(t)
	end := s.succeed(s.script(`echo one > "$1"; echo two > "$2"`,
		connect(&contracts.NamedOutputPipe{Name: "one"}, &contracts.HostStdout{}), connect(&contracts.NamedOutputPipe{Name: "two"}, &contracts.HostStderr{})))
	if end.stdout != "one\n" || end.stderr != "two\n" {
		t.Errorf("stdout is %q, stderr is %q", end.stdout, end.stderr)
	}
}

// 4.5 an output pipe may be opened and closed as often as the container likes
func TestAnOutputPipeMayBeOpenedAgainAndAgain(t *testing.T) {
	s := start(t)
	s.succeed(s.script(`for i in $(seq 50); do echo "$i" > "$1"; done`, connect(&contracts.NamedOutputPipe{Name: "out"}, &contracts.HostStdout{}))).
		wrote(numbers(50))
}

// 4.5 an input pipe that was read to its end has an end of file for whoever opens it again
func TestAnInputPipeMayBeOpenedAgain(t *testing.T) {
	s := start(t)
	file := s.Girder.File("in", []byte("twelve bytes"))
	s.succeed(s.script(`wc -c < "$1"; wc -c < "$1"; cat "$1"`, connect(&contracts.GirderFileStream{ID: file.ID}, &contracts.NamedInputPipe{Name: "in"}))).
		wrote("12\n0\n")
}

func numbers(n int) string {
	var text strings.Builder
	for i := range n {
		fmt.Fprintln(&text, i+1)
	}
	return text.String()
}

// 4.5 standard streams as sources
func TestStandardStreamsGoWhereTheyAreConnected(t *testing.T) {
	const script = `echo to stdout; echo to stderr >&2`
	t.Run("stdout to the log's stderr", func(t *testing.T) {
		s := start(t)
		task := s.script(script)
		task.Docker.Streams = contracts.Connects{*connect(&contracts.ContainerStdout{}, &contracts.HostStderr{})}
		end := s.succeed(task)
		if end.stdout != "" || !strings.Contains(end.stderr, "to stdout\n") || !strings.Contains(end.stderr, "to stderr\n") {
			t.Errorf("stdout is %q, stderr is %q", end.stdout, end.stderr)
		}
	})
	t.Run("stderr to the log's stdout", func(t *testing.T) {
		s := start(t)
		task := s.script(script)
		task.Docker.Streams = contracts.Connects{*connect(&contracts.ContainerStderr{}, &contracts.HostStdout{})}
		end := s.succeed(task)
		if end.stderr != "" || !strings.Contains(end.stdout, "to stdout\n") || !strings.Contains(end.stdout, "to stderr\n") {
			t.Errorf("stdout is %q, stderr is %q", end.stdout, end.stderr)
		}
	})
	t.Run("stdout to a server", func(t *testing.T) {
		s := start(t)
		server := newPosted(t)
		task := s.script(script)
		task.Docker.Streams = contracts.Connects{*connect(&contracts.ContainerStdout{}, &contracts.ChunkedStream{URL: server.url("/out")})}
		s.succeed(task).wrote("to stderr\n")
		if body := server.await(s).body(); string(body) != "to stdout\n" {
			t.Errorf("posted %q", body)
		}
	})
	t.Run("stderr to a server, as an argument", func(t *testing.T) {
		s := start(t)
		server := newPosted(t)
		task := s.script(script, connect(&contracts.ContainerStderr{}, &contracts.ChunkedStream{URL: server.url("/err")}))
		s.succeed(task).wrote("to stdout\n")
		if body := server.await(s).body(); string(body) != "to stderr\n" {
			t.Errorf("posted %q", body)
		}
	})
	t.Run("both into items of Girder", func(t *testing.T) {
		s := start(t)
		out, err := s.Girder.Item("standard output"), s.Girder.Item("standard error")
		task := s.script(script)
		task.Docker.Streams = contracts.Connects{
			*upload(&contracts.ContainerStdout{}, &contracts.GirderUploadItem{ItemID: out.ID}),
			*upload(&contracts.ContainerStderr{}, &contracts.GirderUploadItem{ItemID: err.ID}),
		}
		s.succeed(task).wrote("")
		if file, content := s.Girder.Uploaded(out.ID); file.Name != "stdout" || string(content) != "to stdout\n" {
			t.Errorf("uploaded %s: %q", file.Name, content)
		}
		if file, content := s.Girder.Uploaded(err.ID); file.Name != "stderr" || string(content) != "to stderr\n" {
			t.Errorf("uploaded %s: %q", file.Name, content)
		}
	})
}

// 4.5 a slow sink of one standard stream does not hold up the other one
func TestASlowSinkOfStdoutLeavesStderrAlone(t *testing.T) {
	s := start(t)
	server, gate := newPosted(t), make(chan struct{})
	open := sync.OnceFunc(func() { close(gate) })
	server.gate = gate
	task := s.script(`program flood 4000000; echo behind it >&2`)
	task.Docker.Streams = contracts.Connects{*connect(&contracts.ContainerStdout{}, &contracts.ChunkedStream{URL: server.url("/slow")})}
	t.Cleanup(open) // or the server never ends
	job := s.submit(task)
	s.AwaitLog(job, "behind it\n") // although the server has read no more than a chunk
	open()
	s.end(job).succeeded().wrote("behind it\n")
	want, err := io.ReadAll(pattern.Lines(4000000))
	if err != nil {
		t.Fatal(err)
	}
	if body := server.await(s).body(); !bytes.Equal(body, want) {
		t.Errorf("%d bytes were posted, want %d", len(body), len(want))
	}
}

// 4.5 output pipes into Girder, whose size is known only at the end
func TestAnOutputPipeIsUploaded(t *testing.T) {
	s := start(t)
	item, parent := s.Girder.Item("of a pipe"), s.folder(s.Girder.Folder.ID, "of pipes")
	want, err := io.ReadAll(pattern.Lines(11 << 20))
	if err != nil {
		t.Fatal(err)
	}
	s.succeed(s.script(`program write "$1" 11264 1024 > /dev/null; echo small > "$2"; : > "$3"`,
		upload(&contracts.NamedOutputPipe{Name: "big.bin"}, &contracts.GirderUploadItem{ItemID: item.ID}),
		upload(&contracts.NamedOutputPipe{Name: "small.txt"}, &contracts.GirderUploadFolder{FolderID: parent.ID}),
		upload(&contracts.NamedOutputPipe{Name: "empty"}, &contracts.GirderUploadFolder{FolderID: parent.ID})))
	if file, content := s.Girder.Uploaded(item.ID); file.Name != "big.bin" || file.SHA512 != setup.SHA512(want) || !bytes.Equal(content, want) {
		t.Errorf("uploaded %s of %d bytes", file.Name, file.Size)
	}
	got := map[string]int64{}
	for _, file := range s.Girder.FilesIn(parent.ID) {
		got[file.Name] = file.Size
	}
	if len(got) != 2 || got["small.txt"] != 6 || got["empty"] != 0 {
		t.Errorf("the folder has %v", got)
	}
}

// 4.5 docker's multiplexed log: payload bytes only, in order, for each stream
func TestBothStreamsOfTheContainerAreWholeAndInOrder(t *testing.T) {
	s := start(t)
	end := s.succeed(s.script(`for i in $(seq 2000); do echo $i; echo $i >&2; done`))
	if want := numbers(2000); end.stdout != want || end.stderr != want {
		t.Errorf("stdout has %d bytes, stderr %d, want %d", len(end.stdout), len(end.stderr), len(want))
	}
	if len(setup.LogOf(end.girder)) != 2*len(numbers(2000)) {
		t.Errorf("Girder's log has %d bytes", len(setup.LogOf(end.girder)))
	}
}

// 4.5 chunked HTTP: statuses and redirects that are errors
func TestAServerThatRefusesAStreamFailsTheTask(t *testing.T) {
	for status, text := range map[int]string{301: "Moved Permanently", 302: "Found", 307: "Temporary Redirect", 404: "Not Found", 405: "Method Not Allowed", 500: "Internal Server Error"} {
		t.Run(fmt.Sprint(status), func(t *testing.T) {
			s := start(t)
			server := newPosted(t)
			body := "because of the reason"
			server.answer = fmt.Sprintf("HTTP/1.1 %d %s\r\nLocation: /elsewhere\r\nContent-Length: %d\r\n\r\n%s", status, text, len(body), body)
			task := s.script(`echo content > "$1"`, connect(&contracts.NamedOutputPipe{Name: "out"}, &contracts.ChunkedStream{
				URL: server.url("/upload?key=hidden"), Headers: map[string]contracts.Secret{"X-Key": "also-hidden"},
			}))
			end := s.fail(task, "docker.args", fmt.Sprint(status), "/upload")
			for _, secret := range []string{"key=hidden", "also-hidden"} {
				if text := s.Story(end.job) + setup.LogOf(end.girder); strings.Contains(text, secret) {
					t.Errorf("%q is in what is told of the job:\n%s", secret, text)
				}
			}
			server.await(s)
		})
	}
}

// 4.5 a sink that fails while the container writes ends the container
func TestAServerThatHangsUpFailsTheTaskAtOnce(t *testing.T) {
	s := start(t)
	server := newPosted(t)
	server.early, server.answer = 1, "HTTP/1.1 413 Request Entity Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
	task := s.script(`trap '' PIPE; while :; do echo more; usleep 1000; done > "$1"; sleep 1000`,
		connect(&contracts.NamedOutputPipe{Name: "out"}, &contracts.ChunkedStream{URL: server.url("/upload")}))
	s.fail(task, "413")
}

// 4.5 https verifies certificates
func TestAStreamOverHTTPSGoesOnlyToAServerThatIsTrusted(t *testing.T) {
	t.Run("trusted", func(t *testing.T) {
		s := start(t)
		server := newPosted(t)
		secure := tls.NewListener(server.listener, &tls.Config{Certificates: []tls.Certificate{authority.server}, NextProtos: []string{"http/1.1"}})
		s.succeed(s.script(`echo secret > "$1"`, connect(&contracts.NamedOutputPipe{Name: "out"}, &contracts.ChunkedStream{URL: server.serve("https", secure) + "/"})))
		if body := server.await(s).body(); string(body) != "secret\n" {
			t.Errorf("posted %q", body)
		}
	})
	t.Run("not trusted", func(t *testing.T) {
		s := start(t)
		server := httptest.NewUnstartedServer(nil)
		server.Config.ErrorLog = nil
		server.StartTLS()
		t.Cleanup(server.Close)
		task := s.script(`echo secret > "$1"`, connect(&contracts.NamedOutputPipe{Name: "out"}, &contracts.ChunkedStream{URL: server.URL}))
		task.Retry = &contracts.Retry{MaxCrashes: ptr(0)}
		end := s.run(task)
		failed, ok := end.entry.Data.(*contracts.Failed)
		if !ok || !strings.Contains(failed.Message, "certificate") {
			t.Errorf("the job %s: %+v", end.entry.Type, end.entry.Data)
		}
	})
}

// 4.5 other connects are refused
func TestConnectsThatMakeNoSenseAreRefused(t *testing.T) {
	for name, c := range map[string]string{
		"a pipe to a pipe":        `{"type": "connect", "input": {"type": "named_output_pipe", "name": "a"}, "output": {"type": "named_input_pipe", "name": "b"}}`,
		"the wrong way":           `{"type": "connect", "input": {"type": "named_input_pipe", "name": "a"}, "output": {"type": "host_stdout"}}`,
		"no pipe at all":          `{"type": "connect", "input": {"type": "girder_file_stream", "id": "5f0c00000000000000000000"}, "output": {"type": "host_stdout"}}`,
		"a file as a sink":        `{"type": "connect", "input": {"type": "named_output_pipe", "name": "a"}, "output": {"type": "girder_file", "id": "5f0c00000000000000000000"}}`,
		"not a web address":       `{"type": "connect", "input": {"type": "named_output_pipe", "name": "a"}, "output": {"type": "chunked_stream", "url": "ftp://example.org"}}`,
		"parse of something else": `{"type": "connect", "input": {"type": "container_stdout"}, "output": {"type": "host_stdout"}, "parse": "yaml"}`,
	} {
		t.Run(name, func(t *testing.T) {
			s := start(t)
			s.refused(fmt.Sprintf(`{"docker": {"image": %q, "args": ["x", %s]}, "girder": {"api_url": %q, "token": "t"}}`, s.image, c, s.Girder.APIURL()), "docker.args[1]")
		})
	}
}

// 4.5 streams takes connects only
func TestStreamsThatAreNoConnectsAreRefused(t *testing.T) {
	s := start(t)
	s.refused(fmt.Sprintf(`{"docker": {"image": %q, "streams": [{"type": "host_stdout"}]}}`, s.image), "docker.streams[0]")
}

// 4.5 the end of an input pipe comes when all of it was given
func TestSeveralPipesOfOneTaskFlowSideBySide(t *testing.T) {
	s := start(t)
	one, two := s.Girder.File("one", streamed), s.Girder.File("two", bytes.ToUpper(streamed))
	host := folder(t)
	task := s.script(`cat "$1" > "$3/one" & cat "$2" > "$3/two"; wait; cat "$3/two" "$3/one" > "$4"`,
		connect(&contracts.GirderFileStream{ID: one.ID}, &contracts.NamedInputPipe{Name: "one"}),
		connect(&contracts.GirderFileStream{ID: two.ID}, &contracts.NamedInputPipe{Name: "two"}),
		&contracts.VolumeRef{Volume: "data"},
		connect(&contracts.NamedOutputPipe{Name: "out"}, &contracts.HostStdout{}))
	task.Docker.Volumes = []contracts.Volume{bindMount("data", host, "/data", "rw")}
	s.succeed(task).wrote(string(bytes.ToUpper(streamed)) + string(streamed))
	if read(t, filepath.Join(host, "one")) != string(streamed) {
		t.Error("what came through the first pipe is not what was streamed")
	}
}
