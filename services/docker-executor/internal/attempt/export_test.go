package attempt

import "time"

// NoTransfer is said where no transfer answers.
const NoTransfer = noTransfer

// Nothing of the tests depends on a transfer that answers in time.
func init() { answerPatience = 100 * time.Millisecond }
