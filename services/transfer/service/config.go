package service

import (
	"errors"
	"net/url"
	"path/filepath"
	"time"

	"github.com/docker/go-units"

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
	Concurrency  int           `help:"Steps that run at the same time for one Girder; four times as many for all of them." default:"8"`
	// GirderPatience bounds the time without any progress, not the time of a transfer.
	GirderPatience time.Duration `help:"Give a step up when Girder has not answered for so long." default:"10m"`

	GirderConnections int      `help:"Files that move at the same time to and from one Girder host." default:"32"`
	RateLimit         string   `help:"Most bytes a second, of all that is moved in both directions together, such as 50m; 0: as many as there can be." default:"0" placeholder:"SIZE"`
	CacheSize         string   `help:"Keep files from Girder on this node for further tasks, so much of them, such as 20g; 0: none." default:"0" placeholder:"SIZE"`
	SessionFiles      []string `help:"Folders with the PEM files that a task's girder.session may name. None by default." placeholder:"DIR"`

	// ArtifactFallbackFolder is used by steps that attach an artifact to a job.
	ArtifactFallbackFolder string `help:"Girder folder for job artifacts where Girder has no endpoint for them." placeholder:"ID"`

	// OnReady is called once, when the service takes work.
	OnReady func() `kong:"-"`
}

// slowest is the least rate limit: under it the waits of a node's transfers for
// one another would be longer than the patience of servers.
const slowest = 64 << 10

// sizes are the settings that are written with a unit.
type sizes struct {
	rate  int64 // bytes a second, 0: no limit
	cache int64 // bytes, 0: no cache
}

func (c Config) sizes() (s sizes, err error) {
	var problems []error
	if s.rate, err = bytesOf(c.RateLimit); err != nil || s.rate > 0 && s.rate < slowest {
		problems = append(problems, config.Invalid("rate-limit", "must be 0, or a size of 64k or more for each second such as 50m, is %q", c.RateLimit))
	}
	if s.cache, err = bytesOf(c.CacheSize); err != nil {
		problems = append(problems, config.Invalid("cache-size", "must be a size such as 20g, or 0, is %q", c.CacheSize))
	}
	return s, errors.Join(problems...)
}

// bytesOf reads a size; nothing is 0.
func bytesOf(text string) (int64, error) {
	if text == "" {
		return 0, nil
	}
	size, err := units.RAMInBytes(text)
	if err == nil && size < 0 {
		err = errors.New("negative")
	}
	return size, err
}

// Validate reports every problem at once.
func (c Config) Validate() error {
	var problems []error
	if _, err := c.sizes(); err != nil {
		problems = append(problems, err)
	}
	if c.GirderConnections < 1 {
		problems = append(problems, config.Invalid("girder-connections", "must be 1 or more, is %d", c.GirderConnections))
	}
	for _, folder := range c.SessionFiles {
		if !filepath.IsAbs(folder) {
			problems = append(problems, config.Invalid("session-files", "must be absolute paths of folders, has %q", folder))
		}
	}
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
