#!/usr/bin/env bash
# What a target needs on this machine: a current Go always, Debian packages for tests and code generation.
# usage: scripts/setup.sh build|test|test-long|generate
set -euo pipefail
cd "$(dirname "$0")/.."

want=$(awk '$1 == "go" { print $2; exit }' go.mod)

fail() { printf 'setup: %s\n' "$*" >&2; exit 1; }

check_go() {
	if ! command -v go >/dev/null; then
		[ -z "${SUDO_USER:-}" ] || fail "no go on the PATH that sudo leaves; try: sudo env PATH=\"\$PATH\" make ... (Tandem needs Go $want or newer)"
		fail "no go on the PATH; Tandem needs Go $want or newer (https://go.dev/dl/)"
	fi
	local have
	have=$(GOTOOLCHAIN=local GOFLAGS= go env GOVERSION 2>/dev/null || true)
	[ -n "$have" ] || have=$(go version | awk '{ print $3 }')
	have=${have#go}; have=${have%% *}
	if [ "$(printf '%s\n%s\n' "$want" "$have" | sort -V | head -n 1)" != "$want" ]; then
		fail "Go $have at $(command -v go) is too old: Tandem needs Go $want or newer (https://go.dev/dl/)"
	fi
}

# packages NAME=COMMAND ...: installs the packages whose command is missing.
packages() {
	local missing=() pair
	for pair in "$@"; do
		command -v "${pair#*=}" >/dev/null || [ -x "/usr/sbin/${pair#*=}" ] || missing+=("${pair%%=*}")
	done
	[ ${#missing[@]} -gt 0 ] || return 0
	if ! command -v apt-get >/dev/null; then
		echo "setup: missing: ${missing[*]} (Debian's names); this is no Debian, install them by its own means. Tests that need them are skipped." >&2
		return 1
	fi
	if [ "$(id -u)" != 0 ]; then
		echo "setup: missing packages: ${missing[*]}; installing them needs root: sudo apt-get install -y ${missing[*]}" >&2
		return 1
	fi
	echo "setup: installing ${missing[*]}"
	apt-get update -qq || echo "setup: apt-get update did not succeed; trying with the lists at hand" >&2
	# The programs are wanted, not their services: Kamailio's package would start a proxy on this machine.
	if [ ! -e /usr/sbin/policy-rc.d ]; then
		trap 'rm -f /usr/sbin/policy-rc.d' EXIT
		printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d
		chmod 755 /usr/sbin/policy-rc.d
	fi
	DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null \
		|| fail "apt-get install ${missing[*]} did not succeed"
}

peers() {
	packages sip-tester=sipp baresip-core=baresip nftables=nft kamailio=kamailio ||
		echo "setup: going on without them: the end-to-end tests that need them are skipped and say so" >&2
}

check_go
case "${1:-}" in
build) ;;
test) peers ;;
test-long)
	peers
	packages gcc=gcc libc6-dev=gcc || fail "a C compiler is needed for the race detector"
	;;
generate) packages clang-19=clang-19 llvm-19=llvm-strip-19 || fail "clang 19 is needed to compile the BPF programs" ;;
*) fail "usage: scripts/setup.sh build|test|test-long|generate" ;;
esac
