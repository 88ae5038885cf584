module github.com/gantry-worker/gantry/services/transfer

go 1.26.0

require github.com/gantry-worker/gantry/contracts v0.0.0

replace github.com/gantry-worker/gantry/contracts => ../../contracts

require github.com/gantry-worker/gantry/contracts/client v0.0.0

replace github.com/gantry-worker/gantry/contracts/client => ../../contracts/client

require (
	github.com/docker/go-units v0.5.0
	github.com/gantry-worker/gantry/services/internal v0.0.0
	github.com/google/go-cmp v0.7.0
	github.com/rs/zerolog v1.35.1
)

require (
	github.com/alecthomas/kong v1.17.0 // indirect
	github.com/antithesishq/antithesis-sdk-go v0.8.0-default-no-op // indirect
	github.com/goccy/go-yaml v1.19.2 // indirect
	github.com/google/go-tpm v0.9.8 // indirect
	github.com/klauspost/compress v1.20.3 // indirect
	github.com/minio/highwayhash v1.0.4 // indirect
	github.com/nats-io/jwt/v2 v2.8.2 // indirect
	github.com/nats-io/nats-server/v2 v2.15.2 // indirect
	github.com/nats-io/nkeys v0.4.16 // indirect
	github.com/nats-io/nuid v1.0.1 // indirect
	go.uber.org/goleak v1.3.0 // indirect
	golang.org/x/crypto v0.58.0 // indirect
	golang.org/x/time v0.16.0 // indirect
)

require (
	github.com/cenkalti/backoff/v5 v5.0.3 // indirect
	github.com/gantry-worker/gantry/tools/girder-sim v0.0.0
	github.com/go-json-experiment/json v1.27.2
	github.com/mattn/go-colorable v0.1.14 // indirect
	github.com/mattn/go-isatty v0.0.24 // indirect
	github.com/nats-io/nats.go v1.55.0 // indirect
	github.com/oklog/ulid/v2 v2.1.2 // indirect
	golang.org/x/sync v0.24.0
	golang.org/x/sys v0.49.0
	golang.org/x/text v0.43.0
)

replace github.com/gantry-worker/gantry/services/internal => ../internal

replace github.com/gantry-worker/gantry/tools/girder-sim => ../../tools/girder-sim
