//! From a configuration to the text that `iptables-restore --noflush` reads. Pure: no file, no process.
//!
//! REDIRECT leads a connection from outside to the first address of the interface by which it came, and one from this
//! machine to `127.0.0.1` or `::1`. An agent that does not listen there gets nothing, and the client gets a reset:
//! rules that could only do that are not made. From outside only connections to this machine's own addresses are taken,
//! so that a router or a host of containers goes on forwarding.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::exclusions::{Exclusion, Exclusions};
use super::saved::{LOCAL, OUTSIDE, Saved};

/// Ports that one `multiport` match holds, a range counting twice (`XT_MULTI_PORTS` in the kernel's
/// `include/uapi/linux/netfilter/xt_multiport.h`).
const MULTIPORT_SLOTS: usize = 15;

/// Connections that can be redirected to the listener: from outside, and from this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Scope {
    pub(super) v4: (bool, bool),
    pub(super) v6: (bool, bool),
}

impl Scope {
    /// Determines what REDIRECT can do for a listener, with notes for the operator on what it cannot.
    pub(super) fn of(listen: SocketAddr, local: bool) -> (Self, Vec<String>) {
        let ip = listen.ip();
        let mut notes = Vec::new();
        let own = match ip {
            _ if ip.is_unspecified() => (true, local),
            _ if ip.is_loopback() => {
                notes.push(format!(
                    "no connection from outside reaches {ip}: listen on \"0.0.0.0\" or \"::\" to take them"
                ));
                let first = ip.is_ipv6() || ip == IpAddr::from(Ipv4Addr::LOCALHOST);
                if local && !first {
                    notes.push(format!("clients on this machine are led to 127.0.0.1, not to {ip}"));
                } else if !local {
                    notes.push("clients on this machine are taken with --local only".to_owned());
                }
                (false, local && first)
            }
            _ => {
                notes.push(format!(
                    "connections are led to the first address of the interface by which they come: where that is not \
                     {ip}, they are reset; \"0.0.0.0\" or \"::\" avoids it"
                ));
                if local {
                    notes.push(format!("clients on this machine are led to loopback, not to {ip}, and are left alone"));
                }
                (true, false)
            }
        };
        let none = (false, false);
        let scope = match ip {
            IpAddr::V6(_) if ip.is_unspecified() => Self { v4: own, v6: own },
            IpAddr::V6(_) => Self { v4: none, v6: own },
            IpAddr::V4(_) => Self { v4: own, v6: none },
        };
        if scope.any() && scope.v4 != scope.v6 {
            let other = if ip.is_ipv4() { "IPv6" } else { "IPv4" };
            notes
                .push(format!("{other} is left alone, because the agent listens on {ip} only; ip = \"::\" takes both"));
        }
        (scope, notes)
    }

    /// Reports whether there is anything to set up.
    pub(super) fn any(self) -> bool {
        [self.v4, self.v6].iter().any(|(outside, local)| *outside || *local)
    }
}

/// One chain as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Chain {
    name: &'static str,
    /// The one rule that leads to it.
    jump: &'static str,
    /// For the operator: ports that are left alone, and why.
    comments: Vec<String>,
    rules: Vec<String>,
}

/// The chains of one address family.
pub(super) fn chains(outside: bool, local: bool, exclusions: &Exclusions, port: u16) -> Vec<Chain> {
    let chain = |name, jump, exclusions: &[Exclusion]| {
        let mut rules: Vec<String> = port_lists(exclusions)
            .into_iter()
            .map(|ports| format!("-A {name} -p tcp -m multiport --dports {ports} -j RETURN"))
            .collect();
        rules.push(format!("-A {name} -p tcp -j REDIRECT --to-ports {port}"));
        Chain { name, jump, comments: comments(exclusions), rules }
    };
    let mut chains = Vec::new();
    if outside {
        let jump = "-A PREROUTING -p tcp -m addrtype --dst-type LOCAL -j SPIP";
        chains.push(chain(OUTSIDE, jump, &exclusions.outside));
    }
    if local {
        // Whatever address of its own a machine speaks to, the packets leave by the loopback interface.
        chains.push(chain(LOCAL, "-A OUTPUT -o lo -p tcp -j SPIP_LOCAL", &exclusions.local));
    }
    chains
}

/// A line for each reason, in the order in which they came up.
pub(super) fn comments(exclusions: &[Exclusion]) -> Vec<String> {
    let mut reasons: Vec<(&str, String)> = Vec::new();
    for Exclusion { from, to, reason } in exclusions {
        let ports = if from == to { from.to_string() } else { format!("{from}-{to}") };
        match reasons.iter_mut().find(|(known, _)| known == reason) {
            Some((_, list)) => {
                list.push_str(", ");
                list.push_str(&ports);
            }
            None => reasons.push((reason, ports)),
        }
    }
    reasons.into_iter().map(|(reason, ports)| format!("# left alone: {ports}: {reason}")).collect()
}

/// The ports of all exclusions as ranges that do not overlap, ascending.
pub(super) fn merged(exclusions: &[Exclusion]) -> Vec<(u16, u16)> {
    let mut ranges: Vec<(u16, u16)> = exclusions.iter().map(|exclusion| (exclusion.from, exclusion.to)).collect();
    ranges.sort_unstable();
    let mut merged: Vec<(u16, u16)> = Vec::new();
    for (from, to) in ranges {
        match merged.last_mut() {
            Some(last) if from <= last.1 => last.1 = last.1.max(to),
            _ => merged.push((from, to)),
        }
    }
    merged
}

/// The ports of all exclusions, each list short enough for one match.
fn port_lists(exclusions: &[Exclusion]) -> Vec<String> {
    let mut lists: Vec<String> = Vec::new();
    let mut used = MULTIPORT_SLOTS;
    for (from, to) in merged(exclusions) {
        let (slots, ports) = if from == to { (1, from.to_string()) } else { (2, format!("{from}:{to}")) };
        match lists.last_mut() {
            Some(list) if used + slots <= MULTIPORT_SLOTS => {
                list.push(',');
                list.push_str(&ports);
                used += slots;
            }
            _ => {
                lists.push(ports);
                used = slots;
            }
        }
    }
    lists
}

/// Reports whether the installed rules are the wanted ones, to the letter.
pub(super) fn is_in_place(wanted: &[Chain], saved: &Saved) -> bool {
    let rules = wanted.iter().flat_map(|chain| &chain.rules);
    stale(wanted, saved).is_empty()
        && wanted.iter().all(|chain| saved.chains.contains(&chain.name) && has_its_jump(chain, saved))
        && rules.eq(&saved.rules)
}

/// The input that turns what is there into what is wanted. It fits the state that was read, and no other: a program
/// that runs it by hand twice gets a second jump, harmless, which the next installation takes away.
///
/// A jump that is there exactly once and as it should be stays in its place: its order among foreign rules may be
/// an operator's intention. Any other jump to our chains goes, and one in front of a container engine's is made again behind
/// it.
pub(super) fn input(wanted: &[Chain], saved: &Saved) -> String {
    let stale = stale(wanted, saved);
    let mut text = "*nat\n".to_owned();
    // With --noflush this creates a chain, or empties it, and it alone.
    for chain in wanted {
        let _ = writeln!(text, ":{} - [0:0]", chain.name);
    }
    for (target, rule) in &saved.jumps {
        let kept = wanted.iter().any(|chain| chain.name == *target && has_its_jump(chain, saved));
        if !kept {
            let _ = writeln!(text, "{}", rule.replacen("-A ", "-D ", 1));
        }
    }
    for name in &stale {
        let _ = writeln!(text, "-F {name}\n-X {name}");
    }
    for chain in wanted {
        for line in chain.comments.iter().chain(&chain.rules) {
            let _ = writeln!(text, "{line}");
        }
        if !has_its_jump(chain, saved) {
            let _ = writeln!(text, "{}", chain.jump);
        }
    }
    text.push_str("COMMIT\n");
    text
}

/// Chains of ours that are there and not wanted.
fn stale(wanted: &[Chain], saved: &Saved) -> Vec<&'static str> {
    let unwanted = |name: &&str| !wanted.iter().any(|chain| chain.name == *name);
    saved.chains.iter().copied().filter(unwanted).collect()
}

/// Reports whether exactly one rule jumps to a chain, and none that publishes ports of containers stands behind it.
fn has_its_jump(chain: &Chain, saved: &Saved) -> bool {
    if saved.overtaken.iter().any(|(target, _)| *target == chain.name) {
        return false;
    }
    let mut jumps = saved.jumps.iter().filter(|(target, _)| *target == chain.name);
    jumps.next().is_some_and(|(_, rule)| rule == chain.jump) && jumps.next().is_none()
}

#[cfg(test)]
mod tests;
