// Command bench measures Gantry against the physical limit of the same machine
// in the same run: each figure and its limit in turn, so that a noisy machine
// cancels out. It starts a Gantry of its own, prints a table and writes JSON.
// Benchmarks are no tests: nothing fails on a time.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/alecthomas/kong"
	"github.com/docker/go-units"

	"github.com/gantry-worker/gantry/tools/bench/internal/measure"
	"github.com/gantry-worker/gantry/tools/bench/internal/rig"
)

type arguments struct {
	Names []string `arg:"" optional:"" help:"Benchmarks to run: container, containers, latency, cancel, log, stream, stage-in, stage-out; all if none is given."`
	Bin   string   `help:"Folder with the binaries of Gantry's services and of nats-server." default:"bin"`
	JSON  string   `help:"File to write the results to." name:"json"`
	Runs  int      `help:"Runs of each figure; 0 is each benchmark's own number." default:"0"`

	Size     string `help:"Size of the big file of stream, stage-in and stage-out." default:"1g"`
	InFiles  int    `help:"Small files of stage-in." default:"5000"`
	OutFiles int    `help:"Small files of stage-out." default:"1000"`
}

// settings are what the command line says about each benchmark.
type settings struct {
	runs              int
	size              int64 // of the big file
	inFiles, outFiles int   // how many small files there are
}

// runsOr returns how many runs there are to be, by default the given number.
func (s settings) runsOr(standard int) int {
	if s.runs > 0 {
		return s.runs
	}
	return standard
}

func (s settings) validate() error {
	switch {
	case s.size <= 0 || s.size%block != 0:
		return fmt.Errorf("--size has to be a multiple of 64k, is %d", s.size)
	case s.inFiles < 1:
		return fmt.Errorf("--in-files has to be 1 or more, is %d", s.inFiles)
	case s.outFiles < 1:
		return fmt.Errorf("--out-files has to be 1 or more, is %d", s.outFiles)
	}
	return nil
}

// benchmark is one row of the table. Several may have a name in common.
type benchmark struct {
	name string
	row  string // what tells it from others of its name
	run  func(context.Context, *rig.Rig, settings) (measure.Result, error)
}

var benchmarks = []benchmark{
	{"container", "", oneContainer},
	{"containers", "", manyContainers},
	{"latency", "", claimIdle},
	{"cancel", "", cancelRunning},
	{"log", "", longLog},
	{"stream", "", streamFile},
	{"stage-in", "big", stageInBig},
	{"stage-in", "small", stageInSmall},
	{"stage-out", "big", stageOutBig},
	{"stage-out", "small", stageOutSmall},
}

func main() {
	var args arguments
	kong.Parse(&args, kong.Name("bench"), kong.Description("Measures Gantry against the limits of this machine."))
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, args); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args arguments) (err error) {
	for _, name := range args.Names {
		if !slices.ContainsFunc(benchmarks, func(b benchmark) bool { return b.name == name }) {
			return fmt.Errorf("there is no benchmark %q", name)
		}
	}
	size, err := units.RAMInBytes(args.Size)
	if err != nil {
		return fmt.Errorf("--size: %w", err)
	}
	with := settings{runs: args.Runs, size: size, inFiles: args.InFiles, outFiles: args.OutFiles}
	if err := with.validate(); err != nil {
		return err
	}
	r, err := rig.Start(ctx, args.Bin)
	if err != nil {
		return err
	}
	defer r.Close()
	var results []measure.Result
	for _, benchmark := range benchmarks {
		if len(args.Names) > 0 && !slices.Contains(args.Names, benchmark.name) {
			continue
		}
		name := strings.TrimSpace(benchmark.name + " " + benchmark.row)
		fmt.Fprintf(os.Stderr, "%s …\n", name)
		result, err := benchmark.run(ctx, r, with)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		result.Name = name
		results = append(results, result)
	}
	show(results)
	return write(args.JSON, results)
}

func show(results []measure.Result) {
	table := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "benchmark\truns\tmedian\tp95\tlimit median\tlimit p95\tratio\tgoal")
	for _, r := range results {
		fmt.Fprintf(table, "%s\t%d\t%s\t%s\t%s\t%s\t%s\t%s\n", r.Name, len(r.Gantry),
			round(r.Gantry.Median()), round(r.Gantry.P95()), round(r.Limit.Median()), round(r.Limit.P95()), r.Compare(), r.Goal)
	}
	_ = table.Flush()
	for _, r := range results {
		fmt.Printf("%s: %s; limit: %s\n", r.Name, r.What, r.LimitWhat)
		for _, note := range r.Notes {
			fmt.Printf("%s: %s\n", r.Name, note)
		}
	}
}

func round(d time.Duration) string {
	switch {
	case d > time.Second:
		return d.Round(10 * time.Millisecond).String()
	case d > 10*time.Millisecond:
		return d.Round(100 * time.Microsecond).String()
	default:
		return d.Round(time.Microsecond).String()
	}
}

func write(file string, results []measure.Result) error {
	if file == "" {
		return nil
	}
	data, err := json.MarshalIndent(results, "", "  ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(file, append(data, '\n'), 0o644); err != nil {
		return fmt.Errorf("write results: %w", err)
	}
	fmt.Fprintln(os.Stderr, "results are in", strings.TrimSpace(file))
	return nil
}
