//! Whether connections to all other ports reach the agent: by rules, or by the program in the kernel.

use std::net::IpAddr;

use super::{Finding, Subject, Topic};
use crate::config::Config;
use crate::rules::{self, Standing};

/// Whether the configuration asks for steering without rules.
pub(super) fn by_sk_lookup(_config: &Config) -> bool {
    false
}

/// Why a connection from a new interface would not be steered at all.
pub(super) fn keeps_out(_config: &Config) -> Option<String> {
    None
}

/// Whether connections by IPv4 are steered.
pub(super) fn takes_ipv4(config: &Config) -> bool {
    let ip = config.listen.ip();
    ip.is_ipv4() || ip.is_unspecified()
}

/// Whether connections by IPv6 are steered.
pub(super) fn takes_ipv6(config: &Config) -> bool {
    config.listen.is_ipv6()
}

/// An address of this machine that is steered: `own`, or one of a prefix to which steering is confined.
pub(super) fn address_in_reach(_config: &Config, own: IpAddr) -> IpAddr {
    own
}

pub(super) fn findings(subject: &Subject<'_>) -> Vec<Finding> {
    let topic = Topic::new("steering", "ports that are not steered are not recorded");
    let config = match subject.config(&topic) {
        Ok(config) => config,
        Err(finding) => return vec![*finding],
    };
    by_rules(config)
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
