// Demo-task is the program in the demo's container: it inverts a picture (a
// binary PGM file) strip by strip, as an analysis of a large image would, and
// tells how far it is.
//
//	demo-task INPUT OUTPUT PROGRESS
package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"
)

// strips is how many pieces a picture is processed in, and pause how long each
// takes at least: there has to be something to watch.
const (
	strips = 16
	pause  = 200 * time.Millisecond
)

func main() {
	if len(os.Args) != 4 {
		fmt.Fprintln(os.Stderr, "usage: demo-task INPUT OUTPUT PROGRESS")
		os.Exit(2)
	}
	if err := invert(os.Args[1], os.Args[2], os.Args[3], pause); err != nil {
		fmt.Fprintln(os.Stderr, "demo-task:", err)
		os.Exit(1)
	}
}

func invert(input, output, pipe string, pause time.Duration) (err error) {
	in, err := os.Open(input)
	if err != nil {
		return err
	}
	defer in.Close()
	if err := os.MkdirAll(filepath.Dir(output), 0o755); err != nil {
		return err
	}
	out, err := os.Create(output)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	progress, err := os.OpenFile(pipe, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, progress.Close()) }()

	reader := bufio.NewReader(in)
	var width, height, white int
	if _, err := fmt.Fscanf(reader, "P5\n%d %d\n%d\n", &width, &height, &white); err != nil {
		return fmt.Errorf("%s is not a binary PGM file: %w", input, err)
	}
	fmt.Printf("%s: %d x %d pixels\n", filepath.Base(input), width, height)
	if _, err := fmt.Fprintf(out, "P5\n%d %d\n%d\n", width, height, white); err != nil {
		return err
	}
	report := json.NewEncoder(progress)
	for strip := range strips {
		from, to := height*strip/strips, height*(strip+1)/strips
		if err := invertRows(out, reader, width*(to-from), white); err != nil {
			return fmt.Errorf("rows %d to %d: %w", from+1, to, err)
		}
		fmt.Printf("rows %4d to %4d inverted\n", from+1, to)
		if err := report.Encode(map[string]any{"total": strips, "current": strip + 1, "message": fmt.Sprintf("row %d of %d", to, height)}); err != nil {
			return fmt.Errorf("report progress: %w", err)
		}
		time.Sleep(pause)
	}
	fmt.Println("done")
	return nil
}

func invertRows(out io.Writer, in io.Reader, size, white int) error {
	pixels := make([]byte, size)
	if _, err := io.ReadFull(in, pixels); err != nil {
		return err
	}
	for i, pixel := range pixels {
		pixels[i] = byte(white) - pixel
	}
	_, err := out.Write(pixels)
	return err
}
