// Package engine is the boundary to the container engine: what an attempt may
// ask of it, in words that no engine's own types leak into.
//
// The life of one attempt, in order:
//
//	image, err := images.Ensure(ctx, ref, policy, progress) // present, pulled if the policy says so
//	id, err := eng.Create(ctx, spec)                        // the image has to be there
//	run, err := eng.Run(ctx)                                // of the engine, for whoever may adopt the container
//	err = eng.Start(ctx, id)
//	go eng.Logs(ctx, id, position, emit)                    // every byte, from the first one on
//	exit, err := eng.Wait(ctx, id, run)
//	err = eng.Remove(cleanup, id)
//
// What the task did is an [Exit]; what stood in its way is an error, and
// [IsInfrastructure] tells whose fault that is: the task's own (no such image,
// no such program), or ours (engine, network, disk), which is worth another try
// elsewhere.
//
// An engine may lock up, and neither take a call nor refuse it: [Watched] finds
// that out, and has everybody wait.
//
// Package docker implements the interface for a Docker engine, package fake in
// memory, and package enginetest holds the suite that both have to pass.
package engine
