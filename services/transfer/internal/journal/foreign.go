package journal

import (
	"fmt"
	"path/filepath"

	"github.com/gantry-worker/gantry/contracts"
)

// Foreign is a step that another installation began here. It is the error of who
// would begin one of the same name.
type Foreign struct {
	Step         *contracts.Step
	Installation string
	Path         string // of its entry
}

func (f *Foreign) Error() string {
	return fmt.Sprintf("attempt %d of a job of the same id has step %s on this node, for installation %s; if that is gone for good, remove %s",
		f.Step.Attempt, f.Step.Step, f.Installation, f.Path)
}

// Own says which installation we work for. Until then every entry counts as ours,
// and one that does not say whose it is does so always. It is called before any
// entry is begun.
func (j *Journal) Own(installation string) { j.ours = installation }

// Path returns the folder with a file for each entry.
func (j *Journal) Path() string { return j.root.Name() }

func (j *Journal) isForeign(installation string) bool {
	return j.ours != "" && installation != "" && installation != j.ours
}

// Foreign returns the steps of other installations.
func (j *Journal) Foreign() ([]*Foreign, error) {
	var others []*Foreign
	err := j.each(func(first *firstLine) {
		if j.isForeign(first.Installation) {
			others = append(others, j.foreign(first))
		}
	})
	return others, err
}

// Check returns a [*Foreign] if the entry in a step's place is another installation's.
func (j *Journal) Check(step *contracts.Step) error {
	first, err := j.first(nameOf(step))
	if err != nil {
		return err
	}
	if first != nil && j.isForeign(first.Installation) {
		return j.foreign(first)
	}
	return nil
}

func (j *Journal) foreign(first *firstLine) *Foreign {
	return &Foreign{&first.Step, first.Installation, filepath.Join(j.Path(), nameOf(&first.Step))}
}
