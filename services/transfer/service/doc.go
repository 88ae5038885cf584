// Package service is transfer: it moves bytes between Girder and the volumes
// of its node, so that executors need neither Girder nor its tokens.
//
// An executor publishes a step, transfer does it, writes the result into the
// attempt's folder as steps/<step>.json and says so with a note. The file is
// the answer; the note only saves waiting. A step that is asked for again, or
// delivered again after a crash, is answered from its file.
//
// Before a step begins, and now and then while it runs, the job's life is
// read: a step of an attempt that is not the current one, or of a job that is
// ending, is dropped. A revoke aborts the running steps of its job at once.
//
// A step that has begun stands in the journal until nothing of it is left to be
// done. What this process does not finish, being stopped or killed, the next
// one goes on with at its start: half a file on the volume, half an upload in
// Girder, an upload whose last answer nobody heard. The journal has one owner;
// a second transfer in the same work folder waits for the first one's end.
//
// The step hold keeps our ends of an attempt's named pipes open beside the
// executor, until the attempt's folder is gone or its life has gone on. A
// transfer that starts holds what the journal says before it does anything else.
package service
