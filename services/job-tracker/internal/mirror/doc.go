// Package mirror keeps Girder's jobs true: status, log and progress of every
// job that has one.
//
// A [Manager] watches the projection and runs a goroutine for each job whose
// mirror is not done. That goroutine first attaches: it creates the Girder job
// or takes over the one that exists. Then it follows the job's life, and while
// an attempt runs also its log and notes, and sends what is new. In the end it
// sends all of the log, then the terminal status, and says in the projection
// that the mirror is done. Secrets are deleted after that.
//
// What Girder has is never guessed. A status may be sent twice, and a refused
// one is decided anew on the job as it is. A piece of log is sent once; where
// the outcome is not known, the log in Girder tells. A cursor in the projection
// says which piece of the job's log is the last that Girder has for certain; a
// mirror that starts, makes the text behind it again and goes on behind what is
// there.
//
// Girder may be slow or down: requests are tried again for as long as Patience
// says, at most a few at a time for each host, and no job waits for another.
package mirror
