// Package girder is a client of Girder's REST interface: the calls that the
// services need, with typed ids, typed errors and retries.
//
// A [Client] speaks for one token at one API URL. A [JobClient] speaks for one
// job, with the URL and headers that Girder hands out for it. Both are safe
// for use by several goroutines at once. Users declare the small interface of
// the calls they make and take one of these as its implementation.
//
// What fails is one of three things. An [*Error] is an answer of Girder that
// refuses the request; errors.Is tells its class ([ErrForbidden],
// [ErrNotFound], and so on). An [*Unreachable] means that no complete answer
// arrived, or one that something on the way has cut, corrupted or made up.
// Anything else is the caller's context or a mistake in the request.
// [IsTemporary] says whether trying again can help. Where the way to Girder itself
// is wrong, its certificate, ours or a proxy, there is a [*SessionError] in it.
//
// Requests that may be repeated without harm (reads, cancels of uploads, and job updates whose
// caller says so) are retried as [Retry] says. The others are sent once, since
// an unknown finish is for the caller to resolve: by asking for the offset of
// an upload, or by reading the job's log.
//
// The token travels as a header, to the host of the API URL and to no other,
// and never appears in an error. Girder may redirect downloads to an object store:
// what that one refuses is an [ErrElsewhere] that names it.
//
// A service has one [Clients], which reaches each Girder as the task's session
// says, and one [Traffic], which keeps all of them within the operator's bounds.
package girder
