#!/usr/bin/env bash
# Brings and builds all that the benchmarks run: the programs that `scripts/bootstrap bench` finds or installs, this repository's programs
# for release, and the Go program of bench/direct. Writes to target/ only. Without Go its rows are left out.
set -euo pipefail
cd "$(dirname "$0")/.."

scripts/bootstrap bench
cargo build --release --locked --package inventory-sentinel-server --package sentinel-bench

direct=$(realpath -m "${CARGO_TARGET_DIR:-target}")/bench/direct
mkdir -p "${direct%/*}"
rm -f "$direct" # That of another day is no peer.
if ! command -v go >/dev/null; then
    echo "setup: go is missing: the rows of the direct library are left out" >&2
elif ! (cd bench/direct && go build -o "$direct" .); then
    echo "setup: the Go program could not be built: the rows of the direct library are left out" >&2
fi
