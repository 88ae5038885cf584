#!/usr/bin/env bash
# Lets systemd judge the units, where there is systemd: verify.sh [FOLDER], the
# folder with the binaries. Any word of it about them is a failure: it only warns
# about options that it does not know.
set -euo pipefail
cd "$(dirname "$0")"
bin=$(cd "${1:-../../bin}" && pwd)
command -v systemd-analyze >/dev/null || { echo "systemd units: not checked, this machine has no systemd-analyze"; exit 0; }
units=$(mktemp -d)
trap 'rm -rf "$units"' EXIT
for unit in gantry-*.service; do
	sed "s|^ExecStart=/usr/local/bin/gantry-|ExecStart=$bin/|" "$unit" >"$units/$unit"
done
code=0
said=$(SYSTEMD_UNIT_PATH="$units:" systemd-analyze verify --man=no "$units"/*.service 2>&1) || code=$?
said=$(grep gantry- <<<"$said" || true)
[ $code = 0 ] && [ -z "$said" ] || { printf 'systemd units: %s\n' "$said" >&2; exit 1; }
echo "systemd units: $(systemd-analyze --version | head -n 1) has nothing against them"
