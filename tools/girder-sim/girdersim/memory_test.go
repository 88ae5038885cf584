package girdersim

import (
	"fmt"
	"io"
	"net/http"
	"net/url"
	"runtime"
	"testing"
)

// TestFlatMemory moves far more bytes than may be allocated on the way. It is
// not parallel, so that nothing else allocates meanwhile.
func TestFlatMemory(t *testing.T) {
	const size, allowed = 96 << 20, 12 << 20
	b := newBench(t, Options{})
	query := url.Values{
		"parentType": {"folder"}, "parentId": {b.sim.Folders(b.owner.ID)[0].ID},
		"name": {"large"}, "size": {fmt.Sprint(size)}, "token": {b.token},
	}
	before := allocated()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, b.sim.APIURL()+"/file?"+query.Encode(), io.LimitReader(endless('x'), size))
	if err != nil {
		t.Fatal(err)
	}
	req.ContentLength = size
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	_, doc := answer(t, resp)
	resp, err = http.Get(b.sim.APIURL() + "/file/" + fmt.Sprint(doc["_id"]) + "/download?token=" + b.token)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if n, err := io.Copy(io.Discard, resp.Body); n != size || err != nil {
		t.Fatalf("downloaded %d bytes: %v", n, err)
	}
	if used := allocated() - before; used > allowed {
		t.Errorf("%d bytes allocated to move %d", used, size)
	}
}

func allocated() uint64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.TotalAlloc
}
