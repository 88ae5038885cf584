// Package transfer has the tests of moving bytes between Girder and a node that
// only real processes can show: big files whose mover is killed, memory, disks
// that are full, sessions, names, and what people see of all that meanwhile.
package transfer
