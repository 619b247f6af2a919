#!/usr/bin/env bash
# `make demo`: builds, starts a server with its embedded Redis in a temporary folder, runs a sale against it with
# `sentinelctl demo "$@"`, and stops it. Standard output and the exit code are those of sentinelctl.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/server.sh

bin=${CARGO_TARGET_DIR:-target}/release
cargo build --release --locked --package inventory-sentinel-server --package sentinelctl >&2

folder=$(mktemp -d "${TMPDIR:-/tmp}/sentinel-demo.XXXXXX")
demo_pid=
finish() {
    [[ -z $demo_pid ]] || kill -TERM "$demo_pid" 2>/dev/null || true
    stop_server || true
    rm -rf "$folder"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

start_server "$bin/sentinel-server" "$folder" 50051 9464
print_line "the server is ready: gRPC on $SERVER_ADDRESS, metrics on http://$SERVER_ADMIN/metrics"

# In the background, so that a signal is handled at once and not after the sale.
"$bin/sentinelctl" --server "http://$SERVER_ADDRESS" demo "$@" </dev/null &
demo_pid=$!
wait "$demo_pid"
