// Command whereami prints in which container it runs, as the engine behind the
// standard socket says.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"

	"github.com/gantry-worker/gantry/services/docker-executor/internal/engine/docker"
)

func main() {
	e, err := docker.New(docker.Config{})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	self, err := e.Self(context.Background())
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	if err := json.NewEncoder(os.Stdout).Encode(self); err != nil {
		os.Exit(2)
	}
}
