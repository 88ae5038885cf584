// Package node identifies a node: one host whose executors and transfer share
// a work folder. Whoever starts first writes the node's id and the machine's
// id into the work folder; the others read it there, so sharing a folder and
// being one node are the same fact.
//
// A work folder belongs to one machine: containers are found again by the
// engine beside it. Where the machine of a folder, or the machine that starts,
// cannot be told, the folder is taken as this machine's own; a folder without a
// machine gets the first one that can be told.
package node

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/gantry-worker/gantry/contracts"
)

const identityFile = "node.json"

// identity is the content of node.json.
type identity struct {
	Node contracts.NodeID `json:"node"`
	// Machine is a hash of the machine's id, or "" if it could not be told.
	Machine string `json:"machine"`
}

// ErrOtherMachine is returned by Open for a work folder that belongs to
// another machine: a cloned disk, a folder on the network, or one that was
// moved.
var ErrOtherMachine = errors.New("the work folder belongs to another machine")

// Open returns the id of the node that the work folder belongs to, making
// folder and id the first time.
func Open(workRoot string) (contracts.NodeID, error) {
	return open(workRoot, machineID(machineFiles...))
}

func open(workRoot, machine string) (contracts.NodeID, error) {
	if !filepath.IsAbs(workRoot) {
		return "", fmt.Errorf("work_root: %q is not an absolute path", workRoot)
	}
	if err := os.MkdirAll(workRoot, 0o755); err != nil {
		return "", fmt.Errorf("make work folder: %w", err)
	}
	folder, err := lock(workRoot)
	if err != nil {
		return "", fmt.Errorf("lock work folder: %w", err)
	}
	defer folder.Close() // gives the lock back
	found, err := read(workRoot)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		found = identity{Node: newID(), Machine: machine}
	case err != nil:
		return "", fmt.Errorf("read node id: %w", err)
	case found.Machine == machine || machine == "":
		return found.Node, nil
	case found.Machine == "":
		found.Machine = machine
	default:
		return "", fmt.Errorf("%w: %s says %s, this is %s; if the folder is a copy or shared, set work_root to a folder of this machine's own, "+
			"and if it was moved here for good, set \"machine\" in that file to \"\"",
			ErrOtherMachine, filepath.Join(workRoot, identityFile), found.Machine, machine)
	}
	if err := write(folder, found); err != nil {
		return "", fmt.Errorf("write node id: %w", err)
	}
	return found.Node, nil
}

func newID() contracts.NodeID { return contracts.NodeID("node-" + contracts.NewToken()[:8]) }

// lock opens the folder and waits for the others that start at the same time.
func lock(workRoot string) (*os.File, error) {
	folder, err := os.Open(workRoot)
	if err != nil {
		return nil, err
	}
	for {
		err = unix.Flock(int(folder.Fd()), unix.LOCK_EX)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	if err != nil {
		return nil, errors.Join(&fs.PathError{Op: "flock", Path: workRoot, Err: err}, folder.Close())
	}
	return folder, nil
}

func read(workRoot string) (identity, error) {
	var id identity
	path := filepath.Join(workRoot, identityFile)
	data, err := os.ReadFile(path)
	if err != nil {
		return id, err
	}
	if err := json.Unmarshal(data, &id); err != nil {
		return id, fmt.Errorf("%s is damaged: %w", path, err)
	}
	if _, err := contracts.ParseName[contracts.NodeID](string(id.Node)); err != nil {
		return id, fmt.Errorf("%s is damaged: %w", path, err)
	}
	return id, nil
}

// write replaces the identity, complete or not at all, also in a power cut:
// steps and attempts are filed under the node's id. The caller has the lock.
func write(folder *os.File, id identity) error {
	data, err := json.Marshal(id)
	if err != nil {
		return err
	}
	path := filepath.Join(folder.Name(), identityFile)
	// One name for all: what a killed writer left is written over.
	next, err := os.OpenFile(path+".new", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o644)
	if err != nil {
		return err
	}
	_, writeErr := next.Write(append(data, '\n'))
	if err := errors.Join(writeErr, next.Chmod(0o644), next.Sync(), next.Close()); err != nil {
		return err
	}
	if err := os.Rename(path+".new", path); err != nil {
		return err
	}
	return folder.Sync()
}

// machineFiles are where a machine's id stands. A container sees its host's
// only where it is mounted.
var machineFiles = []string{"/etc/machine-id", "/var/lib/dbus/machine-id"}

// machineIDPattern leaves out what a new system's file may say before its
// first start: "uninitialized", or nothing.
var machineIDPattern = regexp.MustCompile(`^[0-9a-fA-F]{32}$`)

// machineID returns what tells this machine from others, or "" where it cannot
// be told. It is a hash: the id itself is not for others to know.
func machineID(files ...string) string {
	for _, path := range files {
		data, err := os.ReadFile(path)
		if id := strings.TrimSpace(string(data)); err == nil && machineIDPattern.MatchString(id) {
			sum := sha256.Sum256([]byte("gantry node " + id))
			return hex.EncodeToString(sum[:8])
		}
	}
	return ""
}
