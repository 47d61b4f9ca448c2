# shellcheck shell=bash
# shellcheck disable=SC2153 # STATE comes from scripts/services
# Servers as ordinary processes, sourced by scripts/services.
#
# Each server's folder in the state folder has conf, data, tmp, log (of this start), log.1 (of the one before) and pid.
# Every process of a server carries AULA_SERVICE=<its folder> in its environment: that is how its processes are told
# from others that got an old pid, and how helpers that detach themselves (RabbitMQ's port mapper) are found.

need() { command -v "$1" >/dev/null 2>&1 || missing+=("$1: apt-get install $2"); }

# Sets JAVA. Neither server supports a newer Java without other settings.
need_java() {
    [ -z "${JAVA:-}" ] || return 0
    local java
    for java in "${JAVA_HOME:-/nonexistent}/bin/java" "$(command -v java || true)" /usr/lib/jvm/*17*/bin/java; do
        if [ -x "$java" ] && "$java" -version 2>&1 | grep -q 'version "17\.'; then
            JAVA=$(readlink -f "$java")
            return
        fi
    done
    missing+=("Java 17 (in JAVA_HOME, the path or /usr/lib/jvm): apt-get install openjdk-17-jre-headless")
    JAVA=none
}

need_maven_for() { [ -d "$1" ] || need mvn maven; }

# The processes of a server.
members() {
    local file
    { grep -lzsxF "AULA_SERVICE=$STATE/$1" /proc/[0-9]*/environ || true; } | while IFS=/ read -r _ _ file _; do
        echo "$file"
    done
}

# The process that is the server itself: not its launchers and helpers.
processes_id() {
    local pid main=
    for pid in $(members "$1"); do
        case $(cat "/proc/$pid/comm" 2>/dev/null) in java | beam.smp) main=$pid ;; esac
    done
    echo "$main"
}

# launch NAME COMMAND…: detached from the caller, who can end (and close its terminal) without ending the server.
launch() {
    local name=$1 dir=$STATE/$1
    shift
    [ ! -e "$dir/log" ] || mv "$dir/log" "$dir/log.1"
    (
        cd "$dir" || exit
        # A broker with a few thousand connections needs more than the usual 1,024.
        ulimit -n "$(ulimit -Hn)" || true
        AULA_SERVICE=$dir exec setsid "$@" </dev/null >"$dir/log" 2>&1 9>&-
    ) &
    local pid=$!
    disown
    # Until then it isn't found among the server's processes, and would be taken for one that has ended.
    until grep -qzxsF "AULA_SERVICE=$dir" "/proc/$pid/environ" || ! kill -0 "$pid" 2>/dev/null; do sleep 0.05; done
}

processes_lock() {
    if [ -e "$STATE" ] && [ ! -O "$STATE" ]; then
        fail "$STATE belongs to somebody else: set AULA_SERVICES_STATE to another folder"
    fi
    mkdir -p "$STATE" "$CACHE"
    # Servers that run as nobody pass through it.
    chmod 711 "$STATE"
    command -v flock >/dev/null || check_needs
    # Two at a time would start everything twice.
    exec 9>"$STATE/lock"
    flock -n 9 || { say "waiting for another scripts/services"; flock -w 300 9 || fail "it doesn't end: see $STATE/lock"; }
}

# Servers that are up, or that were.
processes_present() {
    local name
    for name in "${DEFAULT[@]}" "${CLUSTER[@]}"; do
        [ ! -d "$STATE/$name" ] || echo "$name"
    done
}

processes_missing() {
    local missing=() name
    need setsid util-linux
    need setpriv util-linux
    need flock util-linux
    if secured; then need openssl openssl; fi
    for name in "$@"; do
        "$(kind "$name")_needs" "$name"
    done
    [ ${#missing[@]} -eq 0 ] || printf '%s\n' "${missing[@]}" | sort -u
}

check_needs() {
    local lacking
    lacking=$(processes_missing "$@")
    [ -n "$lacking" ] || return 0
    say "scripts/services: this machine lacks (and no Docker engine answers):"
    say "  ${lacking//$'\n'/$'\n'  }"
    exit 1
}

processes_fetch() {
    check_needs "$@"
    mkdir -p "$CACHE"
    local name
    (
        # The cache may be shared by several state folders.
        flock 8
        for name in "$@"; do
            "$(kind "$name")_fetch" 8>&-
        done
    ) 8>"$CACHE/lock"
}

check_ports() {
    local name=$1 host port holder taken=0
    host=$(address "$name")
    for port in $(ports "$name"); do
        if (exec 3<>"/dev/tcp/$host/$port") 2>/dev/null; then
            holder=$(ss -Hltnp "sport = :$port" 2>/dev/null | grep -o '"[^"]*",pid=[0-9]*' | head -1 || true)
            say "scripts/services: $name can't start: $host:$port is taken${holder:+ by ${holder/,pid=/, pid }}." \
                "End that, or choose other ports (scripts/services help)."
            taken=1
        fi
    done
    return $taken
}

processes_up() {
    local name starting=() pid
    for name in "$@"; do
        if [ -z "$(processes_id "$name")" ]; then
            starting+=("$name")
        elif ! ready "$name"; then
            # From a run that was interrupted: it only has to be waited for.
            waiting+=("$name")
        fi
    done
    if [ ${#starting[@]} -gt 0 ]; then
        processes_fetch "${starting[@]}"
        local blocked=0
        for name in "${starting[@]}"; do
            # Helpers of a server that has died.
            end_members "$name" KILL
            check_ports "$name" || blocked=1
        done
        [ $blocked = 0 ] || exit 1
        need_java
        for name in "${starting[@]}"; do
            "$(kind "$name")_start" "$name"
        done
    fi
    local failed=0
    for name in "${starting[@]}" ${waiting[@]+"${waiting[@]}"}; do
        wait_ready "$name" || failed=1
    done
    return $failed
}

waiting=()

wait_ready() {
    local name=$1 begun=$SECONDS
    until ready "$name"; do
        # (A launcher counts: the server itself may not be there yet.)
        if [ -z "$(members "$name")" ]; then
            say "scripts/services: $name ended while starting; the end of $STATE/$name/log:"
            tail -n 25 "$STATE/$name/log" >&2
            return 1
        fi
        if [ $((SECONDS - begun)) -ge "$DEADLINE" ]; then
            say "scripts/services: $name isn't ready after $DEADLINE s; the end of $STATE/$name/log:"
            tail -n 25 "$STATE/$name/log" >&2
            return 1
        fi
        sleep 0.2
    done
    processes_id "$name" >"$STATE/$name/pid"
    echo "$name"
}

# end_members NAME SIGNAL: all its processes, helpers too.
end_members() {
    local pids
    pids=$(members "$1")
    # shellcheck disable=SC2086 # a list
    [ -z "$pids" ] || kill -s "$2" $pids 2>/dev/null || true
}

processes_end() {
    local signal=$1 name pid begun
    shift
    for name in "$@"; do
        [ "$signal" = KILL ] && { end_members "$name" KILL; continue; }
        pid=$(processes_id "$name")
        # In good order; its helpers follow it, or are ended below.
        if [ -n "$pid" ]; then kill -s TERM "$pid" 2>/dev/null || true; fi
    done
    for name in "$@"; do
        begun=$SECONDS
        while [ -n "$(processes_id "$name")" ] && [ $((SECONDS - begun)) -lt 30 ]; do sleep 0.1; done
        [ -z "$(processes_id "$name")" ] || say "scripts/services: $name doesn't end: killing it"
        begun=$SECONDS
        while [ -n "$(members "$name")" ]; do
            [ $((SECONDS - begun)) -lt 10 ] || fail "$name can't be killed: pids" "$(members "$name" | tr '\n' ' ')"
            end_members "$name" KILL
            sleep 0.1
        done
        rm -f "$STATE/$name/pid"
    done
}

processes_delete() {
    local name
    for name in "$@"; do rm -rf "${STATE:?}/$name"; done
}

processes_status() {
    local name pid state all=0
    row server version address pid state
    for name in "$@"; do
        pid=$(processes_id "$name")
        state=ready
        if [ -z "$pid" ]; then
            state=stopped all=1
        elif ! ready "$name"; then
            state="not ready" all=1
        fi
        row "$name" "$(version "$name")" "$(client_address "$name")" "${pid:--}" "$state"
    done
    return $all
}

processes_rabbitmqctl() {
    local env=()
    rabbitmq_env
    cd "$STATE/rabbitmq" || exit
    exec "${env[@]}" "$RABBITMQ_BIN/rabbitmqctl" "$@"
}
