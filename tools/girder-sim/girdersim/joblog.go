package girdersim

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// logFiles keeps the logs of jobs beside their documents, a line for each
// entry, so that a long log is not written again with every update.
type logFiles struct{ dir string } // empty: memory only

func openLogFiles(dir string) (logFiles, error) {
	if dir == "" {
		return logFiles{}, nil
	}
	return logFiles{dir}, os.MkdirAll(dir, 0o700)
}

func (l logFiles) path(jobID string) string { return filepath.Join(l.dir, jobID+".jsonl") }

// load reads a log. An entry that its writer did not live to finish is dropped.
func (l logFiles) load(jobID string) ([]string, error) {
	text, err := os.ReadFile(l.path(jobID))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var log []string
	whole := 0
	for line := range bytes.Lines(text) {
		if !bytes.HasSuffix(line, []byte("\n")) {
			return log, os.Truncate(l.path(jobID), int64(whole))
		}
		var entry string
		if err := json.Unmarshal(line, &entry); err != nil {
			return nil, fmt.Errorf("read log %s: %w", l.path(jobID), err)
		}
		log = append(log, entry)
		whole += len(line)
	}
	return log, nil
}

// save brings the file from one state of the log to the next.
func (l logFiles) save(jobID string, before, after []string) error {
	if l.dir == "" {
		return nil
	}
	if !continues(before, after) {
		text, err := logLines(after)
		if err != nil {
			return err
		}
		return replaceFile(l.path(jobID), text)
	}
	if len(after) == len(before) {
		return nil
	}
	text, err := logLines(after[len(before):])
	if err != nil {
		return err
	}
	f, err := os.OpenFile(l.path(jobID), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	return errors.Join(err, f.Close())
}

// continues reports whether after is before with further entries.
func continues(before, after []string) bool {
	if len(after) < len(before) {
		return false
	}
	for i := range before {
		if before[i] != after[i] {
			return false
		}
	}
	return true
}

func logLines(log []string) ([]byte, error) {
	var b bytes.Buffer
	lines := json.NewEncoder(&b)
	for _, entry := range log {
		if err := lines.Encode(entry); err != nil {
			return nil, fmt.Errorf("write log: %w", err)
		}
	}
	return b.Bytes(), nil
}

func (l logFiles) remove(jobID string) error {
	if l.dir == "" {
		return nil
	}
	return ignoreMissing(os.Remove(l.path(jobID)))
}
