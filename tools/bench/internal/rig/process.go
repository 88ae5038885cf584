package rig

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/contracts/client"
)

// The services, in the order of their start.
var services = []string{"dispatcher", "job-tracker", "transfer", "docker-executor"}

const natsServer = "nats-server"

// process is one program of the rig.
type process struct {
	name string
	cmd  *exec.Cmd
}

// run starts a program whose output goes to a file.
func (r *Rig) run(name, path, output string, args, env []string) (process, error) {
	log, err := os.Create(output)
	if err != nil {
		return process{}, err
	}
	defer log.Close() //nolint:errcheck // the process has its own descriptor
	cmd := exec.Command(path, args...)
	cmd.Env = append(os.Environ(), env...)
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		return process{}, fmt.Errorf("start %s: %w", name, err)
	}
	p := process{name, cmd}
	r.processes = append(r.processes, p)
	return p, nil
}

func (p process) stop() {
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	_ = p.cmd.Wait()
}

// startServices returns when the services are there and a client can ask.
func (r *Rig) startServices(ctx context.Context, binaries, url string) error {
	for _, folder := range []string{r.Shared(), filepath.Join(r.folder, "work")} {
		if err := os.Mkdir(folder, 0o755); err != nil {
			return err
		}
	}
	env := []string{
		"GANTRY_NATS_URL=" + url,
		"GANTRY_WORK_ROOT=" + filepath.Join(r.folder, "work"),
		"GANTRY_ALLOW_BIND=" + r.Shared() + ":rw",
		fmt.Sprintf("GANTRY_SLOTS=%d", Slots),
		"GANTRY_LOG_LIMIT=1g", // the whole log is to be stored
	}
	for _, service := range services {
		if _, err := r.run(service, filepath.Join(binaries, service), r.logOf(service), nil, env); err != nil {
			return err
		}
	}
	for deadline := time.Now().Add(startTime); time.Now().Before(deadline); time.Sleep(100 * time.Millisecond) {
		if r.connect(ctx, url) == nil {
			if workers, err := r.Client.Workers(ctx); err == nil && ready(workers) {
				return nil
			}
		}
	}
	missing := []error{fmt.Errorf("gantry is not ready after %s", startTime)}
	for _, service := range services {
		missing = append(missing, tail(service, r.logOf(service)))
	}
	return errors.Join(missing...)
}

func (r *Rig) logOf(service string) string { return filepath.Join(r.folder, service+".log") }

// ready reports whether everything runs that announces itself.
func ready(workers []contracts.Instance) bool {
	there := map[string]bool{}
	for _, worker := range workers {
		there[worker.Service] = true
	}
	for _, service := range services {
		if !there[service] {
			return false
		}
	}
	return true
}

func (r *Rig) connect(ctx context.Context, url string) (err error) {
	if r.Client == nil {
		r.Client, err = client.Connect(ctx, client.Config{URL: url, Name: "bench"})
	}
	return err
}

// tail returns the end of a log as an error, to be read by a person.
func tail(name, file string) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close() //nolint:errcheck // only read
	var last []string
	for lines := bufio.NewScanner(f); lines.Scan(); {
		last = append(last, lines.Text())
		last = last[max(0, len(last)-10):]
	}
	return fmt.Errorf("the log of %s ends with: %q", name, last)
}
