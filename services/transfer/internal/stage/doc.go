// Package stage moves whole files between Girder and a volume on this node:
// [In] brings one file to a path on a volume, [Out] puts a file, or the files
// of a folder, into an item.
//
// Both go on until they are done, their context ends, or the error cannot be
// mended by trying again. A broken download goes on behind what is on disk, a
// broken upload behind what Girder says that it has. Neither holds more than a
// buffer in memory.
//
// No name from Girder and no symbolic link on the volume leads outside it. A
// staged file appears under its name only when all of it is there; an upload
// that ends early is canceled in Girder.
//
// [IsFailure] tells what the task is to blame for from what it is not.
package stage
