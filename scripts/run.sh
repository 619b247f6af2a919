#!/usr/bin/env bash
# `make run`: builds and serves until stopped; Ctrl-C drains. Arguments are passed to the server. When it is ready,
# prints the first calls to paste. Writes ./sentinel-data, unless a flag sets another folder.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/server.sh

# The same packages as for the demo, so that `make run` and `make demo` reuse each other's build.
cargo build --release --locked --package inventory-sentinel-server --package sentinelctl >&2

# The addresses of the server, in its order of precedence: arguments, environment, defaults.
listen=${SENTINEL_LISTEN:-127.0.0.1:50051} admin=${SENTINEL_ADMIN_LISTEN:-127.0.0.1:9464}
previous=
for argument in "$@"; do
    case $previous in
        --listen) listen=$argument ;;
        --admin-listen) admin=$argument ;;
    esac
    case $argument in
        --listen=*) listen=${argument#*=} ;;
        --admin-listen=*) admin=${argument#*=} ;;
    esac
    previous=$argument
done

first_calls() {
    # One identity per start: a line pasted twice has one effect, and the response contains `replayed`.
    local id address=${listen/0.0.0.0/127.0.0.1}
    id=$(date +%s)
    cat <<TEXT

ready. paste these into another terminal:

grpcurl -plaintext -d '{"sku": "t-shirt", "on_hand": 100, "request_id": "stock-$id"}' $address inventory_sentinel.v1.InventoryAdmin/SetStock

RESERVATION=\$(grpcurl -plaintext -d '{"lines": [{"sku": "t-shirt", "quantity": 2}], "ttl": "300s", "request_id": "order-$id"}' $address inventory_sentinel.v1.InventorySentinel/Reserve | tee /dev/stderr | sed -n 's/.*"reservationId": "\([^"]*\)".*/\1/p')

grpcurl -plaintext -d "{\"reservation_id\": \"\$RESERVATION\"}" $address inventory_sentinel.v1.InventorySentinel/Commit

metrics: http://${admin/0.0.0.0/127.0.0.1}/metrics    grpcurl: go install github.com/fullstorydev/grpcurl/cmd/grpcurl@latest

TEXT
}

if is_ready "${admin/0.0.0.0/127.0.0.1}"; then
    print_line "a server already answers on $admin: stop it, or choose other addresses with --listen and --admin-listen"
    exit 1
fi
# exec keeps the process id, so this waits for the server that the shell becomes.
(wait_until_ready $$ "${admin/0.0.0.0/127.0.0.1}" && first_calls) &
exec "${CARGO_TARGET_DIR:-target}/release/sentinel-server" "$@"
