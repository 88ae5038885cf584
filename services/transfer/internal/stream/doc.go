// Package stream moves bytes through a named pipe while a container runs.
//
// [File.Feed] writes a file of Girder into a pipe that the container reads. It
// begins when the container has opened the pipe, goes on by range behind what it
// wrote where the connection to Girder breaks, and proves length, checksum and
// identity of the file before it returns without an error: only then may the
// container be given an end of file. A container that closes the pipe, or ends,
// before it has taken everything ends the stream, which is no error.
//
// [Post.Drain] sends what a container writes into a pipe in one POST, a chunk
// for each read, and [Spool] writes it to a file. Both are through when the
// container has ended and the pipe is empty, and the [Outlet] agrees that it is
// everything; what it does not agree with never becomes a complete request. A
// spool leaves some room on the disk to others.
//
// Nothing here is resumed by another process, holds more than a few buffers
// in memory, or goes on after its context has ended. [IsFailure] tells what the task
// is to blame for from what it is not.
package stream

// buffer is how much is moved at once: what a pipe holds.
const buffer = 64 << 10
