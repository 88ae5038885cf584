package girdersim

import (
	"crypto/sha512"
	"encoding/hex"
	"encoding/json"
	"net/http"
	"strings"
	"testing"
)

// TestHashsums reads a file's document, alone and in a list, where checksums are
// switched on and where they are not.
func TestHashsums(t *testing.T) {
	t.Parallel()
	for _, on := range []bool{true, false} {
		sim := start(t, Options{Hashsums: on})
		alice, err := sim.CreateUser("alice", "password")
		if err != nil {
			t.Fatal(err)
		}
		folder, err := sim.CreateFolder(alice.ID, "data", true)
		if err != nil {
			t.Fatal(err)
		}
		item, err := sim.CreateItem(folder.ID, "item")
		if err != nil {
			t.Fatal(err)
		}
		file, err := sim.AddFile(item.ID, "name", strings.NewReader("content"))
		if err != nil {
			t.Fatal(err)
		}
		type document struct {
			SHA512 string `json:"sha512"`
		}
		var one document
		var list []document
		for path, doc := range map[string]any{"/file/" + file.ID: &one, "/item/" + item.ID + "/files": &list} {
			req, err := http.NewRequestWithContext(t.Context(), "GET", sim.APIURL()+path, nil)
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("Girder-Token", userToken(t, sim, alice.ID))
			resp, err := http.DefaultClient.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			if err := json.NewDecoder(resp.Body).Decode(doc); err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
		}
		want := ""
		if on {
			sum := sha512.Sum512([]byte("content"))
			want = hex.EncodeToString(sum[:])
		}
		if len(list) != 1 || one.SHA512 != want || list[0].SHA512 != want {
			t.Errorf("switched on %v: %q, %+v", on, one.SHA512, list)
		}
	}
}
