// Package scenarios has the stories of Gantry's users, told against real
// processes: one file for each.
package scenarios

import (
	"os"
	"testing"

	"github.com/gantry-worker/gantry/e2e/setup"
)

func TestMain(m *testing.M) { os.Exit(setup.Main(m)) }
