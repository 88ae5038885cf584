// Package girdersim is a small Girder server for demos and tests.
//
// It answers the part of Girder's REST interface that a remote worker and its
// clients use: users and tokens, folders, items, files with uploads in chunks
// and ranged downloads, and jobs with Girder's status transitions, cancel rules
// and log limits. Where Girder is odd, the simulator is odd in the same way: an
// unknown token acts as anonymous, a range that cannot be satisfied yields the
// whole file, errors outside the handlers are HTML. Its answers are tested
// against exchanges recorded from a real server.
//
// A test starts one server, prepares state through the methods of [Server]
// (which are what Girder's own server code would do), and points the code under
// test at [Server.APIURL]:
//
//	sim, err := girdersim.Start(girdersim.Options{})
//	defer sim.Close()
//	alice, err := sim.CreateUser("alice", "password")
//	job, err := sim.CreateJob(girdersim.JobSpec{Title: "demo", UserID: alice.ID})
//	// … the worker updates the job with job.Token …
//	done, err := sim.AwaitJob(ctx, job.ID, func(j girdersim.Job) bool { return j.Status == girdersim.Success })
//
// Documents live in memory. With [Options.Dir] they are also written to that
// folder, one file each, and are there after a restart. Bytes of files are
// always streamed to disk: to that folder, or to a temporary one that Close
// removes. [Server.SetFault], [Server.Down] and [Server.Up] make it misbehave.
package girdersim
