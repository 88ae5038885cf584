// Package contracts is what goes over the wire between Gantry's services and
// its clients, and nothing else: the task specification, the entries of a
// job's life, notes, log and revoke messages, the steps that executors ask of
// transfer, Girder's job statuses, and the subjects and streams that carry
// them.
//
// The story in order. A client publishes a [Task] to [SubmitSubject]. The
// dispatcher decodes it ([DecodeTask]), takes its secrets out
// ([Task.Redact]) and starts the job's life, one subject per job
// ([LifeSubject]) on which every [Entry] is published on top of the entry that
// its author decided on. [CheckNext] is the one place that says which entry
// may follow which. An executor claims the job, asks transfer for its data
// with a [Step], ships its log as [LogChunk] and its progress as [Note], and
// writes exactly one terminal entry. job-tracker projects all of it into a
// [Job], which is what people see.
//
// Folder schema has a JSON Schema of each message, generated from these types
// and their comments (go generate), and testdata a golden message of each type.
//
// The package depends on no transport: package contracts/client speaks NATS.
package contracts

//go:generate go run ./internal/schemagen schema

// Version is the value of the field "version" in every message of this
// package. It changes only when an old reader would misread a message.
const Version = 1
