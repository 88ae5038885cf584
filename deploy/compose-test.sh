#!/usr/bin/env bash
# Starts docker-compose.yml as it is shipped, under a project, passwords, ports
# and a work folder of its own, and then what deploy/compose.cluster.yml makes of
# it. While tasks run, an executor is killed, executors and transfer are replaced
# as in an upgrade, and NATS is restarted; of the cluster, a leader is killed. No
# task may notice. Leaves nothing behind.
set -euo pipefail
cd "$(dirname "$0")/.."

say() { printf 'compose-test: %3ds %s\n' "$SECONDS" "$*"; }
die() { printf 'compose-test: %s\n' "$*" >&2; exit 1; }

# patience is how many seconds anything may take that has to come: this is no
# measurement. An engine that has locked up never answers.
patience=300
docker() { timeout $patience docker "$@"; }

# docker-compose gives up on an engine that is silent for a minute.
export COMPOSE_HTTP_TIMEOUT=600 DOCKER_CLIENT_TIMEOUT=600

scratch=$(mktemp -d)
# A name that no other run has or had: one that was killed leaves its own behind.
name=test-$(tr 'A-Z' 'a-z' <<<"${scratch##*.}")-$$
project=gantry-$name
image=gantry-compose-test:$name
work=$(mktemp -d /tmp/gantry-work.XXXXXX)
files=(-f docker-compose.yml)
deploy/make-env.sh "$scratch/env" >/dev/null
# Port 0: the engine chooses one, anew at each start.
printf '%s\n' "GANTRY_WORK=$work" GANTRY_NATS_PORT=0 GANTRY_NATS_PORT_2=0 GANTRY_NATS_PORT_3=0 \
	"GANTRY_TAG=$name" "NATS_IMAGE=gantry-nats:$name" >>"$scratch/env"

compose() {
	if docker-compose version >/dev/null 2>&1; then
		timeout $((4 * patience)) docker-compose -p "$project" --env-file "$scratch/env" "${files[@]}" "$@"
	else
		timeout $((4 * patience)) docker compose -p "$project" --env-file "$scratch/env" "${files[@]}" "$@"
	fi 2>>"$scratch/compose.log"
}

# container SERVICE [NUMBER]: the id of its container while it runs.
container() {
	docker ps -q --filter "label=com.docker.compose.project=$project" --filter "label=com.docker.compose.service=$1" \
		--filter "label=com.docker.compose.container-number=${2:-1}"
}

finish() {
	local code=$?
	trap - EXIT
	[ $code = 0 ] || explain >&2 || true
	compose down -v -t 20 >/dev/null || true
	docker ps -aq --filter "ancestor=$image" | xargs -r docker rm -f >/dev/null || true
	# What containers left may be root's.
	rm -rf "$work" 2>/dev/null || docker run --rm --network none -v "$work:/work" "$image" /busybox sh -c 'rm -rf /work/*' || true
	docker image rm -f "$image" "${images[@]/%/:$name}" >/dev/null 2>&1 || true
	rm -rf "$scratch" "$work"
	exit $code
}

# explain tells what somebody needs who has nothing but this output.
explain() {
	set +e
	echo "--- containers"
	docker ps -a --filter "label=com.docker.compose.project=$project" --format '{{.Names}}: {{.Status}}'
	docker ps -a --filter "ancestor=$image" --format '{{.Names}}: {{.Status}} (a task)'
	local job
	for job in "${jobs[@]}"; do
		echo "--- $job"
		gantry jobs show "$job" 2>&1
	done
	echo "--- logs"
	compose logs --tail=60
	echo "--- docker-compose"
	tail -n 40 "$scratch/compose.log"
}

images=(gantry-dispatcher gantry-docker-executor gantry-transfer gantry-job-tracker gantry-nats)
jobs=()
trap finish EXIT
# Images of this run's own: others may make theirs meanwhile.
for made in "${images[@]}"; do docker tag "$made" "$made:$name"; done

# await SENTENCE COMMAND…: until the command succeeds.
await() {
	local sentence=$1 end=$((SECONDS + patience))
	shift
	until "$@"; do
		[ $SECONDS -lt $end ] || die "$sentence"
		sleep 0.2
	done
}

# healthy: every container is there and well.
healthy() {
	local ids states
	ids=$(docker ps -aq --filter "label=com.docker.compose.project=$project") && [ -n "$ids" ] || return 1
	# shellcheck disable=SC2086 # one argument for each id
	states=$(docker inspect -f '{{.State.Status}} {{if .State.Health}}{{.State.Health.Status}}{{end}}' $ids) || return 1
	! grep -qvx 'running healthy' <<<"$states"
}

await_healthy() { await "not every container became healthy." healthy; }

urls() {
	local service id
	for service in nats nats-2 nats-3; do
		id=$(container $service)
		[ -z "$id" ] || printf 'nats://%s,' "$(docker port "$id" 4222 | head -n 1)"
	done
}

password() { sed -n "s/^GANTRY_NATS_PASSWORD_$1=//p" "$scratch/env"; }

gantry() {
	GANTRY_NATS_URL=$(urls) GANTRY_NATS_USER=client GANTRY_NATS_PASSWORD=$(password CLIENT) timeout $patience bin/gantry "$@" </dev/null
}

# answers: NATS is there for clients, and job-tracker behind it.
answers() { gantry jobs ls >/dev/null 2>&1; }

await_answer() { await "nobody answers 'gantry jobs ls'." answers; }

# submit SCRIPT [FLAG…]: a task that runs a shell script.
submit() {
	local script=$1
	shift
	cat >"$scratch/task.json" <<-END
	{"version": 1, "task": "docker_run", "docker": {"image": "$image", "pull": "never",
	 "entrypoint": ["/busybox", "sh", "-c"], "args": ["$script"]}}
	END
	gantry submit -f "$scratch/task.json" "$@"
}

run_task() { submit "echo $1" --wait >/dev/null || die "the task $1 did not end in success."; }

# The tasks that nothing may disturb count aloud until they are told to stop.
counting='i=0; until [ -e /stop ]; do i=$((i+1)); echo line $i; /busybox sleep 0.05; done; echo end'

container_of() { docker ps -q --no-trunc --filter "label=gantry.job=$1"; }

# shown JOB: what job-tracker knows of the job, which is a little late, on one line.
shown() { gantry jobs show --json "$1" 2>>"$scratch/err" | tr -d ' \n'; }

# entries SHOWN TYPE: how many entries of a type the job's life has.
entries() { { grep -o "\"type\":\"$2\"" <<<"$1" || true; } | wc -l; }

# owners: the executor that owns each of the jobs, a line for each.
owners() {
	local job text
	for job in "${jobs[@]}"; do
		text=$(shown "$job") || return 1
		grep -o '"executor":"[^"]*"' <<<"$text" | tail -n 1 || return 1
	done
}

# all_run: every job has an owner and a container that runs; began is then who
# owns them.
all_run() {
	began=$(owners) && [ "$(docker ps -q --filter "ancestor=$image" | wc -l)" = ${#jobs[@]} ] && [ "$(wc -l <<<"$began")" = ${#jobs[@]} ]
}

# changed_owners OWNERS NUMBER: so many jobs have another owner than in the list.
changed_owners() {
	local now
	now=$(owners) && [ "$(paste -d ' ' <(cat <<<"$1") <(cat <<<"$now") | awk '$1 != $2' | wc -l)" = "$2" ]
}

# at_its_first JOB: the job ended in success in the attempt that was begun first.
at_its_first() {
	local text
	text=$(shown "$1") && [ "$(entries "$text" succeeded) $(entries "$text" claimed) $(entries "$text" started)" = "1 1 1" ]
}

# check JOB CONTAINER: told to stop, the task ends well, in the container in which
# it began, with each line of its log once.
check() {
	[ "$(container_of "$1")" = "$2" ] || die "the task $1 is not in the container in which it began."
	docker exec "$2" /busybox touch /stop
	gantry logs -f "$1" >"$scratch/log" 2>"$scratch/err" || die "the log of $1 did not come to its end: $(cat "$scratch/err")"
	local lines
	lines=$(grep -c '^line ' "$scratch/log")
	diff <(seq -f 'line %g' "$lines" && echo end) "$scratch/log" >&2 || die "the log of $1 is not what it wrote."
	await "the task $1 did not end in success at its first attempt." at_its_first "$1"
}

nothing_runs() { [ -z "$(docker ps -aq --filter "ancestor=$image")" ] && [ -z "$(find "$work" -name attempt.json)" ]; }

# down: everything is removed; the servers refused nobody anything.
down() {
	local refused
	refused=$(compose logs | grep -i 'violation' | head -n 3) || true
	[ -z "$refused" ] || die "a user may not do what its service needs: $refused"
	compose down -v -t 20
	local left
	left=$(docker ps -aq --filter "label=com.docker.compose.project=$project" &&
		docker network ls -q --filter "label=com.docker.compose.project=$project" &&
		docker volume ls -q --filter "label=com.docker.compose.project=$project")
	[ -z "$left" ] || die "docker-compose down left behind: $left"
}

cp "$(command -v busybox)" "$scratch/busybox"
printf 'FROM scratch\nCOPY busybox /busybox\n' >"$scratch/Dockerfile"
docker build -q -t "$image" "$scratch" >"$scratch/build.log" 2>&1 || die "the tasks' image was not built: $(cat "$scratch/build.log")"

say "one NATS server, three executors"
compose up -d --no-build --scale docker-executor=3
await_healthy
run_task one
grep -q '"machine":"[0-9a-f]' "$work/node.json" || grep -q '^GANTRY_MACHINE_ID_FILE=/dev/null' "$scratch/env" ||
	die "the machine is not in node.json: $(cat "$work/node.json")"

say "six tasks, as many as the executors have slots"
for _ in 1 2 3 4 5 6; do jobs+=("$(submit "$counting")"); done
await "not every task has begun." all_run
[ "$(sort -u <<<"$began" | wc -l)" = 3 ] || die "the tasks are not spread over three executors: $began"
containers=()
for job in "${jobs[@]}"; do containers+=("$(container_of "$job")"); done

say "an executor is killed; its two tasks are adopted"
pid=$(docker inspect -f '{{.State.Pid}}' "$(container docker-executor 1)")
docker run --rm --network none --pid host "$image" /busybox kill -9 "$pid"
await "the tasks of the executor that was killed were not adopted." changed_owners "$began" 2
await_healthy # its container was started again

say "an upgrade: executors and transfer are replaced, tasks go on"
await "not every task runs." all_run
compose up -d --no-build --no-deps --force-recreate --scale docker-executor=3 docker-executor transfer
await "the tasks were not adopted by the new executors." changed_owners "$began" 6

say "NATS is restarted"
compose restart nats
await_healthy
await_answer
for i in "${!jobs[@]}"; do check "${jobs[i]}" "${containers[i]}"; done
run_task two
await "a task's container or folder is left." nothing_runs
say "six tasks ended in the containers in which they began, their logs are whole"
down

say "three NATS servers"
files+=(-f deploy/compose.cluster.yml)
compose up -d --no-build
await_healthy
run_task three

# leader STREAM: the NATS server that leads it.
leader() {
	local address line
	address=$(docker port "$(container nats)" 4222 | head -n 1)
	exec 3<>"/dev/tcp/${address%:*}/${address##*:}" || return 1
	printf 'CONNECT {"user":"admin","pass":"%s","verbose":false}\r\nSUB _INBOX.test 1\r\nPUB $JS.API.STREAM.INFO.%s _INBOX.test 0\r\n\r\n' \
		"$(password ADMIN)" "$1" >&3
	while read -r -t 10 line <&3; do
		[[ $line =~ \"num_replicas\":3.*\"leader\":\"([^\"]*)\" ]] || continue
		printf '%s\n' "${BASH_REMATCH[1]}"
		break
	done
	exec 3>&-
}

has_leader() { lost=$(leader JOBS) && [ -n "$lost" ]; }

await "the stream JOBS has no three replicas or no leader." has_leader
id=$(container "$lost")
say "the leader of the stream JOBS, $lost, is killed"
docker kill "$id" >/dev/null
await_answer
run_task four
docker start "$id" >/dev/null
await_healthy # it has what it missed
await "a task's container or folder is left." nothing_runs
down
say "done"
