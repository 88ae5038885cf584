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
// ending, is dropped. A revoke aborts the running steps of its job at once. An
// upload that was cut short is canceled in Girder, also after a crash: its id
// stands in steps/<step>.upload until it has ended.
package service
