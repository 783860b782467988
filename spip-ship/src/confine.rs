//! Gives up what delivery does not need: capabilities, other files, other servers, other programs.
//!
//! Runs before the first thread exists, because each of these holds for threads that are made later. Landlock opens
//! connections to the ports of the configured servers only, and no port for listening; what is written to is the state
//! directory and the directories of `files` sinks. seccomp takes away what a shipper never calls: other programs, kernel
//! interfaces, raw sockets. Memory is bounded. `sandbox = "auto"` goes on where the kernel lacks a step and names it; `required` does not.
//!
//! A cluster whose servers listen on different ports needs all of them in `url`: discovered ones are reached only on ports
//! that are named.

use std::collections::BTreeMap;
use std::env::consts::ARCH;
use std::path::{Path, PathBuf};

use caps::{CapSet, Capability, CapsHashSet};
use landlock::{
    ABI, Access as _, AccessFs, AccessNet, CompatLevel, Compatible as _, NetPort, PathBeneath, PathFd, Ruleset,
    RulesetAttr as _, RulesetCreatedAttr as _, RulesetError, RulesetStatus,
};
use nix::sys::resource::{Resource, setrlimit};
use nix::unistd::geteuid;
use seccompiler::{
    SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule, TargetArch,
};

use crate::config::{Config, HttpAccess, Kind, NatsAccess, Sandbox, Source};

/// The newest rights that this program knows of; TCP since Linux 6.7.
const NEWEST: ABI = ABI::V6;

/// Paths that name resolution, certificates and the C library read.
const SYSTEM: &[&str] =
    &["/etc", "/usr", "/lib", "/lib64", "/run", "/proc", "/dev/urandom", "/dev/null", "/sys/devices/system/cpu"];

/// Calls that no shipper makes.
const DENIED: &[libc::c_long] = &[
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_move_mount,
    libc::SYS_fsopen,
    libc::SYS_open_tree,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_unshare,
    libc::SYS_setns,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_kexec_file_load,
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_adjtimex,
    libc::SYS_clock_adjtime,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    libc::SYS_setuid,
    libc::SYS_setgid,
    libc::SYS_setreuid,
    libc::SYS_setregid,
    libc::SYS_setresuid,
    libc::SYS_setresgid,
    libc::SYS_setgroups,
    libc::SYS_personality,
    libc::SYS_acct,
    libc::SYS_quotactl,
    libc::SYS_name_to_handle_at,
    libc::SYS_open_by_handle_at,
];

/// Memory besides batches; delivery takes about 15 MiB.
const MEMORY_BYTES: u64 = 384 << 20;

/// Memory of a sink of a hub for the largest message: 64 MiB, decompressed with a window of 128 MiB, in a vector that grows
/// by doubling, then in an engine's form. A stolen sensor must not be able to end the hub by one.
const MESSAGE_BYTES: u64 = 640 << 20;

/// Copies of a batch that a sink may have at a time: read, converted, compressed, under way.
const BATCHES: u64 = 8;

/// Socket families that a shipper uses: names, servers, the service manager and the resolver's netlink question.
const FAMILIES: &[libc::c_int] = &[libc::AF_UNIX, libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK];

/// Takes every step that `sandbox` asks for. Returns a line per step for the operator.
///
/// # Errors
/// `sandbox = "required"`, and a step is missing.
pub fn enter(config: &Config, file: &Path) -> Result<Vec<String>, String> {
    if config.sandbox == Sandbox::Off {
        return Ok(vec!["off (sandbox = \"off\")".to_owned()]);
    }
    let steps = [
        ("capabilities", drop_capabilities()),
        (
            "no_new_privs",
            nix::sys::prctl::set_no_new_privs().map(|()| String::new()).map_err(|error| error.to_string()),
        ),
        ("landlock", landlock(config, file)),
        ("seccomp", seccomp()),
        ("memory", bound_memory(config)),
    ];
    let mut lines = Vec::new();
    for (name, result) in steps {
        match result {
            Ok(what) if what.is_empty() => lines.push(name.to_owned()),
            Ok(what) => lines.push(format!("{name}: {what}")),
            Err(why) if config.sandbox == Sandbox::Required => {
                return Err(format!(
                    "sandbox = \"required\": {name}: {why}; set sandbox = \"auto\" to start without it"
                ));
            }
            Err(why) => lines.push(format!("{name}: missing, {why}")),
        }
    }
    Ok(lines)
}

/// Lists what `now` needs and a process that was confined for `start` cannot reach.
#[must_use]
pub fn closed(start: &Config, now: &Config, file: &Path) -> Vec<String> {
    if start.sandbox == Sandbox::Off {
        return Vec::new();
    }
    let ((read, written), known_ports) = (paths(start, file), ports(start));
    let ((read_now, written_now), ports_now) = (paths(now, file), ports(now));
    let below = |known: &[PathBuf], path: &PathBuf| known.iter().any(|known| path.starts_with(known));
    let ports = ports_now.iter().filter(|port| !known_ports.contains(port)).map(|port| format!("port {port}"));
    let written_now = written_now.iter().filter(|path| !below(&written, path));
    let read_now = read_now.iter().filter(|path| !below(&read, path) && !below(&written, path));
    ports.chain(written_now.chain(read_now).map(|path| path.display().to_string())).collect()
}

/// Drops capabilities. Root keeps those by which it reads a log that belongs to the agent's user.
fn drop_capabilities() -> Result<String, String> {
    let mut kept = CapsHashSet::new();
    if geteuid().is_root() {
        let permitted = caps::read(None, CapSet::Permitted).map_err(|error| error.to_string())?;
        kept = [Capability::CAP_DAC_OVERRIDE, Capability::CAP_DAC_READ_SEARCH]
            .into_iter()
            .filter(|capability| permitted.contains(capability))
            .collect();
    }
    let _ = caps::clear(None, CapSet::Ambient);
    for set in [CapSet::Inheritable, CapSet::Effective, CapSet::Permitted] {
        let wanted = if matches!(set, CapSet::Inheritable) { CapsHashSet::new() } else { kept.clone() };
        caps::set(None, set, &wanted).map_err(|error| error.to_string())?;
    }
    Ok(if kept.is_empty() {
        String::new()
    } else {
        "root keeps reading files of others; run it as its own user".to_owned()
    })
}

/// Bounds the memory of the process: a server decides how long its answers are, and the client for NATS believes it.
/// Beyond the bound the process ends, and its unit starts it again.
fn bound_memory(config: &Config) -> Result<String, String> {
    let message = if let Source::Nats(_) = config.source { MESSAGE_BYTES } else { 0 };
    let of_sinks = config.sinks.iter().map(|sink| message + sink.limits.bytes as u64 * BATCHES).sum::<u64>();
    let bytes = MEMORY_BYTES + of_sinks;
    setrlimit(Resource::RLIMIT_DATA, bytes, bytes)
        .map(|()| format!("at most {} MiB", bytes >> 20))
        .map_err(|error| error.to_string())
}

fn landlock(config: &Config, file: &Path) -> Result<String, String> {
    match try_landlock(config, file) {
        Ok(RulesetStatus::FullyEnforced) => Ok(String::new()),
        Ok(RulesetStatus::PartiallyEnforced) => Ok("in part; Linux 6.7 knows TCP, 6.12 all of it".to_owned()),
        Ok(RulesetStatus::NotEnforced) => Err("this kernel has no Landlock, or it is not enabled (lsm=)".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

fn try_landlock(config: &Config, file: &Path) -> Result<RulesetStatus, RulesetError> {
    let read = AccessFs::from_read(NEWEST);
    let all = AccessFs::from_all(NEWEST);
    let mut ruleset = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(all)?
        .handle_access(AccessNet::from_all(NEWEST))?
        .create()?;
    let (readable, writable) = paths(config, file);
    for (paths, access) in [(readable, read), (writable, all & !AccessFs::Execute)] {
        for path in paths {
            // What is not there needs no rule.
            if let Ok(open) = PathFd::new(&path) {
                let access = if path.is_dir() { access } else { access & AccessFs::from_file(NEWEST) };
                ruleset = ruleset.add_rule(PathBeneath::new(open, access))?;
            }
        }
    }
    for port in ports(config) {
        ruleset = ruleset.add_rule(NetPort::new(port, AccessNet::ConnectTcp))?;
    }
    Ok(ruleset.restrict_self()?.ruleset)
}

/// Returns what is read and what is written.
fn paths(config: &Config, file: &Path) -> (Vec<PathBuf>, Vec<PathBuf>) {
    let mut read: Vec<PathBuf> = SYSTEM.iter().map(PathBuf::from).collect();
    let mut written = vec![config.state_dir.clone()];
    let directory = |path: &Path| match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    };
    read.push(directory(file));
    // What is renewed is renamed into its directory.
    let mut secret = |path: Option<PathBuf>| read.extend(path.as_deref().map(directory));
    let mut nats = |access: &NatsAccess| {
        for place in [&access.credentials, &access.nkey, &access.password, &access.token].into_iter().flatten() {
            secret(place.path().ok());
        }
        secret(access.ca.clone());
        secret(access.certificate.as_ref().map(|(certificate, _)| certificate.clone()));
        secret(access.certificate.as_ref().map(|(_, key)| key.clone()));
    };
    if let Source::Nats(source) = &config.source {
        nats(&source.access);
    }
    for sink in &config.sinks {
        if let Kind::Nats(sink) = &sink.kind {
            nats(&sink.access);
        }
    }
    for access in config.sinks.iter().filter_map(|sink| http(&sink.kind)) {
        for place in [&access.password, &access.token, &access.api_key].into_iter().flatten() {
            secret(place.path().ok());
        }
        secret(access.ca.clone());
        secret(access.certificate.as_ref().map(|(certificate, _)| certificate.clone()));
        secret(access.certificate.as_ref().map(|(_, key)| key.clone()));
    }
    if let Source::Log(log) = &config.source {
        read.push(directory(log));
        // Behind a symbolic link, too.
        read.extend(log.canonicalize().ok().as_deref().map(directory));
        written.push(spip_record::log::hold_directory(log));
    }
    written.extend(config.sinks.iter().filter_map(|sink| match &sink.kind {
        Kind::Files(files) => Some(files.path.clone()),
        _ => None,
    }));
    (read, written)
}

fn http(kind: &Kind) -> Option<&HttpAccess> {
    match kind {
        Kind::Clickhouse(sink) => Some(&sink.access),
        Kind::Elasticsearch(sink) => Some(&sink.access),
        Kind::Http(sink) => Some(&sink.access),
        Kind::Nats(_) | Kind::Files(_) => None,
    }
}

/// Returns the TCP ports of all servers, of a proxy in the environment, and of DNS for answers too long for a datagram.
fn ports(config: &Config) -> Vec<u16> {
    let mut ports = vec![53];
    let mut nats = |access: &NatsAccess| ports.extend(access.urls.iter().filter_map(|url| port(url)));
    if let Source::Nats(source) = &config.source {
        nats(&source.access);
    }
    for sink in &config.sinks {
        if let Kind::Nats(sink) = &sink.kind {
            nats(&sink.access);
        }
    }
    ports.extend(config.sinks.iter().filter_map(|sink| port(&http(&sink.kind)?.url)));
    let proxies = ["ALL_PROXY", "all_proxy", "HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy"];
    ports.extend(proxies.iter().filter_map(|name| port(&std::env::var(name).ok()?)));
    ports.sort_unstable();
    ports.dedup();
    ports
}

/// Returns the port of a URL, or the usual one of its scheme.
fn port(url: &str) -> Option<u16> {
    let (scheme, rest) = url.split_once("://").unwrap_or(("http", url));
    let authority = rest.split(['/', '?', '#']).next()?.rsplit('@').next()?;
    let behind_address = authority.rsplit_once(']').map_or(authority, |(_, rest)| rest);
    match behind_address.rsplit_once(':') {
        Some((_, port)) => port.parse().ok(),
        None => match scheme {
            "nats" | "tls" => Some(4222),
            "https" => Some(443),
            "http" => Some(80),
            _ => None,
        },
    }
}

fn seccomp() -> Result<String, String> {
    let failed = |error: seccompiler::BackendError| error.to_string();
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = DENIED.iter().map(|call| (*call, Vec::new())).collect();
    // A family is denied where it is none of those that are used.
    let conditions = FAMILIES.iter().map(|family| {
        let family = u64::try_from(*family).unwrap_or_default();
        SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Ne, family)
    });
    let conditions = conditions.collect::<Result<Vec<_>, _>>().map_err(failed)?;
    rules.insert(libc::SYS_socket, vec![SeccompRule::new(conditions).map_err(failed)?]);
    let architecture = TargetArch::try_from(ARCH).map_err(failed)?;
    let denied = SeccompAction::Errno(u32::try_from(libc::EPERM).unwrap_or(1));
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, denied, architecture).map_err(failed)?;
    let program: seccompiler::BpfProgram = filter.try_into().map_err(failed)?;
    seccompiler::apply_filter(&program).map(|()| String::new()).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_changed_configuration_needs_beyond_the_first_is_named() {
        let config = |sinks: &str| {
            let text = format!("log = \"/var/log/spip/spip.jsonl\"\nstate_dir = \"/var/lib/spip-ship\"\n{sinks}");
            crate::config::tests::parse(&text).expect("a configuration")
        };
        let nats = "[[sink]]\nkind = \"nats\"\nurl = \"nats://192.0.2.1\"\n";
        let files = "[[sink]]\nkind = \"files\"\npath = \"/srv/logs\"\n";
        let http = "[[sink]]\nkind = \"http\"\nurl = \"https://192.0.2.1:8443\"\nca_file = \"/opt/ca/ca.pem\"\n";
        let (start, file) = (config(nats), Path::new("/etc/spip/ship.toml"));
        let other = config(&nats.replace("192.0.2.1", "192.0.2.2"));
        assert_eq!(closed(&start, &other, file), Vec::<String>::new());
        let more = config(&format!("{nats}{files}{http}"));
        assert_eq!(closed(&start, &more, file), ["port 8443", "/srv/logs", "/opt/ca"]);
        let off = Config { sandbox: Sandbox::Off, ..start };
        assert_eq!(closed(&off, &more, file), Vec::<String>::new());
    }

    #[test]
    fn the_port_of_a_server_is_found_in_every_form_of_its_url() {
        for (url, expected) in [
            ("nats://127.0.0.1:14222", Some(14222)),
            ("tls://hub.example", Some(4222)),
            ("https://es.example/path:1", Some(443)),
            ("http://[2001:db8::1]:9200/", Some(9200)),
            ("http://[2001:db8::1]", Some(80)),
            ("http://proxy:3128", Some(3128)),
            ("proxy:3128", Some(3128)),
            ("http://x:port", None),
        ] {
            assert_eq!(port(url), expected, "{url}");
        }
    }
}
