//! Tells from the table `filter` whether redirected connections are let in.
//!
//! REDIRECT comes before the filter, which sees the agent's own port in place of the client's: a host firewall that drops what
//! it does not know, as ufw does, drops every redirected connection unless it accepts that port. Read are the rules of
//! `iptables-save`; rules are only compared, so a rule with a match that is not known counts as one that does not match. A
//! filter of nftables itself is not read: those of firewalld accept what was translated.

use std::collections::{BTreeMap, BTreeSet};

use super::saved::words;

/// Reports whether new connections to `port` from outside are dropped. `saved`: the output of `iptables-save`.
pub(super) fn drops(saved: &str, port: u16) -> bool {
    let filter = Filter::parse(saved);
    let last = filter.rules.get("INPUT").into_iter().flatten();
    let ends = last.map(|rule| matches(rule, port)).any(|target| matches!(target, Some("DROP" | "REJECT")));
    (filter.drops || ends) && !filter.accepts("INPUT", port, &mut BTreeSet::new())
}

/// Reports whether ufw has made rules.
pub(super) fn is_by_ufw(saved: &str) -> bool {
    saved.contains("\n:ufw-user-input ") || saved.contains("\n:ufw6-user-input ")
}

/// The table `filter`.
#[derive(Default)]
struct Filter {
    /// Set when the policy of `INPUT` is to drop.
    drops: bool,
    /// Rules of each chain, as words behind its name.
    rules: BTreeMap<String, Vec<Vec<String>>>,
}

impl Filter {
    fn parse(saved: &str) -> Self {
        let mut filter = Self::default();
        let mut table = "";
        for line in saved.lines() {
            if let Some(name) = line.strip_prefix('*') {
                table = name.trim();
            } else if table != "filter" {
            } else if line.starts_with(":INPUT DROP") {
                filter.drops = true;
            } else if let Some(rule) = line.strip_prefix("-A ") {
                let mut words = words(rule).into_iter();
                let chain = words.next().unwrap_or_default();
                filter.rules.entry(chain).or_default().push(words.collect());
            }
        }
        filter
    }

    /// Reports whether a rule of `chain`, or of one that it leads to, accepts the connections.
    fn accepts<'a>(&'a self, chain: &'a str, port: u16, visited: &mut BTreeSet<&'a str>) -> bool {
        if !visited.insert(chain) {
            return false;
        }
        let targets = self.rules.get(chain).into_iter().flatten().filter_map(|rule| matches(rule, port));
        targets.into_iter().any(|target| target == "ACCEPT" || self.accepts(target, port, visited))
    }
}

/// Returns the target of a rule that a new connection to `port` from an unknown source matches, whatever interface it comes by.
fn matches(rule: &[String], port: u16) -> Option<&str> {
    let mut words = rule.iter().map(String::as_str);
    while let Some(option) = words.next() {
        let value = words.next()?;
        let holds = match option {
            "-j" | "-g" => return Some(value),
            "-m" | "--comment" => true,
            "-i" => value != "lo",
            "-p" => matches!(value, "tcp" | "all"),
            "--dport" | "--dports" => contains(value, port),
            "--dst-type" => value == "LOCAL",
            "--ctstate" | "--state" => value.split(',').any(|state| matches!(state, "NEW" | "DNAT")),
            "--ctstatus" => value.split(',').any(|status| status == "DNAT"),
            "--tcp-flags" => words.next().is_some_and(|flags| flags.contains("SYN")),
            _ => false,
        };
        if !holds {
            return None;
        }
    }
    None
}

/// Reports whether a list such as `22,8000:8100` has the port.
fn contains(list: &str, port: u16) -> bool {
    list.split(',').any(|part| {
        let (from, to) = part.split_once(':').unwrap_or((part, part));
        matches!((from.parse(), to.parse()), (Ok(from), Ok(to)) if (from..=to).contains(&port))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rules of INPUT behind `ufw enable` of ufw 0.36.2 (Debian 12), by `iptables-save`, with SSH limited.
    const UFW: &str = include_str!("../../../fixtures/rules/ufw-0.36.2.txt");
    /// Docker 20.10 with a published port.
    const DOCKER: &str = include_str!("../../../fixtures/rules/docker-20.10.txt");

    #[test]
    fn ufw_drops_what_it_was_not_told_to_allow() {
        assert!(drops(UFW, 12345) && is_by_ufw(UFW));
        let allow = "-A ufw-user-input -p tcp -m tcp --dport 12345 -j ACCEPT\nCOMMIT";
        let allowed = UFW.replacen("COMMIT", allow, 1);
        assert!(!drops(&allowed, 12345));
        assert!(drops(&allowed, 12346));
    }

    #[test]
    fn the_rules_of_docker_let_in() {
        assert!(!drops(DOCKER, 12345) && !is_by_ufw(DOCKER));
    }

    #[test]
    fn a_filter_that_ends_with_a_refusal_drops() {
        let filter = |rules: &str| format!("*filter\n:INPUT ACCEPT [0:0]\n{rules}\nCOMMIT\n");
        let end = "-A INPUT -j REJECT --reject-with icmp-host-prohibited";
        for (rules, dropped) in [
            ("", false),
            (end, true),
            ("-A INPUT -s 192.0.2.0/24 -j DROP", false),
            ("-A INPUT -p tcp -m tcp --dport 23 -j DROP", false),
            (
                &format!("-A INPUT -i lo -j ACCEPT\n-A INPUT -m state --state RELATED,ESTABLISHED -j ACCEPT\n{end}"),
                true,
            ),
            (&format!("-A INPUT -p tcp -m multiport --dports 22,12000:13000 -j ACCEPT\n{end}"), false),
            (&format!("-A INPUT -m conntrack --ctstate RELATED,ESTABLISHED,DNAT -j ACCEPT\n{end}"), false),
            (
                &format!(
                    "-A INPUT -i eth0 -p tcp -m comment --comment \"-j DROP\" -j THEIRS\n-A THEIRS -j ACCEPT\n{end}"
                ),
                false,
            ),
            (&format!("-A FORWARD -j ACCEPT\n-A OUTPUT -j ACCEPT\n{end}"), true),
            (&format!("-A INPUT ! -p tcp -j ACCEPT\n{end}"), true),
            (&format!("-A INPUT -j A\n-A A -j B\n-A B -j A\n{end}"), true),
        ] {
            assert_eq!(drops(&filter(rules), 12345), dropped, "{rules}");
        }
        assert!(drops("*filter\n:INPUT DROP [0:0]\nCOMMIT\n", 1));
        assert!(!drops("*nat\n:INPUT DROP [0:0]\nCOMMIT\n", 1), "another table");
        for text in ["", "*filter", "*filter\n-A", "*filter\n-A INPUT", "*filter\n-A INPUT -j", "*filter\n-A INPUT -p"]
        {
            assert!(!drops(text, 1), "{text}");
        }
    }
}
