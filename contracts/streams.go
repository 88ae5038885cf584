package contracts

import "time"

// Names of the streams.
const (
	StreamSubmit    = "TASKS_SUBMIT"
	StreamReady     = "TASKS_READY"
	StreamLater     = "TASKS_LATER"
	StreamRevoke    = "TASKS_REVOKE"
	StreamDead      = "TASKS_DEAD"
	StreamTransfers = "TRANSFERS"
	StreamJobs      = "JOBS"
	StreamLive      = "LIVE"
)

// Stream declares one stream of the topology, in no transport's types.
type Stream struct {
	Name     string
	Subjects []string
	// WorkQueue removes a message when it is acknowledged; otherwise it stays
	// until a limit.
	WorkQueue bool
	// DiscardNew refuses a new message where a limit is met; otherwise the
	// oldest goes.
	DiscardNew bool
	// MaxMsgSize and MaxBytes are in bytes, 0 for no limit.
	MaxMsgSize int32
	MaxBytes   int64
	// MaxPerSubject is the number of messages kept on each subject, 0 for all.
	MaxPerSubject int64
	// MaxAge is 0 for ever.
	MaxAge time.Duration
	// Schedules allows message schedules.
	Schedules bool
}

// Streams declares every stream. Reads come from the leader: none has direct get.
var Streams = []Stream{
	{
		Name: StreamSubmit, Subjects: []string{SubmitAny, SubmitQueues},
		WorkQueue: true, DiscardNew: true, MaxMsgSize: MaxTaskSize, MaxBytes: 1 << 30,
	},
	{Name: StreamReady, Subjects: []string{ReadyAll}, WorkQueue: true},
	{Name: StreamLater, Subjects: []string{LaterAll, DueAll}, WorkQueue: true, Schedules: true},
	{Name: StreamRevoke, Subjects: []string{RevokeAll}, MaxPerSubject: 1, MaxAge: 7 * 24 * time.Hour},
	{Name: StreamDead, Subjects: []string{DeadAll}, MaxAge: 30 * 24 * time.Hour, MaxBytes: 1 << 30},
	{Name: StreamTransfers, Subjects: []string{TransferAll}, WorkQueue: true},
	{Name: StreamJobs, Subjects: []string{JobsAll}},
	{
		Name: StreamLive, Subjects: []string{LogsAll, NotesAll},
		MaxAge: 30 * 24 * time.Hour, MaxBytes: 16 << 30,
	},
}

// Names of the buckets.
const (
	BucketJobs    = "jobs"
	BucketNodes   = "nodes"
	BucketSecrets = "secrets"
	// BucketInstallation keeps the installation's id under the key
	// [InstallationKey]: a wiped store never claims old containers.
	BucketInstallation = "installation"
)

// InstallationKey is the key of the installation's id.
const InstallationKey = "id"

// Bucket declares one key-value bucket.
type Bucket struct {
	Name string
	// PerKeyTTL allows keys that expire unless renewed.
	PerKeyTTL bool
}

// Buckets declares every bucket; each keeps one value per key.
var Buckets = []Bucket{
	{Name: BucketJobs},
	{Name: BucketNodes, PerKeyTTL: true},
	{Name: BucketSecrets},
	{Name: BucketInstallation},
}

// Consumer declares a durable pull consumer. There is no limit on deliveries
// and none on messages that wait for their acknowledgement.
type Consumer struct {
	Stream  string
	Durable string
	Filters []string
	// AckWait is the lease: a message that is not acknowledged or reported in
	// progress for that long is delivered again.
	AckWait time.Duration
}

// AckWait is the lease of every consumer.
const AckWait = 30 * time.Second

// MaxWaiting is the number of pulls that may wait at a consumer of ready
// messages.
const MaxWaiting = 8192

// SubmitConsumer is shared by all dispatchers.
var SubmitConsumer = Consumer{Stream: StreamSubmit, Durable: "dispatcher", Filters: []string{SubmitAny, SubmitQueues}, AckWait: AckWait}

// DueConsumer is shared by all dispatchers. Nothing ever consumes the
// schedules themselves.
var DueConsumer = Consumer{Stream: StreamLater, Durable: "dispatcher", Filters: []string{DueAll}, AckWait: AckWait}

// ProjectionConsumer belongs to the active job-tracker.
var ProjectionConsumer = Consumer{Stream: StreamJobs, Durable: "job-tracker", Filters: []string{JobsAll}, AckWait: AckWait}

// ReadyConsumer is shared by all executors of one kind that serve a queue. The
// dispatcher creates it, nobody else.
func ReadyConsumer(lane Lane, queue Queue, kind Kind) Consumer {
	return Consumer{
		Stream:  StreamReady,
		Durable: string(lane) + "-" + string(queue) + "-" + string(kind),
		Filters: []string{ReadyFilter(lane, queue, kind)},
		AckWait: AckWait,
	}
}

// TransferConsumer belongs to the transfer of one node, which creates it.
func TransferConsumer(node NodeID) Consumer {
	return Consumer{Stream: StreamTransfers, Durable: string(node), Filters: []string{TransferFilter(node)}, AckWait: AckWait}
}
