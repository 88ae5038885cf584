// Package enginetest tells tests whether there is a Docker engine to test with.
package enginetest

import (
	"os"
	"testing"

	"github.com/gantry-worker/gantry/tools/gantry/internal/imageimport"
)

// Need returns the Docker engine, and skips the test where none answers, or
// fails it where GANTRY_REQUIRE_DOCKER=1 says that there has to be one.
func Need(t testing.TB) *imageimport.Engine {
	t.Helper()
	engine, err := imageimport.New(os.Getenv("DOCKER_HOST"))
	if err == nil {
		_, err = engine.Version(t.Context())
	}
	if err != nil && os.Getenv("GANTRY_REQUIRE_DOCKER") == "1" {
		t.Fatal(err)
	}
	if err != nil {
		t.Skipf("%v (GANTRY_REQUIRE_DOCKER=1 makes this a failure)", err)
	}
	return engine
}
