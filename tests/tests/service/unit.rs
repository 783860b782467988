//! The files for systemd: the agent under the settings of its unit, and what systemd's own programs say of them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;
use spip_tests::{Net, SENSOR_V4, require_program};

use crate::Manager;
use crate::reload::reload;

/// The unit that is shipped.
fn unit() -> String {
    fs::read_to_string(shipped("spip-agent.service")).expect("the unit is there")
}

/// The values of a setting of the unit, word by word.
fn setting(unit: &str, key: &str) -> Vec<String> {
    let lines = unit.lines().filter_map(|line| line.strip_prefix(key)?.strip_prefix('='));
    lines.flat_map(|values| values.split(' ').map(str::to_owned)).collect()
}

#[test]
fn the_agent_works_under_the_settings_of_its_unit() {
    if !require_program("systemd-analyze", "systemd") {
        return;
    }
    let Some(net) = Net::new() else { return };
    net.redirect();
    let unit = unit();
    let names = setting(&unit, "AmbientCapabilities");
    assert_eq!(names, setting(&unit, "CapabilityBoundingSet"));
    assert_eq!(setting(&unit, "ProtectSystem"), ["strict"]);
    let capabilities: Vec<_> = names.iter().map(|name| name.trim_start_matches("CAP_").to_lowercase()).collect();
    let capabilities: Vec<_> = capabilities.iter().map(String::as_str).collect();
    let logs = net.path().join("logs");
    fs::create_dir(&logs).expect("own directory");
    std::os::unix::fs::chown(&logs, Some(65_534), Some(65_534)).expect("root");
    let manager = Manager::new(&net);
    fs::set_permissions(&manager.path, std::os::unix::fs::PermissionsExt::from_mode(0o777)).expect("own");
    for key in ["RestrictNamespaces", "MemoryDenyWriteExecute", "PrivateDevices"] {
        assert_eq!(setting(&unit, key), ["yes"], "{key}");
    }
    assert_eq!(setting(&unit, "SystemCallErrorNumber"), ["EPERM"]);
    let filter = net.path().join("filter.json");
    let names = call_numbers();
    let allowed = allowed_calls();
    assert!(allowed.contains("execve") && names.contains_key("execve"), "{allowed:?}");
    let families = setting(&unit, "RestrictAddressFamilies");
    let closed = json!({"names": names, "allowed": allowed, "families": families});
    fs::write(&filter, closed.to_string()).expect("own directory");
    let launcher = net.path().join("filter.py");
    fs::write(&launcher, include_str!("filter.py")).expect("own directory");
    // A name space of its own, in which the log's directory alone can be written to, of /proc only what is its own can be seen,
    // and of devices only those that every program may have. The filter comes last, when it is the unit's user.
    let inside = format!(
        r#"set -e
        # The system's own programs: others may be out of the user's reach.
        export PATH=/usr/bin:/bin:/usr/sbin:/sbin:$PATH
        mount --bind {logs} {logs}; mount --bind {notify} {notify}
        mount -t proc -o hidepid=2 proc /proc
        mkdir {here}/dev; mount -t tmpfs dev {here}/dev
        for device in null zero full random urandom tty; do
            touch {here}/dev/$device; mount --bind /dev/$device {here}/dev/$device
        done
        mount --rbind {here}/dev /dev
        awk '$5 !~ "^(/proc|{logs}|{notify})" {{print $5}}' /proc/self/mountinfo | sort -u | while read -r point; do
            mount -o remount,bind,ro "$point" 2>/dev/null || true
        done
        ! touch /etc/spip-tests-can-write 2>/dev/null
        umask 0027
        count=$#
        while [ $count -gt 0 ]; do
            word=$1; shift; count=$((count - 1))
            case $word in */spip-agent) set -- "$@" python3 {here}/filter.py {here}/filter.json;; esac
            set -- "$@" "$word"
        done
        NOTIFY_SOCKET={notify} WATCHDOG_USEC=30000000 exec setpriv --no-new-privs "$@""#,
        here = net.path().display(),
        logs = logs.display(),
        notify = manager.path.display(),
    );
    let script = net.path().join("inside");
    fs::write(&script, inside).expect("own directory");
    let agent = net
        .agent()
        .set("sandbox", "required")
        .set("ebpf", "required")
        .capabilities(&capabilities)
        .within(&format!(r#"exec unshare --mount --propagation private sh {} "$@""#, script.display()))
        .log_to(&logs.join("spip.json"))
        .start();
    manager.wait("READY=1");
    net.client.deliver((SENSOR_V4, 80), b"seen");
    agent.expect_one(json!({"payload": "seen", "destination_port": 80, "destination_source": "ebpf"}));
    agent.wait_message(json!({"message": "eBPF is attached", "syn_observer": true, "sock_ops": true, "scans": true}));
    reload(&agent, "");
    let _ = agent.stop();
}

/// The numbers of system calls on this machine, as its C library has them.
fn call_numbers() -> BTreeMap<String, u32> {
    let preprocess = "echo '#include <sys/syscall.h>' | cc -E -dM -";
    let output = Command::new("sh").args(["-c", preprocess]).output().expect("sh runs");
    assert!(output.status.success(), "{preprocess}: {}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let numbers = text.lines().filter_map(|line| {
        let (name, number) = line.strip_prefix("#define __NR_")?.split_once(' ')?;
        Some((name.to_owned(), number.parse().ok()?))
    });
    numbers.collect()
}

fn shipped(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../dist/systemd").join(file)
}

/// Runs a program of systemd's, which must find no fault, and returns its output.
fn runs_well(command: &mut Command) -> String {
    let output = command.output().expect("it runs");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{command:?}: {}{said}", String::from_utf8_lossy(&output.stdout));
    said
}

#[test]
fn systemd_rates_the_unit_two_or_better_and_finds_no_mistake_in_it_nor_in_the_socket() {
    if !require_program("systemd-analyze", "systemd") {
        return;
    }
    let (unit, socket) = (shipped("spip-agent.service"), shipped("spip-agent.socket"));
    // Fails when the exposure is above the threshold, in tenths.
    let rate = ["security", "--offline=yes", "--no-pager", "--threshold=20"];
    let _ = runs_well(Command::new("systemd-analyze").args(rate).arg(&unit));
    // Its status is that of the machine's units, too.
    let verified = Command::new("systemd-analyze").args(["verify", "--man=no"]).args([&unit, &socket]).output();
    let said = String::from_utf8_lossy(&verified.expect("it runs").stderr).into_owned();
    let complaints: Vec<_> = said
        .lines()
        .filter(|line| line.contains("spip-agent") && !line.contains("/usr/bin/spip-agent is not executable"))
        .collect();
    assert!(complaints.is_empty(), "{complaints:?}");
    // What is not read is not verified.
    let broken = std::env::temp_dir().join(format!("spip-agent-broken-{}.socket", std::process::id()));
    fs::write(&broken, "[Socket]\nListenStream=no port\nBacklogs=1\n").expect("a file");
    let verified = Command::new("systemd-analyze").args(["verify", "--man=no"]).arg(&broken).output();
    fs::remove_file(&broken).expect("ours");
    let said = String::from_utf8_lossy(&verified.expect("it runs").stderr).into_owned();
    assert!(said.contains("Backlogs"), "{said}");
}

#[test]
fn sysusers_and_tmpfiles_make_the_user_and_the_directories_that_the_unit_expects() {
    if !spip_tests::require_root()
        || !require_program("systemd-sysusers", "systemd")
        || !require_program("systemd-tmpfiles", "systemd")
    {
        return;
    }
    let root = std::env::temp_dir().join(format!("spip-tests-root-{}", std::process::id()));
    fs::create_dir_all(root.join("etc")).expect("a directory");
    let within = format!("--root={}", root.display());
    let _ = runs_well(Command::new("systemd-sysusers").arg(&within).arg(shipped("spip.sysusers.conf")));
    let users = fs::read_to_string(root.join("etc/passwd")).expect("users were made");
    let user: Vec<_> = users.lines().find(|line| line.starts_with("spip:")).expect("the user").split(':').collect();
    assert!(user[6].ends_with("nologin"), "{user:?}");
    let said =
        runs_well(Command::new("systemd-tmpfiles").arg(&within).arg("--create").arg(shipped("spip.tmpfiles.conf")));
    let unit = unit();
    let group: u32 = user[3].parse().expect("a number");
    for (path, key) in
        [("etc/spip", "Configuration"), ("var/log/spip", "Logs"), ("var/lib/spip", "State"), ("run/spip", "Runtime")]
    {
        assert_eq!(setting(&unit, &format!("{key}Directory")), ["spip"]);
        let metadata = fs::metadata(root.join(path)).unwrap_or_else(|error| panic!("{path}: {error}\n{said}"));
        let mode = format!("0{:o}", metadata.mode() & 0o7777);
        assert_eq!(setting(&unit, &format!("{key}DirectoryMode")), [mode], "{path}");
        // Only root writes the configuration.
        let owner = if key == "Configuration" { "0" } else { user[2] };
        assert_eq!((metadata.uid().to_string().as_str(), metadata.gid()), (owner, group), "{path}");
    }
    fs::remove_dir_all(&root).expect("ours");
}

/// The calls that a set of systemd's stands for, or the call itself.
fn calls(sets: &BTreeMap<String, BTreeSet<String>>, word: &str) -> BTreeSet<String> {
    match sets.get(word) {
        Some(words) => words.iter().flat_map(|word| calls(sets, word)).collect(),
        None => [word.to_owned()].into(),
    }
}

/// The calls that the unit allows.
fn allowed_calls() -> BTreeSet<String> {
    let listed = Command::new("systemd-analyze").args(["syscall-filter", "--no-pager"]).output().expect("it runs");
    // A line for each set, and below it one for each member.
    let mut sets: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut current = String::new();
    for line in String::from_utf8_lossy(&listed.stdout).lines().filter(|line| !line.trim_start().starts_with('#')) {
        if line.starts_with('@') {
            current = line.trim().to_owned();
        } else if !line.trim().is_empty() {
            sets.entry(current.clone()).or_default().insert(line.trim().to_owned());
        }
    }
    assert!(calls(&sets, "@system-service").contains("openat"), "{sets:?}");
    let unit = unit();
    let mut allowed = calls(&sets, "@default");
    for line in unit.lines().filter_map(|line| line.strip_prefix("SystemCallFilter=")) {
        let denied = line.strip_prefix('~');
        for call in denied.unwrap_or(line).split_whitespace().flat_map(|word| calls(&sets, word)) {
            if denied.is_some() {
                allowed.remove(&call)
            } else {
                allowed.insert(call)
            };
        }
    }
    allowed
}

#[test]
fn the_unit_allows_the_calls_by_which_the_agent_confines_itself() {
    if !require_program("systemd-analyze", "systemd") {
        return;
    }
    let allowed = allowed_calls();
    let own = ["bpf", "capset", "prctl", "seccomp"];
    for call in own.iter().chain(&["landlock_create_ruleset", "landlock_add_rule", "landlock_restrict_self"]) {
        assert!(allowed.contains(*call), "{call}");
    }
    for call in ["mount", "ptrace", "init_module", "reboot"] {
        assert!(!allowed.contains(call), "{call}");
    }
}
