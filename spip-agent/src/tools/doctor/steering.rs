//! Checks that connections to all other ports reach the agent: by rules, or by the program in the kernel.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};

use nix::net::if_::if_nametoindex;

use super::{Finding, Subject, Topic};
use crate::config::{self, Config, Prefix, SteeringMode};
use crate::kernel::early_demux;
use crate::kernel::ebpf;
use crate::kernel::interfaces;
use crate::kernel::routes::{self, Ipv6Route};
use crate::observe::status;
use crate::tools::rules::{self, RuleState};

/// Reports whether the configuration asks for steering without rules.
pub(super) fn by_sk_lookup(config: &Config) -> bool {
    config.steering.mode == SteeringMode::SkLookup
}

/// Returns the reason why a connection from a new interface would not be steered at all.
pub(super) fn keeps_out(config: &Config) -> Option<String> {
    let confined = by_sk_lookup(config) && !config.steering.interfaces.is_empty();
    confined.then(|| "steer_interfaces confines steering to other interfaces than the probe's".to_owned())
}

/// Reports whether connections by IPv4 are steered.
pub(super) fn takes_ipv4(config: &Config) -> bool {
    let ip = config.listen.ip();
    (ip.is_ipv4() || ip.is_unspecified()) && in_prefixes(config, IpAddr::is_ipv4)
}

/// Reports whether connections by IPv6 are steered.
pub(super) fn takes_ipv6(config: &Config) -> bool {
    config.listen.is_ipv6() && in_prefixes(config, IpAddr::is_ipv6)
}

fn in_prefixes(config: &Config, family: impl Fn(&IpAddr) -> bool) -> bool {
    let prefixes = prefixes(config);
    prefixes.is_empty() || prefixes.iter().any(|prefix| family(&prefix.address()))
}

fn prefixes(config: &Config) -> &[Prefix] {
    if by_sk_lookup(config) { &config.steering.prefixes } else { &[] }
}

/// An address of this machine that is steered: `own`, or one of the prefixes to which steering is confined, if any is local.
pub(super) fn address_in_reach(config: &Config, own: IpAddr) -> Option<IpAddr> {
    let prefixes = prefixes(config);
    if prefixes.is_empty() {
        return Some(own);
    }
    // Of a prefix that is routed here, each address is local; of the machine's own network, only its own. By IPv4 a local
    // address is one that can be bound; by IPv6 the route alone says so.
    let first = prefixes.iter().map(|prefix| prefix.address()).filter(|address| UdpSocket::bind((*address, 0)).is_ok());
    let routes = routes::ipv6();
    let routed =
        local_routes(&routes).flat_map(|route| prefixes.iter().filter_map(move |prefix| common(prefix, &route)));
    let on_interfaces = interfaces::addresses().map(|(_, address)| address);
    let on_interfaces = on_interfaces.filter(|address| prefixes.iter().any(|prefix| prefix.contains(*address)));
    first.chain(routed).chain(on_interfaces).find(|address| address.is_ipv4() == own.is_ipv4())
}

/// Networks that are local as a whole. Single addresses are those of interfaces.
fn local_routes(routes: &[Ipv6Route]) -> impl Iterator<Item = Prefix> {
    let networks = routes.iter().filter(|route| route.is_local && route.length < 128);
    networks.filter_map(|route| Prefix::parse(&format!("{}/{}", route.network, route.length)).ok())
}

/// The first address that both have.
fn common(one: &Prefix, other: &Prefix) -> Option<IpAddr> {
    let addresses = [one.address(), other.address()];
    addresses.into_iter().find(|address| one.contains(*address) && other.contains(*address))
}

pub(super) fn findings(subject: &Subject<'_>) -> Vec<Finding> {
    let topic = Topic::new("steering", "ports that are not steered are not recorded");
    match subject.config(&topic) {
        Ok(config) if by_sk_lookup(config) => {
            vec![by_program(subject), confined(config), others(subject, config), left_over(), hears(subject)]
        }
        Ok(config) => [by_rules(config), vec![let_in(config), one_port(), hears(subject)]].concat(),
        Err(finding) => vec![*finding],
    }
}

/// Checks the running agent's description of its program.
fn by_program(subject: &Subject<'_>) -> Finding {
    let topic = Topic::new("steering.sk_lookup", "a port that is not steered to the agent is not recorded");
    if subject.running.is_none() {
        return topic.skipped("no agent runs");
    }
    let agent = match &subject.answer {
        Ok(agent) => agent,
        Err(reason) => return topic.skipped(reason),
    };
    if agent.programs.steer != "attached" {
        let found = format!("the running agent does not steer: {}", agent.programs.steer);
        return topic.failure(found, "restart it with this configuration; its log shows what is missing");
    }
    let left_alone = agent.steering.exclusions.len();
    topic.ok(format!(
        "{} are steered, {left_alone} exclusions (spip-agent status)",
        agent.steering.families.join(" and ")
    ))
}

/// Checks that the interfaces and addresses of the confinement are there.
fn confined(config: &Config) -> Finding {
    let topic =
        Topic::new("steering.confined", "connections outside of steer_interfaces and steer_prefixes are not recorded");
    let config::Steering { prefixes, interfaces, .. } = &config.steering;
    let missing: Vec<_> =
        interfaces.iter().filter(|name| if_nametoindex(name.as_str()).is_err()).map(String::as_str).collect();
    let unspecified = [IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)];
    if !missing.is_empty() {
        let found = format!("there is no interface {}", missing.join(", "));
        let remedy = "correct steer_interfaces (ip link shows the names)";
        if missing.len() == interfaces.len() {
            topic.failure(format!("{found}: nothing is steered"), remedy)
        } else {
            topic.warning(found, remedy)
        }
    } else if !unspecified.into_iter().any(|family| address_in_reach(config, family).is_some()) {
        topic.failure(
            "no address of this machine is in steer_prefixes: nothing is steered",
            "correct steer_prefixes, or make a prefix that is routed here local: ip route add local PREFIX dev lo",
        )
    } else if prefixes.is_empty() && interfaces.is_empty() {
        topic.ok("every interface and every local address")
    } else {
        topic.ok("the interfaces are there, and addresses in the prefixes")
    }
}

/// Checks for other `sk_lookup` programs. Of several, the first that was attached chooses.
fn others(subject: &Subject<'_>, config: &Config) -> Finding {
    let topic = Topic::new(
        "steering.other_programs",
        "connections that an earlier sk_lookup program takes never reach the agent",
    );
    let found = match ebpf::other_steering(&config.ebpf.pin_path) {
        Ok(found) => found,
        Err(reason) => return topic.skipped(format!("{reason}; run as root")),
    };
    // That of a pinned link is not counted.
    let unpinned = |agent: &status::Agent| agent.programs.steer == "attached" && agent.steering.pinned_link.is_none();
    let own = match (&subject.running, &subject.answer) {
        (None, _) => 0,
        (Some(_), Ok(agent)) => usize::from(unpinned(agent)),
        (Some(_), Err(reason)) => return topic.skipped(reason),
    };
    match found.saturating_sub(own) {
        0 => topic.ok("none"),
        others => topic.warning(
            format!("{others} beside the agent's"),
            "stop the other agent or program (bpftool net and bpftool link show them), then start the agent again",
        ),
    }
}

/// Rules of a former configuration.
fn left_over() -> Finding {
    let topic =
        Topic::new("steering.rules", "rules are harmless beside sk_lookup, but cost time and connection tracking");
    if !super::is_root() {
        return topic.skipped("only root can read the rules");
    }
    if rules::any_installed() {
        topic.warning("rules of `rules install` are still in place", "spip-agent rules remove")
    } else {
        topic.ok("none, and none are needed")
    }
}

/// Checks that the packet filter lets redirected connections in.
fn let_in(config: &Config) -> Finding {
    let topic =
        Topic::new("steering.filter", "connections that a packet filter drops behind the rules are not recorded");
    if !super::is_root() {
        return topic.skipped("only root can read the rules");
    }
    match rules::filtered(config) {
        Some((found, remedy)) => topic.warning(found, remedy),
        None => topic.ok("nothing drops the agent's own port, as far as iptables says"),
    }
}

/// Checks the running agent's judgement on whether SYNs reach it.
fn hears(subject: &Subject<'_>) -> Finding {
    let topic = Topic::new("steering.deaf", "connections that do not reach the listener are not recorded");
    let agent = match (&subject.running, &subject.answer) {
        (None, _) => return topic.skipped("no agent runs"),
        (Some(_), Err(reason)) => return topic.skipped(reason),
        (Some(_), Ok(agent)) => agent,
    };
    let missed: Vec<_> = agent.deaf.iter().map(|missed| missed.reason.as_str()).collect();
    if missed.is_empty() {
        return topic.ok("the running agent misses nothing");
    }
    topic.failure(
        missed.join("; "),
        "fix what the other checks of steering name; where they find nothing, a packet filter drops the SYNs",
    )
}

/// Checks that the kernel keeps connections apart that come from one source port.
fn one_port() -> Finding {
    let topic = Topic::new(
        "steering.early_demux",
        "behind REDIRECT this kernel may merge the connections of a scanner that uses one source port",
    );
    match early_demux::loses_connections() {
        Some(true) => topic.warning(early_demux::LOSS, early_demux::REMEDY),
        Some(false) => topic.ok("connections from one source port are kept apart"),
        None => topic.skipped("known once rules have loaded NAT into the kernel"),
    }
}

fn by_rules(config: &Config) -> Vec<Finding> {
    let topic = |check| Topic::new(check, "a port without a rule is not recorded");
    if !super::is_root() {
        return vec![topic("steering.rules").skipped("only root can read the rules")];
    }
    let rules::Found { families, local } = match rules::states(config) {
        Ok(found) => found,
        Err(error) => {
            return vec![topic("steering.rules").failure(error.to_string(), "correct ip in the configuration")];
        }
    };
    // Without the option that they were installed with, a part of them would go.
    let install = format!("spip-agent rules install{} --config FILE", if local { " --local" } else { "" });
    let install = install.as_str();
    let families = families.into_iter().map(|(family, state)| {
        let topic = topic(if family == "IPv4" { "steering.rules_ipv4" } else { "steering.rules_ipv6" });
        match state {
            RuleState::InPlace => topic.ok("as `rules install` makes them"),
            RuleState::Unwanted => topic.ok("none, and the agent does not listen on this family"),
            RuleState::Shadowed(rule) => topic.failure(
                format!("there, behind a rule that takes every connection before them: {rule}"),
                "delete that rule (iptables -t nat -D in the place of -A), or append it again behind ours",
            ),
            RuleState::Overtakes(rule) => topic.warning(
                format!("in place, but in front of published ports of containers, which reach the agent instead: {rule}"),
                install,
            ),
            RuleState::Absent => topic.warning(
                "none of ours: only the agent's own port is recorded, unless you have rules of your own (--probe shows it)",
                install,
            ),
            RuleState::Outdated => topic.warning(
                "outdated: services started or stopped, or the configuration changed",
                install,
            ),
            RuleState::TakesServices => topic.warning(
                "in place, but they take ports of services that listen now: those services are unreachable from outside",
                install,
            ),
            RuleState::LeftOver => {
                // Those of the other family stay: install takes away what is not wanted.
                topic.warning("in place, though the agent does not listen on this family", install)
            }
            RuleState::Unknown { reason, wanted: true } => topic.warning(
                format!("{reason}: with steering = \"redirect\" only the agent's own port is recorded without rules"),
                "install the package nftables or iptables, or steering = \"sk_lookup\" in the configuration, which needs no rules",
            ),
            RuleState::Unknown { reason, wanted: false } => topic.skipped(reason),
        }
    });
    families.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_that_is_local_as_a_whole_is_known_by_its_route() {
        const NONE: &str = "00000000000000000000000000000000 00 00000000000000000000000000000000";
        let routes = format!(
            "00000000000000000000000000000001 80 {NONE} 00000000 00000003 00000000 80200001       lo\n\
             20010db8000f00000000000000000000 40 {NONE} 00000400 00000001 00000000 80000001       lo\n\
             20010db8000a00000000000000000000 40 {NONE} 00000100 00000001 00000000 00000001     eth0\nbroken\n"
        );
        let found: Vec<_> = local_routes(&routes::parse_ipv6(&routes)).collect();
        let prefix = |text: &str| Prefix::parse(text).expect("prefix");
        assert_eq!(found, [prefix("2001:db8:f::/64")]);
        let common = |text: &str| common(&prefix(text), &found[0]).map(|address| address.to_string());
        assert_eq!(common("2001:db8::/32").as_deref(), Some("2001:db8:f::"));
        assert_eq!(common("2001:db8:f:0:1::/80").as_deref(), Some("2001:db8:f:0:1::"));
        assert_eq!(common("2001:db8:a::/64"), None);
    }
}
