//! The same rules for machines with nftables alone: one table of our own, `inet spip`, replaced in one transaction for both address
//! families, and counted. Foreign tables are never read for their rules and never changed.
//!
//! Chains of ours come behind those of others that publish ports, as a jump at the end of `PREROUTING` does: see [`PRIORITY`].

use std::fmt::Write as _;
use std::process::Stdio;

use sha2::{Digest as _, Sha256};

use super::Error;
use super::exclusions::{Exclusion, Exclusions};
use super::plan::{Scope, comments, merged};
use super::programs::{Programs, checked};

/// The program.
pub(super) const PROGRAM: &str = "nft";
/// Our table, as the program names it.
pub(super) const TABLE: &str = "inet spip";
/// Chains that ours lead to.
const OUTSIDE: &str = "from_outside";
const LOCAL: &str = "from_here";

/// Behind destination NAT of containers, which has the usual priority (-100), and of firewalld, which has -90 for forwarded ports
/// (`NFT_HOOK_OFFSET` in its `nftables.py`): the first chain that translates an address decides.
const PRIORITY: i32 = -80;

/// Both families, as an error names them.
const FAMILIES: &str = "IPv4 and IPv6";

/// A ruleset as it should be; without chains ours is to go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Ruleset {
    /// Lines of the table, comments included.
    lines: Vec<String>,
}

impl Ruleset {
    /// Builds the rules that redirect the ports to the agent.
    pub(super) fn of(scope: Scope, exclusions: &Exclusions, port: u16) -> Self {
        let mut lines = Vec::new();
        let (outside, local) = ((scope.v4.0, scope.v6.0), (scope.v4.1, scope.v6.1));
        if let Some(family) = families(outside) {
            lines.push("\tchain prerouting {".to_owned());
            lines.push(format!("\t\ttype nat hook prerouting priority {PRIORITY}; policy accept;"));
            lines.push(format!("\t\t{family}meta l4proto tcp fib daddr type local jump {OUTSIDE}"));
            lines.push("\t}".to_owned());
            chain(OUTSIDE, &exclusions.outside, port, &mut lines);
        }
        if let Some(family) = families(local) {
            lines.push("\tchain output {".to_owned());
            lines.push(format!("\t\ttype nat hook output priority {PRIORITY}; policy accept;"));
            // Whatever address of its own a machine speaks to, the packets leave by the loopback interface.
            lines.push(format!("\t\t{family}meta l4proto tcp oifname \"lo\" jump {LOCAL}"));
            lines.push("\t}".to_owned());
            chain(LOCAL, &exclusions.local, port, &mut lines);
        }
        let mut ruleset = Self { lines };
        let mark = ruleset.mark();
        for line in ruleset.lines.iter_mut().filter(|line| line.contains(" redirect to :")) {
            let _ = write!(line, " comment \"{mark}\"");
        }
        ruleset
    }

    /// Names the rules, so that a listing tells whether it has them.
    fn mark(&self) -> String {
        let mut digest = Sha256::new();
        for line in self.rules() {
            digest.update(line.split(" comment ").next().unwrap_or(line));
            digest.update("\n");
        }
        let digest: String = digest.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        format!("spip-agent {digest}")
    }

    fn rules(&self) -> impl Iterator<Item = &str> {
        self.lines.iter().map(|line| line.trim()).filter(|line| !line.starts_with('#'))
    }

    /// Reports whether a listing of the table has these rules, and no more of them.
    pub(super) fn is_in(&self, listing: &str) -> bool {
        let count = |lines: &mut dyn Iterator<Item = &str>| {
            lines.filter(|line| [" jump ", " return", " redirect to "].iter().any(|word| line.contains(word))).count()
        };
        let mark = format!("\"{}\"", self.mark());
        let marks = |lines: &mut dyn Iterator<Item = &str>| lines.filter(|line| line.contains(&mark)).count();
        count(&mut self.rules()) == count(&mut listing.lines())
            && marks(&mut self.rules()) == marks(&mut listing.lines())
            && !listing.contains("flags dormant")
    }

    /// The input of `nft -f -`: takes away what is there, and makes the rest, in one transaction.
    pub(super) fn input(&self) -> String {
        let gone = format!("add table {TABLE}\ndelete table {TABLE}\n");
        if self.lines.is_empty() { gone } else { format!("{gone}table {TABLE} {{\n{}\n}}\n", self.lines.join("\n")) }
    }
}

/// Returns the match that confines a rule to the wanted families; `None` when it needs none.
fn families(wanted: (bool, bool)) -> Option<&'static str> {
    match wanted {
        (true, true) => Some(""),
        (true, false) => Some("meta nfproto ipv4 "),
        (false, true) => Some("meta nfproto ipv6 "),
        (false, false) => None,
    }
}

fn chain(name: &str, exclusions: &[Exclusion], port: u16, lines: &mut Vec<String>) {
    lines.push(format!("\tchain {name} {{"));
    lines.extend(comments(exclusions).into_iter().map(|comment| format!("\t\t{comment}")));
    let ports = merged(exclusions).into_iter().map(
        |(from, to)| {
            if from == to { from.to_string() } else { format!("{from}-{to}") }
        },
    );
    let ports: Vec<_> = ports.collect();
    if !ports.is_empty() {
        lines.push(format!("\t\ttcp dport {{ {} }} counter return", ports.join(", ")));
    }
    lines.push(format!("\t\tmeta l4proto tcp counter redirect to :{port}"));
    lines.push("\t}".to_owned());
}

/// Our table as it is; `None` where there is none.
pub(super) fn listing(programs: &Programs) -> Result<Option<String>, Error> {
    let mut command = programs.command(PROGRAM)?;
    let output = command.args(["list", "table", "inet", "spip"]).stdin(Stdio::null()).output();
    match checked(PROGRAM, FAMILIES, output) {
        Ok(output) => Ok(Some(String::from_utf8_lossy(&output.stdout).into_owned())),
        Err(Error::Failed(_, _, said)) if said.contains("No such file or directory") => Ok(None),
        Err(error) => Err(error),
    }
}

/// Reports whether a listing leads clients of this machine, too.
pub(super) fn has_local(listing: &str) -> bool {
    listing.contains(LOCAL)
}

/// Replaces the table in one transaction.
pub(super) fn apply(programs: &Programs, ruleset: &Ruleset) -> Result<(), Error> {
    let output = programs.feed(PROGRAM, &["-f", "-"], &ruleset.input());
    checked(PROGRAM, FAMILIES, output?).map(drop)
}

/// The same step as a person would take it in a shell.
pub(super) fn script(ruleset: &Ruleset, what: &str) -> String {
    format!("# {FAMILIES}, {what} in one step\n{PROGRAM} -f - <<'END'\n{}END\n", ruleset.input())
}

/// Reports whether tables are there that are neither ours nor those of `iptables`: this machine uses nftables itself.
pub(super) fn is_in_use(programs: &Programs) -> bool {
    const OF_IPTABLES: [&str; 5] = ["filter", "nat", "mangle", "raw", "security"];
    let Ok(mut command) = programs.command(PROGRAM) else { return false };
    let Ok(output) = command.args(["list", "tables"]).stdin(Stdio::null()).output() else { return false };
    String::from_utf8_lossy(&output.stdout).lines().any(|line| match line.split(' ').collect::<Vec<_>>().as_slice() {
        ["table", "ip" | "ip6", name] => !OF_IPTABLES.contains(name),
        ["table", "inet", name] => *name != "spip",
        _ => false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exclusions() -> Exclusions {
        let of = |from, to, reason: &str| Exclusion { from, to, reason: reason.to_owned() };
        let list = vec![of(100, 200, "exclude_ports"), of(150, 210, "x"), of(22, 22, "sshd listens on 0.0.0.0")];
        Exclusions { outside: list.clone(), local: list }
    }

    const BOTH: Scope = Scope { v4: (true, true), v6: (true, true) };

    #[test]
    fn both_families_are_one_table_with_counters() {
        let input = Ruleset::of(BOTH, &exclusions(), 8080).input();
        assert!(input.starts_with("add table inet spip\ndelete table inet spip\ntable inet spip {\n"), "{input}");
        assert!(input.contains("\t\tmeta l4proto tcp fib daddr type local jump from_outside\n"), "{input}");
        assert!(input.contains("\t\ttcp dport { 22, 100-210 } counter return\n"), "{input}");
        assert_eq!(input.matches("counter redirect to :8080 comment \"spip-agent ").count(), 2, "{input}");
        assert!(input.contains("# left alone: 22: sshd listens on 0.0.0.0\n"), "{input}");
    }

    #[test]
    fn one_family_and_one_direction_are_confined() {
        let scope = Scope { v4: (true, false), v6: (false, false) };
        let input = Ruleset::of(scope, &exclusions(), 8080).input();
        assert!(input.contains("meta nfproto ipv4 meta l4proto tcp fib"), "{input}");
        assert!(!input.contains("from_here"), "{input}");
    }

    #[test]
    fn nothing_wanted_is_the_way_back() {
        assert_eq!(Ruleset::default().input(), "add table inet spip\ndelete table inet spip\n");
    }

    #[test]
    fn a_listing_is_told_from_one_of_other_rules() {
        let ruleset = Ruleset::of(BOTH, &exclusions(), 8080);
        let listing = ruleset.input();
        assert!(ruleset.is_in(&listing));
        assert!(!Ruleset::of(BOTH, &exclusions(), 9090).is_in(&listing));
        assert!(!Ruleset::of(BOTH, &Exclusions::default(), 8080).is_in(&listing));
        assert!(!ruleset.is_in(&listing.replace("counter return", "counter accept")));
        assert!(!ruleset.is_in(""));
        // Reasons are no rules.
        let mut others = exclusions();
        others.outside[2].reason = "exclude_ports".to_owned();
        assert!(Ruleset::of(BOTH, &others, 8080).is_in(&listing));
    }
}
