package transfer

import (
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/e2e/setup"
	"github.com/gantry-worker/gantry/tools/girder-sim/girdersim"
)

// TestFilesBehindARedirectComeWholeAndWithoutTheToken: Girder keeps its bytes in
// an object store, which refuses whoever shows it a token, knows no offset but
// a range, and breaks the first connections off.
func TestFilesBehindARedirectComeWholeAndWithoutTheToken(t *testing.T) {
	t.Parallel()
	const size, cut = 16 * mebibyte, 5 * mebibyte
	g := start(t, setup.Config{Girder: girdersim.Options{ObjectStore: &girdersim.ObjectStore{}}})
	file, sum := addFile(g, "elsewhere", size), sumOf(t, "elsewhere", size)
	var broken atomic.Int32
	g.Girder.SetFault(func(r *http.Request) *girdersim.Fault {
		if strings.HasPrefix(r.URL.Path, "/api/") || broken.Add(1) > 2 {
			return nil
		}
		return &girdersim.Fault{CutAfter: cut}
	})
	task := g.Shell(`for f in "$@"; do sha256sum < "$f" | cut -d ' ' -f 1; done`, &contracts.GirderFile{ID: file.ID},
		&contracts.Connect{
			Input:  contracts.Endpoint{Transform: &contracts.GirderFileStream{ID: file.ID}},
			Output: contracts.Endpoint{Transform: &contracts.NamedInputPipe{Name: "in"}},
		})
	task.Girder = g.Girder.Of("elsewhere")
	saw(g, g.MustSubmit(task), sum+"\n"+sum)
	sent, ranged := int64(0), 0
	for _, r := range g.Girder.Requests() {
		if !r.ObjectStore {
			continue
		}
		sent += r.Sent
		if strings.HasPrefix(r.Range, "bytes=") && r.Range != "bytes=0-" {
			ranged++
		}
		if r.Status != http.StatusOK && r.Status != http.StatusPartialContent {
			t.Errorf("the object store answered %+v", r)
		}
	}
	if ranged < 2 || sent >= 2*size+cut {
		t.Errorf("%d bytes were sent for %d, and %d requests went on where one was broken off", sent, 2*size, ranged)
	}
}
