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
    printf 'ip = "0.0.0.0"\nport = 12345\nlog_file = "/tmp/%s.jsonl"\nlog_rotate_bytes = 1000000\nstate_dir = "/tmp/%s"\n' "$1" "$1"
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
    until grep -q '"ready"' "/tmp/$name.jsonl" 2>/dev/null; do
        tries=$((tries + 1))
        [ "$tries" -lt 600 ] && kill -0 "$agent" 2>/dev/null || { echo "the agent is not ready"; cat "/tmp/$name.jsonl"; return 1; }
        sleep 0.1
    done
    curl -s -m 20 -o /dev/null http://127.0.0.1:12345/walk
    kill "$agent"
    wait "$agent" || return 1
    jq -cM 'select(.record_type == "log") | [.level, .target, .message, .steps, .reason]' "/tmp/$name.jsonl"
    grep -q 'GET /walk' "/tmp/$name.jsonl"
}

examined() {
    config examined 'ebpf = "required"' >/tmp/examined.toml
    ./spip-agent doctor --config /tmp/examined.toml
    # Warnings are expected of this kernel, failures are not.
    [ $? -lt 2 ]
}

# Landlock is there in part: with "auto" that is said, with "required" the agent does not start.
sandbox_in_part() {
    walk part 'ebpf = "required"' || return 1
    jq -r 'select(.target == "sandbox") | .steps' /tmp/part.jsonl | grep -q 'landlock: missing, this kernel enforces only a part' || return 1
    config refused 'sandbox = "required"' >/tmp/refused.toml
    ! ./spip-agent --config /tmp/refused.toml
    cat /tmp/refused.jsonl 2>/dev/null
    return 0
}

# Without cgroups there is no sock_ops, without bpffs there are no pins: both are said, and connections recorded.
without_mounts() {
    umount /sys/fs/bpf /sys/fs/cgroup
    status=0
    walk bare || status=1
    mount -t cgroup2 cgroup2 /sys/fs/cgroup
    mount -t bpf bpf /sys/fs/bpf
    grep -q 'cgroup v2 is mounted nowhere' /tmp/bare.jsonl || status=1
    grep -q 'not on a bpffs' /tmp/bare.jsonl || status=1
    return $status
}

# A program with its messages compiled in is larger than a socket's memory for filters is here: said, with the command.
socket_memory() {
    walk small || return 1
    config debug >/tmp/debug.toml
    ./spip-agent --config /tmp/debug.toml --ebpf-log debug &
    agent=$!
    tries=0
    until grep -q '"ready"' /tmp/debug.jsonl 2>/dev/null; do
        tries=$((tries + 1))
        [ "$tries" -lt 600 ] || return 1
        sleep 0.1
    done
    kill "$agent"
    wait "$agent"
    jq -cM 'select(.target == "ebpf") | [.level, .message]' /tmp/debug.jsonl
    grep -q 'sysctl -w net.core.optmem_max=131072' /tmp/debug.jsonl || return 1
    sysctl -w net.core.optmem_max=131072
}

echo
echo "== kernel $(uname -r)"
step doctor-says examined
step sandbox-in-part sandbox_in_part
step without-mounts without_mounts
step socket-memory socket_memory
mkdir -p /run/netns
for program in programs/*; do
    step "$(basename "$program")" sh -c "cd tests && ../$program --test-threads=2 --color=never"
done
echo "== done"
