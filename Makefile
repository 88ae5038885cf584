# Everything here walks the modules of go.work, so a new module is covered by
# being listed there. `make help` says what there is.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
# Most steps use every core already; in order, what fails is what is read last.
.NOTPARALLEL:

MODULES := $(shell sed -n 's|^[[:space:]]*\./||p' go.work)
# What is tested in one go; e2e runs by itself, against built binaries.
PACKAGES := $(patsubst %,./%/...,$(filter-out e2e tools/lint,$(MODULES)))
ROOT := $(CURDIR)

PROGRAMS := tools/gantry tools/gantry/demo-task services/dispatcher services/docker-executor services/transfer services/job-tracker tools/girder-sim tools/bench
SERVICES := dispatcher docker-executor transfer job-tracker
VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo devel)
LDFLAGS := -s -w -X github.com/gantry-worker/gantry/services/internal/config.version=$(VERSION) \
	-X github.com/gantry-worker/gantry/tools/gantry/internal/cli.version=$(VERSION)
# Static: nothing of the machine that builds is needed where it runs.
STATIC := CGO_ENABLED=0 go build -trimpath -buildvcs=false -ldflags '$(LDFLAGS)'

# Looked for when it is used: ensure-docker may just have installed it.
COMPOSE := $$(command -v docker-compose || echo docker compose)
# Docker before 23 can lock up; what ran on such an engine says nothing.
GUARD := deploy/guard-docker.sh
FUZZTIME ?= 10s
BENCH ?=

.PHONY: help
help: ## say what there is
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-17s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

## ---- build

.PHONY: build
build: bin/nats-server ## static binaries into bin/
	$(STATIC) -o bin/ $(PROGRAMS:%=./%) ./services/internal/telemetry/probe

# Outside the workspace: the version is that of tools/lint/go.mod.
bin/nats-server: tools/lint/go.mod tools/lint/go.sum
	GOWORK=off CGO_ENABLED=0 go build -C tools/lint -trimpath -ldflags '-s -w' -o $(ROOT)/$@ github.com/nats-io/nats-server/v2

bin/lint/%: tools/lint/go.mod tools/lint/go.sum
	GOWORK=off go build -C tools/lint -o $(ROOT)/$@ $(TOOL)

bin/lint/staticcheck: TOOL := honnef.co/go/tools/cmd/staticcheck
bin/lint/depguard: TOOL := github.com/OpenPeeDeeP/depguard/v2/cmd/depguard

.PHONY: generate
generate: ## write generated files (JSON Schema) again
	go generate $(PACKAGES)

.PHONY: clean
clean: ## remove what make built
	rm -rf bin

.PHONY: fetch
fetch: ## fetch the modules that build and test need
	@go list -deps -test $(PACKAGES) ./e2e/... >/dev/null
	@for module in $(filter-out tools/lint,$(MODULES)); do GOWORK=off go list -C $$module -deps ./... >/dev/null; done
	@GOWORK=off go list -C tools/lint -deps github.com/nats-io/nats-server/v2 honnef.co/go/tools/cmd/staticcheck github.com/OpenPeeDeeP/depguard/v2/cmd/depguard >/dev/null

## ---- check

.PHONY: fmt
fmt: ## format all Go files
	gofmt -w $(MODULES)

.PHONY: fmt-check
fmt-check:
	@unformatted=$$(gofmt -l $(MODULES)); \
	if [ -n "$$unformatted" ]; then echo "not formatted, run 'make fmt':"; echo "$$unformatted"; exit 1; fi

.PHONY: vet
vet:
	go vet $(PACKAGES) ./e2e/...

# From tools/lint, which has the rules; the patterns are import paths.
.PHONY: lint
lint: bin/lint/staticcheck bin/lint/depguard ## staticcheck, and the architecture's import rules
	cd tools/lint && $(ROOT)/bin/lint/depguard github.com/gantry-worker/gantry/...
	cd tools/lint && $(ROOT)/bin/lint/staticcheck github.com/gantry-worker/gantry/...

# Each module by itself, as somebody who imports only that one has it.
.PHONY: build-modules
build-modules:
	@for module in $(filter-out tools/lint,$(MODULES)); do \
		echo "GOWORK=off go build ./$$module/..."; \
		GOWORK=off go build -C $$module ./...; \
	done

## ---- test

.PHONY: ensure-docker
ensure-docker: ## install and start a Docker engine where none answers
	deploy/ensure-docker.sh

.PHONY: ensure-test-needs
ensure-test-needs:
	deploy/ensure-docker.sh compose busybox

.PHONY: test-short
test-short: ## under a minute, without Docker
	DOCKER_HOST=unix:///nonexistent go test -short -timeout 2m $(PACKAGES)

.PHONY: test
test: fmt-check ensure-test-needs vet lint build-modules test-unit test-e2e verify-units test-compose ## everything that CI runs

# Unit, component (embedded NATS), contract and Docker tests, all with the race
# detector. A missing engine is a failure here, not a reason to skip.
.PHONY: test-unit
test-unit: ensure-test-needs
	GANTRY_REQUIRE_DOCKER=1 $(GUARD) go test -race -timeout 30m $(PACKAGES)

.PHONY: test-e2e
test-e2e: build ensure-test-needs
	GANTRY_REQUIRE_DOCKER=1 GANTRY_BIN=$(ROOT)/bin $(GUARD) go test -race -count=1 -p 1 -timeout 40m ./e2e/...

# One test for each outcome of docker_run: docs/conformance.md.
.PHONY: test-conformance
test-conformance: build ensure-test-needs ## what docker_run promises, each outcome by name
	GANTRY_REQUIRE_DOCKER=1 GANTRY_BIN=$(ROOT)/bin go test -race -count=1 -v -timeout 20m ./e2e/conformance

# Not part of CI: 1,000 containers, and one that writes 200 MB.
.PHONY: test-many
test-many: build ensure-test-needs ## 1,000 containers, a log of 200 MB
	GANTRY_REQUIRE_DOCKER=1 GANTRY_BIN=$(ROOT)/bin GANTRY_MANY_CONTAINERS=1000 GANTRY_FLOOD_MB=200 \
		go test -race -count=1 -v -timeout 2h -run 'TestShortContainersLeaveNothing|TestAFloodLeavesTheServicesAsSmallAsTheyWere' ./e2e/conformance

# Not part of CI: hours, if you like. SOAK_SEEDS runs of the model of a job's life,
# SOAK_KILLS kills of each service while SOAK_TASKS tasks run. Every run prints its seed.
SOAK_SEEDS ?= 500
SOAK_KILLS ?= 500
SOAK_TASKS ?= 600
.PHONY: soak
soak: build ensure-test-needs ## many seeds of the model, hundreds of kills of each service
	GANTRY_MODEL_SEEDS=$(SOAK_SEEDS) go test -race -count=1 -timeout 12h ./e2e/model
	GANTRY_REQUIRE_DOCKER=1 GANTRY_BIN=$(ROOT)/bin GANTRY_CHAOS_KILLS=$(SOAK_KILLS) GANTRY_CHAOS_TASKS=$(SOAK_TASKS) \
		go test -race -count=1 -timeout 12h -run 'TestKilledAgainAndAgain|TestRollingRestarts' ./e2e/scenarios

.PHONY: test-compose
test-compose: images ensure-test-needs
	$(GUARD) deploy/compose-test.sh

# systemd's own check of the units, where there is systemd.
.PHONY: verify-units
verify-units: build
	deploy/systemd/verify.sh $(ROOT)/bin

.PHONY: fuzz
fuzz: ## every fuzz target for FUZZTIME (10s)
	@grep -rE --include='*_test.go' -o '^func Fuzz[A-Za-z0-9_]*' $(MODULES) | sort -u | while IFS=: read -r file target; do \
		name=$${target#func }; \
		echo "$$(dirname $$file): $$name"; \
		go test -run '^$$' -fuzz "^$$name\$$" -fuzztime $(FUZZTIME) ./$$(dirname $$file) </dev/null; \
	done

## ---- run

.PHONY: demo
demo: build ensure-docker ## one real task from end to end, on this machine
	./bin/gantry demo

.PHONY: bench
bench: build ## measure everything; BENCH=cancel measures one
	deploy/ensure-docker.sh busybox curl
	./bin/bench $(BENCH)

.PHONY: images
images: build ensure-docker ## scratch images of the services and of NATS
	@for service in $(SERVICES); do \
		echo "image gantry-$$service"; \
		docker build -q -f deploy/Dockerfile --build-arg BINARY=$$service -t gantry-$$service . >/dev/null; \
	done
	@echo "image gantry-nats"
	@docker build -q -f deploy/nats/Dockerfile -t gantry-nats . >/dev/null

.PHONY: compose-up
compose-up: images ## start everything with docker-compose
	deploy/ensure-docker.sh compose
	deploy/make-env.sh
	$(COMPOSE) up -d

.PHONY: compose-down
compose-down: ## stop it; the data stays in its volume
	$(COMPOSE) down
