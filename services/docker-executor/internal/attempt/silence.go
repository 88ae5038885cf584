package attempt

import (
	"sync"
	"time"

	"github.com/gantry-worker/gantry/contracts"
)

// answerPatience is how long transfer may say nothing of a step that it is asked
// for until the people who watch are told so. Only tests set another one.
var answerPatience = 10 * time.Second

// noTransfer is what they are told.
const noTransfer = "no transfer service of this node answers"

// unanswered tells hear, in a transfer's place, that none says anything of a
// step. heard takes what transfer says, and hands it on. stop is called when
// nothing is to be heard any more: then hear is not called again.
func unanswered(step *contracts.Step, hear func(*contracts.TransferNote)) (heard func(*contracts.TransferNote), stop func()) {
	var mu sync.Mutex
	answered := false
	timer := time.AfterFunc(answerPatience, func() {
		mu.Lock()
		defer mu.Unlock()
		if !answered {
			hear(&contracts.TransferNote{ID: step.Step, Direction: step.Kind, Waiting: noTransfer})
		}
	})
	heard = func(note *contracts.TransferNote) {
		mu.Lock()
		defer mu.Unlock()
		answered = true
		hear(note)
	}
	stop = func() {
		timer.Stop()
		mu.Lock()
		defer mu.Unlock()
		answered = true
	}
	return heard, stop
}
