package contracts

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/go-json-experiment/json"
)

// girderContract returns the folder of the exchanges recorded with Girder: what
// GIRDER_CONTRACT names, or shared/girder-contract in a folder above.
func girderContract(t *testing.T) string {
	t.Helper()
	if folder := os.Getenv("GIRDER_CONTRACT"); folder != "" {
		return folder
	}
	folder, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for {
		candidate := filepath.Join(folder, "shared", "girder-contract")
		if _, err := os.Stat(candidate); err == nil {
			return candidate
		}
		parent := filepath.Dir(folder)
		if parent == folder {
			t.Skip("no recorded exchanges: GIRDER_CONTRACT is not set and no folder above has shared/girder-contract")
		}
		folder = parent
	}
}

func TestGirderAllowsWhatGirderAccepted(t *testing.T) {
	t.Parallel()
	data, err := os.ReadFile(filepath.Join(girderContract(t), "matrices", "job-transitions.json"))
	if err != nil {
		t.Fatal(err)
	}
	var matrix struct {
		Rows []struct {
			Handler  *GirderHandler
			From, To GirderStatus
			HTTP     int
		}
	}
	if err := json.Unmarshal(data, &matrix, json.MatchCaseInsensitiveNames(true)); err != nil {
		t.Fatal(err)
	}
	if len(matrix.Rows) != 484 {
		t.Fatalf("%d changes were recorded, want 484", len(matrix.Rows))
	}
	for _, row := range matrix.Rows {
		var handler GirderHandler
		if row.Handler != nil {
			handler = *row.Handler
		}
		if got := GirderAllows(handler, row.From, row.To); got != (row.HTTP == 200) {
			t.Errorf("handler %q: %v to %v allowed: %t, Girder answered %d", handler, row.From, row.To, got, row.HTTP)
		}
	}
}

var girderHandlers = []GirderHandler{HandlerCelery, HandlerWorker, "my_handler", ""}

func TestGirderPath(t *testing.T) {
	t.Parallel()
	const other GirderHandler = "my_handler"
	for _, test := range []struct {
		handler  GirderHandler
		from, to GirderStatus
		want     []GirderStatus
	}{
		{HandlerCelery, GirderInactive, GirderInactive, nil},
		{HandlerCelery, GirderInactive, GirderRunning, []GirderStatus{GirderRunning}},
		{HandlerCelery, GirderInactive, GirderSuccess, []GirderStatus{GirderRunning, GirderSuccess}},
		{HandlerCelery, GirderInactive, GirderError, []GirderStatus{GirderRunning, GirderError}},
		{HandlerCelery, GirderInactive, GirderCanceled, []GirderStatus{GirderCanceled}},
		{HandlerCelery, GirderCanceling, GirderCanceled, []GirderStatus{GirderCanceled}},
		{HandlerCelery, GirderCanceling, GirderSuccess, nil},
		{HandlerCelery, GirderSuccess, GirderError, nil},
		{HandlerCelery, GirderCanceled, GirderRunning, nil},
		{HandlerCelery, GirderFetchingInput, GirderCanceled, []GirderStatus{GirderRunning, GirderCanceled}},
		{HandlerWorker, GirderInactive, GirderRunning, []GirderStatus{GirderQueued, GirderRunning}},
		{HandlerWorker, GirderInactive, GirderSuccess, []GirderStatus{GirderQueued, GirderRunning, GirderSuccess}},
		{HandlerWorker, GirderInactive, GirderError, []GirderStatus{GirderQueued, GirderError}},
		{HandlerWorker, GirderInactive, GirderCanceled, []GirderStatus{GirderQueued, GirderCanceled}},
		{other, GirderInactive, GirderError, []GirderStatus{GirderRunning, GirderError}},
		{other, GirderRunning, GirderCanceling, nil},
	} {
		if got := GirderPath(test.handler, test.from, test.to); !slices.Equal(got, test.want) {
			t.Errorf("%s: %v to %v by %v, want %v", test.handler, test.from, test.to, got, test.want)
		}
	}
}

// Every status that a job can reach from where Gantry leaves it has a path, and
// Girder accepts each step of every path.
func TestGirderPathIsAcceptedStepByStep(t *testing.T) {
	t.Parallel()
	for _, handler := range girderHandlers {
		for from := range girderStatusNames {
			for to := range girderStatusNames {
				path, at := GirderPath(handler, from, to), from
				for _, step := range path {
					if step == at || !GirderAllows(handler, at, step) {
						t.Errorf("%q: %v to %v by %v: no step from %v to %v", handler, from, to, path, at, step)
					}
					at = step
				}
				if len(path) > 0 && at != to {
					t.Errorf("%q: %v to %v by %v ends at %v", handler, from, to, path, at)
				}
				if path == nil && from != to && from < GirderFetchingInput && reaches(handler, from, to) {
					t.Errorf("%q: no path from %v to %v", handler, from, to)
				}
			}
		}
	}
}

func reaches(handler GirderHandler, from, to GirderStatus) bool {
	seen := map[GirderStatus]bool{from: true}
	for todo := []GirderStatus{from}; len(todo) > 0; todo = todo[1:] {
		for next := range girderStatusNames {
			if !seen[next] && GirderAllows(handler, todo[0], next) {
				seen[next], todo = true, append(todo, next)
			}
		}
	}
	return seen[to]
}

func TestGirderStatusNames(t *testing.T) {
	t.Parallel()
	for status, want := range map[GirderStatus]string{
		GirderRunning: "RUNNING", GirderCanceled: "CANCELED", GirderCanceling: "CANCELING", 99: "99",
	} {
		if status.String() != want {
			t.Errorf("%d is %s, want %s", int(status), status, want)
		}
	}
	for status := range girderStatusNames {
		if want := status >= GirderSuccess && status <= GirderCanceled; status.Terminal() != want {
			t.Errorf("%v is terminal: %t", status, status.Terminal())
		}
	}
}
