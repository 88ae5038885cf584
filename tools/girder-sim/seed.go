package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/gantry-worker/gantry/tools/girder-sim/girdersim"
)

const (
	demoLogin    = "demo"
	demoPassword = "demo-password"
)

// demo is what a seeded server offers, as printed.
type demo struct {
	APIURL           string `json:"api_url"`
	Login            string `json:"login"`
	Password         string `json:"password"`
	UserID           string `json:"user_id"`
	UserToken        string `json:"user_token"`
	DataToken        string `json:"data_token"`
	JobCreationToken string `json:"job_creation_token"`
	FolderID         string `json:"folder_id"`
	ItemID           string `json:"item_id"`
}

// seed prints the demo's ids and tokens. With a folder they are made once and
// kept there, so that a restart prints the same.
func seed(sim *girdersim.Server, dir string, stdout io.Writer) error {
	d, err := load(dir)
	if errors.Is(err, fs.ErrNotExist) {
		d, err = create(sim)
		err = errors.Join(err, keep(dir, d))
	}
	if err != nil {
		return err
	}
	d.APIURL = sim.APIURL()
	out := json.NewEncoder(stdout)
	out.SetIndent("", "  ")
	return out.Encode(d)
}

func path(dir string) string { return filepath.Join(dir, "seed.json") }

func load(dir string) (d demo, err error) {
	if dir == "" {
		return d, fs.ErrNotExist
	}
	text, err := os.ReadFile(path(dir))
	if err != nil {
		return d, err
	}
	return d, json.Unmarshal(text, &d)
}

func keep(dir string, d demo) error {
	if dir == "" {
		return nil
	}
	text, err := json.Marshal(d)
	if err != nil {
		return err
	}
	temporary := path(dir) + ".new"
	if err := os.WriteFile(temporary, text, 0o600); err != nil {
		return err
	}
	return os.Rename(temporary, path(dir))
}

// create makes the demo. A user left by a start that ended in the middle is
// taken over; folder and item are then made anew beside the old ones.
func create(sim *girdersim.Server) (demo, error) {
	user, err := sim.FindUser(demoLogin)
	if errors.Is(err, girdersim.ErrNotFound) {
		user, err = sim.CreateUser(demoLogin, demoPassword)
	}
	if err != nil {
		return demo{}, err
	}
	d := demo{Login: demoLogin, Password: demoPassword, UserID: user.ID}
	if err := d.addTokens(sim); err != nil {
		return demo{}, err
	}
	folder, err := demoFolder(sim, user.ID)
	if err != nil {
		return demo{}, err
	}
	item, err := sim.CreateItem(folder.ID, "Demo item")
	if err != nil {
		return demo{}, err
	}
	d.FolderID, d.ItemID = folder.ID, item.ID
	return d, nil
}

func (d *demo) addTokens(sim *girdersim.Server) error {
	wanted := []struct {
		token  *string
		scopes []string
	}{
		{&d.UserToken, []string{girdersim.ScopeUser}},
		{&d.DataToken, []string{girdersim.ScopeDataRead, girdersim.ScopeDataWrite}},
		{&d.JobCreationToken, []string{girdersim.ScopeCreateJob}},
	}
	for _, w := range wanted {
		token, err := sim.UserToken(d.UserID, w.scopes...)
		if err != nil {
			return err
		}
		*w.token = token
	}
	return nil
}

func demoFolder(sim *girdersim.Server, userID string) (girdersim.Folder, error) {
	const name = "Demo"
	for _, f := range sim.Folders(userID) {
		if f.Name == name {
			return f, nil
		}
	}
	folder, err := sim.CreateFolder(userID, name, false)
	if err != nil {
		return girdersim.Folder{}, fmt.Errorf("create demo folder: %w", err)
	}
	return folder, nil
}
