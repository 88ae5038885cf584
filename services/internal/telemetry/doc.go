// Package telemetry is what a service says about itself while it runs: its log,
// and a listener of its own that answers whether it is alive and ready.
//
// The log is structured, one event a line, to standard error. lifecycle.Main
// puts the logger into the context, where zerolog.Ctx finds it; a service adds
// its ids with With and passes the result on.
package telemetry
