#!/usr/bin/env bash
# Regenerates the BPF objects and their Go in a copy of the tree and compares: what is committed must be what the sources give.
set -euo pipefail
cd "$(dirname "$0")/.."

copy=$(mktemp -d)
trap 'rm -rf "$copy"' EXIT
mkdir -p "$copy/scripts"
cp -r bpf go.mod go.sum "$copy/"
cp -r scripts/tools "$copy/scripts/"
rm -f "$copy"/bpf/*_bpfe[lb].go "$copy"/bpf/*_bpfe[lb].o
# Without the generated files the package has no types; generating needs none.
(cd "$copy/bpf" && go generate .)

status=0
for file in bpf/*_bpfe[lb].go bpf/*_bpfe[lb].o "$copy"/bpf/*_bpfe[lb].go "$copy"/bpf/*_bpfe[lb].o; do
	name=${file##*/}
	if ! cmp -s "bpf/$name" "$copy/bpf/$name"; then
		echo "generated file differs from what the sources give: bpf/$name" >&2
		status=1
	fi
done
if [ $status = 0 ]; then
	echo "generated files are up to date"
else
	echo "run 'make generate' with $(clang-19 --version | head -n 1) and commit the result" >&2
fi
exit $status
