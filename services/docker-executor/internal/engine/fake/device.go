package fake

import (
	"fmt"
	"slices"

	"github.com/gantry-worker/gantry/contracts"
	"github.com/gantry-worker/gantry/services/docker-executor/internal/engine"
)

// AddRuntime gives the engine a runtime, such as "nvidia". It has no other than
// its own from the start.
func (e *Engine) AddRuntime(name string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.runtimes[name] = true
}

// AddDevices gives the engine a driver for devices of a capability, such as
// "gpu". It has none from the start.
func (e *Engine) AddDevices(capability string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.devices[capability] = true
}

// giveDevices is an error where the engine has no driver for what the container
// requests.
func (e *Engine) giveDevices(c *container) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, request := range c.spec.Options.DeviceRequests {
		if !e.hasDevices(request) {
			return &engine.Error{
				Op: "start", Subject: c.subject(), Kind: engine.ErrNoDriver,
				Detail: fmt.Sprintf("could not select device driver %q with capabilities: %v", request.Driver, request.Capabilities),
			}
		}
	}
	return nil
}

// hasDevices: one set of capabilities has to be there whole.
func (e *Engine) hasDevices(request contracts.DeviceRequest) bool {
	return slices.ContainsFunc(request.Capabilities, func(set []string) bool {
		return !slices.ContainsFunc(set, func(capability string) bool { return !e.devices[capability] })
	})
}
