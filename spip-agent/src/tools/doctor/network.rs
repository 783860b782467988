//! The network as the sensor uses it: address families, connection tracking, ports, and who listens.

use std::net::SocketAddr;
use std::path::Path;

use super::{Finding, Subject, Topic, steering, sysctl, sysctl_number};
use crate::config::Config;
use crate::kernel::interfaces;
use crate::kernel::listen;
use crate::kernel::sockets::{Listener, Sockets};
use crate::tools::translated;

/// Part of the connection tracking table, in percent, from which on new connections are soon dropped.
const NEARLY_FULL: u64 = 80;
/// Entries below which a scan of one host fills the table.
const SMALL_TABLE: u64 = 65_536;

pub(super) fn findings(subject: &Subject<'_>) -> Vec<Finding> {
    vec![
        ipv6(subject.config),
        public_address(subject.config),
        conntrack(subject.config),
        port_range(subject.config),
        listener(subject),
    ]
}

fn ipv6(config: Option<&Config>) -> Finding {
    let topic =
        Topic::new("network.ipv6", "whether clients can connect by IPv6, and whether the agent can listen on \"::\"");
    let present = Path::new("/proc/thread-self/net/if_inet6").exists();
    let wanted = config.is_some_and(|config| config.listen.is_ipv6());
    match (present, wanted) {
        (true, true) => topic.ok("present"),
        (true, false) if config.is_some() => topic.ok("present, but not used (ip is an IPv4 address)"),
        (true, false) => topic.ok("present"),
        (false, true) => {
            let remedy = "ip = \"0.0.0.0\" in the configuration, or boot without ipv6.disable=1";
            topic.failure("this kernel has no IPv6, and ip is an IPv6 address", remedy)
        }
        (false, false) => topic.ok("not present"),
    }
}

fn public_address(config: Option<&Config>) -> Finding {
    let topic = Topic::new(
        "network.public_address",
        "behind a provider's translation records name the private address, which no client asked for, unless public_addresses says which",
    );
    let named = config.map(|config| config.network.public.clone()).unwrap_or_default();
    let private = translated::private_addresses(interfaces::addresses(), &named);
    match private.first() {
        None if named.pairs().is_empty() => topic.ok("no private address stands alone"),
        None => topic.ok("public_addresses names it"),
        Some(first) => {
            let all: Vec<_> = private.iter().map(ToString::to_string).collect();
            topic.ok(format!(
                "only private ones: {}; if clients reach it by another one, the configuration needs {}",
                all.join(", "),
                translated::example(*first)
            ))
        }
    }
}

fn conntrack(config: Option<&Config>) -> Finding {
    let topic = Topic::new(
        "network.conntrack",
        "REDIRECT takes an entry for each connection; in a full table new connections are dropped by the kernel, unrecorded",
    );
    if config.is_some_and(steering::by_sk_lookup) {
        return topic.skipped("steering = \"sk_lookup\" takes no entries");
    }
    let numbers = (sysctl_number("net/netfilter/nf_conntrack_count"), sysctl_number("net/netfilter/nf_conntrack_max"));
    match numbers {
        (Some(used), Some(most)) => table(topic, used, most),
        _ => topic.ok("not in use: no rule needs it yet"),
    }
}

/// Checks that the table of connection tracking is large enough.
fn table(topic: Topic, used: u64, most: u64) -> Finding {
    let found = format!("{used} of {most} entries used");
    let larger = format!("sysctl -w net.netfilter.nf_conntrack_max={}", most.saturating_mul(4).max(4 * SMALL_TABLE));
    if used.saturating_mul(100) >= most.saturating_mul(NEARLY_FULL) {
        topic.failure(found, larger)
    } else if most < SMALL_TABLE {
        topic.warning(format!("{found}: few"), larger)
    } else {
        topic.ok(found)
    }
}

fn port_range(config: Option<&Config>) -> Finding {
    let topic = Topic::new(
        "network.port_range",
        "ports of this machine's own connections: they must not include the agent's, and clients must not occupy all of them",
    );
    let Some((from, to)) = crate::kernel::steering::outgoing_ports() else {
        return topic.skipped("net.ipv4.ip_local_port_range cannot be read");
    };
    let found = format!("{from} to {to}");
    let Some(config) = config else { return topic.ok(found) };
    let port = config.listen.port();
    let reserved = sysctl("net/ipv4/ip_local_reserved_ports").unwrap_or_default();
    if (from..=to).contains(&port) && !lists(&reserved, port) {
        return topic.warning(
            format!("{found}: port {port} of the agent is among them, and may be taken when it starts"),
            format!("sysctl -w net.ipv4.ip_local_reserved_ports={}", with(&reserved, port)),
        );
    }
    let kept = config.exclude_ports.iter().any(|(first, last)| *first <= to && from <= *last);
    if steering::by_sk_lookup(config) && !kept {
        return topic.warning(
            format!("{found}: clients with connections to all of them keep this machine from connecting out"),
            "add a part of them to exclude_ports in the configuration, such as \"60000-60999\"",
        );
    }
    topic.ok(found)
}

/// Reports whether a list as the kernel writes it, `8080,9000-9100`, has a port.
fn lists(list: &str, port: u16) -> bool {
    list.split(',').any(|range| {
        let (from, to) = range.split_once('-').unwrap_or((range, range));
        from.parse().is_ok_and(|from: u16| from <= port) && to.parse().is_ok_and(|to: u16| port <= to)
    })
}

fn with(list: &str, port: u16) -> String {
    if list.is_empty() { port.to_string() } else { format!("{list},{port}") }
}

fn listener(subject: &Subject<'_>) -> Finding {
    let topic = Topic::new("listener", "every connection reaches the agent by this one socket");
    let config = match subject.config(&topic) {
        Ok(config) => config,
        Err(finding) => return *finding,
    };
    let sockets = match Sockets::read(Path::new("/proc")) {
        Ok(sockets) => sockets,
        Err(error) => return topic.skipped(error.to_string()),
    };
    let listen = config.listen;
    // A socket on all addresses takes the port whatever address is configured, and the other way round.
    let ours = |found: &&Listener| {
        found.port == listen.port()
            && (found.ip == listen.ip() || found.ip.is_unspecified() || listen.ip().is_unspecified())
    };
    let found = sockets.listeners.iter().find(ours);
    // Whatever the name of its program is: it says itself where it listens.
    let own = subject.answer.as_ref().ok().and_then(|agent| agent.listener.address.parse::<SocketAddr>().ok());
    match found.map(|found| (found.ip, found.owner.as_deref())) {
        None => absent(topic, subject, config, own),
        Some((ip, _)) if own.is_some_and(|own| own.port() == listen.port()) => {
            topic.ok(format!("the agent listens on {ip}, port {}, and answers", listen.port()))
        }
        Some((ip, Some("spip-agent"))) if own.is_none() => {
            unanswered(topic, subject, config, format!("the agent listens on {ip}, port {}", listen.port()))
        }
        Some((_, Some("systemd"))) if subject.running.is_none() => topic.warning(
            format!("systemd holds the socket on {listen}, and no agent runs: connections wait there, unrecorded"),
            "systemctl start spip-agent; systemctl status spip-agent shows why it is not running",
        ),
        Some((_, Some("systemd"))) if own.is_none() => {
            unanswered(topic, subject, config, format!("systemd holds the socket on {listen} for the agent"))
        }
        Some((_, None)) if !sockets.complete => {
            topic.skipped(format!("something listens on {listen}; run as root to see what"))
        }
        Some((_, owner)) => {
            let owner = owner.unwrap_or("a hidden process");
            let elsewhere = own.map(|own| format!("; the one that runs listens on {own}")).unwrap_or_default();
            let remedy =
                format!("stop it (ss -ltnp sport = :{}), or choose another port in the configuration", listen.port());
            topic.failure(format!("{owner} listens on {listen}, so the agent cannot{elsewhere}"), remedy)
        }
    }
}

/// No process listens: because no agent runs, or because the one that does was started to listen elsewhere.
fn absent(topic: Topic, subject: &Subject<'_>, config: &Config, own: Option<SocketAddr>) -> Finding {
    let listen = config.listen;
    if let Err(error) = listen::try_address(listen.ip()) {
        let found = format!("ip = \"{}\" cannot be listened on: {error}", listen.ip());
        return topic.failure(found, "correct ip in the configuration, or use 0.0.0.0 or ::");
    }
    let Some(running) = &subject.running else {
        return topic.warning(
            format!("no process listens on {listen}: the agent does not run"),
            "systemctl start spip-agent, or spip-agent --config FILE",
        );
    };
    let found = match own {
        Some(own) => format!("the agent that runs (process {}) listens on {own}, not on {listen}", running.pid),
        None => format!("an agent runs (process {}), but no process listens on {listen}", running.pid),
    };
    let remedy = "restart it (systemctl restart spip-agent): ip and port are read at the start only; or name the \
                  configuration that it was started with";
    topic.warning(found, remedy)
}

/// A socket that listens proves that the agent was there once, not that it still answers.
fn unanswered(topic: Topic, subject: &Subject<'_>, config: &Config, found: String) -> Finding {
    match &subject.answer {
        Err(reason) if config.status_socket.is_some() && super::is_root() => topic.warning(
            format!("{found}, but its status is not available: {reason}"),
            "journalctl -u spip-agent, or its log, shows whether it has a status socket; if it hangs: systemctl restart spip-agent",
        ),
        _ => topic.ok(found),
    }
}

#[cfg(test)]
mod tests {
    use super::super::State;
    use super::*;

    #[test]
    fn a_table_that_is_nearly_full_is_a_failure_and_a_small_one_a_warning() {
        let judged = |used, most| table(Topic::new("network.conntrack", ""), used, most);
        assert_eq!(judged(0, 262_144).state, State::Ok);
        assert_eq!(judged(209_715, 262_144).state, State::Ok);
        assert_eq!(judged(209_716, 262_144).state, State::Failure);
        assert_eq!(judged(0, 65_535).state, State::Warning);
        let remedy = judged(262_144, 262_144).remedy.expect("a remedy");
        assert_eq!(remedy, "sysctl -w net.netfilter.nf_conntrack_max=1048576");
    }

    #[test]
    fn reserved_ports_are_read_as_the_kernel_writes_them() {
        assert!(lists("8080,9000-9100", 9050) && lists("8080", 8080));
        assert!(!lists("8080,9000-9100", 8081) && !lists("", 1));
        assert_eq!([with("", 5), with("1-2", 5)], ["5", "1-2,5"]);
    }
}
