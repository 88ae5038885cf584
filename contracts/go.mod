module github.com/gantry-worker/gantry/contracts

go 1.26.0

require (
	github.com/docker/go-units v0.5.0
	github.com/go-json-experiment/json v1.27.2
	github.com/mattn/go-shellwords v1.0.16
	github.com/oklog/ulid/v2 v2.1.2
)
