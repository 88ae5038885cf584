package workload

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/e2e/setup"
	"github.com/gantry-worker/gantry/tools/girder-sim/girdersim"
)

// Expect says what else is to be true than that every job ended once and right.
type Expect struct {
	// Progress says that the last value of a progress pipe is in Girder. It may
	// die with whoever has read it last.
	Progress bool
}

// stories is how many jobs that went wrong have their story told.
const stories = 3

// Check waits for the end of all jobs and checks everything that is to be known
// of them: their end here and in Girder, that each had one container, the log,
// the uploads.
func (w *Workload) Check(expect Expect) {
	t := w.g.T
	t.Helper()
	told := 0
	for _, j := range w.jobs {
		wrong := w.wrong(j, expect)
		if len(wrong) == 0 {
			continue
		}
		t.Errorf("%s:\n  %s", j.task.ID, strings.Join(wrong, "\n  "))
		if told++; told <= stories {
			t.Log(w.g.Story(j.task.ID))
		}
		if w.g.Context().Err() != nil {
			t.Fatal("there is no time left to check the others")
		}
	}
	w.checkGirderJobs()
}

// wrong says what is wrong with a job.
func (w *Workload) wrong(j *job, expect Expect) []string {
	var all []string
	add := func(format string, args ...any) { all = append(all, fmt.Sprintf(format, args...)) }

	end, err := w.g.Wait(w.g.Context(), j.task.ID)
	if err != nil {
		return []string{fmt.Sprintf("it does not end: %v", err)}
	}
	if end.Type != j.end {
		add("it ended as %s %+v, want %s", end.Type, end.Data, j.end)
	}
	life, err := w.g.Life(w.g.Context(), j.task.ID)
	if err != nil {
		return append(all, err.Error())
	}
	all = append(all, w.wrongLife(j, life)...)
	all = append(all, w.wrongLog(j)...)

	mirrored, err := w.mirrored(j)
	if err != nil {
		return append(all, err.Error())
	}
	if got := setup.Statuses(mirrored); !slices.Equal(got, j.statuses) {
		add("its history in Girder is %v, want %v", got, j.statuses)
	}
	if problem := wrongText(j, setup.LogOf(mirrored)); problem != "" {
		add("its log in Girder: %s", problem)
	}
	if p := mirrored.Progress; j.progress > 0 && expect.Progress && (p == nil || p.Current == nil || *p.Current != j.progress) {
		add("its progress in Girder is %+v", p)
	}
	for item, want := range j.uploads {
		all = append(all, w.wrongUpload(item, want)...)
	}
	return all
}

// wrongLife checks that a job was tried once: an attempt that was given back
// before it began does not count.
func (w *Workload) wrongLife(j *job, life []*contracts.Entry) []string {
	var all []string
	terminal := 0
	for _, entry := range life {
		if entry.Terminal() {
			terminal++
		}
	}
	last := life[len(life)-1]
	claimed, released := setup.Count(life, contracts.EntryClaimed), setup.Count(life, contracts.EntryReleased)
	if terminal != 1 || last.Crashes != 0 || claimed != 1+released || setup.Count(life, contracts.EntryQueued) != 1 {
		all = append(all, fmt.Sprintf("its life has %d ends, %d claims, %d of them given back, and %d crashes", terminal, claimed, released, last.Crashes))
	}
	i := slices.IndexFunc(life, func(e *contracts.Entry) bool { return e.Type == contracts.EntryStarted })
	if i < 0 {
		return append(all, "it never started")
	}
	id := life[i].Data.(*contracts.Started).Container
	if started := w.started(j, id); setup.Count(life, contracts.EntryStarted) != 1 || !slices.Equal(started, []string{id}) {
		all = append(all, fmt.Sprintf("%d starts are in its life, with container %s first; the engine started %v", setup.Count(life, contracts.EntryStarted), id, started))
	}
	return all
}

// eventTime is how long the word of an engine may take on a busy machine.
const eventTime = 2 * time.Minute

// started are the containers of a job on all engines, known to have the given
// one among them if it ever ran.
func (w *Workload) started(j *job, id string) []string {
	ctx, found := context.WithTimeout(w.g.Context(), eventTime)
	defer found()
	var all []string
	var mu sync.Mutex
	var asking sync.WaitGroup
	for _, starts := range w.starts {
		asking.Go(func() {
			ids := starts.Of(ctx, string(j.task.ID), id)
			if slices.Contains(ids, id) {
				found()
			}
			mu.Lock()
			defer mu.Unlock()
			all = append(all, ids...)
		})
	}
	asking.Wait()
	return all
}

// wrongLog compares Gantry's log with what the container wrote: byte by byte.
func (w *Workload) wrongLog(j *job) []string {
	got := map[contracts.LogStream][]byte{}
	for chunk, err := range w.g.Log(w.g.Context(), j.task.ID, false) {
		if err != nil {
			return []string{err.Error()}
		}
		got[chunk.Stream] = append(got[chunk.Stream], chunk.Bytes()...)
	}
	var all []string
	for stream, want := range map[contracts.LogStream][]byte{contracts.LogStdout: j.stdout, contracts.LogStderr: j.stderr} {
		if problem := difference(got[stream], want); problem != "" {
			all = append(all, fmt.Sprintf("%s: %s", stream, problem))
		}
	}
	return all
}

// difference says where two texts part, or "".
func difference(got, want []byte) string {
	if bytes.Equal(got, want) {
		return ""
	}
	at := 0
	for at < min(len(got), len(want)) && got[at] == want[at] {
		at++
	}
	around := func(text []byte) []byte { return text[max(0, min(at-40, len(text))):min(len(text), at+40)] }
	return fmt.Sprintf("%d bytes, want %d; from byte %d on it differs: …%q… for …%q…", len(got), len(want), at, around(got), around(want))
}

// wrongText compares the log in Girder, where both streams are one text that
// may end with a reason of ours.
func wrongText(j *job, got string) string {
	if len(j.stderr) == 0 {
		if want := string(j.stdout); got != want && (j.end == contracts.EntrySucceeded || !strings.HasPrefix(got, want)) {
			return difference([]byte(got), j.stdout)
		}
		return ""
	}
	for stream, letters := range map[string]func(rune) bool{"stdout": small, "stderr": capital} {
		want := j.stdout
		if stream == "stderr" {
			want = j.stderr
		}
		if problem := difference(only([]byte(got), letters), only(want, letters)); problem != "" {
			return stream + ": " + problem
		}
	}
	if lines, want := strings.Count(got, "\n"), bytes.Count(j.stdout, []byte{'\n'})+bytes.Count(j.stderr, []byte{'\n'}); lines != want {
		return fmt.Sprintf("%d lines, want %d", lines, want)
	}
	return ""
}

func small(r rune) bool   { return 'a' <= r && r <= 'z' }
func capital(r rune) bool { return 'A' <= r && r <= 'Z' }

// only keeps the letters of one stream.
func only(text []byte, keep func(rune) bool) []byte {
	return bytes.Map(func(r rune) rune {
		if keep(r) {
			return r
		}
		return -1
	}, text)
}

func (w *Workload) wrongUpload(item string, want []byte) []string {
	files := w.g.Girder.Files(item)
	if len(files) != 1 {
		return []string{fmt.Sprintf("%d files were uploaded for one: %+v", len(files), files)}
	}
	got, err := w.g.Girder.ReadFile(files[0].ID)
	if err != nil {
		return []string{err.Error()}
	}
	if problem := difference(got, want); problem != "" {
		return []string{"upload " + files[0].Name + ": " + problem}
	}
	return nil
}

// mirrored waits until Girder has the end of a job.
func (w *Workload) mirrored(j *job) (girdersim.Job, error) {
	id, err := w.girderJob(w.g.Context(), j)
	if err != nil {
		return girdersim.Job{}, fmt.Errorf("it has no Girder job: %w", err)
	}
	mirrored, err := w.g.Girder.AwaitJob(w.g.Context(), id, func(g girdersim.Job) bool { return contracts.GirderStatus(g.Status).Terminal() })
	if err != nil {
		return mirrored, fmt.Errorf("it does not end in Girder, where it is %v: %w", setup.Statuses(mirrored), err)
	}
	return mirrored, nil
}

// checkGirderJobs checks that each job has one Girder job that anything happened
// to. Whoever dies between Girder's creating one and noting it leaves another:
// Girder shows it to nobody who could find out.
func (w *Workload) checkGirderJobs() {
	w.g.T.Helper()
	used := map[string]int{}
	for _, mirrored := range w.g.Girder.Jobs() {
		if mirrored.Status != girdersim.Inactive || len(mirrored.Log) > 0 {
			used[mirrored.Title]++
		}
	}
	for _, j := range w.jobs {
		if n := used[string(j.task.ID)]; n != 1 {
			w.g.T.Errorf("%s has %d Girder jobs", j.task.ID, n)
		}
	}
}
