// Package conformance has one test for each outcome that a task of Girder
// Worker's docker_run has, and that its users rely on, and for each fault of it
// that must not come back: real services, a real Docker engine, a simulated
// Girder. docs/conformance.md of the repository maps the requirements to the
// tests.
package conformance
