package volume

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// OpenRoot opens the folder of the host that a volume is, by its absolute path.
// No symbolic link is followed, whichever part of the path it is (ErrSymlink):
// links were followed when the policy was asked, and who sees one of the folders
// above may have put others there since.
func OpenRoot(host string) (_ *os.Root, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("open volume %s: %w", host, err)
		}
	}()
	if !filepath.IsAbs(host) {
		return nil, fmt.Errorf("%w: it is not absolute", ErrPath)
	}
	top, err := retry(func() (int, error) {
		return unix.Open("/", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	})
	if err != nil {
		return nil, err
	}
	defer unix.Close(top) //nolint:errcheck // nothing was written
	clean := "."
	if below := strings.TrimPrefix(filepath.Clean(host), "/"); below != "" {
		clean = below
	}
	folder, err := openBelow(top, clean+"/.") // so a folder
	if err != nil {
		return nil, err
	}
	root, err := os.OpenRoot("/proc/self/fd/" + strconv.Itoa(int(folder.Fd())))
	return root, errors.Join(err, folder.Close())
}
