package contracts

import (
	"slices"
	"strconv"
)

// GirderStatus is a status of a Girder job.
type GirderStatus int

// Girder's statuses. The 820s are the worker plugin's; of them Gantry reads
// only CANCELING and sends none.
const (
	GirderInactive         GirderStatus = 0
	GirderQueued           GirderStatus = 1
	GirderRunning          GirderStatus = 2
	GirderSuccess          GirderStatus = 3
	GirderError            GirderStatus = 4
	GirderCanceled         GirderStatus = 5
	GirderFetchingInput    GirderStatus = 820
	GirderConvertingInput  GirderStatus = 821
	GirderConvertingOutput GirderStatus = 822
	GirderPushingOutput    GirderStatus = 823
	GirderCanceling        GirderStatus = 824
)

var girderStatusNames = map[GirderStatus]string{
	GirderInactive:         "INACTIVE",
	GirderQueued:           "QUEUED",
	GirderRunning:          "RUNNING",
	GirderSuccess:          "SUCCESS",
	GirderError:            "ERROR",
	GirderCanceled:         "CANCELED",
	GirderFetchingInput:    "FETCHING_INPUT",
	GirderConvertingInput:  "CONVERTING_INPUT",
	GirderConvertingOutput: "CONVERTING_OUTPUT",
	GirderPushingOutput:    "PUSHING_OUTPUT",
	GirderCanceling:        "CANCELING",
}

func (s GirderStatus) String() string {
	if name, ok := girderStatusNames[s]; ok {
		return name
	}
	return strconv.Itoa(int(s))
}

// Terminal reports whether Girder lets no other status follow.
func (s GirderStatus) Terminal() bool {
	return s == GirderSuccess || s == GirderError || s == GirderCanceled
}

// GirderHandler is a Girder job's handler; it decides the transitions.
type GirderHandler string

// The handlers of Girder's worker plugin. [HandlerCelery] is what jobs have that
// Gantry creates, since Girder's Cancel does nothing without it.
const (
	HandlerCelery GirderHandler = "celery_handler"
	HandlerWorker GirderHandler = "worker_handler"
)

// girderBefore lists, for each status, the statuses that may stand right
// before it, as the servers answer (girder-contract, matrices/job-transitions).
var girderBefore = map[GirderHandler]map[GirderStatus][]GirderStatus{
	HandlerCelery: {
		GirderQueued:           {GirderInactive},
		GirderRunning:          {GirderInactive, GirderQueued, GirderFetchingInput},
		GirderSuccess:          {GirderRunning, GirderPushingOutput},
		GirderError:            {GirderQueued, GirderRunning, GirderFetchingInput, GirderConvertingInput, GirderConvertingOutput, GirderPushingOutput, GirderCanceling},
		GirderCanceled:         {GirderInactive, GirderQueued, GirderRunning, GirderCanceling},
		GirderFetchingInput:    {GirderRunning},
		GirderConvertingInput:  {GirderRunning, GirderFetchingInput},
		GirderConvertingOutput: {GirderRunning},
		GirderPushingOutput:    {GirderRunning, GirderConvertingOutput},
		GirderCanceling:        {GirderInactive, GirderQueued, GirderRunning},
	},
	HandlerWorker: {
		GirderQueued:           {GirderInactive},
		GirderRunning:          {GirderQueued, GirderFetchingInput},
		GirderSuccess:          {GirderRunning, GirderPushingOutput},
		GirderError:            {GirderQueued, GirderRunning, GirderFetchingInput, GirderConvertingInput, GirderConvertingOutput, GirderPushingOutput, GirderCanceling},
		GirderCanceled:         {GirderQueued, GirderRunning, GirderCanceling},
		GirderFetchingInput:    {GirderRunning},
		GirderConvertingInput:  {GirderRunning, GirderFetchingInput},
		GirderConvertingOutput: {GirderRunning},
		GirderPushingOutput:    {GirderRunning, GirderConvertingOutput},
		GirderCanceling:        {GirderInactive, GirderQueued, GirderRunning},
	},
}

// girderBeforePlain holds for jobs with any other handler, or none.
var girderBeforePlain = map[GirderStatus][]GirderStatus{
	GirderQueued:   {GirderInactive},
	GirderRunning:  {GirderInactive, GirderQueued},
	GirderSuccess:  {GirderRunning},
	GirderError:    {GirderQueued, GirderRunning},
	GirderCanceled: {GirderInactive, GirderQueued, GirderRunning},
}

// GirderAllows reports whether Girder accepts the change for a job with the
// given handler. The same status again is always accepted.
func GirderAllows(handler GirderHandler, from, to GirderStatus) bool {
	if from == to {
		return true
	}
	before, ok := girderBefore[handler]
	if !ok {
		before = girderBeforePlain
	}
	return slices.Contains(before[to], from)
}

// GirderPath returns the statuses to send, in order, to bring a job from one
// status to another. A job that ends before it ran must be RUNNING or QUEUED
// first. It returns nil where there is nothing to send or no way.
func GirderPath(handler GirderHandler, from, to GirderStatus) []GirderStatus {
	if from == to {
		return nil
	}
	if GirderAllows(handler, from, to) {
		return []GirderStatus{to}
	}
	for _, via := range []GirderStatus{GirderRunning, GirderQueued} {
		if via == from || via == to || !GirderAllows(handler, from, via) {
			continue
		}
		if rest := GirderPath(handler, via, to); rest != nil {
			return append([]GirderStatus{via}, rest...)
		}
	}
	return nil
}
