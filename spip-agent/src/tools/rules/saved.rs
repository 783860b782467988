//! Installed rules: our chains and the jumps to them, out of the output of `iptables-save -t nat`.
//!
//! Everything else in that output is foreign and is not even kept. A jump is known by its target, wherever it stands
//! and whichever program put it there: a chain can only be removed when nothing leads to it.

/// Chain for connections from outside.
pub(super) const OUTSIDE: &str = "SPIP";
/// Chain for clients on this machine.
pub(super) const LOCAL: &str = "SPIP_LOCAL";

/// Our part of the table `nat` of one address family.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Saved {
    /// Chains of ours that exist.
    pub(super) chains: Vec<&'static str>,
    /// Rules in them, as `-A CHAIN …`.
    pub(super) rules: Vec<String>,
    /// Rules elsewhere that lead to them: target, and the rule as `-A CHAIN …`.
    pub(super) jumps: Vec<(&'static str, String)>,
    /// Rules of others that stand before a jump to ours in `PREROUTING` or `OUTPUT`, and end the way of every TCP connection.
    pub(super) before: Vec<String>,
    /// Rules behind a jump to ours in the same chain that lead to published ports of containers: target of the jump, and the
    /// rule.
    pub(super) overtaken: Vec<(&'static str, String)>,
}

/// Chains in which container engines lead published ports to their containers: Docker's, Podman's by netavark and by CNI. An
/// engine appends the jump to its chain when it starts, behind ours where that is there already.
const PUBLISHERS: [&str; 3] = ["DOCKER", "NETAVARK-HOSTPORT-DNAT", "CNI-HOSTPORT-DNAT"];

impl Saved {
    /// Reads the output of `iptables-save`.
    pub(super) fn parse(text: &str) -> Self {
        let mut saved = Self::default();
        let mut table = "";
        let mut ending = Vec::new();
        for line in text.lines() {
            if let Some(name) = line.strip_prefix('*') {
                table = name.trim();
            }
            if table != "nat" {
                continue;
            }
            if let Some(chain) = line.strip_prefix(':') {
                saved.chains.extend(chain.split(' ').next().and_then(ours));
            } else if line.starts_with("-A ") {
                saved.rule(line, &mut ending);
            }
        }
        saved
    }

    /// `ending`: rules that were read before, and that end the way of every TCP connection.
    fn rule(&mut self, line: &str, ending: &mut Vec<String>) {
        let words = words(line);
        if words.get(1).is_some_and(|chain| ours(chain).is_some()) {
            self.rules.push(line.to_owned());
            return;
        }
        let target = words.windows(2).find_map(|pair| match pair {
            [option, target] if ["-j", "-g"].contains(&option.as_str()) => Some(target.as_str()),
            _ => None,
        });
        let chain = words.get(1).map(String::as_str).unwrap_or_default();
        if target.is_some_and(|target| PUBLISHERS.contains(&target)) {
            let leads_here = |jump: &&(&'static str, String)| jump.1.split(' ').nth(1) == Some(chain);
            let overtaken = self.jumps.iter().filter(leads_here).map(|(target, _)| (*target, line.to_owned()));
            self.overtaken.extend(overtaken);
        }
        if let Some(target) = target.and_then(ours) {
            let of_chain = |rule: &&String| rule.split(' ').nth(1) == Some(chain);
            self.before.extend(ending.iter().filter(of_chain).cloned());
            self.jumps.push((target, line.to_owned()));
        } else if ends_all(&words) {
            ending.push(line.to_owned());
        }
    }
}

/// Reports whether a rule of `PREROUTING` or `OUTPUT` takes every TCP connection out of the chain: it has no other match than
/// the protocol and perhaps that the address is local, and a target that ends.
fn ends_all(words: &[String]) -> bool {
    let mut words = words.iter().map(String::as_str).skip(1);
    if !matches!(words.next(), Some("PREROUTING" | "OUTPUT")) {
        return false;
    }
    while let Some(option) = words.next() {
        match (option, words.next()) {
            ("-j", Some("ACCEPT" | "RETURN" | "REDIRECT" | "DNAT" | "DROP" | "NETMAP")) => return true,
            ("-p", Some("tcp" | "all")) | ("-m", Some("tcp" | "addrtype" | "comment" | "conntrack")) => {}
            ("--dst-type", Some("LOCAL")) | ("--comment", Some(_)) | ("--ctstate", Some("NEW")) => {}
            _ => return false,
        }
    }
    false
}

fn ours(chain: &str) -> Option<&'static str> {
    [OUTSIDE, LOCAL].into_iter().find(|ours| *ours == chain)
}

/// Words as `iptables-save` writes them: separated by blanks, some in double quotes with backslashes inside. A quoted
/// word keeps a mark of it, so that a comment that says `-j` is no option.
pub(super) fn words(line: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let (mut quoted, mut escaped) = (false, false);
    for c in line.chars() {
        let Some(word) = words.last_mut() else { break };
        match c {
            _ if escaped => {
                word.push(c);
                escaped = false;
            }
            '\\' if quoted => escaped = true,
            '"' => {
                quoted = !quoted;
                word.push(c);
            }
            ' ' if !quoted => words.push(String::new()),
            _ => word.push(c),
        }
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_chains_and_the_jumps_to_them_are_found_among_foreign_rules() {
        let text = r#"# Generated by iptables-save
*filter
:SPIP - [0:0]
-A INPUT -j SPIP
COMMIT
*nat
:PREROUTING ACCEPT [0:0]
:DOCKER - [0:0]
:SPIP - [0:0]
:SPIPX - [0:0]
-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
-A PREROUTING -p tcp -m addrtype --dst-type LOCAL -j SPIP
-A PREROUTING -p tcp -m comment --comment "say \" -j SPIP \\" -j SPIPX
-A PREROUTING -p tcp -m comment --comment "mine \" -j X" -j SPIP
-A DOCKER -i lo -g SPIP
-A SPIPX -j SPIPX
-A SPIP -p tcp -j REDIRECT --to-ports 8080
COMMIT
"#;
        let jump = |line: &str| (OUTSIDE, line.to_owned());
        assert_eq!(
            Saved::parse(text),
            Saved {
                chains: vec![OUTSIDE],
                rules: vec!["-A SPIP -p tcp -j REDIRECT --to-ports 8080".to_owned()],
                jumps: vec![
                    jump("-A PREROUTING -p tcp -m addrtype --dst-type LOCAL -j SPIP"),
                    jump(r#"-A PREROUTING -p tcp -m comment --comment "mine \" -j X" -j SPIP"#),
                    jump("-A DOCKER -i lo -g SPIP"),
                ],
                before: Vec::new(),
                overtaken: Vec::new(),
            }
        );
    }

    #[test]
    fn rules_before_a_jump_that_take_every_connection_are_found() {
        const JUMP: &str = "-A PREROUTING -p tcp -m addrtype --dst-type LOCAL -j SPIP";
        for (rule, takes_all) in [
            ("-A PREROUTING -j ACCEPT", true),
            ("-A PREROUTING -p tcp -j REDIRECT --to-ports 9000", true),
            ("-A PREROUTING -p tcp -m comment --comment \"a b\" -j RETURN", true),
            ("-A PREROUTING -m addrtype --dst-type LOCAL -j DNAT --to-destination 192.0.2.1", true),
            ("-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER", false),
            ("-A PREROUTING -p udp -j ACCEPT", false),
            ("-A PREROUTING -p tcp -m tcp --dport 80 -j REDIRECT --to-ports 9000", false),
            ("-A PREROUTING -s 192.0.2.0/24 -j ACCEPT", false),
            ("-A PREROUTING ! -p tcp -j ACCEPT", false),
            ("-A OUTPUT -j ACCEPT", false),
            ("-A DOCKER -j RETURN", false),
        ] {
            let found = Saved::parse(&format!("*nat\n{rule}\n{JUMP}\nCOMMIT\n")).before;
            assert_eq!(found, if takes_all { vec![rule.to_owned()] } else { vec![] }, "{rule}");
            let behind = Saved::parse(&format!("*nat\n{JUMP}\n{rule}\nCOMMIT\n")).before;
            assert_eq!(behind, [""; 0], "{rule}");
        }
    }

    #[test]
    fn published_ports_behind_a_jump_are_found() {
        const JUMP: &str = "-A PREROUTING -p tcp -m addrtype --dst-type LOCAL -j SPIP";
        const LOCAL_JUMP: &str = "-A OUTPUT -o lo -p tcp -j SPIP_LOCAL";
        for (rule, target) in [
            ("-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER", Some(OUTSIDE)),
            ("-A PREROUTING -m addrtype --dst-type LOCAL -j NETAVARK-HOSTPORT-DNAT", Some(OUTSIDE)),
            ("-A OUTPUT ! -d 127.0.0.0/8 -m addrtype --dst-type LOCAL -j DOCKER", Some(LOCAL)),
            ("-A DOCKER -i docker0 -j RETURN", None),
            ("-A PREROUTING -j THEIRS", None),
            ("-A POSTROUTING -j DOCKER", None),
        ] {
            let found = Saved::parse(&format!("*nat\n{JUMP}\n{LOCAL_JUMP}\n{rule}\nCOMMIT\n")).overtaken;
            let expected: Vec<_> = target.into_iter().map(|target| (target, rule.to_owned())).collect();
            assert_eq!(found, expected, "{rule}");
            assert_eq!(Saved::parse(&format!("*nat\n{rule}\n{JUMP}\n{LOCAL_JUMP}\nCOMMIT\n")).overtaken, []);
        }
    }

    #[test]
    fn output_of_any_kind_is_read_without_harm() {
        for text in ["", "*nat", "*nat\n-A ", "*nat\n:\n:SPIP", "*nat\n-A X -j", "*nat\n-A X \"", "*nat\n-A X \"\\"] {
            assert!(Saved::parse(text).jumps.is_empty());
        }
    }
}
