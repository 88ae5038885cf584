#!/usr/bin/env bash
# Writes the passwords that docker-compose.yml needs to .env beside it, or to the
# file that is named: make-env.sh [FILE]. What is there already stays.
set -euo pipefail
file=${1:-$(dirname "$0")/../.env}
umask 077
touch "$file"
for user in DISPATCHER EXECUTOR TRANSFER TRACKER CLIENT ADMIN; do
	name=GANTRY_NATS_PASSWORD_$user
	grep -q "^$name=" "$file" && continue
	# A leading letter: the server would read digits as a number.
	printf '%s=p%s\n' "$name" "$(od -An -N20 -tx1 /dev/urandom | tr -d ' \n')" >>"$file"
	echo "make-env: wrote $name"
done
