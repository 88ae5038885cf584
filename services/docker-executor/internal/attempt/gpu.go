package attempt

import (
	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/services/docker-executor/internal/engine"
)

const (
	// gpuLabel with the value gpuDriver is on images that want all GPUs.
	gpuLabel  = "com.nvidia.volumes.needed"
	gpuDriver = "nvidia_driver"
	// gpuRuntime is the runtime that gives GPUs where an engine knows no device
	// requests.
	gpuRuntime = "nvidia"
)

// waysTo returns the specifications with which a container is created, each one
// tried where the engine refuses those before it. A container that wants GPUs,
// and says not which, gets all of them: by a device request, else by the runtime
// for them, else, where it is but the image's label that wants them, none.
func waysTo(spec engine.Spec, labels map[string]string) []engine.Spec {
	asked := spec.Options.Runtime == gpuRuntime
	labelled := spec.Options.Runtime == "" && labels[gpuLabel] == gpuDriver
	if len(spec.Options.DeviceRequests) > 0 || !asked && !labelled {
		return []engine.Spec{spec}
	}
	request, runtime := spec, spec
	request.Options.Runtime = ""
	request.Options.DeviceRequests = []contracts.DeviceRequest{{Count: -1, Capabilities: [][]string{{"gpu"}}}}
	runtime.Options.Runtime = gpuRuntime
	ways := []engine.Spec{request, runtime}
	if labelled {
		ways = append(ways, spec)
	}
	return ways
}
