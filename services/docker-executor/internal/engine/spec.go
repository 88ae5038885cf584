package engine

import "github.com/gantry-worker/gantry/contracts"

// Spec is what a container is made of.
type Spec struct {
	Name       string   // unique on the engine; empty: the engine invents one
	Image      string   // reference, or the ID of an Image
	Entrypoint []string // nil: the image's own
	Args       []string
	Labels     map[string]string
	Mounts     []Mount // besides those of Options

	// Options are everything else, as a task says it, but for its labels, its
	// name and its log: those are Gantry's. With Init a missing program is no
	// ErrCannotStart but an Exit with code 127, and a line on standard error.
	Options contracts.DockerOptions
}

// Mount binds a path of the host into the container. The host path has to
// exist.
type Mount struct {
	HostPath      string
	ContainerPath string
	ReadOnly      bool
	// SELinux is how the host's SELinux is to label it: "z" for all containers,
	// "Z" for this one, empty for not at all. No such path may have a colon in it.
	SELinux string
	// Alone leaves out what else is mounted on the host below the path.
	Alone bool
}
