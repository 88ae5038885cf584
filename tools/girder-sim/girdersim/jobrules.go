package girdersim

import "slices"

// Statuses of a job, as Girder numbers them.
const (
	Inactive         = 0
	Queued           = 1
	Running          = 2
	Success          = 3
	Error            = 4
	Canceled         = 5
	FetchingInput    = 820
	ConvertingInput  = 821
	ConvertingOutput = 822
	PushingOutput    = 823
	Canceling        = 824
)

// Handlers with rules of their own; every other handler follows the plain ones.
const (
	CeleryHandler = "celery_handler"
	WorkerHandler = "worker_handler"
)

// changes lists what may follow each status.
type changes map[int][]int

var (
	celeryChanges = changes{
		Inactive:         {Queued, Running, Canceled, Canceling},
		Queued:           {Running, Error, Canceled, Canceling},
		Running:          {Success, Error, Canceled, FetchingInput, ConvertingInput, ConvertingOutput, PushingOutput, Canceling},
		FetchingInput:    {Running, Error, ConvertingInput},
		ConvertingInput:  {Error},
		ConvertingOutput: {Error, PushingOutput},
		PushingOutput:    {Success, Error},
		Canceling:        {Error, Canceled},
	}
	workerChanges = changes{
		Inactive:         {Queued, Canceling},
		Queued:           {Running, Error, Canceled, Canceling},
		Running:          celeryChanges[Running],
		FetchingInput:    celeryChanges[FetchingInput],
		ConvertingInput:  celeryChanges[ConvertingInput],
		ConvertingOutput: celeryChanges[ConvertingOutput],
		PushingOutput:    celeryChanges[PushingOutput],
		Canceling:        celeryChanges[Canceling],
	}
	plainChanges = changes{
		Inactive: {Queued, Running, Canceled},
		Queued:   {Running, Error, Canceled},
		Running:  {Success, Error, Canceled},
	}
)

func changesOf(handler string) changes {
	switch handler {
	case CeleryHandler:
		return celeryChanges
	case WorkerHandler:
		return workerChanges
	}
	return plainChanges
}

// reachable reports whether any status leads to this one.
func (c changes) reachable(to int) bool {
	for _, targets := range c {
		if slices.Contains(targets, to) {
			return true
		}
	}
	return false
}

func knownStatus(status int) bool {
	return status == Success || status == Error || status == Canceled || celeryChanges[status] != nil
}

// checkChange refuses a status that may not follow the present one.
func checkChange(handler string, from, to int) error {
	c := changesOf(handler)
	if !c.reachable(to) {
		return validationError("status", "No valid state transition to '%d'. Current state is '%d'.", to, from)
	}
	if !slices.Contains(c[from], to) {
		return validationError("status", "Invalid state transition to '%d', Current state is '%d'.", to, from)
	}
	return nil
}

// cancelTarget is the status that a cancel asks for; false if it asks for none.
func cancelTarget(handler string, hasTask bool, from int) (int, bool) {
	if handler != CeleryHandler && handler != WorkerHandler {
		return Canceled, from != Canceled
	}
	switch {
	case !hasTask:
		return 0, false
	case from == Success, from == Error, from == Canceled, from == Canceling:
		return 0, false
	case from == Inactive:
		return Canceled, true
	}
	return Canceling, true
}

// maxLog is the number of characters by which Girder limits a job's log.
const maxLog = 4194304

// appendLog adds an entry. The longer the new entry, the fewer entries are
// kept; one longer than maxLog empties the log, itself included.
func appendLog(log []string, entry string, length int) []string {
	if length == 0 {
		return log
	}
	log = append(log, entry)
	keep := maxLog / length
	if len(log) <= keep {
		return log
	}
	return slices.Clone(log[len(log)-keep:])
}
