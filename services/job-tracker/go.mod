module github.com/gantry-worker/gantry/services/job-tracker

go 1.26.0

require (
	github.com/gantry-worker/gantry/contracts v0.0.0
	github.com/gantry-worker/gantry/contracts/client v0.0.0
	github.com/gantry-worker/gantry/services/internal v0.0.0
	github.com/gantry-worker/gantry/tools/girder-sim v0.0.0
	github.com/go-json-experiment/json v1.27.2
	github.com/google/go-cmp v0.7.0
	github.com/nats-io/nats.go v1.55.0
	github.com/rs/zerolog v1.35.1
	go.uber.org/goleak v1.3.0
	golang.org/x/sync v0.24.0
	golang.org/x/time v0.16.0
)

replace github.com/gantry-worker/gantry/contracts => ../../contracts

replace github.com/gantry-worker/gantry/contracts/client => ../../contracts/client

replace github.com/gantry-worker/gantry/services/internal => ../internal

replace github.com/gantry-worker/gantry/tools/girder-sim => ../../tools/girder-sim
