#!/usr/bin/env bash
# Runs a command that needs the Docker engine, and watches the engine beside it:
# guard-docker.sh COMMAND [ARGUMENT…]
#
# Docker before 23 can lock up for good (moby#46661: two locks of libnetwork are
# taken in opposite order where containers end at the same moment): it answers
# pings, and neither starts nor ends a container any more. Nothing that runs on
# such an engine says anything about the command. So an engine that locks up is
# restarted, with the stacks of its goroutines kept, and a command that failed
# with it is run again. A command that fails on an engine that works has failed.
#
# What failed is said once more in the end, in short: the output is long.
#
# Only an engine that ensure-docker.sh started is restarted; of another one it is
# said what is wrong.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
stacks=/tmp/gantry-dockerd-stacks.log
patience=60 # seconds for an answer that takes milliseconds
tries=3

as_root=()
[ "$(id -u)" = 0 ] || as_root=(sudo)

say() { printf 'guard-docker: %s\n' "$*" >&2; }

work=$(mktemp -d)
trap 'touch "$work/over"; wait; rm -rf "$work"' EXIT

# engine_pid: of the engine that ensure-docker.sh started, if it runs.
engine_pid() {
	local pid
	pid=$(cat /tmp/gantry-dockerd.pid 2>/dev/null) && [ "$(cat "/proc/$pid/comm" 2>/dev/null)" = dockerd ] && echo "$pid"
}

# is_locked_up COMMAND…: no answer, twice. One that is refused or fails is an answer.
is_locked_up() {
	local try code
	for try in 1 2; do
		code=0
		timeout -k 5 "$patience" "$@" >/dev/null 2>&1 </dev/null || code=$?
		[ "$code" = 124 ] || [ "$code" = 137 ] || return 1
	done
}

# runs_nothing: the engine does not come to the end of a container that ends at once.
runs_nothing() {
	local busybox
	busybox=$(command -v busybox) || return 1
	timeout "$patience" docker image inspect gantry-guard >/dev/null 2>&1 ||
		tar -cf - -C "$(dirname "$busybox")" busybox | timeout "$patience" docker import - gantry-guard >/dev/null 2>&1 || true
	is_locked_up docker run --rm --network none gantry-guard /busybox true
}

# known_lock_up: says so where both goroutines of it wait for a lock.
known_lock_up() {
	local waiting
	waiting=$(awk -v RS= '/semacquire|sync\.Mutex\.Lock/' "$stacks")
	! [[ $waiting == *processEndpointDelete* && $waiting == *getSvcRecords* ]] || printf ' (moby#46661)'
}

# restart_engine: kill it, since a locked one does not end, and start it again.
restart_engine() {
	local pid dump
	if ! pid=$(engine_pid); then
		say "the Docker engine has locked up: restart it (it was not started by ensure-docker.sh, so it is left as it is)"
		return 1
	fi
	"${as_root[@]}" kill -USR1 "$pid" # writes the stacks of all goroutines
	sleep 3
	dump=$("${as_root[@]}" find /var/run/docker -maxdepth 1 -name 'goroutine-stacks-*.log' -mmin -1 | sort | tail -n 1)
	if [ -n "$dump" ]; then
		"${as_root[@]}" cat "$dump" >"$stacks"
		say "the Docker engine has locked up$(known_lock_up): the stacks of its goroutines are in $stacks"
	else
		say "the Docker engine has locked up, and does not even say where"
	fi
	say "restarting it"
	"${as_root[@]}" kill -KILL "$pid"
	while [ -d "/proc/$pid" ]; do sleep 0.1; done
	"$here/ensure-docker.sh" >&2
}

# watch: until the command is over. What it has begun it brings to its end: an
# engine that is just being restarted is needed by whoever comes next.
watch() {
	local second
	until [ -e "$work/over" ]; do
		if is_locked_up docker network ls -q; then
			touch "$work/locked"
			restart_engine || return 0
		fi
		for ((second = 0; second < 15; second++)); do
			[ ! -e "$work/over" ] || return 0
			sleep 1
		done
	done
}

# give_up: with what failed, and the first lines of what it said.
give_up() {
	say "what failed, in short:"
	grep -aE -A3 '^ *--- FAIL|^FAIL|^panic:|^WARNING: DATA RACE|^ +[a-z_]+_test\.go:[0-9]+: ' "$work/output" | cut -c 1-300 | head -n 80 >&2 || true
	exit "$code"
}

for ((try = 1; ; try++)); do
	rm -f "$work/locked" "$work/over"
	watch &
	watcher=$!
	code=0
	"$@" 2>&1 | tee "$work/output" || code=${PIPESTATUS[0]}
	touch "$work/over"
	wait "$watcher" || true
	if [ "$code" = 0 ]; then # whoever comes next needs an engine that works
		! is_locked_up docker network ls -q || restart_engine || true
		exit 0
	fi
	if [ ! -e "$work/locked" ]; then
		runs_nothing || give_up
		restart_engine || give_up
	fi
	engine_pid >/dev/null || give_up
	[ "$try" -lt "$tries" ] || give_up
	say "the command failed while the engine was locked up (exit code $code): once more"
done
