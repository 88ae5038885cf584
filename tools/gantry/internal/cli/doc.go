// Package cli is the commands of gantry that talk to a running Gantry: run,
// submit, jobs, logs, workers, topology, dead, version. Each command is a
// struct whose tags name its flags, with a method Run. What a command shares
// with the others (where it talks to, how it finds the server, which signals it
// got) is its [Env]; what its end means to a shell is in exit.go.
package cli
