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

say() { printf 'ensure-docker: %s\n' "$*"; }
die() { printf 'ensure-docker: %s\n' "$*" >&2; exit 1; }

as_root=()
[ "$(id -u)" = 0 ] || as_root=(sudo)

can_be_root() {
	[ "$(id -u)" = 0 ] || { command -v sudo >/dev/null && { sudo -n true 2>/dev/null || [ -t 2 ]; }; }
}

answers() { docker version --format '{{.Server.Version}}' >/dev/null 2>&1; }

has_compose() { command -v docker-compose >/dev/null || docker compose version >/dev/null 2>&1; }

# install PACKAGE…: apt's output goes to a file, since only its failure matters.
install() {
	local what="$*" out=/tmp/gantry-apt.log
	command -v apt-get >/dev/null || die "$what is missing and there is no apt-get to install it: install it by hand and run this again."
	can_be_root || die "$what is missing: run this as root, or install it with: sudo apt-get install $what"
	say "installing $what (apt-get, output in $out)"
	{
		"${as_root[@]}" apt-get update -q &&
			"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends -o DPkg::Lock::Timeout=300 "$@"
	} >"$out" 2>&1 </dev/null || { tail -n 5 "$out" >&2; die "apt-get could not install $what: see $out, install it by hand and run this again."; }
}

# await PID: until the engine answers or, where a PID is given, that process ends.
await() {
	local pid=${1:-}
	for _ in $(seq 120); do
		answers && return 0
		[ -z "$pid" ] || kill -0 "$pid" 2>/dev/null || "${as_root[@]}" kill -0 "$pid" 2>/dev/null || return 1
		sleep 0.5
	done
	return 1
}

# start [FLAG…]: our own daemon, whose socket the caller's group may use.
start() {
	say "starting dockerd${*:+ with $*} (output in $log)"
	: 2>/dev/null >"$log" || "${as_root[@]}" rm -f "$log"
	"${as_root[@]}" setsid nohup dockerd --group "$(id -gn)" "$@" >"$log" 2>&1 </dev/null 9>&- &
	await $!
}

start_engine() {
	if [ -d /run/systemd/system ]; then
		say "starting the service docker (systemd)"
		"${as_root[@]}" systemctl start docker >/dev/null 2>&1 </dev/null && await && return 0
		die "systemd could not start the service docker, or its engine does not answer this user: see 'journalctl -u docker'; a user needs the group docker."
	fi
	start && return 0
	# Kernels without the tables that this iptables wants: containers then reach
	# each other and this host, but not the outside.
	if grep -qi 'iptables' "$log"; then
		start --iptables=false --ip6tables=false && return 0
	fi
	tail -n 5 "$log" >&2
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
