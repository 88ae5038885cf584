package docker

import (
	"fmt"

	"github.com/distribution/reference"
	"github.com/docker/cli/cli/config"
	"github.com/docker/docker/api/types/registry"
)

// hubServer is the name under which Docker configs keep Docker Hub's
// credentials, for historical reasons.
const hubServer = "https://index.docker.io/v1/"

// credentials finds the credentials for registries in a Docker config folder:
// stored ones and those of credential helpers.
type credentials struct {
	dir string
}

// forImage returns what the engine wants as registry authentication for an
// image; empty: pull anonymously. The config is read anew each time, so that a
// login counts at once.
func (c credentials) forImage(named reference.Named) (string, error) {
	if c.dir == "" {
		return "", nil
	}
	server := reference.Domain(named)
	if server == "docker.io" {
		server = hubServer
	}
	file, err := config.Load(c.dir)
	if err != nil {
		return "", fmt.Errorf("read docker config: %w", err)
	}
	auth, err := file.GetAuthConfig(server)
	if err != nil {
		return "", fmt.Errorf("find credentials for registry %s: %w", server, err)
	}
	if auth.Username == "" && auth.Password == "" && auth.Auth == "" && auth.IdentityToken == "" && auth.RegistryToken == "" {
		return "", nil
	}
	return registry.EncodeAuthConfig(registry.AuthConfig{
		Username:      auth.Username,
		Password:      auth.Password,
		Auth:          auth.Auth,
		ServerAddress: auth.ServerAddress,
		IdentityToken: auth.IdentityToken,
		RegistryToken: auth.RegistryToken,
	})
}
