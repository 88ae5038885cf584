package fifo

import (
	"errors"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/gantry-worker/gantry/services/internal/volume"
)

// A process that is just being started has a copy of every descriptor until it
// runs its program: what was closed meanwhile is nobody's all the same.
func TestAPipeIsFreeWhenItsOwnerClosedItWhateverCopiesThereAre(t *testing.T) {
	t.Parallel()
	v := volume.Volume{Host: t.TempDir()}
	if err := Make(v, "pipe"); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		owner, err := OpenReader(v, "pipe", Owner)
		if err != nil {
			t.Fatal(err)
		}
		var copied int
		ctlErr := owner.raw.Control(func(fd uintptr) { copied, err = unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 0) })
		if err := errors.Join(ctlErr, err); err != nil {
			t.Fatal(err)
		}
		defer unix.Close(copied) //nolint:errcheck // nothing was written
		if err := owner.Close(); err != nil {
			t.Error(err)
		}
	}
}
