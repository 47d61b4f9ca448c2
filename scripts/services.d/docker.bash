# shellcheck shell=bash
# shellcheck disable=SC2153 # STATE comes from scripts/services
# The servers as containers of compose.yaml, sourced by scripts/services. Their data is in volumes named after them.

# The name of the set of containers: another one for another state folder.
PROJECT=aula-services
[ -z "${AULA_SERVICES_STATE:-}" ] ||
    PROJECT=$(basename "$AULA_SERVICES_STATE" | tr '[:upper:]' '[:lower:]' | tr -c 'a-z0-9\n' - | sed 's/^-*//')

docker_answers() {
    [ -z "${AULA_SERVICES_WITHOUT_DOCKER:-}${AULA_SERVICES_SECURED:-}" ] && command -v docker >/dev/null 2>&1 || return 1
    # The engine's answer has to be asked for: a client alone starts nothing.
    timeout 10 docker info >/dev/null 2>&1 && docker compose version >/dev/null 2>&1
}

compose() { AULA_SERVICES_PROJECT=$PROJECT docker compose -f "$ROOT/compose.yaml" --profile cluster "$@"; }

# Compose itself copes with two at a time.
docker_lock() { :; }

docker_present() { compose ps --all --services | sort; }

# Prints the container's number if it runs.
docker_id() { compose ps --status running -q "$1" 2>/dev/null | cut -c1-12; }

docker_missing() { command -v curl >/dev/null 2>&1 || echo "curl: apt-get install curl"; }

docker_fetch() { compose pull --quiet "$@" >&2; }

docker_up() {
    local name started=()
    for name in "$@"; do
        [ -n "$(docker_id "$name")" ] || started+=("$name")
    done
    if ! compose up -d --wait --wait-timeout "$DEADLINE" "$@" >&2; then
        for name in "$@"; do
            ready "$name" || { say "scripts/services: $name isn't ready; the end of its log:"; compose logs --tail 25 "$name" >&2; }
        done
        return 1
    fi
    [ ${#started[@]} -eq 0 ] || printf '%s\n' "${started[@]}"
}

docker_end() {
    local signal=$1
    shift
    [ $# -gt 0 ] || return 0
    if [ "$signal" = KILL ]; then compose kill "$@" >&2 || true; fi
    compose rm --stop --force "$@" >&2
}

docker_delete() {
    local name
    for name in "$@"; do docker volume rm -f "${PROJECT}_$name" >/dev/null; done
}

docker_status() {
    local name id state all=0
    row server image address container state
    for name in "$@"; do
        id=$(docker_id "$name")
        state=ready
        if [ -z "$id" ]; then
            state=stopped all=1
        elif ! ready "$name"; then
            state="not ready" all=1
        fi
        row "$name" "$(sed -n "s/^ *image: $(kind "$name")://p" "$ROOT/compose.yaml")" "$(client_address "$name")" "${id:--}" "$state"
    done
    return $all
}

docker_rabbitmqctl() { compose exec -T rabbitmq rabbitmqctl "$@"; }
