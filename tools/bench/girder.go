package main

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"

	"golang.org/x/sys/unix"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/tools/girder-sim/girdersim"
)

// girder is a girder-sim in this process with a user, a token and a folder.
type girder struct {
	sim    *girdersim.Server
	assets string // folder of the files' bytes
	token  string
	folder girdersim.Folder
	random *rand.ChaCha8 // what files consist of
}

// memoryDisk is a file system in memory, where there is one.
const memoryDisk = "/dev/shm"

// startGirder starts one that keeps its documents in memory, and its files' bytes
// too where there is room for so many: what is measured is the node's disk, not
// Girder's.
func startGirder(size int64) (*girder, error) {
	assets, err := assetFolder(size)
	if err != nil {
		return nil, err
	}
	sim, err := girdersim.Start(girdersim.Options{Assets: assets})
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(assets))
	}
	g := &girder{sim: sim, assets: assets, random: rand.NewChaCha8([32]byte{})}
	if err := g.seed(); err != nil {
		return nil, errors.Join(err, g.close())
	}
	return g, nil
}

func assetFolder(size int64) (string, error) {
	in := ""
	var disk unix.Statfs_t
	if err := unix.Statfs(memoryDisk, &disk); err == nil && int64(disk.Bavail)*disk.Bsize > size {
		in = memoryDisk
	}
	return os.MkdirTemp(in, "gantry-bench-girder-")
}

func (g *girder) seed() error {
	user, err := g.sim.CreateUser("bench", "bench-password")
	if err != nil {
		return err
	}
	if g.token, err = g.sim.UserToken(user.ID, girdersim.ScopeUser); err != nil {
		return err
	}
	g.folder, err = g.sim.CreateFolder(user.ID, "bench", false)
	return err
}

func (g *girder) close() error { return errors.Join(g.sim.Close(), os.RemoveAll(g.assets)) }

// access is what a task says of it.
func (g *girder) access() *contracts.Girder {
	return &contracts.Girder{APIURL: g.sim.APIURL(), Token: contracts.Secret(g.token)}
}

func (g *girder) download(file string) string { return g.sim.APIURL() + "/file/" + file + "/download" }

// item makes an item without files.
func (g *girder) item() (girdersim.Item, error) { return g.sim.CreateItem(g.folder.ID, "bench") }

// bigFile makes a file and returns its id.
func (g *girder) bigFile(size int64) (string, error) {
	item, err := g.item()
	if err != nil {
		return "", err
	}
	file, err := g.sim.AddFile(item.ID, "big", g.bytes(size))
	return file.ID, err
}

// smallFile makes a file in an item of its name.
func (g *girder) smallFile(folder, name string) (string, error) {
	item, err := g.sim.CreateItem(folder, name)
	if err != nil {
		return "", err
	}
	file, err := g.sim.AddFile(item.ID, name, g.bytes(smallSize))
	return file.ID, err
}

// bytes are new ones each time.
func (g *girder) bytes(size int64) io.Reader { return io.LimitReader(g.random, size) }

// smallSize is how long a small file is.
const smallSize = 4 << 10

// smallName is the name of the small file i, in the order of their numbers.
func smallName(i int) string { return fmt.Sprintf("%05d.bin", i) }
