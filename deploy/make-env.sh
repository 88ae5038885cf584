#!/usr/bin/env bash
# Writes what docker-compose.yml needs to .env beside it, or to the file that is
# named: make-env.sh [FILE]. Passwords, and where this machine's id stands. What
# is there already stays.
set -euo pipefail
file=${1:-$(dirname "$0")/../.env}
umask 077
touch "$file"
for user in DISPATCHER EXECUTOR TRANSFER TRACKER CLIENT ADMIN ROUTE; do
	name=GANTRY_NATS_PASSWORD_$user
	grep -q "^$name=" "$file" && continue
	# A leading letter: the server would read digits as a number.
	printf '%s=p%s\n' "$name" "$(od -An -N20 -tx1 /dev/urandom | tr -d ' \n')" >>"$file"
	echo "make-env: wrote $name"
done
if ! grep -q '^GANTRY_MACHINE_ID_FILE=' "$file"; then
	for id in /etc/machine-id /var/lib/dbus/machine-id /dev/null; do
		[ ! -s "$id" ] || break
	done
	printf 'GANTRY_MACHINE_ID_FILE=%s\n' "$id" >>"$file"
	echo "make-env: wrote GANTRY_MACHINE_ID_FILE"
	[ "$id" != /dev/null ] || echo "make-env: this machine has no /etc/machine-id (systemd-machine-id-setup makes one): a copied work folder will not be noticed"
fi
