package conformance

// Section 4.3: volumes.

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/gantry-worker/gantry/contracts"
)

var mounted = regexp.MustCompile(`^/mnt/girder_worker/[0-9a-z]{26,32}$`)

func bindMount(name, host, container, mode string) contracts.Volume {
	return contracts.Volume{Name: name, Type: contracts.VolumeBindMount, HostPath: host, ContainerPath: container, Mode: mode}
}

func temporary(name, hostDir string) contracts.Volume {
	return contracts.Volume{Name: name, Type: contracts.VolumeTemporary, HostDir: hostDir}
}

// 4.3 the default volume is always mounted, and removed
func TestADefaultVolumeIsMountedAndRemoved(t *testing.T) {
	s := start(t)
	end := s.succeed(s.script("ls -d /mnt/girder_worker/*"))
	if path := strings.TrimSpace(end.log); !mounted.MatchString(path) {
		t.Errorf("the container sees %q", path)
	}
	s.awaitNothing("folders", func() []string { return s.left(end.job) })
}

// 4.3 all placeholders of the default volume are one
func TestTheDefaultVolumeIsOneWhateverNamesIt(t *testing.T) {
	s := start(t)
	end := s.succeed(s.script(`echo "$1 $2 ${3%/file}"`, &contracts.TemporaryVolume{}, &contracts.TemporaryVolume{}, volumePath("file")))
	words := end.words()
	if len(slices.Compact(words)) != 1 || !mounted.MatchString(words[0]) {
		t.Errorf("the default volume is at %q", end.words())
	}
}

// 4.3 chmod 0777|setgid: any user of the container can write
func TestAnyUserMayWriteToTemporaryVolumes(t *testing.T) {
	s := start(t)
	task := s.script(`for v in "$1" "$2"; do stat -c %a "$v"; mkdir "$v/new"; echo content > "$v/new/file"; cat "$v/new/file"; done`,
		&contracts.TemporaryVolume{}, &contracts.VolumeRef{Volume: "scratch"})
	task.Docker.Options.User = "4711:4712"
	task.Docker.Volumes = []contracts.Volume{temporary("scratch", "")}
	s.succeed(task).wrote("2777\ncontent\n2777\ncontent\n")
}

// 4.3 temporary volumes: /mnt/girder_worker/<random>, one folder for each
func TestATemporaryVolumeIsOneNewFolder(t *testing.T) {
	s := start(t)
	host := folder(t)
	task := s.script(`echo "$1"; echo "$2"; echo "$3"; ls -A "$1"; echo x > "$1/file"`,
		&contracts.VolumeRef{Volume: "scratch"}, &contracts.VolumeRef{Volume: "scratch"}, &contracts.TemporaryVolume{})
	task.Docker.Volumes = []contracts.Volume{temporary("scratch", host)}
	end := s.succeed(task)
	lines := end.lines()
	if len(lines) != 3 || lines[0] != lines[1] || lines[0] == lines[2] || !mounted.MatchString(lines[0]) || !mounted.MatchString(lines[2]) {
		t.Errorf("the log is %q", lines)
	}
	s.awaitNothing("temporary volumes", func() []string { return entries(t, host) })
	if info, err := os.Stat(host); err != nil || info.Mode().Perm() != 0o777 {
		t.Errorf("the folder that holds temporary volumes is %v, %v", info, err)
	}
}

// 4.3 a temporary volume's folder is removed after a failure too
func TestTemporaryVolumesAreRemovedAfterAFailure(t *testing.T) {
	s := start(t)
	host := folder(t)
	task := s.script(`mkdir -p "$1/a/b"; echo x > "$1/a/b/c"; exit 7`, &contracts.VolumeRef{Volume: "scratch"})
	task.Docker.Volumes = []contracts.Volume{temporary("scratch", host)}
	s.fail(task, "(7)")
	s.awaitNothing("temporary volumes", func() []string { return entries(t, host) })
}

// 4.3 a bind mount's mode is rw unless said; it is never removed
func TestABindMountIsWritableAndStays(t *testing.T) {
	s := start(t)
	host := folder(t)
	write(t, filepath.Join(host, "given"), "given")
	task := s.script(`cat "$1"; echo written > "$2/written"`, &contracts.VolumePath{Path: "given", Volume: "data"}, &contracts.VolumeRef{Volume: "data"})
	task.Docker.Volumes = []contracts.Volume{bindMount("data", host, "/data", "")}
	end := s.succeed(task).wrote("given")
	s.awaitNothing("what is left", func() []string { return s.left(end.job) })
	if got := entries(t, host); !slices.Equal(got, []string{"given", "written"}) || read(t, filepath.Join(host, "written")) != "written\n" {
		t.Errorf("the folder has %q", got)
	}
}

// 4.3 ro
func TestAReadOnlyBindMountCannotBeWritten(t *testing.T) {
	s := start(t)
	host := folder(t)
	task := s.script("echo x > /data/file")
	task.Docker.Volumes = []contracts.Volume{bindMount("data", host, "/data", "ro")}
	s.fail(task, "(1)")
	if got := entries(t, host); len(got) > 0 {
		t.Errorf("the folder has %q", got)
	}
}

// 4.3 the list of volumes and the default one are merged
func TestAllVolumesAreThereTogether(t *testing.T) {
	s := start(t)
	one, two, three := folder(t), folder(t), folder(t)
	write(t, filepath.Join(one, "f"), "1")
	write(t, filepath.Join(two, "f"), "2")
	task := s.script(`cat /one/f /two/f; ls -d "$1" "$2" > /dev/null && [ "$1" != "$2" ]`, &contracts.TemporaryVolume{}, &contracts.VolumeRef{Volume: "three"})
	task.Docker.Volumes = []contracts.Volume{bindMount("one", one, "/one", "ro"), bindMount("two", two, "/two", "rw"), temporary("three", three)}
	s.succeed(task).wrote("12")
}

// 4.3 docker-py's forms: an object or a list
func TestVolumesMayBeWrittenAsDockerPyTakesThem(t *testing.T) {
	for name, form := range map[string]string{
		"an object":                 `{%q: {"bind": "/data", "mode": "rw"}}`,
		"an object without a mode":  `{%q: {"bind": "/data"}}`,
		"a list":                    `["%s:/data:rw"]`,
		"a list without a mode":     `["%s:/data"]`,
		"bind mounts without names": `[{"type": "bind_mount", "host_path": %q, "container_path": "/data"}]`,
	} {
		t.Run(name, func(t *testing.T) {
			s := start(t)
			host := folder(t)
			job := s.publish(fmt.Sprintf(`{"docker": {"image": %q, "pull": "never", "args": ["touch", "/data/touched"], "volumes": `+form+`}}`, s.image, host))
			s.end(job).succeeded()
			if got := entries(t, host); !slices.Equal(got, []string{"touched"}) {
				t.Errorf("the folder has %q", got)
			}
		})
	}
}

// 4.3 VolumePath: in arguments the container's path, in outputs the same file on the host
func TestAVolumePathIsTheSameFileOnBothSides(t *testing.T) {
	s := start(t)
	item := s.Girder.Item("both sides")
	task := s.script(`mkdir -p "$(dirname "$1")"; printf inside > "$1"; echo "$1"`, &contracts.VolumePath{Path: "deep/down/file.txt", Volume: "scratch"})
	task.Docker.Volumes = []contracts.Volume{temporary("scratch", folder(t))}
	out := uploadTo(item, "deep/down/file.txt")
	out.OutputSpec.From().Volume = "scratch"
	task.Outputs = []contracts.Output{out}
	end := s.succeed(task)
	if path := strings.TrimSuffix(strings.TrimSpace(end.log), "/deep/down/file.txt"); !mounted.MatchString(path) {
		t.Errorf("the path in the container is %q", end.log)
	}
	if file, content := s.Girder.Uploaded(item.ID); file.Name != "file.txt" || string(content) != "inside" {
		t.Errorf("uploaded %s: %q", file.Name, content)
	}
}

// 4.3 VolumePath: an absolute path is an error
func TestAPathThatIsNotInsideItsVolumeIsRefused(t *testing.T) {
	for name, path := range map[string]string{"absolute": "/etc/passwd", "upwards": "../file", "upwards in the middle": "a/../../b", "empty": ""} {
		t.Run(name, func(t *testing.T) {
			s := start(t)
			s.refused(fmt.Sprintf(`{"docker": {"image": %q, "args": ["cat", {"type": "volume_path", "path": %q}]}}`, s.image, path), "docker.args[1].path")
		})
	}
}

// 4.3 a volume that there is not
func TestAVolumeThatIsNotGivenIsRefused(t *testing.T) {
	s := start(t)
	s.refused(fmt.Sprintf(`{"docker": {"image": %q, "args": [{"type": "volume", "volume": "data"}]}}`, s.image), "docker.args[0].volume", "data")
}
