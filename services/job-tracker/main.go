// Command job-tracker shows what happens: it keeps the projection of every job,
// mirrors jobs to Girder and answers queries.
package main

import (
	"github.com/gantry-worker/gantry/services/internal/lifecycle"
	"github.com/gantry-worker/gantry/services/job-tracker/service"
)

func main() {
	lifecycle.Main("job-tracker", "Shows what happens: jobs, their mirror in Girder, queries.", service.Run)
}
