package workload

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/e2e/setup"
	"github.com/gantry-worker/gantry/tools/girder-sim/girdersim"
)

func (w *Workload) short(j *job) {
	j.task = w.g.Shell("echo done")
	j.stdout = []byte("done\n")
}

func (w *Workload) progress(j *job) {
	const steps = 8
	j.task = w.g.Shell(`i=1; while [ $i -le 8 ]; do echo '{"total": 8, "current": '$i'}' > "$1"; echo "step $i"; sleep 0.2; i=$((i+1)); done`,
		&contracts.ProgressPipe{})
	j.stdout = numbered("step %d\n", 1, steps)
	j.progress = steps
}

// files has two inputs, and two results of which one is often more than a chunk
// of an upload.
func (w *Workload) files(j *job) {
	first, second := w.text(200<<10, 'a'), w.text(100<<10, 'a')
	if w.random.IntN(3) == 0 {
		second = w.text(6<<20, 'a')
	}
	one, two := w.g.Girder.File("first.txt", first), w.g.Girder.File("second.txt", second)
	joined, shouted := w.g.Girder.Item("joined"), w.g.Girder.Item("shouted")
	j.task = w.g.Shell(`echo begin; cat "$1" "$2" > "$3"; sleep 0.3; tr a-z A-Z < "$2" > "$4"; echo end`,
		&contracts.GirderFile{ID: one.ID}, &contracts.GirderFile{ID: two.ID}, &contracts.VolumePath{Path: "joined.txt"}, &contracts.VolumePath{Path: "shouted.txt"})
	j.task.Outputs = []contracts.Output{setup.UploadTo(joined, "joined.txt"), setup.UploadTo(shouted, "shouted.txt")}
	j.stdout = []byte("begin\nend\n")
	j.uploads[joined.ID] = append(bytes.Clone(first), second...)
	j.uploads[shouted.ID] = bytes.ToUpper(second)
}

// loud writes a file to each of its streams, in pieces. Small letters are only
// in the one, capitals only in the other, so that a log of both can be told
// apart again.
func (w *Workload) loud(j *job) {
	const pieces = 23 // of 24, since texts are a bit longer than asked for
	j.stdout, j.stderr = w.text(pieces<<16, 'a'), w.text(pieces<<15, 'A')
	for at := 0; at < len(j.stderr)-4; at += 1 + w.random.IntN(20000) { // no UTF-8, and split over pieces where it is
		at += copy(j.stderr[at:], []string{"\xff\xfe", "\xe2\x82", "\u20ac", "\U0001f600"}[w.random.IntN(4)])
	}
	out, err := w.g.Girder.File("stdout", j.stdout), w.g.Girder.File("stderr", j.stderr)
	j.task = w.g.Shell(`i=0; while [ $i -lt 25 ]; do
dd if="$1" bs=64k skip=$i count=1 2>/dev/null
dd if="$2" bs=32k skip=$i count=1 >&2 2>/dev/null
sleep 0.05; i=$((i+1)); done`, &contracts.GirderFile{ID: out.ID}, &contracts.GirderFile{ID: err.ID})
}

func (w *Workload) failing(j *job) {
	j.task = w.g.Shell("echo about to fail; sleep 0.3; exit 7")
	j.stdout = []byte("about to fail\n")
	j.end, j.statuses = contracts.EntryFailed, []string{"RUNNING", "ERROR"}
}

// canceled is canceled by Girder's user or by ours.
func (w *Workload) canceled(j *job) {
	j.task = w.g.Shell(`trap 'echo told to stop; exit 0' TERM; echo ready; while :; do sleep 1000 & wait $!; done`)
	j.stdout = []byte("ready\ntold to stop\n")
	j.end, j.statuses = contracts.EntryCanceled, []string{"RUNNING", "CANCELED"}
	grace := contracts.Duration(time.Minute) // it says its last words, however late
	j.cancel = func(ctx context.Context) error {
		return w.g.Revoke(ctx, contracts.Revoke{Job: j.task.ID, Terminate: true, Grace: &grace})
	}
	if w.random.IntN(2) == 0 {
		return
	}
	j.statuses = []string{"RUNNING", "CANCELING", "CANCELED"}
	j.cancel = func(ctx context.Context) error {
		id, err := w.girderJob(ctx, j)
		if err != nil {
			return err
		}
		// One that does not run there yet would be canceled there at once.
		if _, err := w.g.Girder.AwaitJob(ctx, id, func(g girdersim.Job) bool { return g.Status == girdersim.Running }); err != nil {
			return fmt.Errorf("await that it runs in Girder: %w", err)
		}
		_, err = w.g.Girder.CancelJob(id)
		return err
	}
}

// long writes now and then to both of its streams.
func (w *Workload) long(j *job) {
	ticks := 20 + w.random.IntN(40)
	j.task = w.g.Shell(fmt.Sprintf(`i=1; while [ $i -le %d ]; do echo "tick $i"; echo "TOCK $i" >&2; sleep 0.1; i=$((i+1)); done`, ticks))
	j.stdout, j.stderr = numbered("tick %d\n", 1, ticks), numbered("TOCK %d\n", 1, ticks)
}

func numbered(format string, first, last int) []byte {
	var text []byte
	for i := first; i <= last; i++ {
		text = fmt.Appendf(text, format, i)
	}
	return text
}

// text makes about n bytes of lines, each of which is there once: letters that
// begin with the given one, and now and then a line that is longer than the
// engine's records are. The last line has no end, and is short: of a long one
// the engine does not say whether it had.
func (w *Workload) text(n int, letter byte) []byte {
	var text []byte
	for line := 0; len(text) < n; line++ {
		length := 20 + w.random.IntN(100)
		if w.random.IntN(500) == 0 {
			length = 16<<10 + w.random.IntN(40<<10)
		}
		text = append(text, strings.Repeat(string(letter+byte(w.random.IntN(10))), length)...)
		for digit := line; digit > 0; digit /= 10 {
			text = append(text, letter+10+byte(digit%10))
		}
		text = append(text, '\n')
	}
	return append(text, letter, letter)
}
