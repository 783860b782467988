# Steps of `cargo xtask package --check` on a machine where no systemd runs: an administrator's, one after the other.
first=$1 later=$2 archive=$3
log=/var/log/spip/spip.jsonl

say() { echo "==> $*"; }
fail() { echo "FAILED: $*" >&2; exit 1; }

# Everything there is, with types, modes and owners; without what dpkg keeps for itself and what runs.
state() {
    find / -xdev \( -path /proc -o -path /sys -o -path /dev -o -path /run -o -path /walk -o -path /var/lib/dpkg \
        -o -path /var/cache -o -path /var/log/dpkg.log -o -path /var/log/alternatives.log \) -prune \
        -o -name '*-' -prune -o -printf '%y %m %u:%g %p\n' | sort
    sort /etc/passwd /etc/group
}
nothing_left() {
    state >/walk/after
    diff /walk/before /walk/after || fail "something is left, or too much was taken"
    left=$(find / -xdev -path /proc -prune -o -path /walk -prune -o -name '*spip*' -print; find /run /sys/fs/bpf -name '*spip*')
    [ -z "$left" ] || fail "left: $left"
    for user in spip spip-view spip-ship; do
        ! getent passwd $user || fail "the user $user is left"
        ! getent group $user || fail "the group $user is left"
    done
}

mount -t sysfs sys /sys
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount -t bpf bpf /sys/fs/bpf
mount -t tmpfs tmpfs /run
[ -c /dev/null ] || mknod -m 666 /dev/null c 1 3
ip link set lo up
# Two machines and a cable.
ip netns add stranger
ip link add wire type veth peer name wire netns stranger
ip addr add 198.51.100.1/24 dev wire
ip link set wire up
ip -n stranger addr add 198.51.100.2/24 dev wire
ip -n stranger link set wire up
get() { nsenter --net=/run/netns/stranger curl -s -m 5 -o /dev/null "http://198.51.100.1:$1/$2"; }
state >/walk/before

# Until the agent is ready; by hand nobody tells.
start() {
    "$@" >/walk/agent.out 2>&1 &
    agent=$!
    tries=0
    until spip-agent status >/dev/null 2>&1; do
        tries=$((tries + 1))
        [ "$tries" -lt "${TENTHS:-100}" ] && kill -0 "$agent" || fail "the agent is not ready: $(cat /walk/agent.out "$log")"
        sleep 0.1
    done
}
by_hand() { start spip-agent --config /etc/spip/spip.toml; }
stop() {
    kill "$agent"
    wait "$agent" || fail "the agent ended with $?"
}
recorded() {
    # jq before 1.7 fails where its last input gave nothing, so its status says nothing.
    jq -c "select(.record_type == null and (.payload | startswith(\"GET /$1\"))) | select($2)" "$log" >/walk/record
    [ -s /walk/record ] || fail "no record of /$1 with $2: $(cat "$log")"
    [ "$(wc -l </walk/record)" -eq 1 ] || fail "more than one record of /$1"
}

say "installed"
dpkg -i "$first"
dpkg -s spip-agent | grep -q '^Status: install ok installed'
[ -z "$(dpkg --verify spip-agent)" ] || fail "files differ from the package's: $(dpkg --verify spip-agent)"
spip-agent --version
for program in spip-view spip-ship; do
    $program --version
    [ -s /usr/share/bash-completion/completions/$program ] || fail "no completion of $program"
done
for page in spip-agent spip-agent-doctor spip-view spip-view-report spip-ship spip-ship-hub-init; do
    gzip -t "/usr/share/man/man1/$page.1.gz"
done
[ "$(stat -c %U:%G:%a /var/log/spip/spip.jsonl.hold)" = spip-ship:spip:750 ] || fail "spip-ship cannot name what it needs"
spip-view --config /etc/spip/view.toml --check >/dev/null
spip-ship --config /usr/share/doc/spip-agent/examples/ship.toml --check
[ "$(stat -c %U /var/log/spip)" = spip ] || fail "the log's folder is not the sensor's"
spip-agent --config /etc/spip/spip.toml --check >/dev/null

say "examined"
status=0
spip-agent doctor --config /etc/spip/spip.toml || status=$?
[ "$status" -lt 2 ] || fail "doctor ended with $status"

say "started by hand, as its own user, with all of eBPF behind its rules"
by_hand
[ "$(stat -c %U /proc/$agent)" = spip ] || fail "the agent runs as $(stat -c %U /proc/$agent)"
[ -d /sys/fs/bpf/spip ] || fail "the maps are not pinned"
spip-agent rules install --yes --config /etc/spip/spip.toml >/dev/null
iptables-save -t nat | grep -q SPIP || fail "there are no rules"
get 80 one
stop
# Written for certain once it has stopped.
jq -c 'select(.message == "eBPF is attached") | select(.syn_observer and .sock_ops)' "$log" | grep . || fail "eBPF is degraded: $(cat "$log")"
recorded one '.destination_port == 80 and .destination_source == "ebpf" and .source_ip == "198.51.100.2"'

say "looked at by hand, as the user of the page"
setpriv --reuid spip-view --regid spip-view --groups spip -- spip-view report --log "$log" --json --state-dir /tmp/report >/walk/report
jq -e '.. | objects | select(.sessions? == 1)' /walk/report >/dev/null || fail "the report is $(cat /walk/report)"
rm -rf /tmp/report

say "upgraded while it runs, with the operator's configuration kept"
sed -i 's/^#name = .*/name = "mine"/' /etc/spip/spip.toml
by_hand
get 81 two
dpkg -i "$later"
grep -q '^name = "mine"' /etc/spip/spip.toml || fail "the upgrade replaced the configuration"
kill -0 "$agent" || fail "the upgrade ended what was started by hand"
get 82 three
stop
by_hand
[ "/proc/$agent/exe" -ef /usr/bin/spip-agent ] || fail "another program runs"
get 83 four
stop
for name in two three four; do recorded "$name" '.name == "mine"'; done

say "removed, with rules, pins and a running agent"
by_hand
dpkg -r spip-agent
wait "$agent" || fail "the agent ended with $?"
! iptables-save -t nat | grep -q SPIP || fail "rules are left: $(iptables-save -t nat)"
[ ! -e /sys/fs/bpf/spip ] || fail "pins are left"
[ ! -e /usr/bin/spip-agent ] || fail "the program is left"
[ -s "$log" ] || fail "records are gone before the purge"

say "purged"
dpkg -P spip-agent
nothing_left
! dpkg -s spip-agent 2>/dev/null || fail "dpkg still knows the package"

say "purged at once, under a running agent that an upgrade has replaced"
dpkg -i "$first" >/dev/null
by_hand
dpkg -i "$later" >/dev/null
dpkg -P spip-agent
wait "$agent" || fail "the agent ended with $?"
nothing_left

say "unpacked from the archive, and started"
tar -xzf "$archive" -C / --strip-components=1
useradd --system --no-create-home --shell /usr/sbin/nologin spip
install -d -o spip -m 750 /var/log/spip
by_hand
get 12345 five
stop
recorded five '.destination_source == "ebpf" or .destination_source == "socket"'
