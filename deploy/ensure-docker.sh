#!/usr/bin/env bash
# Makes sure that a Docker engine answers: ensure-docker.sh [compose] [busybox] [curl]
#
# Where one answers, nothing is done. Else Debian's packages are installed (apt,
# as root or with sudo) and the engine is started, detached from this script.
# With "compose", docker-compose is made sure of as well, with "busybox" a static
# busybox, of which the tests make their image, with "curl" the curl that benchmarks
# compare with. Each step is one line; where something cannot be done, one sentence
# says what to do instead.
set -euo pipefail

log=/tmp/gantry-dockerd.log
pid_file=/tmp/gantry-dockerd.pid # of the engine that this script started: guard-docker.sh

say() { printf 'ensure-docker: %s\n' "$*"; }
die() { printf 'ensure-docker: %s\n' "$*" >&2; exit 1; }

as_root=()
[ "$(id -u)" = 0 ] || as_root=(sudo)

can_be_root() {
	[ "$(id -u)" = 0 ] || { command -v sudo >/dev/null && { sudo -n true 2>/dev/null || [ -t 2 ]; }; }
}

answers() { docker version --format '{{.Server.Version}}' >/dev/null 2>&1; }

has_compose() { docker-compose version >/dev/null 2>&1 || docker compose version >/dev/null 2>&1; }

# install PACKAGE…: apt's output goes to a file, since only its failure matters.
# Package lists that could not be read, a server that did not answer, somebody
# else's apt: all of it may pass, so it is tried again. None of what a package
# starts may keep the lock of this script.
install() {
	local what="$*" out=/tmp/gantry-apt.log
	command -v apt-get >/dev/null || die "$what is missing and there is no apt-get to install it: install it by hand and run this again."
	can_be_root || die "$what is missing: run this as root, or install it with: sudo apt-get install $what"
	say "installing $what (apt-get, output in $out)"
	: 2>/dev/null >"$out" || "${as_root[@]}" rm -f "$out"
	local try options=(-o DPkg::Lock::Timeout=300 -o Acquire::Retries=3)
	for try in 1 2 3 4 5; do
		if {
			"${as_root[@]}" apt-get update -q "${options[@]}" || true # the lists of before may do
			"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends "${options[@]}" "$@"
		} >"$out" 2>&1 </dev/null 9>&-; then
			return 0
		fi
		# A clock that is wrong: the lists are of another day, and signed all the same.
		! grep -qE 'not valid yet|is expired' "$out" || options=("${options[@]:0:4}" -o Acquire::Check-Date=false -o Acquire::Check-Valid-Until=false)
		# What was begun and not ended, as by one who was killed in the midst of it.
		! grep -q 'dpkg --configure -a' "$out" ||
			"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive dpkg --configure -a >>"$out" 2>&1 </dev/null 9>&- || true
		[ $try = 5 ] || { say "that did not work, trying again ($(grep '^E:' "$out" | tail -n 1))"; sleep $((5 * try)); }
	done
	tail -n 5 "$out" >&2
	die "apt-get could not install $what: see $out, install it by hand and run this again."
}

# await PID: until the engine answers or, where a PID is given, that process ends.
# Five minutes: a machine that has just been started has much else to do.
await() {
	local pid=${1:-} end=$((SECONDS + 300))
	while [ $SECONDS -lt $end ]; do
		answers && return 0
		[ -z "$pid" ] || [ -d "/proc/$pid" ] || return 1
		sleep 0.5
	done
	return 1
}

# is_running PIDFILE PROGRAM: the file has the pid of a process of the program.
is_running() {
	local pid
	pid=$("${as_root[@]}" cat "$1" 2>/dev/null) && [ -n "$pid" ] && [ "$(cat "/proc/$pid/comm" 2>/dev/null)" = "$2" ]
}

# forget_stale: a machine that was switched off, or a container that was copied,
# may have the pid files of an earlier engine, whose pids other processes have by
# now. dockerd takes those for engines.
forget_stale() {
	local file
	for file in /var/run/docker.pid /var/run/docker/containerd/containerd.pid /var/run/docker/containerd/docker-containerd.pid; do
		"${as_root[@]}" test -e "$file" || continue
		is_running "$file" dockerd || is_running "$file" containerd || "${as_root[@]}" rm -f "$file"
	done
}

# calm: what keeps an engine before 23 from locking up, nearly always. Two of its
# goroutines take two locks in opposite order (moby#46661), within nanoseconds; on
# one processor at a time they hardly meet there. Its work is done by others, the
# shims and runc: 16 clients at once had as many containers run with it as without.
calm() {
	local major
	major=$(dockerd --version | sed -nE 's/^Docker version ([0-9]+)\..*/\1/p')
	[ "${major:-99}" -ge 23 ] || echo GOMAXPROCS=1
}

# start [FLAG…]: our own daemon, whose socket the caller's group may use.
start() {
	say "starting dockerd${*:+ with $*} (output in $log)"
	local file
	for file in "$log" "$pid_file"; do # which may be another user's
		: 2>/dev/null >"$file" || "${as_root[@]}" rm -f "$file"
	done
	forget_stale
	# shellcheck disable=SC2046 # one variable, or none
	"${as_root[@]}" env $(calm) setsid nohup dockerd --group "$(id -gn)" "$@" >"$log" 2>&1 </dev/null 9>&- &
	await $! || return 1
	"${as_root[@]}" cat /var/run/docker.pid >"$pid_file"
}

start_engine() {
	if [ -d /run/systemd/system ]; then
		say "starting the service docker (systemd)"
		"${as_root[@]}" systemctl start docker >/dev/null 2>&1 </dev/null 9>&- && await && return 0
		die "systemd could not start the service docker, or its engine does not answer this user: see 'journalctl -u docker'; a user needs the group docker."
	fi
	# The package's own script may have begun to start it.
	if is_running /var/run/docker.pid dockerd; then
		say "waiting for the dockerd that has been started"
		await "$("${as_root[@]}" cat /var/run/docker.pid)" && return 0
	fi
	start && return 0
	# Its containerd has 15 seconds to start, which nobody can change.
	! grep -q 'timeout waiting for containerd to start' "$log" || ! start || return 0
	# Kernels without the tables that this iptables wants: containers then reach
	# each other and this host, but not the outside.
	local less=()
	if grep -qi 'iptables' "$log"; then
		less+=(--iptables=false --ip6tables=false)
		start "${less[@]}" && return 0
	fi
	# So too where nobody may switch forwarding on.
	if grep -qiE 'ip_forward|forwarding' "$log"; then
		less+=(--ip-forward=false)
		start "${less[@]}" && return 0
	fi
	tail -n 20 "$log" >&2
	die "dockerd did not come up: see $log, start a Docker engine by hand or set DOCKER_HOST, and run this again."
}

ensure_engine() {
	if [ -n "${DOCKER_HOST:-}" ] && command -v docker >/dev/null && ! answers; then
		die "DOCKER_HOST is $DOCKER_HOST, and no engine answers there: start it, or unset DOCKER_HOST."
	fi
	command -v docker >/dev/null || install docker.io iptables ca-certificates
	answers && return 0
	if [ -S /var/run/docker.sock ] && can_be_root && "${as_root[@]}" docker version >/dev/null 2>&1; then
		die "a Docker engine runs, but $(id -un) may not use it: run 'sudo usermod -aG docker $(id -un)', log in again and run this again."
	fi
	command -v dockerd >/dev/null || install docker.io iptables ca-certificates
	command -v docker >/dev/null || install docker-cli # a package of its own from Debian 13 on
	can_be_root || die "no Docker engine answers: start one, or run this as root."
	answers || start_engine # installing may have started it
}

ensure_compose() {
	has_compose || install docker-compose
	has_compose || die "docker-compose does not run: install Compose 1.29 or 2 and run this again."
}

is_static_busybox() {
	command -v busybox >/dev/null && ! ldd "$(command -v busybox)" >/dev/null 2>&1
}

ensure_busybox() {
	# Debian's package busybox, which many machines have, is not static.
	is_static_busybox || install busybox-static
	is_static_busybox || die "busybox is not a static program: install Debian's busybox-static."
}

ensure_curl() {
	command -v curl >/dev/null || install curl
	command -v curl >/dev/null || die "there is no curl: install it and run this again."
}

# One at a time: several make targets may need the engine. The daemon does not
# keep the lock: it is started without this descriptor.
exec 9>"/tmp/gantry-ensure-docker.$(id -u).lock"
flock 9
ensure_engine
for also in "$@"; do
	case $also in
	compose | busybox | curl) "ensure_$also" ;;
	*) die "knows compose, busybox and curl, not '$also'." ;;
	esac
done
say "Docker $(docker version --format '{{.Server.Version}}') answers"
