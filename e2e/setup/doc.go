// Package setup runs Gantry for black-box tests: a NATS server that syncs every
// message, and each service as a process of its own, on a Docker engine and
// against a simulated Girder.
//
//	g := setup.Start(t, setup.Config{Slots: 2})
//	job := g.Submit(&contracts.Task{…})
//	end := g.Wait(job)
//
// Everything belongs to the test: at its end the services are stopped, whatever
// they left (containers, folders, pipes, secrets) is an error, and the logs of
// all processes are shown if the test failed. A process that ends without having
// been told to is an error as well.
//
// [Main] builds the programs once for all tests of a package, or takes them from
// the folder that GANTRY_BIN names. Tests are skipped where no Docker engine
// answers, unless GANTRY_REQUIRE_DOCKER is 1.
package setup
