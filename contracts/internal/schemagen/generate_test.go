package main

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
)

func TestCommittedSchemasAreCurrent(t *testing.T) {
	t.Chdir("../..")
	want, err := generate(".")
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range want {
		committed, err := os.ReadFile(filepath.Join("schema", name))
		if err != nil {
			t.Errorf("%v; run go generate ./... in contracts", err)
			continue
		}
		if !bytes.Equal(committed, content) {
			t.Errorf("schema/%s is stale; run go generate ./... in contracts", name)
		}
	}
	present, err := filepath.Glob("schema/*.json")
	if err != nil {
		t.Fatal(err)
	}
	if len(present) != len(want) {
		t.Errorf("schema has %d files, %d are generated", len(present), len(want))
	}
}

func TestWriteFillsAFolder(t *testing.T) {
	t.Chdir("../..")
	folder := t.TempDir()
	if err := write(folder); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(folder, "task.v1.json")); err != nil {
		t.Error(err)
	}
	if err := write(filepath.Join(folder, "absent")); err == nil {
		t.Error("a folder that is absent was written to")
	}
}
