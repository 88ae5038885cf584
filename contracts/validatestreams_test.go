package contracts

import (
	"slices"
	"strings"
	"testing"
)

const (
	fileStream = `{"type":"girder_file_stream","id":"5f0c0000000000000000aaaa"}`
	inputPipe  = `{"type":"named_input_pipe","name":"p"}`
	outputPipe = `{"type":"named_output_pipe","name":"p"}`
	stdoutEnd  = `{"type":"container_stdout"}`
	stderrEnd  = `{"type":"container_stderr"}`
	hostStdout = `{"type":"host_stdout"}`
	chunked    = `{"type":"chunked_stream","url":"http://127.0.0.1/x?a=b"}`
	itemSink   = `{"type":"girder_upload_item","item_id":"5f0e0000000000000000aaaa"}`
	folderSink = `{"type":"girder_upload_folder","folder_id":"5f0f0000000000000000aaaa"}`
)

func connect(input, output string, rest ...string) string {
	return `{"type":"connect","input":` + input + `,"output":` + output + strings.Join(rest, "") + `}`
}

// girderTask is a task whose docker has the given fields beside its image.
func girderTask(inside string) []byte {
	return []byte(`{"version":1,"task":"docker_run","docker":{"image":"a",` + inside + `},"girder":{"api_url":"http://g/api/v1","token":"t"}}`)
}

// Each end is tried with each other: what may be joined is the list, and a
// connect is judged the same wherever it stands.
func TestWhatAConnectJoins(t *testing.T) {
	t.Parallel()
	ends := map[TransformType]string{
		TypeGirderFileStream: fileStream, TypeNamedInputPipe: inputPipe, TypeNamedOutputPipe: outputPipe,
		TypeContainerStdout: stdoutEnd, TypeContainerStderr: stderrEnd,
		TypeHostStdout: hostStdout, TypeHostStderr: `{"type":"host_stderr"}`, TypeChunkedStream: chunked,
		"girder_upload_item": itemSink, "girder_upload_folder": folderSink,
	}
	if len(ends) != len(endpointTypes)+2 {
		t.Fatalf("%d ends are tried, there are %d and the two uploads", len(ends), len(endpointTypes))
	}
	sinks := []TransformType{TypeChunkedStream, TypeHostStdout, TypeHostStderr, "girder_upload_item", "girder_upload_folder"}
	joins := map[TransformType][]TransformType{
		TypeGirderFileStream: {TypeNamedInputPipe},
		TypeNamedOutputPipe:  sinks, TypeContainerStdout: sinks, TypeContainerStderr: sinks,
	}
	for from, input := range ends {
		for to, output := range ends {
			for _, place := range []string{"args", "streams"} {
				_, err := DecodeTask(girderTask(`"` + place + `":[` + connect(input, output) + `]`))
				if want := slices.Contains(joins[from], to); (err == nil) != want {
					t.Errorf("%s: %s to %s: accepted %t (%v), want %t", place, from, to, err == nil, err, want)
				}
				if sentence := string(from) + " cannot go to " + string(to); err != nil && !strings.Contains(err.Error(), sentence) {
					t.Errorf("%s: %v, want it to say that %s", place, err, sentence)
				}
			}
		}
	}
}

func TestStreamsThatAreAccepted(t *testing.T) {
	t.Parallel()
	scratch := `"volumes":[{"name":"v","type":"temporary"}],`
	for name, inside := range map[string]string{
		"both standard streams":          `"streams":[` + connect(stdoutEnd, hostStdout) + `,` + connect(stderrEnd, hostStdout) + `]`,
		"a pipe that is an argument too": `"args":[` + outputPipe + `,` + outputPipe + `],"streams":[` + connect(outputPipe, hostStdout) + `]`,
		"an argument before its connect": `"args":[` + inputPipe + `,` + connect(fileStream, inputPipe) + `]`,
		"an argument by another writing": `"args":[{"type":"named_input_pipe","name":"./p"},` + connect(fileStream, inputPipe) + `]`,
		"one name on two volumes":        scratch + `"args":[` + connect(fileStream, inputPipe) + `,` + connect(fileStream, `{"type":"named_input_pipe","name":"p","volume":"v"}`) + `]`,
		"a pipe below a folder":          `"args":[` + connect(fileStream, `{"type":"named_input_pipe","name":"a/p"}`) + `]`,
		"a pipe in a folder of the node": `"args":[` + connect(fileStream, `{"type":"named_input_pipe","name":"p","host_path":"/h","container_path":"/c"}`) + `]`,
		"slicer into the log":            `"streams":[` + connect(stdoutEnd, hostStdout, `,"parse":"slicer"`) + `]`,
		"slicer into an upload":          `"streams":[` + connect(stdoutEnd, itemSink, `,"parse":"slicer"`) + `]`,
		"a reference of an upload":       `"streams":[` + connect(stdoutEnd, `{"type":"girder_upload_item","item_id":"5f0e0000000000000000aaaa","upload_kwargs":{"reference":"r"}}`) + `]`,
		"headers":                        `"streams":[` + connect(stdoutEnd, `{"type":"chunked_stream","url":"https://h","headers":{"X-A":"b c","Authorization":"x"}}`) + `]`,
		"a pipe beside progress":         `"args":[{"type":"progress_pipe"},` + connect(fileStream, inputPipe) + `]`,
	} {
		if _, err := DecodeTask(girderTask(inside)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestStreamsThatAreRefused(t *testing.T) {
	t.Parallel()
	args := func(args ...string) string { return `"args":[` + strings.Join(args, ",") + `]` }
	pipe := func(fields string) string { return args(connect(fileStream, `{"type":"named_input_pipe",`+fields+`}`)) }
	sink := func(sink string) string { return `"streams":[` + connect(stdoutEnd, sink) + `]` }
	post := func(fields string) string { return sink(`{"type":"chunked_stream",` + fields + `}`) }
	upload := func(fields string) string {
		return sink(`{"type":"girder_upload_item","item_id":"5f0e0000000000000000aaaa",` + fields + `}`)
	}
	for _, test := range []struct{ name, inside, want string }{
		{"no pipe's name", pipe(`"name":""`), `docker.args[0].output.name: missing`},
		{"an absolute name", pipe(`"name":"/p"`), `docker.args[0].output.name: "/p" must be relative`},
		{"a name that leaves", pipe(`"name":"../p"`), `docker.args[0].output.name: "../p" leaves the volume`},
		{"a folder's name", pipe(`"name":"p/"`), `docker.args[0].output.name: "p/" names a folder`},
		{"unknown volume", pipe(`"name":"p","volume":"v"`), `docker.args[0].output.volume: "v" is not the name of one of docker.volumes`},
		{"both kinds of place", pipe(`"name":"p","volume":"v","host_path":"/h","container_path":"/c"`), "docker.args[0].output.volume: give either a volume, or host_path and container_path"},
		{"host_path alone", pipe(`"name":"p","host_path":"/h"`), `docker.args[0].output.container_path: missing`},
		{"container_path alone", pipe(`"name":"p","container_path":"/c"`), `docker.args[0].output.host_path: missing`},
		{"relative host_path", pipe(`"name":"p","host_path":"h","container_path":"/c"`), `docker.args[0].output.host_path: "h" is not an absolute path`},
		{"joined twice", args(connect(fileStream, inputPipe), connect(fileStream, inputPipe)), "docker.args[1].output: docker.args[0].output has this pipe already"},
		{"joined in both directions", args(connect(fileStream, inputPipe), connect(outputPipe, hostStdout)), "docker.args[1].input: docker.args[0].output has this pipe already"},
		{
			"joined twice by two writings of its place", `"volumes":[{"name":"v","type":"bind_mount","host_path":"/h","container_path":"/c"}],` +
				args(connect(fileStream, `{"type":"named_input_pipe","name":"p","volume":"v"}`), connect(fileStream, `{"type":"named_input_pipe","name":"p","host_path":"/h/","container_path":"/c"}`)),
			"docker.args[1].output: docker.args[0].output has this pipe already",
		},
		{"progress in a connect's pipe", args(connect(fileStream, inputPipe), `{"type":"progress_pipe","name":"p"}`), "docker.args[1]: docker.args[0].output has this pipe already"},
		{"a pipe that nobody joins", args(inputPipe), "docker.args[0]: no connect joins this named_input_pipe; add one to docker.streams"},
		{"a pipe joined the other way", args(outputPipe, connect(fileStream, inputPipe)), "docker.args[0]: no connect joins this named_output_pipe"},
		{
			"a pipe seen elsewhere", args(`{"type":"named_input_pipe","name":"p","host_path":"/h","container_path":"/d"}`,
				connect(fileStream, `{"type":"named_input_pipe","name":"p","host_path":"/h","container_path":"/c"}`)),
			"docker.args[0]: no connect joins this named_input_pipe",
		},
		{"stdout connected twice", `"streams":[` + connect(stdoutEnd, hostStdout) + `,` + connect(stdoutEnd, chunked) + `]`, "docker.streams[1].input: container_stdout is connected already, by docker.streams[0].input"},
		{"stderr connected twice", args(connect(stderrEnd, hostStdout)) + `,"streams":[` + connect(stderrEnd, chunked) + `]`, "docker.args[0].input: container_stderr is connected already, by docker.streams[0].input"},
		{"another parser", `"streams":[` + connect(stdoutEnd, hostStdout, `,"parse":"xml"`) + `]`, `docker.streams[0].parse: "xml" is not known; write "slicer"`},
		{"slicer on stderr", `"streams":[` + connect(stderrEnd, hostStdout, `,"parse":"slicer"`) + `]`, `docker.streams[0].parse: "slicer" takes progress out of container_stdout; the input is container_stderr`},
		{"slicer on a pipe", `"streams":[` + connect(outputPipe, hostStdout, `,"parse":"slicer"`) + `]`, `docker.streams[0].parse: "slicer" takes progress out of container_stdout; the input is named_output_pipe`},
		{"id of a stream", args(connect(`{"type":"girder_file_stream","id":"1"}`, inputPipe)), `docker.args[0].input.id: "1" is not a Girder id`},
		{"item of an upload", sink(`{"type":"girder_upload_item","item_id":"1"}`), `docker.streams[0].output.item_id: "1" is not a Girder id`},
		{"folder of an upload", sink(`{"type":"girder_upload_folder","folder_id":"1"}`), `docker.streams[0].output.folder_id: "1" is not a Girder id`},
		{"an upload's path", upload(`"path":{"type":"volume_path","path":"p"}`), "docker.streams[0].output.path: is for outputs; what is uploaded here is the stream"},
		{"an upload's delete_file", upload(`"delete_file":true`), "docker.streams[0].output.delete_file: is for outputs"},
		{"an upload's must_exist", upload(`"must_exist":true`), "docker.streams[0].output.must_exist: is for outputs"},
		{"an upload's upload_kwargs", upload(`"upload_kwargs":{"mime_type":"a/b"}`), "docker.streams[0].output.upload_kwargs.mime_type: unknown; only reference is passed on"},
		{"no URL", post(`"url":""`), `docker.streams[0].output.url: "" is not an http or https URL`},
		{"another scheme, with a key", post(`"url":"ftp://h/x?key=k"`), `docker.streams[0].output.url: "ftp://h/x" is not an http or https URL`},
		{"another scheme", post(`"url":"ftp://h/x"`), `docker.streams[0].output.url: "ftp://h/x" is not an http or https URL`},
		{"a user in the URL", post(`"url":"http://u:pass@h/x"`), "docker.streams[0].output.url: has a user name or password"},
		{"a fragment", post(`"url":"http://h/x#y"`), "docker.streams[0].output.url: has a fragment"},
		{"a header without a name", post(`"url":"http://h","headers":{"":"x"}`), `docker.streams[0].output.headers: "" is not the name of a header`},
		{"a header that is no token", post(`"url":"http://h","headers":{"a b":"x"}`), `docker.streams[0].output.headers: "a b" is not the name of a header`},
		{"Transfer-Encoding", post(`"url":"http://h","headers":{"transfer-encoding":"x"}`), "docker.streams[0].output.headers.transfer-encoding: belongs to the request itself"},
		{"Content-Length", post(`"url":"http://h","headers":{"Content-Length":"1"}`), "docker.streams[0].output.headers.Content-Length: belongs to the request itself"},
		{"Host", post(`"url":"http://h","headers":{"HOST":"x"}`), "docker.streams[0].output.headers.HOST: belongs to the request itself"},
		{"a header twice", post(`"url":"http://h","headers":{"X-A":"x","x-a":"y"}`), "given twice; header names differ by more than capital letters"},
		{"a line break in a header", post(`"url":"http://h","headers":{"X-A":"b\r\nX-B: c"}`), "docker.streams[0].output.headers.X-A: its value holds a control character"},
		{"a reference in a header", post(`"url":"http://h","headers":{"X-A":"secret:io/girder.token"}`), "docker.streams[0].output.headers.X-A: starts with"},
		{"a bare host_stdout", args(hostStdout), "docker.args[0].type: host_stdout is no argument but an end of a connect; write it as its input or output"},
		{"a bare container_stderr", args(stderrEnd), "docker.args[0].type: container_stderr is no argument"},
		{"a bare chunked_stream", args(chunked), "docker.args[0].type: chunked_stream is no argument"},
		{"a bare girder_file_stream", args(fileStream), "docker.args[0].type: girder_file_stream is no argument"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			_, err := DecodeTask(girderTask(test.inside))
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error is\n  %v\nwant it to contain\n  %s", err, test.want)
			}
		})
	}
}

func TestTheValueOfAHeaderIsNotInItsError(t *testing.T) {
	t.Parallel()
	_, err := DecodeTask(girderTask(`"streams":[` + connect(stdoutEnd, `{"type":"chunked_stream","url":"http://h","headers":{"X-A":"hush\u0007hush","Host":"hush"}}`) + `]`))
	if err == nil || strings.Contains(err.Error(), "hush") {
		t.Errorf("error %v, want one that does not show the value", err)
	}
}

func TestAStreamNeedsItsServer(t *testing.T) {
	t.Parallel()
	for name, inside := range map[string]string{
		"docker.args[0].input":     `"args":[` + connect(fileStream, inputPipe) + `]`,
		"docker.streams[0].output": `"streams":[` + connect(stdoutEnd, folderSink) + `]`,
	} {
		_, err := DecodeTask([]byte(`{"version":1,"task":"docker_run","docker":{"image":"a",` + inside + `}}`))
		for _, want := range []string{"girder.api_url: missing; " + name + " needs it", "girder.token: missing; " + name + " needs it"} {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("error %v, want it to contain %s", err, want)
			}
		}
	}
}
