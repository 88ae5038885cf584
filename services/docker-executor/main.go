// Command docker-executor runs docker_run tasks: it claims them, brings their
// data through the node's transfer, runs one container each, ships log and
// progress, and ends them.
package main

import (
	"github.com/gantry-worker/gantry/services/docker-executor/removetree"
	"github.com/gantry-worker/gantry/services/docker-executor/service"
	"github.com/gantry-worker/gantry/services/internal/lifecycle"
)

func main() {
	removetree.Main()
	lifecycle.Main("docker-executor", "Runs docker_run tasks in containers.", service.Run)
}
