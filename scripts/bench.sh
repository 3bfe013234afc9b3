#!/usr/bin/env bash
# The figures of the README on this machine: the XDP program per packet, and the demo with 100 calls on both data planes in one run.
set -euo pipefail
cd "$(dirname "$0")/.."
[ "$(id -u)" = 0 ] || { echo "bench: loading XDP programs and making namespaces needs root" >&2; exit 1; }
runs=${RUNS:-5}

field() { tr -d '\n' | sed -n "s/.*\"$1\": *\([^,}]*\).*/\1/p"; }
median() { sort -n | awk '{ v[NR] = $1 } END { printf "%s (%s to %s)", v[int((NR + 1) / 2)], v[1], v[NR] }'; }

printf 'machine: %s, %s cores, Linux %s\n' "$(awk -F': ' '/model name/ { print $2; exit }' /proc/cpuinfo)" "$(nproc)" "$(uname -r)"
printf '\nXDP program by test-run, above an empty program under the same harness; median of %s runs (smallest to largest), ns per packet\n' "$runs"
for sessions in 1 4096 262144; do
	for _ in $(seq "$runs"); do build/tandem-bench xdp --sessions "$sessions" --json; done >build/bench.json
	printf '  %7s sessions: %s\n' "$sessions" "$(grep -o '"ns_per_packet": *[0-9.]*' build/bench.json | sed 's|.*: *||' | median)"
done

demos=${DEMOS:-3}
printf '\n100 calls at once, 10 s, %s runs of each data plane by turns; added latency in us: median (smallest to largest)\n' "$demos"
rm -f build/bench-*.json
for run in $(seq "$demos"); do
	for plane in xdp userspace; do
		build/tandem demo --dataplane "$plane" --calls 100 --seconds 10 --json >"build/bench-$plane-$run.json" 2>build/bench.log ||
			{ echo "bench: the demo on $plane was not content:" >&2; tail -n 20 build/bench.log >&2; exit 1; }
	done
done
for plane in xdp userspace; do
	each() { for file in build/bench-"$plane"-*.json; do field "$1" <"$file"; echo; done | grep .; }
	printf '  %-9s sent %s, lost %s, p50 %s, p99 %s\n' "$plane" "$(each packets_sent | awk '{ n += $1 } END { print n }')" \
		"$(each lost | awk '{ n += $1 } END { print n }')" "$(each latency_us_p50 | median)" "$(each latency_us_p99 | median)"
done
rm -f build/bench*.json build/bench.log
