// Package datadir is the data folder of `gantry up`, and how the other commands
// find a running Gantry through it: the file nats.json names the server and the
// token, for the folder's owner alone. While a Gantry uses the folder, it holds
// a lock on it.
package datadir

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/gantry-worker/gantry/contracts/client"
)

const (
	serverFile = "nats.json"
	lockFile   = "lock"
)

// ErrInUse is returned by Open for a folder that another process has open.
var ErrInUse = errors.New("the data folder is in use")

// Default returns the data folder of a user who names none.
func Default() (string, error) {
	if os.Geteuid() == 0 {
		return "/var/lib/gantry", nil
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "", fmt.Errorf("find the data folder: %w", err)
	}
	return filepath.Join(home, ".local", "share", "gantry"), nil
}

// Resolve returns the absolute path of the folder that the user named, the
// default one if empty.
func Resolve(named string) (string, error) {
	if named == "" {
		return Default()
	}
	return filepath.Abs(named)
}

// Folder is a data folder that this process has for itself.
type Folder struct {
	Path string
	lock *os.File
}

// Open makes the folder if need be and locks it. Close unlocks it; so does the
// end of the process, however it comes.
func Open(path string) (*Folder, error) {
	if err := os.MkdirAll(path, 0o755); err != nil {
		return nil, fmt.Errorf("make data folder: %w", err)
	}
	lock, err := os.OpenFile(filepath.Join(path, lockFile), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock data folder: %w", err)
	}
	err = unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return nil, errors.Join(fmt.Errorf("%w: %s", ErrInUse, path), lock.Close())
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("lock data folder %s: %w", path, err), lock.Close())
	}
	return &Folder{Path: path, lock: lock}, nil
}

// Close unlocks the folder. Closing the file alone would not do while a program
// is being started by this process: until it runs, it has the file too.
func (f *Folder) Close() error {
	return errors.Join(unix.Flock(int(f.lock.Fd()), unix.LOCK_UN), f.lock.Close())
}

// Sub returns the path of a folder in the data folder.
func (f *Folder) Sub(name string) string { return filepath.Join(f.Path, name) }

// server is the content of nats.json.
type server struct {
	URL      string `json:"url"`
	Embedded bool   `json:"embedded"`
	Token    string `json:"token,omitempty"`
	User     string `json:"user,omitempty"`
	Password string `json:"password,omitempty"`
	Creds    string `json:"creds,omitempty"`
	NKey     string `json:"nkey,omitempty"`
	CA       string `json:"ca,omitempty"`
	Cert     string `json:"cert,omitempty"`
	Key      string `json:"key,omitempty"`
}

// Token returns the token of the folder's embedded server, a new one the first
// time.
func (f *Folder) Token() (string, error) {
	known, err := read(f.Path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	if known.Embedded && known.Token != "" {
		return known.Token, nil
	}
	return strings.ToLower(rand.Text()), nil
}

// Announce writes how to reach the server, so that Find finds it.
func (f *Folder) Announce(cfg client.Config, embedded bool) error {
	data, err := json.MarshalIndent(server{
		URL: cfg.URL, Embedded: embedded, Token: cfg.Token, User: cfg.User, Password: cfg.Password,
		Creds: cfg.Creds, NKey: cfg.NKey, CA: cfg.CA, Cert: cfg.Cert, Key: cfg.Key,
	}, "", "  ")
	if err != nil {
		return fmt.Errorf("write %s: %w", serverFile, err)
	}
	path := f.Sub(serverFile)
	temporary := path + ".new"
	if err := os.Remove(temporary); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("write %s: %w", serverFile, err)
	}
	if err := os.WriteFile(temporary, append(data, '\n'), 0o600); err != nil {
		return fmt.Errorf("write %s: %w", serverFile, err)
	}
	return os.Rename(temporary, path)
}

// Find returns how to reach the server that was last announced in a folder. The
// error is fs.ErrNotExist where none was.
func Find(path string) (client.Config, error) {
	found, err := read(path)
	if err != nil {
		return client.Config{}, err
	}
	return client.Config{
		URL: found.URL, Token: found.Token, User: found.User, Password: found.Password,
		Creds: found.Creds, NKey: found.NKey, CA: found.CA, Cert: found.Cert, Key: found.Key,
	}, nil
}

func read(path string) (server, error) {
	var found server
	name := filepath.Join(path, serverFile)
	data, err := os.ReadFile(name)
	if err != nil {
		return found, fmt.Errorf("find the server: %w", err)
	}
	if err := json.Unmarshal(data, &found); err != nil {
		return found, fmt.Errorf("find the server: %s: %w", name, err)
	}
	return found, nil
}
