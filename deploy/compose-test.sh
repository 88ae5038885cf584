#!/usr/bin/env bash
# Starts docker-compose.yml as it is shipped, under a project, passwords, port
# and work folder of its own, runs one task through it as the user "client",
# restarts NATS, and runs another. Leaves nothing behind.
set -euo pipefail
cd "$(dirname "$0")/.."

say() { printf 'compose-test: %s\n' "$*"; }
die() { printf 'compose-test: %s\n' "$*" >&2; exit 1; }

project=gantry-test-$$
image=gantry-compose-test:$$
scratch=$(mktemp -d)
work=$(mktemp -d /tmp/gantry-work.XXXXXX)
deploy/make-env.sh "$scratch/env" >/dev/null
# Port 0: the engine chooses one, anew at each start.
printf 'GANTRY_WORK=%s\nGANTRY_NATS_PORT=0\n' "$work" >>"$scratch/env"

compose() {
	if command -v docker-compose >/dev/null; then
		docker-compose -p "$project" --env-file "$scratch/env" "$@"
	else
		docker compose -p "$project" --env-file "$scratch/env" "$@"
	fi
}

finish() {
	local code=$?
	trap - EXIT
	[ $code = 0 ] || compose logs --tail=40 >&2 || true
	compose down -v -t 20 >/dev/null 2>&1 || true
	docker image rm -f "$image" >/dev/null 2>&1 || true
	rm -rf "$scratch" "$work"
	exit $code
}
trap finish EXIT

# await_healthy: until every container that has a health check is well.
await_healthy() {
	local states
	for _ in $(seq 120); do
		states=$(compose ps -q | xargs docker inspect -f '{{.Name}} {{.State.Status}} {{if .State.Health}}{{.State.Health.Status}}{{end}}')
		grep -qE 'starting|unhealthy|exited|restarting' <<<"$states" || return 0
		sleep 1
	done
	printf '%s\n' "$states" >&2
	die "not every container became healthy."
}

# run_task NAME: submits a task that prints NAME and its input, and waits for it.
run_task() {
	cat >"$scratch/task.json" <<-END
	{"version": 1, "task": "docker_run", "docker": {"image": "$image", "pull": "never",
	 "entrypoint": ["/busybox", "echo"], "args": ["hello from", "$1"]}}
	END
	gantry submit -f "$scratch/task.json" --wait || die "the task $1 did not end in success."
}

gantry() {
	GANTRY_NATS_URL=nats://$(compose port nats 4222) GANTRY_NATS_USER=client \
		GANTRY_NATS_PASSWORD=$(sed -n 's/^GANTRY_NATS_PASSWORD_CLIENT=//p' "$scratch/env") \
		timeout 120 bin/gantry "$@" </dev/null
}

cp "$(command -v busybox)" "$scratch/busybox"
printf 'FROM scratch\nCOPY busybox /busybox\n' >"$scratch/Dockerfile"
docker build -q -t "$image" "$scratch" >/dev/null

say "starting the services, two executors"
compose up -d --no-build --scale docker-executor=2
await_healthy
say "all containers are healthy"
run_task one
say "restarting NATS"
compose restart nats
await_healthy
run_task two
[ -z "$(docker ps -aq --filter "ancestor=$image")" ] || die "a task's container is left."
say "both tasks ran, no container of theirs is left"
