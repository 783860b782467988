# The operator's walk, under a real systemd: docs/walk.md step by step, each with what must be true after it.
#
#   walk.sh OUTPUT     does all steps as a service of the machine that has booted, says how they ended, switches it off
#   walk.sh -- STEP    one of them
#
# Lines that begin with $ are what an operator types. Beside this file: first.deb, and later.deb, which is the same package
# with a later version.
here=$(dirname "$0")
log=/var/log/spip/spip.jsonl
sensor=198.51.100.1
patience=${PATIENCE:-300}

STEPS="install init doctor start rules scan view ship sandbox reload mistake rotate restart upgrade watchdog stop remove purge"

fail() { echo "FAILED: $*"; exit 1; }

# As typed, shown.
typed() {
    echo "\$ $*"
    "$@"
}

# Until it succeeds; tenths of a second.
eventually() {
    tries=0
    until "$@" >/dev/null 2>&1; do
        tries=$((tries + 1))
        [ "$tries" -lt "$patience" ] || fail "never true: $*; the log ends with: $(tail -n 5 "$log" 2>&1)"
        sleep 0.1
    done
}

# From the other machine.
stranger() { nsenter --net=/run/netns/stranger -- "$@"; }
get() { stranger curl --silent --max-time 30 --output /dev/null "http://$sensor:$1/$2"; }

# How many records there are for which a condition of jq holds; in all files of the log.
records() { cat "$log" "$log".[0-9]* 2>/dev/null | jq -c "select(.record_type == null) | select($1)" | wc -l; }
recorded() { [ "$(records "$1")" -ge 1 ]; }
said() { jq -c "select(.record_type == \"log\") | select($1)" "$log" | grep -q .; }

property() { systemctl show --property "$1" --value spip-agent.service; }
active() { [ "$(property ActiveState)" = active ]; }

# Everything there is, with types, modes and owners; without what dpkg, systemd and the kernel keep for themselves.
state() {
    find / -xdev \( -path /proc -o -path /sys -o -path /dev -o -path /run -o -path /tmp -o -path "$here" \
        -o -path /var/lib/dpkg -o -path /var/cache -o -path /var/log/dpkg.log -o -path /var/log/alternatives.log \
        -o -path /var/lib/systemd -o -path /var/log/journal -o -path /var/tmp -o -path /var/log/wtmp \) -prune \
        -o -name '*-' -prune -o -printf '%y %m %u:%g %p\n' | sort
    sort /etc/passwd /etc/group
}

# Connections one after the other, each to a port of its own from $1 on, while a command runs; twenty at least.
meanwhile() {
    port=$1
    shift
    rm -f "$here/done" "$here/sent" "$here/refused"
    (
        sent=0
        while [ "$sent" -lt 20 ] || [ ! -e "$here/done" ]; do
            status=0
            get $((port + sent)) meanwhile || status=$?
            # A connection that the old agent had is cut when it stops; none is refused or left waiting.
            case $status in 7 | 28) echo "port $((port + sent)): curl ended with $status" >>"$here/refused" ;; esac
            sent=$((sent + 1))
            echo "$sent" >"$here/sent"
            [ "$sent" -lt 2000 ] || break
        done
    ) &
    loop=$!
    eventually test -s "$here/sent"
    typed "$@"
    touch "$here/done"
    wait "$loop"
    sent=$(cat "$here/sent")
    [ ! -e "$here/refused" ] || fail "refused meanwhile: $(cat "$here/refused")"
    range=".destination_port >= $port and .destination_port < $((port + sent))"
    counted() { [ "$(records "$range")" -eq "$sent" ]; }
    eventually counted
    once=$(jq -r "select(.record_type == null) | select($range) | .destination_port" "$log" | sort -u | wc -l)
    [ "$once" -eq "$sent" ] || fail "$once of $sent connections have a record"
    echo "$sent connections meanwhile: none refused, each recorded once"
}

step_install() {
    typed dpkg -i "$here/first.deb"
    [ -z "$(dpkg --verify spip-agent)" ] || fail "files differ from the package's"
    for unit in spip-agent.socket spip-agent.service spip-view.service spip-ship.service spip-report.timer; do
        ! systemctl is-active --quiet $unit || fail "the installation started $unit"
        ! systemctl is-enabled --quiet $unit || fail "the installation enabled $unit"
    done
    typed systemd-analyze verify --man=no spip-agent.service spip-view.service spip-ship.service spip-report.timer
}

step_init() {
    typed spip-agent init --yes --force --name walk --steering redirect
    typed spip-agent --config /etc/spip/spip.toml --check >/dev/null
}

step_doctor() {
    status=0
    typed spip-agent doctor || status=$?
    # What is only worth a look is no failure; an agent that does not run yet is.
    [ "$status" -lt 2 ] || fail "doctor ended with $status"
}

step_start() {
    typed systemctl enable --now spip-agent.socket spip-agent.service
    active || fail "the unit is not active"
    # Type=notify: the command above came back when the agent had said that it is ready.
    eventually said '.message == "ready"'
    typed systemctl show --property Type,ActiveState,StatusText,WatchdogUSec,NRestarts,User spip-agent.service
    [ "$(property WatchdogUSec)" = 30s ] || fail "no watchdog"
    typed systemctl status --no-pager --lines 0 spip-agent.service
    jq -cM 'select(.record_type == "log") | del(.timestamp, .record_type)' "$log"
    typed spip-agent status
}

step_rules() {
    typed spip-agent rules show --config /etc/spip/spip.toml
    typed spip-agent rules install --yes --config /etc/spip/spip.toml
    iptables-save -t nat | grep -q SPIP || fail "there are no rules"
}

step_scan() {
    echo "\$ curl http://$sensor:8080/robots.txt      # from another machine"
    get 8080 robots.txt || fail "curl ended with $?"
    echo "\$ curl -k --http1.1 https://$sensor/login"
    stranger curl -sk --http1.1 --max-time 30 -o /dev/null "https://$sensor/login" || fail "curl ended with $?"
    echo "\$ nmap -n -Pn -sT -p 20-29,443 $sensor"
    stranger nmap -n -Pn -sT -p 20-29,443 "$sensor" | tee "$here/nmap"
    [ "$(grep -c ' open ' "$here/nmap")" -eq 11 ] || fail "nmap sees less than the eleven ports open"
    eventually recorded '.destination_port == 8080 and (.payload | startswith("GET /robots.txt"))'
    eventually recorded '.destination_port == 443 and .is_tls and (.payload | startswith("GET /login"))'
    for port in 20 21 22 23 24 25 26 27 28 29; do
        eventually recorded ".destination_port == $port and .source_ip == \"198.51.100.2\""
        [ "$(records ".destination_port == $port")" -eq 1 ] || fail "port $port has more than one record"
    done
    typed jq -acM 'select(.record_type == null) | [.source_ip, .destination_port, .is_tls, .destination_source, .close_reason, .payload[:24]]' "$log"
    [ "$(records '.destination_source != "ebpf"')" -eq 0 ] || fail "destinations did not come from eBPF"
}

# What runs as a unit: its user, no capability, and a filter.
confined() {
    main=$(systemctl show --property MainPID --value "$1.service")
    [ "$(stat -c %U "/proc/$main")" = "$1" ] || fail "$1 runs as $(stat -c %U "/proc/$main")"
    grep -q '^CapEff:.0000000000000000' "/proc/$main/status" || fail "$1 has capabilities"
    grep -q '^Seccomp:.2' "/proc/$main/status" || fail "$1 has no filter"
}

step_view() {
    typed systemctl enable --now spip-view.service spip-report.timer
    sees() { curl -s http://127.0.0.1:8765/ | grep -q 198.51.100.2; }
    eventually sees
    confined spip-view
    typed systemctl start spip-report.service
    typed ls -l /var/lib/spip-view/report.html
    grep -q '</html>' /var/lib/spip-view/report.html || fail "the report is cut off"
    typed systemctl list-timers --no-pager --no-legend spip-report.timer | grep -q spip-report || fail "no next report"
}

step_ship() {
    typed cp /usr/share/doc/spip-agent/examples/ship.toml /etc/spip/ship.toml
    # Log files instead of a server, which this machine does not have.
    printf 'log = "%s"\nstate_dir = "/var/lib/spip-ship"\n[[sink]]\nkind = "files"\npath = "/var/lib/spip-ship/out"\n' "$log" \
        >/etc/spip/ship.toml
    typed systemctl enable --now spip-ship.service
    shipped() { cat /var/lib/spip-ship/out/*/spip.jsonl | grep -q 'GET /robots.txt'; }
    eventually shipped
    confined spip-ship
    eventually grep -q '^read through' /var/log/spip/spip.jsonl.hold/files
    typed spip-ship status
    whole() { spip-ship verify; }
    eventually whole
}

step_sandbox() {
    pid=$(property MainPID)
    typed grep -E '^(Cap|NoNewPrivs|Seccomp)' "/proc/$pid/status"
    steps=$(jq -r 'select(.target == "sandbox" and .steps != null) | .steps' "$log" | tail -n 1)
    echo "$steps"
    # None; before Linux 5.19 nobody looks into a map without CAP_BPF, and that one is kept.
    left=0000000000000000
    case $steps in *"capabilities: CAP_BPF alone"*) left=0000008000000000 ;; esac
    # All threads, not only the first.
    for task in "/proc/$pid/task"/*; do
        grep -q "^CapEff:.$left" "$task/status" || fail "a thread has capabilities"
        grep -q '^Seccomp:.2' "$task/status" || fail "a thread is outside of the filter"
        grep -q '^NoNewPrivs:.1' "$task/status" || fail "a thread could gain privileges"
    done
    [ "$(stat -c %U "/proc/$pid")" = spip ] || fail "the agent runs as $(stat -c %U "/proc/$pid")"
    case $steps in *"seccomp: missing"* | *"capabilities: missing"* | *"no_new_privs: missing"*) fail "a step is missing" ;; esac
    typed systemd-analyze security --no-pager spip-agent.service | tail -n 1
}

step_reload() {
    typed sed -i 's/^name = .*/name = "walked"/' /etc/spip/spip.toml
    typed systemctl reload spip-agent
    eventually said '.changed == "name"'
    get 81 after-reload
    eventually recorded '.name == "walked" and (.payload | startswith("GET /after-reload"))'
}

step_mistake() {
    pid=$(property MainPID)
    echo "\$ echo 'prot = 1' >>/etc/spip/spip.toml"
    cp -p /etc/spip/spip.toml "$here/right.toml"
    echo 'prot = 1' >>/etc/spip/spip.toml
    # With the verb that waits for an answer the command may fail, which is right; the agent has to go on.
    typed systemctl reload spip-agent || true
    eventually said '.level != "info" and (tostring | contains("prot"))'
    jq -cM 'select(.record_type == "log" and (tostring | contains("prot"))) | del(.timestamp, .record_type)' "$log"
    cp -p "$here/right.toml" /etc/spip/spip.toml
    active && [ "$(property MainPID)" = "$pid" ] || fail "a mistake in the file stopped the agent"
    get 82 after-mistake
    eventually recorded '.name == "walked" and (.payload | startswith("GET /after-mistake"))'
}

step_rotate() {
    typed mv "$log" "$log.1"
    typed systemctl reload spip-agent
    eventually test -s "$log"
    get 83 after-rotation
    inside() { grep -q 'GET /after-rotation' "$log"; }
    eventually inside
    typed ls -l /var/log/spip
    [ "$(stat -c '%U %a' "$log")" = "spip 640" ] || fail "the new file is $(stat -c '%U %a' "$log")"
}

step_restart() {
    before=$(property MainPID)
    meanwhile 2000 systemctl restart spip-agent.service
    [ "$(property MainPID)" != "$before" ] || fail "it was not restarted"
}

step_upgrade() {
    before=$(property MainPID)
    meanwhile 5000 dpkg -i "$here/later.deb"
    [ "$(property MainPID)" != "$before" ] || fail "the old program still runs"
    for unit in spip-view spip-ship; do
        systemctl is-active --quiet $unit.service || fail "the upgrade ended $unit"
        main=$(systemctl show --property MainPID --value $unit.service)
        [ "/proc/$main/exe" -ef /usr/bin/$unit ] || fail "the old $unit runs"
    done
    [ "/proc/$(property MainPID)/exe" -ef /usr/bin/spip-agent ] || fail "another program runs"
    dpkg -s spip-agent | grep '^Version: .*later' || fail "the version is the old one"
    grep -q '^name = "walked"' /etc/spip/spip.toml || fail "the upgrade replaced the configuration"
    iptables-save -t nat | grep -q SPIP || fail "the upgrade took the rules away"
}

step_watchdog() {
    # Ten seconds instead of thirty, so that the walk need not wait for so long.
    mkdir -p /run/systemd/system/spip-agent.service.d
    printf '[Service]\nWatchdogSec=10s\n' >/run/systemd/system/spip-agent.service.d/walk.conf
    systemctl daemon-reload
    systemctl restart spip-agent.service
    pid=$(property MainPID)
    typed kill -STOP "$pid"
    again() { [ "$(property NRestarts)" -ge 1 ] && active && [ "$(property MainPID)" != "$pid" ]; }
    eventually again
    journalctl --no-pager --quiet --output cat -u spip-agent.service | grep -i watchdog || fail "the journal knows of no watchdog"
    get 84 after-watchdog
    eventually recorded '(.payload | startswith("GET /after-watchdog"))'
    rm -r /run/systemd/system/spip-agent.service.d
    systemctl daemon-reload
}

step_stop() {
    stranger nc -d "$sensor" 85 >/dev/null &
    open=$!
    accepted() { spip-agent status --json | jq -e '.agent.sessions.open >= 1'; }
    eventually accepted
    typed systemctl stop spip-agent.socket spip-agent.service
    kill "$open" 2>/dev/null || true
    [ "$(property Result)" = success ] || fail "stopped with $(property Result)"
    # What has stopped has written everything.
    recorded '.destination_port == 85 and .close_reason == "shutdown"' || fail "the open session has no record"
    status=0
    get 86 refused || status=$?
    [ "$status" -eq 7 ] || fail "somebody still answers: $status"
    typed systemctl start spip-agent.socket spip-agent.service
}

step_remove() {
    typed dpkg -r spip-agent
    ! iptables-save -t nat | grep -q SPIP || fail "rules are left: $(iptables-save -t nat)"
    for unit in spip-agent.service spip-agent.socket spip-view.service spip-ship.service spip-report.timer; do
        ! systemctl is-active --quiet $unit || fail "$unit is still active"
    done
    for program in spip-agent spip-view spip-ship; do
        [ ! -e /usr/bin/$program ] || fail "$program is left"
    done
    [ -s "$log" ] || fail "records are gone before the purge"
}

step_purge() {
    typed dpkg -P spip-agent
    state >"$here/after"
    diff "$here/before" "$here/after" || fail "the purge left something, or took too much"
    found=$(find / -xdev -path "$here" -prune -o -path /proc -prune -o -path /var/log/journal -prune -o -name '*spip*' -print; find /run /sys/fs/bpf -name '*spip*')
    [ -z "$found" ] || fail "left: $found"
    for user in spip spip-view spip-ship; do
        ! id $user 2>/dev/null || fail "the user $user is left"
        ! getent group $user || fail "the group $user is left"
    done
}

# Two machines and a cable; this one is the sensor.
prepare() {
    # Whatever boots beside this has done so.
    systemctl is-system-running --wait || true
    ip link set lo up
    ip netns add stranger
    ip link add wire type veth peer name wire netns stranger
    ip addr add "$sensor/24" dev wire
    ip link set wire up
    ip -n stranger addr add 198.51.100.2/24 dev wire
    ip -n stranger link set wire up
    ip -n stranger link set lo up
    state >"$here/before"
}

all() {
    # A serial line may have half a line of somebody else's.
    echo
    echo "== kernel $(uname -r) with $(systemctl --version | head -n 1)"
    for step in prepare $STEPS; do
        echo "== begin $step"
        status=0
        sh -eu "$0" -- "$step" </dev/null || status=$?
        echo "== end $step $status"
        # Each stands on the ones before.
        [ "$status" -eq 0 ] || break
    done
    [ "$status" -eq 0 ] || journalctl --no-pager --quiet --lines 30 -u spip-agent.service -u spip-agent.socket \
        -u spip-view.service -u spip-report.service -u spip-ship.service
    echo "== done"
}

if [ "$1" = -- ]; then
    if [ "$2" = prepare ]; then prepare; else "step_$2"; fi
else
    all >"$1" 2>&1
    systemctl --no-block poweroff
fi
