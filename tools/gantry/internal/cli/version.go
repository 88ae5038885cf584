package cli

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/gantry-worker/gantry/contracts"
)

// version is set by the build: -ldflags "-X <this package>.version=v1.2.3".
var version string

// Version is `gantry version`.
type Version struct{}

// Run prints the version.
func (*Version) Run(env *Env) error {
	v := version
	if info, ok := debug.ReadBuildInfo(); v == "" && ok {
		v = info.Main.Version
	}
	if v == "" {
		v = "(devel)"
	}
	return env.print(fmt.Sprintf("gantry %s (task specification %d, %s, %s/%s)\n", v, contracts.Version, runtime.Version(), runtime.GOOS, runtime.GOARCH))
}
