// Package service is transfer: it moves bytes between Girder and the volumes
// of its node, so that executors need neither Girder nor its tokens.
//
// An executor publishes a step, transfer does it, writes the result into the
// attempt's folder as steps/<step>.json and says so with a note. The file is
// the answer; the note only saves waiting. A step that is asked for again, or
// delivered again after a crash, is answered from its file. Until then notes tell
// that it is in somebody's hands, how far it is, and why nothing moves: Girder
// that does not answer, or other steps before it.
//
// Before a step begins, and now and then while it runs, the job's life is
// read: a step of an attempt that is not the current one, or of a job that is
// ending, is dropped. A revoke aborts the running steps of its job at once.
//
// A step that has begun, or waits for a place to begin, stands in the journal until
// nothing of it is left to be done. What this process does not finish, being stopped or killed, the next
// one goes on with at its start: half a file on the volume, half an upload in
// Girder, an upload whose last answer nobody heard. The journal has one owner;
// a second transfer in the same work folder waits for the first one's end.
//
// Steps wait for a place before they begin, and give it up while they wait for
// something else; [places] says who waits for whom, and README.md why. Below that,
// [girder.Traffic] bounds the files that move at a time and the bytes a second.
// The clients of a step reach Girder as its task says, and end with the step.
//
// The step stream moves bytes through a named pipe while the container runs. Its
// mark, steps/<step>.streaming, says that our end of the pipe is open: from then
// on the container may start. The step finish says that the container has ended:
// the streams of its attempt take what is left in their pipes and end. A stream is
// moved by one process or not at all: where the mark is there and no result, and
// nobody moves it, its mover is lost. Our end of its pipe stays open until the
// result says done on disk, or else until the attempt's folder is gone: a
// container never takes a part for the whole. An upload begins as one when all of
// it is spooled; from then on it is gone on with like any other.
//
// The step hold keeps our ends of an attempt's named pipes open beside the
// executor, until the attempt's folder is gone or its life has gone on. A
// transfer that starts holds what the journal says before it does anything else.
//
// The journal may have steps of another installation, whose NATS this process spoke
// to before. Ours knows no life of theirs, so they and their folders are left alone,
// and their pipes held until their folder is gone.
package service
