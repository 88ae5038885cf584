package rig

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/go-json-experiment/json"
)

// natsConfig is that of the server in `gantry up`: a message counts when it is on
// the disk. The port is any free one, which the server writes into a file.
const natsConfig = `
listen: "127.0.0.1:-1"
ports_file_dir: %q
jetstream: { store_dir: %q, sync_interval: always }
`

// startTime is how long a program may take until it is ready.
const startTime = 2 * time.Minute

// startNATS starts a server in a process of its own, so that its memory and that
// of the services are told apart, and returns its URL.
func (r *Rig) startNATS(program string) (string, error) {
	dir := filepath.Join(r.folder, "nats")
	if err := os.Mkdir(dir, 0o700); err != nil {
		return "", err
	}
	config := filepath.Join(dir, "nats.conf")
	if err := os.WriteFile(config, fmt.Appendf(nil, natsConfig, dir, dir), 0o600); err != nil {
		return "", err
	}
	log := filepath.Join(dir, "nats.log")
	server, err := r.run(natsServer, program, log, []string{"--config", config}, nil)
	if err != nil {
		return "", err
	}
	ports := filepath.Join(dir, fmt.Sprintf("%s_%d.ports", filepath.Base(program), server.cmd.Process.Pid))
	for deadline := time.Now().Add(startTime); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		data, err := os.ReadFile(ports)
		if err != nil {
			continue
		}
		var found struct {
			NATS []string `json:"nats"`
		}
		if err := json.Unmarshal(data, &found); err == nil && len(found.NATS) > 0 {
			return found.NATS[0], nil
		}
	}
	return "", errors.Join(fmt.Errorf("nats-server is not ready after %s", startTime), tail(natsServer, log))
}
