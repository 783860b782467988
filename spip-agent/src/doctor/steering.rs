//! Whether connections to all other ports reach the agent: by rules, or by the program in the kernel.

use std::net::{IpAddr, UdpSocket};

use nix::ifaddrs::getifaddrs;

use super::{Finding, Subject, Topic};
use crate::config::{Config, Prefix, SteeringMode};
use crate::rules::{self, Standing};
use crate::status;

/// Whether the configuration asks for steering without rules.
pub(super) fn by_sk_lookup(config: &Config) -> bool {
    config.steering.mode == SteeringMode::SkLookup
}

/// Why a connection from a new interface would not be steered at all.
pub(super) fn keeps_out(config: &Config) -> Option<String> {
    let confined = by_sk_lookup(config) && !config.steering.interfaces.is_empty();
    confined.then(|| "steer_interfaces confines steering to other interfaces than the probe's".to_owned())
}

/// Whether connections by IPv4 are steered.
pub(super) fn takes_ipv4(config: &Config) -> bool {
    let ip = config.listen.ip();
    (ip.is_ipv4() || ip.is_unspecified()) && in_prefixes(config, IpAddr::is_ipv4)
}

/// Whether connections by IPv6 are steered.
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
    // Of a prefix that is routed here, each address is local; of the machine's own network, only its own.
    let first = prefixes.iter().map(|prefix| prefix.address()).filter(|address| UdpSocket::bind((*address, 0)).is_ok());
    let on_interfaces = getifaddrs().into_iter().flatten().filter_map(|interface| {
        let address = interface.address?;
        let ipv4 = address.as_sockaddr_in().map(|address| IpAddr::from(address.ip()));
        ipv4.or_else(|| address.as_sockaddr_in6().map(|address| IpAddr::from(address.ip())))
    });
    let on_interfaces = on_interfaces.filter(|address| prefixes.iter().any(|prefix| prefix.contains(*address)));
    first.chain(on_interfaces).find(|address| address.is_ipv4() == own.is_ipv4())
}

pub(super) fn findings(subject: &Subject<'_>) -> Vec<Finding> {
    let topic = Topic::new("steering", "ports that are not steered are not recorded");
    match subject.config(&topic) {
        Ok(config) if by_sk_lookup(config) => vec![by_program(subject, config), left_over()],
        Ok(config) => by_rules(config),
        Err(finding) => vec![*finding],
    }
}

/// What the running agent says of its program.
fn by_program(subject: &Subject<'_>, config: &Config) -> Finding {
    let topic = Topic::new("steering.sk_lookup", "a port that is not steered to the agent is not recorded");
    let Some(socket) = &config.status_socket else {
        return topic.skipped("status_socket = \"off\": the agent cannot be asked");
    };
    if subject.running.is_none() {
        return topic.skipped("no agent runs");
    }
    let agent = match status::ask(socket).map(|report| report.agent) {
        Ok(Some(agent)) => agent,
        Ok(None) => return topic.skipped("the agent says nothing of itself"),
        Err(reason) => return topic.skipped(reason),
    };
    if agent.programs.steer != "attached" {
        let found = format!("the agent that runs does not steer: {}", agent.programs.steer);
        return topic.failure(found, "start it again with this configuration; its log says what is missing");
    }
    let left_alone = agent.steering.exclusions.len();
    topic.ok(format!(
        "{} are steered, {left_alone} exclusions (spip-agent status)",
        agent.steering.families.join(" and ")
    ))
}

/// Rules of a former configuration.
fn left_over() -> Finding {
    let topic =
        Topic::new("steering.rules", "rules do no harm beside sk_lookup, but cost time and connection tracking");
    if !super::is_root() {
        return topic.skipped("rules can be seen by root only");
    }
    if rules::any_installed() {
        topic.warning("rules of rules install are still there", "spip-agent rules remove")
    } else {
        topic.ok("none, and none are needed")
    }
}

fn by_rules(config: &Config) -> Vec<Finding> {
    let topic = |check| Topic::new(check, "a port that no rule leads to the agent is not recorded");
    if !super::is_root() {
        return vec![topic("steering.rules").skipped("rules can be seen by root only")];
    }
    let standing = match rules::standing(config) {
        Ok(standing) => standing,
        Err(error) => {
            return vec![topic("steering.rules").failure(error.to_string(), "correct ip in the configuration")];
        }
    };
    let install = "spip-agent rules install --config FILE";
    let families = standing.into_iter().map(|(family, standing)| {
        let topic = topic(if family == "IPv4" { "steering.rules_ipv4" } else { "steering.rules_ipv6" });
        match standing {
            Standing::InPlace => topic.ok("as rules install makes them"),
            Standing::Unwanted => topic.ok("none, and the agent does not listen on this family"),
            Standing::Absent => topic.warning(
                "none of ours: no port but the agent's own is recorded, unless rules of your own lead there (--probe finds out)",
                install,
            ),
            Standing::Outdated => topic.warning(
                "there, but rules install would make others now: services came or went, or the configuration changed",
                install,
            ),
            Standing::TakesServices => topic.warning(
                "there, and ports on which services listen now lead to the agent: nobody outside reaches those services",
                install,
            ),
            Standing::LeftOver => {
                topic.warning("there, though the agent does not listen on this family", "spip-agent rules remove")
            }
            Standing::Unknown(reason) => topic.skipped(reason),
        }
    });
    families.collect()
}
