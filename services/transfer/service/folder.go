package service

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/gantry-worker/gantry/contracts"
)

// aboutFile is where an executor notes what the attempt of a folder is.
const aboutFile = "attempt.json"

// folder is the place of one step's result in the attempt's folder.
type folder struct {
	root *os.Root // the attempt's folder
	step string
}

// openFolder opens the attempt's folder of a step. It is the executor's:
// os.ErrNotExist means that the executor has removed it, and so has given the
// attempt up. errForeignFolder means that the attempt is not ours, the installation's.
func openFolder(workRoot string, step *contracts.Step, ours string) (*folder, error) {
	root, err := os.OpenRoot(filepath.Join(workRoot, step.Folder))
	if err != nil {
		return nil, fmt.Errorf("open the attempt's folder: %w", err)
	}
	if owner := ownerOf(root); owner != "" && owner != ours {
		return nil, errors.Join(fmt.Errorf("%w, %s", errForeignFolder, owner), root.Close())
	}
	if err := root.Mkdir("steps", 0o755); err != nil && !errors.Is(err, os.ErrExist) {
		return nil, errors.Join(fmt.Errorf("make the folder of steps: %w", err), root.Close())
	}
	return &folder{root: root, step: step.Step}, nil
}

// ownerOf returns the installation whose attempt a folder is, empty where its
// executor did not note that in a way that can be read.
func ownerOf(root *os.Root) string {
	var about struct {
		Installation string `json:"installation"`
	}
	data, err := root.ReadFile(aboutFile)
	if err != nil || json.Unmarshal(data, &about) != nil {
		return ""
	}
	return about.Installation
}

func (f *folder) close() error { return f.root.Close() }

func (f *folder) resultPath() string { return filepath.Join("steps", f.step+".json") }

func (f *folder) markPath() string { return filepath.Join("steps", contracts.StreamingMark(f.step)) }

// marked reports whether a stream has begun, in whatever process.
func (f *folder) marked() (bool, error) {
	_, err := f.root.Lstat(f.markPath())
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("look for the mark of a stream: %w", err)
	}
	return true, nil
}

// setMark says, to stay, that a stream has begun: one that is begun anew after the
// machine's crash would find an empty pipe, and take that for all of it.
func (f *folder) setMark() error {
	if err := f.replace(f.markPath(), nil, true); err != nil {
		return fmt.Errorf("write the mark of a stream: %w", err)
	}
	return nil
}

// spoolPath is where an upload of a stream is until its size is known.
func (f *folder) spoolPath() string { return spoolPath(f.step) }

func spoolPath(step string) string { return filepath.Join("streams", step+".spool") }

// openSpool makes the empty spool.
func (f *folder) openSpool() (*os.File, error) {
	if err := f.root.Mkdir("streams", 0o711); err != nil && !errors.Is(err, os.ErrExist) {
		return nil, err
	}
	if err := f.dropSpool(); err != nil {
		return nil, err
	}
	return f.root.OpenFile(f.spoolPath(), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
}

func (f *folder) syncSpool() error { return f.sync("streams") }

// dropSpool gives the spool's room back.
func (f *folder) dropSpool() error {
	err := f.root.Remove(f.spoolPath())
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}

// result returns the result of a step that has ended, or nil.
func (f *folder) result() (*contracts.StepResult, error) {
	data, err := f.root.ReadFile(f.resultPath())
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the step's result: %w", err)
	}
	result := new(contracts.StepResult)
	if err := json.Unmarshal(data, result); err != nil {
		return nil, fmt.Errorf("read the step's result: %w", err)
	}
	return result, nil
}

// setResult writes the result to stay.
func (f *folder) setResult(result *contracts.StepResult) error { return f.put(result, true) }

// setHeld writes the result of a step of which nothing outlives the machine's
// run, and for which a task waits.
func (f *folder) setHeld(result *contracts.StepResult) error { return f.put(result, false) }

func (f *folder) put(result *contracts.StepResult, toStay bool) error {
	data, err := encode(result)
	if err == nil {
		err = f.replace(f.resultPath(), data, toStay)
	}
	if err != nil {
		return fmt.Errorf("write the step's result: %w", err)
	}
	return nil
}

// encode writes a result as UTF-8, whatever names of files are in it. One that
// cannot be written would be asked for again without end: then it is said how
// the step ended, and no more.
func encode(result *contracts.StepResult) ([]byte, error) {
	data, err := json.Marshal(result, jsontext.AllowInvalidUTF8(true))
	if err == nil {
		return data, nil
	}
	message := result.Message
	if result.Outcome != contracts.StepDone {
		message = strings.TrimPrefix(fmt.Sprintf("%s (the rest of the result cannot be written: %v)", message, err), " ")
	}
	plain := contracts.StepResult{
		Version: result.Version, Step: result.Step, Outcome: result.Outcome, Message: message,
		Path: result.Path, Bytes: result.Bytes, Ended: time.Now().UTC(),
	}
	return json.Marshal(plain, jsontext.AllowInvalidUTF8(true))
}

// replace puts a file in its place: all of it or nothing.
func (f *folder) replace(path string, data []byte, toStay bool) error {
	temporary := path + ".new" // one process at a time writes it, over what another left
	file, err := f.root.OpenFile(temporary, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	_, err = file.Write(data)
	if toStay {
		err = errors.Join(err, file.Sync())
	}
	err = errors.Join(err, file.Close())
	if err == nil {
		err = f.root.Rename(temporary, path)
	}
	if err != nil {
		return errors.Join(err, f.root.Remove(temporary))
	}
	if !toStay {
		return nil
	}
	return f.sync("steps")
}

// sync makes the names in a folder stay.
func (f *folder) sync(name string) error {
	parent, err := f.root.Open(name)
	if err != nil {
		return err
	}
	return errors.Join(parent.Sync(), parent.Close())
}
