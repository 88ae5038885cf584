package mirror

import (
	"net/http"
	"net/url"
	"sync"

	"golang.org/x/sync/semaphore"
	"golang.org/x/time/rate"

	"github.com/gantry-worker/gantry/services/internal/girder"
)

const (
	// requestsAtOnce bounds the requests to one Girder that are under way.
	requestsAtOnce = 8
	// pollsPerSecond bounds how often one Girder is asked about waiting jobs.
	pollsPerSecond = 10
)

// host is what all mirrors at one Girder share.
type host struct {
	requests *semaphore.Weighted
	polls    *rate.Limiter // first come, first served: waiting jobs take turns
}

type hosts struct {
	mu     sync.Mutex
	byName map[string]*host
}

// of returns the host that a client asks for a URL.
func (h *hosts) of(client *http.Client, rawURL string) (*host, error) {
	u, err := url.Parse(rawURL)
	if err != nil {
		return nil, err
	}
	name := girder.HostKey(client, u)
	h.mu.Lock()
	defer h.mu.Unlock()
	if known, ok := h.byName[name]; ok {
		return known, nil
	}
	made := &host{requests: semaphore.NewWeighted(requestsAtOnce), polls: rate.NewLimiter(pollsPerSecond, 1)}
	h.byName[name] = made
	return made, nil
}
