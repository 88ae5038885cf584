package service

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/go-json-experiment/json"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/services/internal/girder"
)

// folder is what transfer keeps of one step in the attempt's folder: its
// result, and the id of an upload that has not ended.
type folder struct {
	root *os.Root // the attempt's folder
	step string
}

// openFolder opens the attempt's folder of a step. It is the executor's:
// os.ErrNotExist means that the executor has removed it, and so has given the
// attempt up.
func openFolder(workRoot string, step *contracts.Step) (*folder, error) {
	root, err := os.OpenRoot(filepath.Join(workRoot, step.Folder))
	if err != nil {
		return nil, fmt.Errorf("open the attempt's folder: %w", err)
	}
	if err := root.Mkdir("steps", 0o755); err != nil && !errors.Is(err, os.ErrExist) {
		return nil, errors.Join(fmt.Errorf("make the folder of steps: %w", err), root.Close())
	}
	return &folder{root: root, step: step.Step}, nil
}

func (f *folder) close() error { return f.root.Close() }

func (f *folder) resultPath() string { return filepath.Join("steps", f.step+".json") }
func (f *folder) uploadPath() string { return filepath.Join("steps", f.step+".upload") }

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

func (f *folder) setResult(result *contracts.StepResult) error {
	data, err := json.Marshal(result)
	if err == nil {
		err = f.replace(f.resultPath(), data)
	}
	if err != nil {
		return fmt.Errorf("write the step's result: %w", err)
	}
	return nil
}

// upload returns the upload that an earlier process left unfinished, or "".
func (f *folder) upload() (girder.UploadID, error) {
	data, err := f.root.ReadFile(f.uploadPath())
	if errors.Is(err, os.ErrNotExist) {
		return "", nil
	}
	return girder.UploadID(data), err
}

// setUpload is a [stage.Journal].
func (f *folder) setUpload(id girder.UploadID) error {
	if id != "" {
		return f.replace(f.uploadPath(), []byte(id))
	}
	if err := f.root.Remove(f.uploadPath()); !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// replace puts a file in its place: all of it or nothing, and to stay.
func (f *folder) replace(path string, data []byte) error {
	temporary := path + "." + contracts.NewToken()
	file, err := f.root.OpenFile(temporary, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	_, err = file.Write(data)
	err = errors.Join(err, file.Sync(), file.Close())
	if err == nil {
		err = f.root.Rename(temporary, path)
	}
	if err != nil {
		return errors.Join(err, f.root.Remove(temporary))
	}
	parent, err := f.root.Open("steps")
	if err != nil {
		return err
	}
	return errors.Join(parent.Sync(), parent.Close())
}
