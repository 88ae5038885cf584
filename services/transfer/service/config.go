package service

import (
	"errors"
	"net/url"
	"path/filepath"
	"time"

	"github.com/gantry-worker/gantry/contracts/client"
	"github.com/gantry-worker/gantry/services/internal/config"
	"github.com/gantry-worker/gantry/services/internal/telemetry"
)

// Config of the service.
type Config struct {
	telemetry.Settings `embed:""`

	NATS         client.Config `embed:"" prefix:"nats-"`
	WorkRoot     string        `help:"Folder that the executors and the transfer of this node share." default:"/var/lib/gantry" placeholder:"DIR"`
	GirderAPIURL string        `name:"girder-api-url" help:"Reach every Girder under this API URL instead of the one that a task names." placeholder:"URL"`
	Concurrency  int           `help:"Steps that run at the same time." default:"8"`
	// GirderPatience bounds the time without any progress, not the time of a transfer.
	GirderPatience time.Duration `help:"Give a step up when Girder has not answered for so long." default:"10m"`

	// ArtifactFallbackFolder is used by steps that attach an artifact to a job.
	ArtifactFallbackFolder string `help:"Girder folder for job artifacts where Girder has no endpoint for them." placeholder:"ID"`

	// OnReady is called once, when the service takes work.
	OnReady func() `kong:"-"`
}

// Validate reports every problem at once.
func (c Config) Validate() error {
	var problems []error
	if !filepath.IsAbs(c.WorkRoot) {
		problems = append(problems, config.Invalid("work-root", "must be an absolute path, is %q", c.WorkRoot))
	}
	if c.Concurrency < 1 {
		problems = append(problems, config.Invalid("concurrency", "must be 1 or more, is %d", c.Concurrency))
	}
	if c.GirderPatience <= 0 {
		problems = append(problems, config.Invalid("girder-patience", "must be a positive time such as 10m, is %s", c.GirderPatience))
	}
	if u, err := url.Parse(c.GirderAPIURL); c.GirderAPIURL != "" && (err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https") {
		problems = append(problems, config.Invalid("girder-api-url", "must be an http or https URL such as http://girder:8080/api/v1"))
	}
	return errors.Join(problems...)
}
