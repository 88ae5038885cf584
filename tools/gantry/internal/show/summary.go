package show

import (
	"fmt"
	"strings"
)

// Instance is a Gantry that runs in this process, as `gantry up` tells of it.
type Instance struct {
	NATS     string
	Embedded bool
	Data     string
	// DefaultData says that commands find Data without being told.
	DefaultData bool
	Work        string
	Slots       int
	Queues      []string
	// Unsynced says that a power cut may lose acknowledged tasks.
	Unsynced bool
	// NoEngine is where a container engine should answer and does not yet.
	NoEngine string
	// Girder is empty where no girder-sim runs.
	Girder *SimulatedGirder
}

// SimulatedGirder is a girder-sim, and where its tokens are.
type SimulatedGirder struct {
	URL, Login, Password, Tokens string
}

// Summary is what `gantry up` prints when everything is ready.
func Summary(i Instance, s Style) string {
	gantry := i.command()
	nats := i.NATS
	if i.Embedded {
		nats += s.Dim(" (embedded, this machine only)")
	}
	executor := fmt.Sprintf("docker-executor (%s, %s)", Count(i.Slots, "slot"), queues(i.Queues))
	rows := [][]string{
		{s.Dim("  Services"), "dispatcher, " + executor + ", transfer, job-tracker"},
		{s.Dim("  NATS"), nats},
		{s.Dim("  Data"), i.Data},
		{s.Dim("  Work"), i.Work},
	}
	if i.NoEngine != "" {
		rows = append(rows, []string{s.Dim("  Note"), s.Warn("the container engine at " + i.NoEngine + " does not answer yet: tasks will wait until it does")})
	}
	if i.Unsynced {
		rows = append(rows, []string{s.Dim("  Note"), s.Warn("--fsync=false: a power cut can lose the last two minutes of accepted tasks")})
	}
	if i.Girder != nil {
		rows = append(rows,
			[]string{s.Dim("  Girder"), i.Girder.URL + s.Dim(fmt.Sprintf(" (girder-sim, user %s, password %s)", i.Girder.Login, i.Girder.Password))},
			[]string{"", s.Dim("ids and tokens: " + i.Girder.Tokens)},
		)
	}
	rows = append(rows,
		[]string{"", ""},
		[]string{s.Dim("  Run"), gantry + " run IMAGE [ARGS…]"},
		[]string{s.Dim("  Look"), gantry + " jobs ls" + s.Dim("   ·   ") + gantry + " workers"},
		[]string{s.Dim("  Stop"), "Ctrl-C" + s.Dim(" (containers that run go on until the next start)")},
	)
	return s.Good("Gantry is ready.") + "\n\n" + grid(s, nil, rows) + "\n"
}

// command is how other commands reach the instance.
func (i Instance) command() string {
	if i.DefaultData {
		return "gantry"
	}
	return "gantry --data " + i.Data
}

// Stopping is what `gantry up` says when it was told to stop. running is how many
// containers run, negative where that is not known.
func Stopping(i Instance, running int) string {
	const again = "; once more quits at once"
	left, them := "containers that run are left running", "them"
	switch {
	case running == 0:
		return "stopping, no task is running" + again
	case running == 1:
		left, them = "1 container is left running", "it"
	case running > 1:
		left = Count(running, "container") + " are left running"
	}
	return fmt.Sprintf("stopping, %s: '%s up' goes on with %s%s", left, i.command(), them, again)
}

func queues(names []string) string {
	if len(names) == 1 {
		return "queue " + names[0]
	}
	return "queues " + strings.Join(names, ", ")
}
