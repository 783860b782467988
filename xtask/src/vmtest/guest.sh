# Steps of `cargo xtask vmtest`, as the first process of a machine. What is printed here is read by the host.
cd /run/spip-disk || exit 1
export SPIP_AGENT_BIN=$PWD/spip-agent CARGO_MANIFEST_DIR=$PWD/tests CI=true RUST_BACKTRACE=0 TERM=dumb

step() {
    name=$1
    shift
    echo "== begin $name"
    status=0
    ( "$@" ) || status=$?
    echo "== end $name $status"
}

config() {
    mkdir -p "/tmp/$1"
    printf 'ip = "0.0.0.0"\nport = 12345\nlog_file = "/tmp/%s/log.jsonl"\nlog_rotate_bytes = 1000000\nstate_dir = "/tmp/%s"\n' "$1" "$1"
    shift
    printf '%s\n' "$@"
}

# The agent under a configuration, one connection, and the end. Prints its messages.
walk() {
    name=$1
    shift
    config "$name" "$@" >"/tmp/$name.toml"
    ./spip-agent --config "/tmp/$name.toml" &
    agent=$!
    tries=0
    until grep -q '"ready"' "/tmp/$name/log.jsonl" 2>/dev/null; do
        tries=$((tries + 1))
        [ "$tries" -lt 600 ] && kill -0 "$agent" 2>/dev/null || { echo "the agent is not ready"; cat "/tmp/$name/log.jsonl"; return 1; }
        sleep 0.1
    done
    curl -s -m 20 -o /dev/null http://127.0.0.1:12345/walk
    kill "$agent"
    wait "$agent" || return 1
    jq -cM 'select(.record_type == "log") | [.level, .target, .message, .steps, .reason]' "/tmp/$name/log.jsonl"
    grep -q 'GET /walk' "/tmp/$name/log.jsonl"
}

examined() {
    config examined 'ebpf = "required"' >/tmp/examined.toml
    ./spip-agent doctor --config /tmp/examined.toml
    # Warnings are expected of this kernel, failures are not.
    [ $? -lt 2 ]
}

# Landlock is there whole, in part, or not at all, as doctor says: with "auto" what is missing is said, with "required" the
# agent does not start then.
sandbox() {
    walk auto 'ebpf = "required"' || return 1
    whole=$(./spip-agent doctor --json --config /tmp/auto.toml | jq '.findings[] | select(.check == "sandbox.landlock").state == "ok"')
    steps=$(jq -r 'select(.target == "sandbox") | .steps' /tmp/auto/log.jsonl)
    echo "whole: $whole, $steps"
    if [ "$whole" = true ]; then
        echo "$steps" | grep -q 'landlock: files, TCP and scopes' && walk required 'sandbox = "required"'
    else
        echo "$steps" | grep -q 'landlock: missing' || return 1
        walk required 'sandbox = "required"' && return 1
        grep -q 'sandbox = \\"required\\": landlock: missing' /tmp/required/log.jsonl
    fi
}

# Without cgroups there is no sock_ops, without bpffs there are no pins: both are said, and connections recorded.
without_mounts() {
    umount /sys/fs/bpf /sys/fs/cgroup
    status=0
    walk bare || status=1
    mount -t cgroup2 cgroup2 /sys/fs/cgroup
    mount -t bpf bpf /sys/fs/bpf
    grep -q 'cgroup v2 is mounted nowhere' /tmp/bare/log.jsonl || status=1
    grep -q 'not on a bpffs' /tmp/bare/log.jsonl || status=1
    return $status
}

# A program with its messages compiled in may be larger than a socket's memory for filters: said, with the command.
socket_memory() {
    config debug >/tmp/debug.toml
    ./spip-agent --config /tmp/debug.toml --ebpf-log debug &
    agent=$!
    tries=0
    until grep -q '"ready"' /tmp/debug/log.jsonl 2>/dev/null; do
        tries=$((tries + 1))
        [ "$tries" -lt 600 ] || return 1
        sleep 0.1
    done
    kill "$agent"
    wait "$agent"
    jq -cM 'select(.target == "ebpf") | [.level, .message]' /tmp/debug/log.jsonl
    if [ "$(sysctl -n net.core.optmem_max)" -ge 131072 ]; then
        ! grep -q 'optmem_max' /tmp/debug/log.jsonl
    else
        grep -q 'sysctl -w net.core.optmem_max=131072' /tmp/debug/log.jsonl && sysctl -w net.core.optmem_max=131072
    fi
}

# Each test in a process of its own: what failed is said at once, and one that hangs costs its own time only.
program() {
    failed=0
    limit=$(cat test-limit)
    for test in $("$1" --list --format terse $(cat filter) | sed -n 's/: test$//p'); do
        ( cd tests && timeout --kill-after=10 "$limit" "$1" --exact "$test" --color=never ) >/tmp/said 2>&1
        status=$?
        [ "$status" = 0 ] || failed=1
        grep -E "^test (result: |$test )" /tmp/said
        case $status in
            0) ;;
            124 | 137) printf 'test %s ... FAILED\ntest result: FAILED. 0 passed; 1 failed; 0 ignored\nno end after %s s\n' "$test" "$limit" ;;
            *) cut -c -2000 /tmp/said | tail -n 60 | sed 's/^/| /' ;;
        esac
    done
    return $failed
}

echo
echo "== kernel $(uname -r)"
step doctor-says examined
step sandbox-steps sandbox
step without-mounts without_mounts
step socket-memory socket_memory
mkdir -p /run/netns
for program in "$PWD"/programs/*; do
    step "$(basename "$program")" program "$program"
done
echo "== done"
