package girder

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"

	"github.com/gantry-worker/gantry/contracts"
)

// sessionFiles are the folders whose files a session may name.
type sessionFiles []string

// maxSessionFile is far more than the authorities of a whole system have.
const maxSessionFile = 4 << 20

var errOutside = errors.New("names a file outside the folders that the operator allows " +
	"(session_files, GANTRY_SESSION_FILES); PEM text in place of the path works everywhere")

// text gives the PEM text that a session has in a field: itself, or that of the
// file whose path it is. Paths may be secrets as well and are not shown.
func (folders sessionFiles) text(field, value string) (string, error) {
	if value == "" || contracts.IsPEM(value) {
		return value, nil
	}
	if !filepath.IsAbs(value) {
		return "", &SessionError{Field: field, Err: errors.New("is neither PEM text nor the absolute path of a PEM file")}
	}
	for _, folder := range folders {
		inside, err := filepath.Rel(folder, value)
		if err != nil || !filepath.IsLocal(inside) {
			continue
		}
		text, err := readInside(folder, inside)
		if err != nil {
			return "", &SessionError{Field: field, Err: fmt.Errorf("the file that it names cannot be read: %w", err)}
		}
		return text, nil
	}
	return "", &SessionError{Field: field, Err: errOutside}
}

// readInside reads a file that must lie in the folder, links followed.
func readInside(folder, name string) (string, error) {
	root, err := os.OpenRoot(folder)
	if err != nil {
		return "", plain(err)
	}
	defer root.Close()
	file, err := root.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0) // a pipe would wait for a writer
	if err != nil {
		return "", plain(err)
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return "", plain(err)
	}
	if !info.Mode().IsRegular() {
		return "", errors.New("it is not a regular file")
	}
	text, err := io.ReadAll(io.LimitReader(file, maxSessionFile+1))
	switch {
	case err != nil:
		return "", plain(err)
	case len(text) > maxSessionFile:
		return "", fmt.Errorf("it has more than %d MiB", maxSessionFile>>20)
	case !contracts.IsPEM(string(text)):
		return "", errors.New("it is not a PEM file")
	}
	return string(text), nil
}

// plain leaves out the path.
func plain(err error) error {
	var at *os.PathError
	if errors.As(err, &at) {
		return at.Err
	}
	return err
}
