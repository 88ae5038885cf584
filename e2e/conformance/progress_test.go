package conformance

// Section 4.6: progress.

import (
	"testing"

	"github.com/gantry-worker/gantry/contracts"
)

// progressed checks the progress that Girder shows.
func (e *ending) progressed(total, current float64, message string) *ending {
	e.t.Helper()
	p := e.girder.Progress
	if p == nil || p.Total == nil || p.Current == nil || p.Message == nil || *p.Total != total || *p.Current != current || *p.Message != message {
		e.t.Errorf("Girder's progress is %s, want %v of %v, %q", shown(e), current, total, message)
	}
	return e
}

// 4.6 newline-delimited JSON, partial lines, invalid lines, absent fields
func TestProgressLinesThatSayNothingChangeNothing(t *testing.T) {
	for name, script := range map[string]string{
		"not JSON":                   `echo nonsense > "$1"`,
		"not an object":              `echo '[1, 2]' > "$1"; echo 7 > "$1"; echo null > "$1"`,
		"null fields":                `echo '{"total": null, "current": null, "message": null}' > "$1"`,
		"no fields":                  `echo '{}' > "$1"`,
		"unknown fields":             `echo '{"color": "red"}' > "$1"`,
		"fields of the wrong type":   `echo '{"total": "many", "current": [], "message": 3}' > "$1"`,
		"empty lines":                `printf '\n\n' > "$1"`,
		"invalid UTF-8":              `printf '\377\376\n' > "$1"`,
		"numbers that Girder cannot": `echo '{"current": NaN}' > "$1"; echo '{"current": 1e999}' > "$1"`,
	} {
		t.Run(name, func(t *testing.T) {
			s := start(t)
			s.succeed(s.script(`echo '{"total": 8, "current": 3, "message": "third"}' > "$1"; `+script, &contracts.ProgressPipe{})).
				progressed(8, 3, "third").wrote("")
		})
	}
}

// 4.6 a partial line is buffered
func TestAProgressLineMayComeInPieces(t *testing.T) {
	s := start(t)
	s.succeed(s.script(`exec 3> "$1"; printf '{"total": 5, "cur' >&3; usleep 200000; printf 'rent": 2, "message": "in' >&3; usleep 200000; echo ' pieces"}' >&3`,
		&contracts.ProgressPipe{})).progressed(5, 2, "in pieces")
}

// 4.6 the last line may lack its newline
func TestTheLastProgressLineMayLackItsNewline(t *testing.T) {
	s := start(t)
	s.succeed(s.script(`printf '{"total": 4, "current": 4, "message": "end"}' > "$1"`, &contracts.ProgressPipe{})).progressed(4, 4, "end")
}

// 4.6 None fields leave the old value
func TestAProgressLineChangesOnlyWhatItNames(t *testing.T) {
	s := start(t)
	s.succeed(s.script(`echo '{"total": 9}' > "$1"; echo '{"current": 1}' > "$1"; echo '{"message": "first"}' > "$1"; echo '{"current": 2}' > "$1"`,
		&contracts.ProgressPipe{})).progressed(9, 2, "first")
}

// 4.6 the pipe may have a name, and be on a named volume
func TestAProgressPipeMayBeOnAnyVolume(t *testing.T) {
	s := start(t)
	task := s.script(`echo "$1"; echo '{"total": 1, "current": 1, "message": "there"}' > "$1"`, &contracts.ProgressPipe{Name: "how-far", Volume: "host"})
	task.Docker.Volumes = []contracts.Volume{{Name: "host", Type: contracts.VolumeBindMount, HostPath: folder(t), ContainerPath: "/host"}}
	s.succeed(task).progressed(1, 1, "there").wrote("/host/how-far\n")
}

// 4.6 progress on the standard output, as programs of the Slicer write it
func TestProgressOfASlicerProgramIsTakenOutOfTheLog(t *testing.T) {
	for name, c := range map[string]struct {
		script, log, message string
		current              float64
	}{
		"the last comment is the message": {
			`printf 'before\n<filter-start>\n<filter-name>Median</filter-name>\n<filter-comment>smooth &amp; slow</filter-comment>\n</filter-start>\n<filter-progress>0.25</filter-progress>\nafter\n'`,
			"before\nafter\n", "smooth & slow", 0.25,
		},
		"without a comment it is the name": {
			`printf '<filter-start><filter-name>Median</filter-name></filter-start><filter-progress>0.5</filter-progress>text\n'`,
			"text\n", "Median", 0.5,
		},
		"without either it is unknown": {
			`printf 'a<filter-progress>0.75</filter-progress>   \nb<filter-time>1.5</filter-time>\nc\n'`, "abc\n", "Unknown", 0.75,
		},
		"a tag may come in pieces": {
			`printf 'x<filter-pro'; usleep 300000; printf 'gress>1</filter-'; usleep 300000; printf 'progress>y\n'`, "xy\n", "Unknown", 1,
		},
		"the last value counts": {
			`for i in 0.1 0.2 0.9; do echo "<filter-progress>$i</filter-progress>"; done; echo done`, "done\n", "Unknown", 0.9,
		},
		"what is not finished is text": {
			`printf '<filter-progress>0.3</filter-progress>then <filter-progress>0.'`, "then <filter-progress>0.", "Unknown", 0.3,
		},
		"other tags are text": {
			`printf '<filter-progress>0.4</filter-progress><b>bold</b> 1 < 2\n'`, "<b>bold</b> 1 < 2\n", "Unknown", 0.4,
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := start(t)
			task := s.script(c.script)
			stdout := connect(&contracts.ContainerStdout{}, &contracts.HostStdout{})
			stdout.Parse = "slicer"
			task.Docker.Streams = contracts.Connects{*stdout}
			s.succeed(task).progressed(1, c.current, c.message).wrote(c.log)
		})
	}
}

// 4.6 nobody asked for it: tags are text
func TestTagsThatNobodyAskedForAreText(t *testing.T) {
	s := start(t)
	end := s.succeed(s.script("echo '<filter-progress>0.5</filter-progress>'")).wrote("<filter-progress>0.5</filter-progress>\n")
	if end.girder.Progress != nil && end.girder.Progress.Current != nil {
		t.Errorf("Girder's progress is %s", shown(end))
	}
}
