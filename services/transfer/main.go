// Command transfer moves files between Girder and the volumes of its node.
package main

import (
	"github.com/gantry-worker/gantry/services/internal/lifecycle"
	"github.com/gantry-worker/gantry/services/transfer/service"
)

func main() {
	lifecycle.Main("transfer", "Moves files between Girder and the volumes of its node.", service.Run)
}
