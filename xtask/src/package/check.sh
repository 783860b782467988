# Steps of `cargo xtask package --check`, in a root of their own: an administrator's, one after the other.
first=$1 later=$2

say() { echo "==> $*"; }
fail() { echo "FAILED: $*" >&2; exit 1; }

# Everything there is, with types, modes and owners; without what dpkg keeps for itself and what runs.
state() {
    find / -xdev \( -path /proc -o -path /sys -o -path /dev -o -path /tmp -o -path /var/lib/dpkg -o -path /var/cache \
        -o -path /var/log/dpkg.log -o -path /var/log/alternatives.log -o -path /run/xtables.lock \) -prune \
        -o -name '*-' -prune -o -printf '%y %m %u:%g %p\n' | sort
    cat /etc/passwd /etc/group
}

mount -t sysfs sys /sys 2>/dev/null || true
[ -c /dev/null ] || mknod -m 666 /dev/null c 1 3
ip link set lo up
state >/tmp/before

say "installed"
dpkg -i "$first"
dpkg -s spip-agent | grep -q '^Status: install ok installed'
[ -z "$(dpkg --verify spip-agent)" ] || fail "files differ from the package's: $(dpkg --verify spip-agent)"
spip-agent --version
for page in /usr/share/man/man1/spip-agent*.gz; do gzip -t "$page"; done
[ "$(stat -c %U /var/log/spip)" = spip ] || fail "the log's folder is not the sensor's"
spip-agent --config /etc/spip/spip.toml --check >/dev/null

say "examined"
status=0
spip-agent doctor --config /etc/spip/spip.toml || status=$?
[ "$status" -lt 2 ] || fail "doctor ended with $status"

start() {
    spip-agent --config /etc/spip/spip.toml >/tmp/agent.out 2>&1 &
    agent=$!
    tries=0
    until grep -q '"ready"' /var/log/spip/spip.jsonl 2>/dev/null && curl -s -m 2 -o /dev/null "http://127.0.0.1:12345/$1" \
        || grep -q "/$1" /var/log/spip/spip.jsonl 2>/dev/null; do
        tries=$((tries + 1))
        [ "$tries" -lt 50 ] || fail "the agent is not ready: $(cat /tmp/agent.out /var/log/spip/spip.jsonl)"
        sleep 0.1
    done
}
stop() {
    kill "$agent"
    wait "$agent" || fail "the agent ended with $?"
    grep -q "GET /$1" /var/log/spip/spip.jsonl || fail "no record of /$1: $(cat /var/log/spip/spip.jsonl)"
}

say "started by hand, as its own user"
start one
[ "$(stat -c %U /proc/$agent)" = spip ] || fail "the agent runs as $(stat -c %U /proc/$agent)"
stop one

say "upgraded, with the operator's configuration kept"
sed -i 's/^#name = .*/name = "mine"/' /etc/spip/spip.toml
dpkg -i "$later"
grep -q '^name = "mine"' /etc/spip/spip.toml || fail "the upgrade replaced the configuration"
start two
stop two
grep -q '"name":"mine"' /var/log/spip/spip.jsonl || fail "the configuration was not used"

say "removed, with rules in place"
spip-agent rules install --yes --config /etc/spip/spip.toml >/dev/null
iptables-save -t nat | grep -q SPIP || fail "there are no rules"
dpkg -r spip-agent
! iptables-save -t nat | grep -q SPIP || fail "rules are left: $(iptables-save -t nat)"
[ ! -e /usr/bin/spip-agent ] || fail "the program is left"
[ -s /var/log/spip/spip.jsonl ] || fail "records are gone before the purge"

say "purged"
dpkg -P spip-agent
state >/tmp/after
diff /tmp/before /tmp/after || fail "the purge left something, or took too much"
! dpkg -s spip-agent 2>/dev/null || fail "dpkg still knows the package"
