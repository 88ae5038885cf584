// Command transfer moves files between Girder and the volumes of its node.
package main

import (
	"os"
	"runtime/debug"

	"github.com/gantry-worker/gantry/services/internal/lifecycle"
	"github.com/gantry-worker/gantry/services/transfer/service"
)

// softMemory is from where on the collector works harder. What is in use stays
// below it; but of thousands of small files at a time so much garbage is left
// that the process would take double, beside the containers of its node.
const softMemory = 40 << 20

func main() {
	if os.Getenv("GOMEMLIMIT") == "" { // the operator's word counts
		debug.SetMemoryLimit(softMemory)
	}
	lifecycle.Main("transfer", "Moves files between Girder and the volumes of its node.", service.Run)
}
