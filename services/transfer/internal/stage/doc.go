// Package stage moves whole files between Girder and a volume on this node:
// [In] brings one file to a path on a volume, [Out] puts a file, or the files
// of a folder, into an item.
//
// Both go on until they are done, their context ends, or the error cannot be
// mended by trying again. A broken download goes on behind what is on disk, a
// broken upload behind what Girder says that it has. Neither holds more than a
// buffer in memory.
//
// What a process must know to go on with the work of one that died is its
// [Memory], which grows by a [Note] before each thing that a crash would leave
// half done. A download goes on with its temporary file, an upload behind what
// Girder has of it; one whose last answer was lost is found in the item.
//
// No name from Girder and no symbolic link on the volume leads outside it. A
// staged file appears under its name only when all of it is there; an upload
// that ends early is canceled in Girder.
//
// [IsFailure] tells what the task is to blame for from what it is not.
package stage
