package conformance

// Section 4.1: the integration tests of Girder Worker's docker_run, with their
// exact outcomes.

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/gantry-worker/gantry/contracts"
)

// 4.1 test_docker_run
func TestAShortOutputIsOneEntryOfTheLog(t *testing.T) {
	s := start(t)
	end := s.succeed(s.command("echo", "hello docker!")).wrote("hello docker!\n")
	if len(end.girder.Log) != 1 {
		t.Errorf("Girder's log has the entries %q", end.girder.Log)
	}
}

// 4.1 mount_volume
func TestAFolderOfTheHostIsMountedAsDockerPyWritesIt(t *testing.T) {
	s := start(t)
	const content = "I was mounted inside the docker container!"
	host := folder(t)
	write(t, filepath.Join(host, "read.txt"), content)
	job := s.publish(fmt.Sprintf(`{"docker": {"image": %q, "pull": "never", "args": ["cat", "/mnt/test/read.txt"],
		"volumes": {%q: {"bind": "/mnt/test", "mode": "ro"}}}}`, s.image, host))
	s.end(job).succeeded().wrote(content)
	list := s.publish(fmt.Sprintf(`{"docker": {"image": %q, "pull": "never", "args": ["cat", "/mnt/test/read.txt"],
		"volumes": ["%s:/mnt/test:ro"]}}`, s.image, host))
	s.end(list).succeeded().wrote(content)
}

// 4.1 mount_idiomatic_volume
func TestAVolumePathOfABindMountIsItsPathInTheContainer(t *testing.T) {
	s := start(t)
	host := folder(t)
	write(t, filepath.Join(host, "read.txt"), "I was mounted")
	task := s.script(`echo "$1"; cat "$1"`, &contracts.VolumePath{Path: "read.txt", Volume: "host"})
	task.Docker.Volumes = []contracts.Volume{
		{Name: "host", Type: contracts.VolumeBindMount, HostPath: host, ContainerPath: "/mnt/test/read.txt", Mode: "ro"},
	}
	s.succeed(task).wrote("/mnt/test/read.txt/read.txt\nI was mounted")
}

// 4.1 named_pipe_output
func TestAnOutputPipeGoesToTheLogAsItIs(t *testing.T) {
	s := start(t)
	host := folder(t)
	pipe := &contracts.NamedOutputPipe{Name: "output_pipe", ContainerPath: "/mnt/girder_worker/data", HostPath: host}
	task := s.script(`printf 'Dydh da' > "$1"`, connect(pipe, &contracts.HostStdout{}))
	task.Docker.Volumes = []contracts.Volume{
		{Name: "data", Type: contracts.VolumeBindMount, HostPath: host, ContainerPath: "/mnt/girder_worker/data"},
	}
	end := s.succeed(task).wrote("Dydh da")
	if len(end.girder.Log) != 1 {
		t.Errorf("Girder's log has the entries %q", end.girder.Log)
	}
	s.await("the pipe is removed", func() error { return gone(filepath.Join(host, "output_pipe")) })
}

// streamed is what Girder Worker's tests stream: more than three buffers of a
// pipe.
var streamed = bytes.Repeat([]byte("abc"), 65546)

// 4.1 girder_file_to_named_pipe
func TestAGirderFileFlowsThroughAPipeInAFolderOfTheHost(t *testing.T) {
	s := start(t)
	host := folder(t)
	file := s.Girder.File("stream", streamed)
	pipe := &contracts.NamedInputPipe{Name: "input_pipe", ContainerPath: "/mnt/girder_worker/data", HostPath: host}
	end := s.succeed(s.script(`cat "$1"; echo`, connect(&contracts.GirderFileStream{ID: file.ID}, pipe)))
	end.wrote(string(streamed) + "\n")
	s.await("the pipe is removed", func() error { return gone(filepath.Join(host, "input_pipe")) })
}

// 4.1 girder_file_to_named_pipe_on_temp_vol
func TestAGirderFileFlowsThroughAPipeOnTheDefaultVolume(t *testing.T) {
	s := start(t)
	file := s.Girder.File("stream", streamed)
	end := s.succeed(s.script(`cat "$1"; echo`, connect(&contracts.GirderFileStream{ID: file.ID}, &contracts.NamedInputPipe{Name: "input_pipe"})))
	end.wrote(string(streamed) + "\n")
}

// 4.1 girder_file_to_volume
func TestAGirderFileOnTheVolumeComesOutOfAPipeAsItWas(t *testing.T) {
	s := start(t)
	file := s.Girder.File("in", streamed)
	end := s.succeed(s.command("program", "copy", &contracts.GirderFile{ID: file.ID},
		connect(&contracts.NamedOutputPipe{Name: "out"}, &contracts.HostStdout{}), "1024"))
	end.wrote(string(streamed))
}

// 4.1 file_upload_to_item
func TestAFileOfTheVolumeIsUploadedToAnItem(t *testing.T) {
	s := start(t)
	item := s.Girder.Item("result")
	task := s.script(`printf 'Balaenoptera musculus' > "$1"`, volumePath("test_file"))
	task.Outputs = []contracts.Output{uploadTo(item, "test_file")}
	s.succeed(task)
	if file, content := s.Girder.Uploaded(item.ID); file.Name != "test_file" || string(content) != "Balaenoptera musculus" {
		t.Errorf("uploaded %s: %q", file.Name, content)
	}
}

// 4.1 multi_file_item
func TestAnItemOfEmptyFilesIsOnTheVolume(t *testing.T) {
	s := start(t)
	item := s.Girder.Item("empty files")
	names := []string{"test0.txt", "test1.txt", "test2.txt"}
	for _, name := range names {
		if _, err := s.Girder.AddFile(item.ID, name, strings.NewReader("")); err != nil {
			t.Fatal(err)
		}
	}
	end := s.succeed(s.command("ls", &contracts.GirderItem{ID: item.ID}))
	got := end.words()
	slices.Sort(got)
	if !slices.Equal(got, names) {
		t.Errorf("the item's folder has %q", got)
	}
}

// 4.1 progress_pipe
func TestTheLastProgressArrives(t *testing.T) {
	s := start(t)
	end := s.succeed(s.script(`
		for line in '{"message": "leaving", "total": 100, "current": 0}' '{"message": "flying", "current": 30}' \
			'{"current": 60}' '{"message": "We have arrived!", "current": 100}'; do echo "$line" > "$1"; done`,
		&contracts.ProgressPipe{}))
	end.progressed(100, 100, "We have arrived!").wrote("")
}

// 4.1 transfer_encoding_stream
func TestAnOutputPipeIsPostedInChunksAsTheyCome(t *testing.T) {
	s := start(t)
	server := newPosted(t)
	file := s.Girder.File("in", streamed)
	s.succeed(s.command("program", "copy", &contracts.GirderFile{ID: file.ID},
		connect(&contracts.NamedOutputPipe{Name: "out"}, &contracts.ChunkedStream{
			URL: server.url("/upload?name=a%20b&x=1"), Headers: map[string]contracts.Secret{"Girder-Token": "token of the stream"},
		}), "1024"))
	post := server.await(s)
	if post.line != "POST /upload?name=a%20b&x=1 HTTP/1.1" || post.header.Get("Girder-Token") != "token of the stream" {
		t.Errorf("posted as %s with %v", post.line, post.header)
	}
	if len(post.chunks) < 4 || !bytes.Equal(post.body(), streamed) {
		t.Errorf("%d chunks with %d bytes came, want %d bytes", len(post.chunks), len(post.body()), len(streamed))
	}
}

// 4.1 temporary_volume_root
func TestATemporaryVolumesFolderIsMadeWithItsMode(t *testing.T) {
	s := start(t)
	parent := filepath.Join(folder(t), "prefix")
	for i, mode := range []string{"0777", "0751"} {
		host := fmt.Sprintf("%s%d", parent, i)
		task := s.command("echo", &contracts.VolumeRef{Volume: "scratch"})
		task.Docker.Volumes = []contracts.Volume{{Name: "scratch", Type: contracts.VolumeTemporary, HostDir: host, Mode: mode}}
		end := s.succeed(task)
		if len(end.girder.Log) != 1 || !strings.HasPrefix(end.log, "/mnt/girder_worker/") {
			t.Errorf("Girder's log has the entries %q", end.girder.Log)
		}
		info, err := os.Stat(host)
		if err != nil || fmt.Sprintf("%04o", info.Mode().Perm()) != mode {
			t.Errorf("%s: %v, %v, want mode %s", host, info, err, mode)
		}
		s.awaitNothing("the temporary volume", func() []string { return entries(t, host) })
	}
}

// 4.1 bad_exit_code
func TestAnExitCodeIsAnErrorWithTheContainersOwnWords(t *testing.T) {
	s := start(t)
	end := s.fail(s.script("echo 'girder docker exception' >&2; exit 3"), "Non-zero exit code from docker container (3).")
	if end.stderr != "girder docker exception\n" {
		t.Errorf("stderr is %q", end.stderr)
	}
	if failed := end.entry.Data.(*contracts.Failed); failed.ExitCode == nil || *failed.ExitCode != 3 {
		t.Errorf("the failure is %+v", failed)
	}
}

// entries are the names in a folder of the host, none if it is not there.
func entries(t *testing.T, path string) []string {
	t.Helper()
	list, err := os.ReadDir(path)
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	names := []string{}
	for _, entry := range list {
		names = append(names, entry.Name())
	}
	return names
}
