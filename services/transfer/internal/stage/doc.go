// Package stage moves whole files between Girder and a volume on this node:
// [In] brings a file, an item or a folder to a volume, [Out] puts a file or a
// folder into an item or a folder, or attaches it to a job.
//
// Both go on until they are done, their context ends, or the error cannot be
// mended by trying again. A broken download goes on behind what is on disk, a
// broken upload behind what Girder says that it has. Several files of a folder
// are on their way at a time. Neither holds more than some buffers and the list
// of one folder in memory.
//
// What a process must know to go on with the work of one that died is its
// [Memory], which grows by a [Note] before each thing that a crash would leave
// half done, for each file that is on its way. A download goes on with its
// temporary file, an upload behind what Girder has of it; one whose last answer
// was lost is found in the item, or in the folder by name, size, time and
// contents.
//
// Room for a file is set aside before its first byte, and a full disk ends a
// step with nothing left behind. A large file is received, written and hashed at
// the same time; a little one of many is received first, and written when it is
// what Girder says. What several steps of a task want, at once or later, is fetched
// once and copied, and with a cache by all tasks of the node: see [Fetches].
//
// No name from Girder leads outside the volume, and no symbolic link on it is
// followed; pipes, sockets and devices are not opened. A staged file appears
// under its name only when all of it is there; an upload that ends early is
// canceled in Girder.
//
// [IsFailure] tells what the task is to blame for from what it is not.
package stage
