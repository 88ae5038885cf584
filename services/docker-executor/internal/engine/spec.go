package engine

// Spec is what a container is made of.
type Spec struct {
	Name       string   // unique on the engine; empty: the engine invents one
	Image      string   // reference, or the ID of an Image
	Entrypoint []string // nil: the image's own
	Args       []string
	Env        map[string]string
	Labels     map[string]string
	Mounts     []Mount
	User       string // name or uid, optionally :group; empty: the image's own
	WorkingDir string // empty: the image's own

	// NetworkMode is the engine's word: "none", "bridge", "host",
	// "container:<id>" or the name of a network. Empty is the engine's default.
	NetworkMode string

	MemoryBytes int64 // limit, 0: none
	NanoCPUs    int64 // limit in billionths of a processor, 0: none

	// Init runs the program under a small first process that reaps zombies and
	// lets signals have their default effect. With it a missing program is no
	// ErrCannotStart but an Exit with code 127, and a line on standard error.
	Init bool
}

// Mount binds a path of the host into the container. The host path has to
// exist.
type Mount struct {
	HostPath      string
	ContainerPath string
	ReadOnly      bool
}
