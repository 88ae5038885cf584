// Package node identifies a node: one host whose executors and transfer share
// a work folder. Whoever starts first writes the node's id and the machine's
// id into the work folder; the others read it there, so sharing a folder and
// being one node are the same fact.
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
	"strings"

	"github.com/gantry-worker/gantry/contracts"
)

const identityFile = "node.json"

// identity is the content of node.json.
type identity struct {
	Node    contracts.NodeID `json:"node"`
	Machine string           `json:"machine"`
}

// ErrOtherMachine is returned by Open for a work folder that belongs to
// another machine: a cloned disk, or a folder on the network.
var ErrOtherMachine = errors.New("the work folder belongs to another machine")

// Open returns the id of the node that the work folder belongs to, making
// folder and id the first time.
func Open(workRoot string) (contracts.NodeID, error) {
	return open(workRoot, machineID())
}

func open(workRoot, machine string) (contracts.NodeID, error) {
	if !filepath.IsAbs(workRoot) {
		return "", fmt.Errorf("work_root: %q is not an absolute path", workRoot)
	}
	if err := os.MkdirAll(workRoot, 0o755); err != nil {
		return "", fmt.Errorf("make work folder: %w", err)
	}
	if err := create(workRoot, identity{Node: newID(), Machine: machine}); err != nil {
		return "", fmt.Errorf("write node id: %w", err)
	}
	found, err := read(workRoot)
	if err != nil {
		return "", err
	}
	if found.Machine != "" && machine != "" && found.Machine != machine {
		return "", fmt.Errorf("%w: %s says %s, this is %s; give this machine a work_root of its own, or remove the file if the folder was moved here",
			ErrOtherMachine, filepath.Join(workRoot, identityFile), found.Machine, machine)
	}
	return found.Node, nil
}

func newID() contracts.NodeID { return contracts.NodeID("node-" + contracts.NewToken()[:8]) }

// create writes the identity unless one is there: complete or not at all, and
// only one of several that start together wins.
func create(workRoot string, id identity) error {
	data, err := json.Marshal(id)
	if err != nil {
		return err
	}
	temporary, err := os.CreateTemp(workRoot, identityFile+".*")
	if err != nil {
		return err
	}
	defer os.Remove(temporary.Name())
	_, writeErr := temporary.Write(append(data, '\n'))
	if err := errors.Join(writeErr, temporary.Chmod(0o644), temporary.Sync(), temporary.Close()); err != nil {
		return err
	}
	err = os.Link(temporary.Name(), filepath.Join(workRoot, identityFile))
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	return err
}

func read(workRoot string) (identity, error) {
	var id identity
	data, err := os.ReadFile(filepath.Join(workRoot, identityFile))
	if err != nil {
		return id, fmt.Errorf("read node id: %w", err)
	}
	if err := json.Unmarshal(data, &id); err != nil {
		return id, fmt.Errorf("read node id: %s: %w", filepath.Join(workRoot, identityFile), err)
	}
	if _, err := contracts.ParseName[contracts.NodeID](string(id.Node)); err != nil {
		return id, fmt.Errorf("read node id: %s: %w", filepath.Join(workRoot, identityFile), err)
	}
	return id, nil
}

// machineID returns what tells this machine from others, or "" where it cannot
// be told: in a container without the host's /etc/machine-id.
func machineID() string {
	for _, path := range []string{"/etc/machine-id", "/var/lib/dbus/machine-id"} {
		if data, err := os.ReadFile(path); err == nil && strings.TrimSpace(string(data)) != "" {
			sum := sha256.Sum256([]byte("gantry node " + strings.TrimSpace(string(data))))
			return hex.EncodeToString(sum[:8])
		}
	}
	return ""
}
