# shellcheck shell=bash
# Cassandra, sourced by scripts/services: a single node, and three nodes of a cluster. There is no archive of the server
# that a package registry keeps, but the server is a library there.

cassandra_address() {
    case $1 in
        cassandra) echo 127.0.0.1 ;;
        *) echo "127.0.0.${1##*-}" ;;
    esac
}

cassandra_ports() {
    case $1 in
        cassandra) echo "$CASSANDRA_PORT $CASSANDRA_STORAGE_PORT" ;;
        *) echo "$CLUSTER_PORT $CLUSTER_STORAGE_PORT" ;;
    esac
}

cassandra_needs() { need_java; need_maven_for "$CACHE/cassandra-$CASSANDRA_VERSION"; }

cassandra_fetch() {
    local home=$CACHE/cassandra-$CASSANDRA_VERSION
    [ -d "$home" ] && return
    say "downloading cassandra $CASSANDRA_VERSION"
    local new
    new=$(mktemp -d "$CACHE/new.XXXXXX")
    sed "s/@VERSION@/$CASSANDRA_VERSION/" "$HERE/cassandra.pom.xml" >"$new/pom.xml"
    (cd "$new" && mvn -q -B -Dstyle.color=never dependency:copy-dependencies -DoutputDirectory=lib -DincludeScope=runtime) >&2
    mv "$new" "$home"
}

cassandra_start() {
    local name=$1 dir=$STATE/$1 address port storage_port
    address=$(cassandra_address "$name")
    read -r port storage_port < <(cassandra_ports "$name")
    mkdir -p "$dir/conf" "$dir/data" "$dir/tmp"

    local heap=512m cluster=aula seeds=$address settings=()
    if [ "$name" != cassandra ]; then
        heap=400m cluster=aula-cluster
        # All of them are seeds, so that any of them comes back while any other is away.
        seeds=127.0.0.1,127.0.0.2,127.0.0.3
        # Equal shares of the ring.
        local tokens=(-9223372036854775808 -3074457345618258603 3074457345618258602)
        settings+=("-Dcassandra.settings.initial_token=${tokens[${name##*-} - 1]}")
    fi
    cp "$HERE/logback.xml" "$dir/conf/"
    sed "s/@SEEDS@/${seeds//,/:$storage_port,}:$storage_port/" "$HERE/cassandra.yaml" >"$dir/conf/cassandra.yaml"
    if [ "$name" = cassandra ] && secured; then
        give_certificates "$dir/conf"
        cat "$dir/conf/server.key" "$dir/conf/server.pem" >"$dir/conf/keystore.pem"
        sed -i 's/AllowAllAuthenticator/PasswordAuthenticator/; s/AllowAllAuthorizer/CassandraAuthorizer/' \
            "$dir/conf/cassandra.yaml"
        sed "s|@CONF@|$dir/conf|" "$HERE/cassandra.tls.yaml" >>"$dir/conf/cassandra.yaml"
        # The first user is made at once: nobody else could make it first.
        settings+=(-Dcassandra.superuser_setup_delay_ms=0)
    fi
    settings+=(
        "-Dcassandra.config=file://$dir/conf/cassandra.yaml"
        -Dcassandra.config.allow_system_properties=true
        "-Dcassandra.settings.cluster_name=$cluster"
        "-Dcassandra.settings.listen_address=$address"
        "-Dcassandra.settings.rpc_address=$address"
        "-Dcassandra.settings.native_transport_port=$port"
        "-Dcassandra.settings.storage_port=$storage_port"
        "-Dcassandra.storagedir=$dir/data"
        -Dcassandra.foreground=yes
        # Nobody else is there to wait for: these two waits are for clusters of strangers.
        -Dcassandra.skip_wait_for_gossip_to_settle=0
        -Dcassandra.ring_delay_ms=100
        "-Dlogback.configurationFile=$dir/conf/logback.xml"
        # Measures objects by attaching to itself.
        -Djdk.attach.allowAttachSelf=true
        # Native libraries are unpacked there: not left behind in the machine's own.
        "-Djava.io.tmpdir=$dir/tmp"
    )
    launch "$name" "$JAVA" "-Xms$heap" "-Xmx$heap" -XX:+ExitOnOutOfMemoryError \
        "@$HERE/cassandra.jvm" "${settings[@]}" \
        -cp "$dir/conf:$CACHE/cassandra-$CASSANDRA_VERSION/lib/*" org.apache.cassandra.service.CassandraDaemon
}

# An OPTIONS frame of the native protocol v4, answered by SUPPORTED.
cassandra_ready() {
    local address port
    address=$(cassandra_address "$1")
    read -r port _ < <(cassandra_ports "$1")
    # shellcheck disable=SC2016 # expanded by the inner shell
    [ "$(timeout 2 bash -c 'exec 3<>"/dev/tcp/$0/$1" && printf "\4\0\0\0\5\0\0\0\0" >&3 && head -c5 <&3 | od -An -tx1' \
        "$address" "$port" 2>/dev/null)" = " 84 00 00 00 06" ]
}
