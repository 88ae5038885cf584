package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestInvert(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	in, out, progress := filepath.Join(dir, "in.pgm"), filepath.Join(dir, "sub", "out.pgm"), filepath.Join(dir, "progress")
	const header = "P5\n2 33\n255\n"
	pixels, inverted := make([]byte, 66), make([]byte, 66)
	for i := range pixels {
		pixels[i], inverted[i] = byte(i), byte(255-i)
	}
	if err := os.WriteFile(in, append([]byte(header), pixels...), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(progress, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := invert(in, out, progress, 0); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(out)
	if err != nil || !bytes.Equal(got, append([]byte(header), inverted...)) {
		t.Errorf("output is %q, %v", got, err)
	}
	reports, err := os.ReadFile(progress)
	if err != nil || strings.Count(string(reports), "\n") != strips || !strings.Contains(string(reports), `"current":16,"message":"row 33 of 33","total":16`) {
		t.Errorf("progress is %q, %v", reports, err)
	}
}

func TestInvertRefusesOtherFiles(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	in, progress := filepath.Join(dir, "in"), filepath.Join(dir, "progress")
	for _, content := range []string{"", "not a picture", "P5\n2 33\n255\ntoo short"} {
		for path, text := range map[string]string{in: content, progress: ""} {
			if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if err := invert(in, filepath.Join(dir, "out"), progress, 0); err == nil {
			t.Errorf("%q was taken", content)
		}
	}
}
