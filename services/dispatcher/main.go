// Command dispatcher takes submissions, checks and routes them, offers them to
// executors, retries them, and removes revoked ones that wait.
package main

import (
	"github.com/gantry-worker/gantry/services/dispatcher/service"
	"github.com/gantry-worker/gantry/services/internal/lifecycle"
)

func main() {
	lifecycle.Main("dispatcher", "Takes tasks, checks them and offers them to executors.", service.Run)
}
