// Package pipe reads the progress pipe, which a container writes its progress
// to.
//
// A progress pipe goes through three steps: fifo.Make before the container is
// created, OpenProgress before it starts, and Run until it has ended. We have
// its read end open, alone. That spares the container a SIGPIPE and a wait for a
// reader, while it opens and closes the pipe as often as it likes. Ended lets Run
// drain what is left and return.
//
// Who adopts a running container opens its pipe again. What was written in
// between is there if somebody else held the pipe (fifo.Hold).
package pipe
