# shellcheck shell=bash
# RabbitMQ, sourced by scripts/services: the distribution's package, with its own node name, folders and port mapper.

rabbitmq_address() { echo 127.0.0.1; }
rabbitmq_ports() {
    local tls=
    secured && tls=" $RABBITMQ_TLS_PORT"
    echo "$RABBITMQ_PORT $RABBITMQ_MANAGEMENT_PORT $RABBITMQ_PROMETHEUS_PORT $RABBITMQ_DIST_PORT $RABBITMQ_EPMD_PORT$tls"
}

rabbitmq_needs() {
    need curl curl
    [ -x "$RABBITMQ_BIN/rabbitmq-server" ] || missing+=("RabbitMQ 3.10 or newer in $RABBITMQ_BIN: apt-get install rabbitmq-server")
    need erl erlang-base
    need epmd erlang-base
}

rabbitmq_fetch() { :; }

# The environment in which the node runs, and in which the command line tools find it.
rabbitmq_env() {
    local dir=$STATE/rabbitmq
    env=(
        env
        HOME="$dir/home"
        # The package's own settings are for the package's own node.
        RABBITMQ_CONF_ENV_FILE=/dev/null
        RABBITMQ_NODENAME=aula@localhost
        RABBITMQ_CONFIG_FILE="$dir/conf/rabbitmq.conf"
        RABBITMQ_ADVANCED_CONFIG_FILE="$dir/conf/none"
        RABBITMQ_CONFIG_FILES="$dir/conf/conf.d"
        RABBITMQ_ENABLED_PLUGINS_FILE="$dir/conf/plugins"
        RABBITMQ_MNESIA_BASE="$dir/data"
        RABBITMQ_LOG_BASE="$dir/tmp"
        RABBITMQ_LOGS=-
        RABBITMQ_PID_FILE="$dir/tmp/pid"
        RABBITMQ_NODE_IP_ADDRESS=127.0.0.1
        RABBITMQ_NODE_PORT="$RABBITMQ_PORT"
        RABBITMQ_DIST_PORT="$RABBITMQ_DIST_PORT"
        RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS="-kernel inet_dist_use_interface {127,0,0,1}"
        # The port mapper is a server of its own here: the machine's own one, if any, is left alone.
        ERL_EPMD_PORT="$RABBITMQ_EPMD_PORT"
        ERL_EPMD_ADDRESS=127.0.0.1
        "LC_ALL=C.UTF-8"
    )
    [ "$(id -u)" != 0 ] || env=("${AS_NOBODY[@]}" "${env[@]}")
}

rabbitmq_start() {
    local name=$1 dir=$STATE/$1 env=()
    mkdir -p "$dir/conf" "$dir/data" "$dir/tmp" "$dir/home"
    if secured; then give_certificates "$dir/conf"; fi
    cp "$HERE/rabbitmq.plugins" "$dir/conf/plugins"
    {
        cat "$HERE/rabbitmq.conf"
        echo "management.tcp.ip = 127.0.0.1"
        echo "management.tcp.port = $RABBITMQ_MANAGEMENT_PORT"
        echo "prometheus.tcp.ip = 127.0.0.1"
        echo "prometheus.tcp.port = $RABBITMQ_PROMETHEUS_PORT"
        if secured; then
            echo "listeners.ssl.1 = 127.0.0.1:$RABBITMQ_TLS_PORT"
            echo "ssl_options.cacertfile = $dir/conf/ca.pem"
            echo "ssl_options.certfile = $dir/conf/server.pem"
            echo "ssl_options.keyfile = $dir/conf/server.key"
            echo "ssl_options.verify = verify_peer"
            echo "ssl_options.fail_if_no_peer_cert = true"
        fi
    } >"$dir/conf/rabbitmq.conf"
    [ "$(id -u)" != 0 ] || chown -R nobody "$dir/conf" "$dir/data" "$dir/tmp" "$dir/home"
    rabbitmq_env
    # shellcheck disable=SC2016 # expanded by the inner shell
    launch "$name" "${env[@]}" sh -c 'epmd -daemon; exec "$0"' "$RABBITMQ_BIN/rabbitmq-server"
}

rabbitmq_ready() {
    curl -fsS -m 2 -o /dev/null -u guest:guest \
        "http://127.0.0.1:$RABBITMQ_MANAGEMENT_PORT/api/health/checks/port-listener/$RABBITMQ_PORT" 2>/dev/null
}

rabbitmq_version() {
    local file
    # The plugin's folder carries the version; the first path is the package's, the second that of the generic archive.
    for file in "$RABBITMQ_BIN"/../lib/rabbitmq_server-*/plugins/rabbit-[0-9]* "$RABBITMQ_BIN"/../plugins/rabbit-[0-9]*; do
        [ -e "$file" ] || continue
        file=${file##*/rabbit-}
        echo "${file%.ez}"
        return
    done
    echo "?"
}
