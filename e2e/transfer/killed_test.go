package transfer

import (
	"net/url"
	"strconv"
	"testing"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/e2e/setup"
)

// TestABigFileIsNotMovedTwice kills transfer in the middle of a download of 1 GiB
// and of its upload again: both go on where they stopped, and the task notices
// nothing. The gate sees to it that neither is complete when the kill comes.
func TestABigFileIsNotMovedTwice(t *testing.T) {
	t.Parallel()
	g := start(t, setup.Config{Gate: true})
	file, result := addFile(g, "big.tif", gibibyte), g.Girder.Item("result")
	task := g.Shell(`stat -c %s "$1"`, &contracts.GirderFile{ID: file.ID, Filename: "big.tif"})
	task.Outputs = []contracts.Output{setup.UploadTo(result, "big.tif")}
	task.Girder = g.Girder.Of("a big file")

	g.Gate.Answers.HoldAt(700 * mebibyte)
	g.Gate.Requests.HoldAt(700 * mebibyte)
	job := g.MustSubmit(task)
	kill := func(flow *setup.Flow, what string) {
		flow.Await(g.Context(), 400*mebibyte)
		checkMemory(g, "in the middle of the "+what)
		g.Services[setup.Transfer].Kill()
		flow.Open()
		g.Services[setup.Transfer].Start()
	}
	kill(g.Gate.Answers, "download")
	g.AwaitEntry(job, contracts.EntryStarted, 1)
	checkMemory(g, "after the rest of the download")
	kill(g.Gate.Requests, "upload")

	g.AwaitSuccess(job)
	checkMemory(g, "after the rest of the upload")
	if types := g.Types(job); types != "submitted queued claimed started pushing pushed succeeded" {
		t.Errorf("life: %s", types)
	}
	checkGoesOn(t, g, "GET", "/file/"+file.ID+"/download")
	checkGoesOn(t, g, "POST", "/file/chunk")
	for what, flow := range map[string]*setup.Flow{"down": g.Gate.Answers, "up": g.Gate.Requests} {
		t.Logf("%d MiB went %s", flow.Passed()/mebibyte, what)
		if passed := flow.Passed(); passed < gibibyte-10*mebibyte || passed > gibibyte+gibibyte/4 {
			t.Errorf("%d bytes went %s for %d", passed, what, gibibyte)
		}
	}
	if begun := asked(g, "POST", "/file"); len(begun) != 1 {
		t.Errorf("uploads were begun with %+v", begun)
	}
	if files := g.Girder.Files(result.ID); len(files) != 1 || files[0].SHA512 != file.SHA512 || files[0].Size != gibibyte {
		t.Errorf("in Girder are %+v, want one file with checksum %s", files, file.SHA512)
	}
	if all, _ := g.JobLog(job); all != "1073741824\n" {
		t.Errorf("the container's log is %q", all)
	}
}

// checkGoesOn wants no request before the one that came earlier, and one that
// begins far in the file.
func checkGoesOn(t *testing.T, g *setup.Gantry, method, path string) {
	t.Helper()
	last, far := int64(-1), false
	for _, r := range asked(g, method, path) {
		query, err := url.ParseQuery(r.Query)
		if err != nil {
			t.Fatal(err)
		}
		offset, err := strconv.ParseInt("0"+query.Get("offset"), 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		if offset < last {
			t.Errorf("%s %s goes back from %d to %d", method, path, last, offset)
		}
		far = far || offset > 256*mebibyte
		last = offset
	}
	if !far {
		t.Errorf("%s %s began again", method, path)
	}
}
