# Runs a server for a script: picks ports, starts it, waits until it is ready, stops it. Sourced by scripts/demo.sh,
# scripts/run.sh and tests/polyglot/run; touches only the given data folder and the process that it started.
# shellcheck shell=bash

READY_SECONDS=30 # Longest wait for a server to become ready.
STOP_SECONDS=20  # Longest wait for a server to drain and stop, before it is killed.

SERVER_PID=

print_line() { printf '%s\n' "$*" >&2; }

# Uses /dev/tcp of bash, because curl may not be installed.
port_is_free() { ! (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

# free_port [PREFERRED]: prints a port of the loopback interface on which no process listens.
free_port() {
    local port=${1:-} attempt
    for attempt in {1..50}; do
        [[ $port ]] && port_is_free "$port" && printf '%s\n' "$port" && return
        # Below the range from which systems take the ports of outgoing connections.
        port=$((20000 + RANDOM % 12000))
    done
    print_line "no free port found in $attempt attempts"
    return 1
}

# is_ready HOST:PORT: whether the admin address reports that the server is ready.
is_ready() {
    (
        exec 3<>"/dev/tcp/${1%:*}/${1##*:}"
        printf 'GET /readyz HTTP/1.1\r\nhost: %s\r\nconnection: close\r\n\r\n' "$1" >&3
        read -r -t 2 line <&3
        read -r -t 2 -d '' _ <&3 || true # Read to the end, so that the server does not detect a broken connection.
        [[ $line == "HTTP/1.1 200 "* ]]
    ) 2>/dev/null
}

# wait_until_ready PID HOST:PORT: returns 0 when the server is ready, 1 if it stops or is not ready in READY_SECONDS.
wait_until_ready() {
    local deadline=$((SECONDS + READY_SECONDS))
    until is_ready "$2"; do
        kill -0 "$1" 2>/dev/null || return 1
        ((SECONDS < deadline)) || return 1
        sleep 0.05
    done
}

# start_server BINARY FOLDER [PORT ADMIN_PORT]: starts a server with its embedded Redis and all its data in FOLDER, on
# these ports if they are free. Sets SERVER_PID, SERVER_ADDRESS and SERVER_ADMIN; returns once the server is ready.
start_server() {
    local binary=$1 folder=$2 port admin_port
    port=$(free_port "${3:-}") && admin_port=$(free_port "${4:-}") || return 1
    SERVER_ADDRESS=127.0.0.1:$port SERVER_ADMIN=127.0.0.1:$admin_port
    (
        # Settings in the caller's environment do not apply to this server.
        for name in $(compgen -e SENTINEL_); do unset "$name"; done
        exec "$binary" --listen "$SERVER_ADDRESS" --admin-listen "$SERVER_ADMIN" --data-dir "$folder/data"
    ) </dev/null >"$folder/server.log" 2>&1 &
    SERVER_PID=$!
    wait_until_ready "$SERVER_PID" "$SERVER_ADMIN" && return
    print_line "the server did not become ready; the last lines of its log:"
    tail -n 20 "$folder/server.log" >&2
    stop_server
    return 1
}

# start_guarded_server BINARY SENTINELCTL FOLDER: starts a server with TLS, client certificates and a policy, with
# generated credentials in FOLDER/access. Sets SERVER_PID and SERVER_ADDRESS; returns once it responds to an operator.
start_guarded_server() {
    local binary=$1 ctl=$2 folder=$3 port admin_port deadline=$((SECONDS + READY_SECONDS))
    local access=$folder/access
    "$ctl" credentials init "$access" >/dev/null || return 1
    port=$(free_port) && admin_port=$(free_port) || return 1
    SERVER_ADDRESS=localhost:$port
    (
        for name in $(compgen -e SENTINEL_); do unset "$name"; done
        exec "$binary" --listen "127.0.0.1:$port" --admin-listen "127.0.0.1:$admin_port" --data-dir "$folder/data" \
            --tls-cert "$access/server.pem" --tls-key "$access/server-key.pem" --client-ca "$access/ca.pem" \
            --client-certificate required --policy "$access/policy.toml"
    ) </dev/null >"$folder/server.log" 2>&1 &
    SERVER_PID=$!
    until "$ctl" --server "https://$SERVER_ADDRESS" --tls-ca "$access/ca.pem" --tls-cert "$access/client.pem" \
        --tls-key "$access/client-key.pem" --token-file "$access/operator.token" info >/dev/null 2>&1; do
        if ! kill -0 "$SERVER_PID" 2>/dev/null || ((SECONDS >= deadline)); then
            print_line "the guarded server did not become ready; the last lines of its log:"
            tail -n 20 "$folder/server.log" >&2
            stop_server
            return 1
        fi
        sleep 0.05
    done
}

# Stops the server that start_server started, if any; returns 1 if it had to be killed.
stop_server() {
    local pid=$SERVER_PID deadline=$((SECONDS + STOP_SECONDS))
    [[ $pid ]] || return 0
    SERVER_PID=
    kill -TERM "$pid" 2>/dev/null || return 0
    while kill -0 "$pid" 2>/dev/null; do
        if ((SECONDS >= deadline)); then
            print_line "the server did not stop in $STOP_SECONDS s and was killed"
            kill -KILL "$pid" 2>/dev/null
            wait "$pid" 2>/dev/null
            return 1
        fi
        sleep 0.05
    done
    wait "$pid" 2>/dev/null || true
}
