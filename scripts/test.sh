#!/usr/bin/env bash
# Runs the tests. usage: scripts/test.sh short|long [go test flags]
# What this machine cannot run is skipped, and listed at the end with its reason; TANDEM_REQUIRE=root,bpf,netns,sipp,baresip,nft,kamailio
# turns those skips into failures. As root everything but the tools is required from the start.
set -uo pipefail
cd "$(dirname "$0")/.."
mode=${1:-short}; shift || true

mkdir -p build
CGO_ENABLED=0 go build -trimpath -o build/ ./cmd/tandemd ./cmd/tandem ./cmd/tandem-bench || exit 1
export TANDEM_BIN=$PWD/build
export TANDEM_SKIP_LOG=$PWD/build/skipped.txt
: >"$TANDEM_SKIP_LOG"
if [ "$(id -u)" = 0 ] && [ -z "${TANDEM_REQUIRE+set}" ]; then export TANDEM_REQUIRE=root,bpf,netns; fi

status=0
step() { echo "== $1"; shift; "$@" || status=1; }

# fuzz PACKAGE TARGET: go's fuzzer calls it a failure when its own deadline meets a worker at work; a real one names an input.
fuzz() {
	local log=build/fuzz.log
	if go test -run '^$' -fuzz "^$2\$" -fuzztime "${FUZZTIME:-30s}" -fuzzminimizetime 10x "$1" >"$log" 2>&1; then
		grep -E '^fuzz: elapsed' "$log" | tail -n 1
	elif grep -q 'context deadline exceeded' "$log" && ! grep -qE 'Failing input|panic|testdata/fuzz' "$log"; then
		grep -E '^fuzz: elapsed' "$log" | tail -n 1
		echo "fuzz: ended at its deadline without a failing input"
	else
		cat "$log"
		return 1
	fi
}

e2e=./bench/e2e/...
mapfile -t rooms < <(go list ./... | grep -v '/bench/e2e')

case "$mode" in
short)
	step "unit, program and lab tests" go test -count=1 -timeout 10m "$@" "${rooms[@]}"
	step "end to end" go test -count=1 -p 1 -timeout 10m "$@" "$e2e"
	;;
long)
	export TANDEM_LONG=1
	step "unit, program and lab tests under the race detector" go test -race -count=1 -p 1 -timeout 40m "$@" "${rooms[@]}"
	step "end to end" go test -count=1 -p 1 -timeout 30m "$@" "$e2e"
	while read -r package target; do
		step "fuzz $target ($package)" fuzz "$package" "$target"
	done < <(git grep -E '^func Fuzz[A-Za-z0-9_]+\(' -- '*_test.go' |
		sed -E 's|^(.*)/[^/]+_test.go:func (Fuzz[A-Za-z0-9_]+)\(.*|./\1 \2|')
	;;
*) echo "usage: scripts/test.sh short|long" >&2; exit 2 ;;
esac

if [ -s "$TANDEM_SKIP_LOG" ]; then
	echo "== SKIPPED on this machine ($(wc -l <"$TANDEM_SKIP_LOG") tests)"
	sort -u "$TANDEM_SKIP_LOG"
	if [ -n "${CI:-}" ]; then echo "test: a skip is a failure in CI"; status=1; fi
fi
[ $status = 0 ] && echo "test: all passed" || echo "test: FAILED"
exit $status
