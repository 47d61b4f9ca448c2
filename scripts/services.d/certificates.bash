# shellcheck shell=bash
# shellcheck disable=SC2034,SC2153 # STATE comes from scripts/services, which uses the users
# What AULA_SERVICES_SECURED needs, sourced by scripts/services: an authority that exists for a month, and certificates
# by it for the servers and for a client. And who may log in.

CERTIFICATES=$STATE/certificates
# Cassandra's own first user. Elasticsearch's is in elasticsearch.users: a hash of the same password as here.
CASSANDRA_USER=cassandra:cassandra
ELASTICSEARCH_USER=aula:aula-of-the-tests

secured() { [ -n "${AULA_SERVICES_SECURED:-}" ]; }

# Made again a week before they are invalid.
make_certificates() {
    local new=$CERTIFICATES.new week=604800
    openssl x509 -checkend $week -noout -in "$CERTIFICATES/client.pem" >/dev/null 2>&1 && return
    rm -rf "$new"
    mkdir -p "$new"
    (
        cd "$new"
        local key=(-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes) name
        openssl req -x509 "${key[@]}" -keyout ca.key -out ca.pem -days 30 -subj "/CN=authority of the tests" \
            -addext keyUsage=critical,keyCertSign
        for name in server client; do
            openssl req "${key[@]}" -keyout $name.key -out $name.csr -subj "/CN=$name of the tests"
            openssl x509 -req -in $name.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 30 -out $name.pem \
                -extfile <(printf '%s\n' basicConstraints=CA:FALSE \
                    "subjectAltName=DNS:localhost,IP:127.0.0.1,IP:127.0.0.2,IP:127.0.0.3")
        done
        # Nobody needs to sign anything else.
        rm -f ca.key ca.srl ./*.csr
    ) >"$new.log" 2>&1 || { cat "$new.log" >&2; fail "the certificates can't be made"; }
    rm -rf "$CERTIFICATES"
    mv "$new" "$CERTIFICATES"
}

# give_certificates FOLDER: what a server shows and trusts.
give_certificates() {
    make_certificates
    install -m 644 "$CERTIFICATES/ca.pem" "$CERTIFICATES/server.pem" "$1"
    install -m 600 "$CERTIFICATES/server.key" "$1"
}
