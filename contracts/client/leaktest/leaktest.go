// Package leaktest finds goroutines that outlive the tests of a package.
package leaktest

import (
	"fmt"
	"os"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// patience is how long goroutines may take to end that were told to: one may be
// waiting for a disk.
const patience = 2 * time.Minute

// Main runs a package's tests and ends the process, with a failure where
// goroutines are left. It is goleak.VerifyTestMain for machines that stall:
// that one looks for less than a second.
//
//	func TestMain(m *testing.M) { leaktest.Main(m) }
func Main(m *testing.M) {
	code := m.Run()
	if code == 0 {
		if err := left(patience); err != nil {
			fmt.Fprintf(os.Stderr, "goroutines are left after the tests: %v\n", err)
			code = 1
		}
	}
	os.Exit(code)
}

// left waits until no goroutines are left, or says which.
func left(patience time.Duration) error {
	for deadline := time.Now().Add(patience); ; {
		err := goleak.Find() // which waits a little itself
		if err == nil || time.Now().After(deadline) {
			return err
		}
	}
}
