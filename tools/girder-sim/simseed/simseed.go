// Package simseed gives a girder-sim something to work with: a user, a folder,
// an item, and the tokens that tasks need. They are made once and kept beside
// the simulator's data, so that a restart finds the same.
package simseed

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/gantry-worker/gantry/tools/girder-sim/girdersim"
)

const (
	login      = "demo"
	password   = "demo-password"
	folderName = "Demo"
	itemName   = "Results"
)

// Seed is what a seeded simulator offers.
type Seed struct {
	APIURL   string `json:"api_url"`
	Login    string `json:"login"`
	Password string `json:"password"`
	UserID   string `json:"user_id"`
	// UserToken is what a login gives, DataToken reads and writes data,
	// JobCreationToken creates jobs.
	UserToken        string `json:"user_token"`
	DataToken        string `json:"data_token"`
	JobCreationToken string `json:"job_creation_token"`
	FolderID         string `json:"folder_id"`
	ItemID           string `json:"item_id"`
}

// Path is where the seed of a simulator with its data in dir is kept.
func Path(dir string) string { return filepath.Join(dir, "seed.json") }

// Plant returns the seed of a simulator that keeps its data in dir, made if
// there is none. With an empty dir it is made and not kept.
func Plant(sim *girdersim.Server, dir string) (Seed, error) {
	seed, err := load(dir)
	if errors.Is(err, fs.ErrNotExist) {
		seed, err = create(sim)
	}
	if err != nil {
		return Seed{}, fmt.Errorf("seed girder-sim: %w", err)
	}
	seed.APIURL = sim.APIURL()
	return seed, keep(dir, seed)
}

func load(dir string) (Seed, error) {
	var seed Seed
	if dir == "" {
		return seed, fs.ErrNotExist
	}
	data, err := os.ReadFile(Path(dir))
	if err != nil {
		return seed, err
	}
	return seed, json.Unmarshal(data, &seed)
}

func keep(dir string, seed Seed) error {
	if dir == "" {
		return nil
	}
	data, err := json.MarshalIndent(seed, "", "  ")
	if err != nil {
		return fmt.Errorf("keep seed: %w", err)
	}
	temporary := Path(dir) + ".new"
	if err := os.WriteFile(temporary, append(data, '\n'), 0o600); err != nil {
		return fmt.Errorf("keep seed: %w", err)
	}
	return os.Rename(temporary, Path(dir))
}

// create makes the seed. A user of an earlier start that broke off is taken
// over, and so is the folder.
func create(sim *girdersim.Server) (Seed, error) {
	user, err := sim.FindUser(login)
	if errors.Is(err, girdersim.ErrNotFound) {
		user, err = sim.CreateUser(login, password)
	}
	if err != nil {
		return Seed{}, err
	}
	seed := Seed{Login: login, Password: password, UserID: user.ID}
	for token, scopes := range map[*string][]string{
		&seed.UserToken:        {girdersim.ScopeUser},
		&seed.DataToken:        {girdersim.ScopeDataRead, girdersim.ScopeDataWrite},
		&seed.JobCreationToken: {girdersim.ScopeCreateJob},
	} {
		if *token, err = sim.UserToken(user.ID, scopes...); err != nil {
			return Seed{}, err
		}
	}
	folder, err := findFolder(sim, user.ID)
	if err != nil {
		return Seed{}, err
	}
	item, err := sim.CreateItem(folder.ID, itemName)
	if err != nil {
		return Seed{}, err
	}
	seed.FolderID, seed.ItemID = folder.ID, item.ID
	return seed, nil
}

func findFolder(sim *girdersim.Server, userID string) (girdersim.Folder, error) {
	for _, folder := range sim.Folders(userID) {
		if folder.Name == folderName {
			return folder, nil
		}
	}
	return sim.CreateFolder(userID, folderName, false)
}
