// Command unprivileged removes what is in a folder by itself, which has to fail,
// and then has the engine do it.
package main

import (
	"context"
	"fmt"
	"os"

	"github.com/gantry-worker/gantry/services/docker-executor/internal/engine/docker"
	"github.com/gantry-worker/gantry/services/docker-executor/removetree"
)

// of makes programs, and with them their images, differ.
var of string

func main() {
	removetree.Main()
	id, err := removetree.IDOf(os.Args[1])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(4)
	}
	if err := removetree.Contents(os.Args[1], id); err == nil {
		fmt.Fprintln(os.Stderr, "this process may remove everything itself")
		os.Exit(3)
	}
	e, err := docker.New(docker.Config{})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	if err := e.RemoveTree(context.Background(), os.Args[1], id, map[string]string{"gantry.test": os.Args[2]}); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
