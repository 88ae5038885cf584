package girdersim

import (
	"io"
	"net/http"
	"strings"
	"testing"
)

// TestAnAnswerThatArrivedIsInTheLog: whoever has an answer can look at what was
// asked at once.
func TestAnAnswerThatArrivedIsInTheLog(t *testing.T) {
	t.Parallel()
	b := newBench(t, Options{})
	i := must[Item](t)(b.sim.CreateItem(b.sim.Folders(b.owner.ID)[0].ID, "item"))
	for _, size := range []int{0, 1, 2, 2048, 4096, 200000} {
		content := strings.Repeat("x", size)
		f := must[File](t)(b.sim.AddFile(i.ID, "f", strings.NewReader(content)))
		for range 50 {
			b.sim.ForgetRequests()
			resp, err := http.Get(b.sim.APIURL() + "/file/" + f.ID + "/download?token=" + b.token)
			if err != nil {
				t.Fatal(err)
			}
			got, err := io.ReadAll(resp.Body)
			noted := b.sim.Requests()
			resp.Body.Close()
			if err != nil || string(got) != content {
				t.Fatalf("%d bytes of %d, %v", len(got), size, err)
			}
			if len(noted) != 1 || noted[0].Sent != int64(size) || noted[0].Status != http.StatusOK {
				t.Fatalf("%d bytes arrived, noted is %+v", size, noted)
			}
		}
	}
}
