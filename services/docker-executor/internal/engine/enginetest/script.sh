#!/bin/sh
# The test image's program: every argument is one step, "verb:rest". The fake
# engine understands the same steps (package fake, script.go).
for step in "$@"; do
	verb=${step%%:*}
	rest=${step#*:}
	first=${rest%%:*}
	second=${rest#*:}
	case $verb in
	out) printf %b "$rest" ;;
	err) printf %b "$rest" >&2 ;;
	fill) head -c "$first" /dev/zero | tr '\0' "$second" ;;
	lines) awk -v n="$first" -v w="$second" 'BEGIN { for (i = 0; i < n; i++) printf "%0" (w - 1) "d\n", i }' ;;
	write) printf %b "$second" >"$first" || exit 1 ;;
	cat) cat "$rest" || exit 1 ;;
	env) eval "printf '%s\n' \"\$$rest\"" ;;
	pwd) pwd ;;
	id) echo "$(id -u):$(id -g)" ;;
	net) ls /sys/class/net ;;
	memory) cat /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null || cat /sys/fs/cgroup/memory.max ;;
	alloc) dd if=/dev/zero of=/dev/null bs="${rest}M" count=1 2>/dev/null || exit $? ;;
	await) until [ -e "$rest" ]; do sleep 0.02; done ;;
	trap) trap "exit $second" "$first" ;;
	die) kill -"$rest" $$ ;;
	hang) while :; do sleep 3600 & wait $!; done ;;
	exit) exit "$rest" ;;
	*) echo "unknown step: $step" >&2; exit 64 ;;
	esac
done
