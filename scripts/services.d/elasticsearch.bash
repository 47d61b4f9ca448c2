# shellcheck shell=bash
# Elasticsearch, sourced by scripts/services: the distribution without optional modules that a package registry keeps.
# It has no language analyzers, no _reindex and no `GET /`.

elasticsearch_address() { echo 127.0.0.1; }
elasticsearch_ports() { echo "$ELASTICSEARCH_PORT $ELASTICSEARCH_TRANSPORT_PORT"; }

elasticsearch_needs() {
    need_java
    need curl curl
    need_maven_for "$CACHE/elasticsearch-$ELASTICSEARCH_VERSION"
    [ -d "$CACHE/elasticsearch-$ELASTICSEARCH_VERSION" ] || need unzip unzip
}

elasticsearch_fetch() {
    local version=$ELASTICSEARCH_VERSION home=$CACHE/elasticsearch-$ELASTICSEARCH_VERSION
    [ -d "$home" ] && return
    say "downloading elasticsearch $version"
    local new
    new=$(mktemp -d "$CACHE/new.XXXXXX")
    mvn -q -B -Dstyle.color=never dependency:copy -DoutputDirectory="$new" \
        -Dartifact="org.elasticsearch.distribution.integ-test-zip:elasticsearch:$version:zip" >&2
    unzip -q "$new/elasticsearch-$version.zip" -d "$new"
    # The archive carries no permissions.
    chmod -R go+rX "$new/elasticsearch-$version"
    chmod +x "$new/elasticsearch-$version/bin/"*
    mv "$new/elasticsearch-$version" "$home"
    rm -rf "$new"
}

elasticsearch_start() {
    local name=$1 dir=$STATE/$1 home=$CACHE/elasticsearch-$ELASTICSEARCH_VERSION as=()
    mkdir -p "$dir/conf" "$dir/data" "$dir/tmp"
    cp "$home/config/log4j2.properties" "$HERE/elasticsearch.yml" "$dir/conf/"
    # Its own log of garbage collections, and where it dumps its heap, are folders of the distribution's.
    sed '/-Xlog:gc/d; /HeapDump/d; /ErrorFile/d' "$home/config/jvm.options" >"$dir/conf/jvm.options"
    if secured; then
        give_certificates "$dir/conf"
        cp "$HERE/elasticsearch.users" "$dir/conf/users"
        echo "superuser:${ELASTICSEARCH_USER%%:*}" >"$dir/conf/users_roles"
        sed -i 's/^xpack.security.enabled: false$/xpack.security.enabled: true/' "$dir/conf/elasticsearch.yml"
        cat "$HERE/elasticsearch.tls.yml" >>"$dir/conf/elasticsearch.yml"
    fi
    if [ "$(id -u)" = 0 ]; then
        # It refuses to run as root, and another user can't read root's cache.
        as=("${AS_NOBODY[@]}")
        if [ ! -d "$dir/home-$ELASTICSEARCH_VERSION" ]; then
            cp -al "$home" "$dir/home-$ELASTICSEARCH_VERSION" 2>/dev/null ||
                cp -a "$home" "$dir/home-$ELASTICSEARCH_VERSION"
        fi
        home=$dir/home-$ELASTICSEARCH_VERSION
        chown -R nobody "$dir/conf" "$dir/data" "$dir/tmp"
    fi
    # In the background it leaves its launcher, a second Java process, as soon as it is up.
    launch "$name" "${as[@]}" env ES_JAVA_HOME="${JAVA%/bin/java}" ES_PATH_CONF="$dir/conf" ES_TMPDIR="$dir/tmp" \
        ES_JAVA_OPTS="-Xms512m -Xmx512m" "$home/bin/elasticsearch" -d -p "$dir/tmp/pid" \
        -Enetwork.host=127.0.0.1 -Ehttp.port="$ELASTICSEARCH_PORT" -Etransport.port="$ELASTICSEARCH_TRANSPORT_PORT" \
        -Epath.data="$dir/data" -Epath.logs="$dir/tmp"
}

elasticsearch_ready() {
    local way=(http)
    secured && way=(https --cacert "$CERTIFICATES/ca.pem" -u "$ELASTICSEARCH_USER")
    curl -fsS -m 2 -o /dev/null "${way[@]:1}" "${way[0]}://127.0.0.1:$ELASTICSEARCH_PORT/_cluster/health?wait_for_status=yellow&timeout=1s" \
        2>/dev/null
}
