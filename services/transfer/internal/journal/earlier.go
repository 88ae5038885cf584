package journal

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/services/transfer/internal/stage"
)

// earlierDir has the entries of steps that ended attempts left in the middle.
const earlierDir = "earlier"

// earlierFor is how long a later attempt may need them. A job that is tried
// again later than that puts its files beside those of the attempt before.
const earlierFor = 7 * 24 * time.Hour

// Leave ends an entry, but keeps what it knows for later attempts of its job.
func (j *Journal) Leave(e *Entry) error {
	data, err := j.root.ReadFile(e.name)
	if err == nil {
		err = j.keep(e.name, data)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("keep what is noted of step %s: %w", e.name, err), e.Close())
	}
	return e.End()
}

func (j *Journal) keep(name string, data []byte) error {
	root, err := j.earlier()
	if err != nil {
		return err
	}
	defer root.Close()
	return errors.Join(root.WriteFile(name, data, 0o600), dropOld(root))
}

// earlier opens the folder of what was left, and makes it where it is missing.
func (j *Journal) earlier() (*os.Root, error) {
	path := filepath.Join(filepath.Dir(j.root.Name()), earlierDir)
	if err := os.Mkdir(path, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return nil, err
	}
	return os.OpenRoot(path)
}

func dropOld(root *os.Root) error {
	names, err := namesIn(root)
	for _, name := range names {
		info, statErr := root.Stat(name)
		if statErr == nil && time.Since(info.ModTime()) > earlierFor {
			statErr = root.Remove(name)
		}
		if !errors.Is(statErr, os.ErrNotExist) {
			err = errors.Join(err, statErr)
		}
	}
	return err
}

func namesIn(root *os.Root) ([]string, error) {
	folder, err := root.Open(".")
	if err != nil {
		return nil, err
	}
	names, err := folder.Readdirnames(-1)
	return names, errors.Join(err, folder.Close())
}

// Earlier returns what attempts before a step's knew of the same step, the
// latest first: of those that were left, and of those that nobody has cleared
// away yet.
func (j *Journal) Earlier(step *contracts.Step) ([]stage.Memory, error) {
	left, err := j.earlier()
	if err != nil {
		return nil, fmt.Errorf("look what earlier attempts left: %w", err)
	}
	defer left.Close()
	memories := map[int]stage.Memory{}
	for _, root := range []*os.Root{left, j.root} { // an entry goes from the one to the other, and is never in none
		names, err := namesIn(root)
		if err != nil {
			return nil, fmt.Errorf("look what earlier attempts left: %w", err)
		}
		for _, name := range names {
			attempt, ok := attemptOf(name, step)
			if !ok || attempt >= step.Attempt {
				continue
			}
			data, err := root.ReadFile(name)
			if err == nil && !j.isForeign(installationOf(data)) {
				memories[attempt] = memoryOf(data, memories[attempt])
			} else if err != nil && !errors.Is(err, os.ErrNotExist) {
				return nil, fmt.Errorf("read what an earlier attempt left: %w", err)
			}
		}
	}
	var attempts []int
	for attempt := range memories {
		attempts = append(attempts, attempt)
	}
	slices.Sort(attempts)
	var all []stage.Memory
	for _, attempt := range slices.Backward(attempts) {
		all = append(all, memories[attempt])
	}
	return all, nil
}

// attemptOf reads the attempt from the name of an entry of the same job and step.
func attemptOf(name string, step *contracts.Step) (int, bool) {
	middle, ok := strings.CutPrefix(name, string(step.Job)+".")
	if !ok {
		return 0, false
	}
	middle, ok = strings.CutSuffix(middle, "."+step.Step)
	if !ok {
		return 0, false
	}
	attempt, err := strconv.Atoi(middle)
	return attempt, err == nil
}

// installationOf returns whose step an entry is, empty if it does not say.
func installationOf(data []byte) string {
	line, _, _ := bytes.Cut(data, []byte("\n"))
	first := new(firstLine)
	if json.Unmarshal(line, first) != nil {
		return ""
	}
	return first.Installation
}

// memoryOf adds what an entry says to what was left of it before: a step that
// ended may be begun once more, by a message that came late, and then says nothing.
func memoryOf(data []byte, left stage.Memory) stage.Memory {
	entry := &Entry{Memory: left}
	for line := range bytes.Lines(data) {
		if !bytes.HasSuffix(line, []byte("\n")) || !entry.take(line) {
			break
		}
	}
	return entry.Memory
}
