//! The rules in a real kernel, in a network namespace that each test makes for its thread, beside foreign rules that
//! must survive to the letter. Without privileges these tests say so and pass; where `CI` is set they fail.

use std::process::{Command, Stdio};

use nix::sched::{CloneFlags, unshare};

use super::*;

/// Rules of another program, some of which look like ours.
const FOREIGN: &str = r#"*nat
:DOCKER - [0:0]
:SPIPX - [0:0]
-A PREROUTING -m addrtype --dst-type LOCAL -m comment --comment "say \"-j SPIP\"" -j DOCKER
-A DOCKER -p tcp -m tcp --dport 9999 -j REDIRECT --to-ports 9998
-A OUTPUT -p tcp -m tcp --dport 7777 -j SPIPX
COMMIT
*filter
:SPIP - [0:0]
-A INPUT -p tcp -m tcp --dport 4444 -j DROP
-A FORWARD -j SPIP
COMMIT
*mangle
-A PREROUTING -i lo -j MARK --set-xmark 0x1/0xffffffff
COMMIT
"#;

/// A network namespace for this thread and the programs that it starts; it goes with the thread.
fn namespace() -> bool {
    match unshare(CloneFlags::CLONE_NEWNET) {
        Ok(()) => {
            for family in [Family::V4, Family::V6] {
                Iptables::from_environment().restore(family, FOREIGN).expect("foreign rules");
            }
            true
        }
        Err(error) => {
            assert!(std::env::var_os("CI").is_none(), "cannot make a network namespace: {error}");
            eprintln!("skipped, cannot make a network namespace: {error}");
            false
        }
    }
}

/// All rules of this namespace, without dates and counters.
fn rules() -> Vec<String> {
    let mut lines = Vec::new();
    for tool in ["iptables-save", "ip6tables-save"] {
        let output = Command::new(tool).stderr(Stdio::null()).output().expect(tool);
        let text = String::from_utf8(output.stdout).expect("text");
        let lines_of_tool = text.lines().filter(|line| !line.starts_with('#'));
        lines.extend(lines_of_tool.map(|line| line.split(" [").next().unwrap_or(line).to_owned()));
    }
    lines
}

/// The lines that are in `after` and not in `before`; what was there must be there still, in its order.
#[track_caller]
fn added(before: &[String], after: &[String]) -> Vec<String> {
    let mut old = before.iter().peekable();
    let new: Vec<String> = after.iter().filter(|line| old.next_if_eq(line).is_none()).cloned().collect();
    assert_eq!(old.next(), None, "a foreign line has gone or moved: {after:#?}");
    new
}

fn run_rules(action: Action, config: &str, local: bool) -> String {
    let config = Config::from_str(config, Path::new("/spip.toml")).expect("valid").config;
    let (wanted, notes) = match action {
        Action::Remove => (Wanted::default(), Vec::new()),
        _ => {
            let options = Options { local, ..Options::default() };
            wanted(&config, options, &Sockets { complete: true, ..Sockets::default() }, None).expect("reachable")
        }
    };
    let mut output = Vec::new();
    carry_out(action, &wanted, &notes, true, &Iptables::from_environment(), &mut output).expect("done");
    String::from_utf8(output).expect("text")
}

const DUAL: &str = "ip = \"::\"\nport = 8080\nexclude_ports = [22, \"100-200\"]";

#[test]
fn rules_are_installed_once_beside_foreign_ones_and_removed_without_a_trace() {
    if !namespace() {
        return;
    }
    let before = rules();
    run_rules(Action::Install, DUAL, true);
    let installed = rules();
    let one_family = [
        ":SPIP -",
        ":SPIP_LOCAL -",
        "-A PREROUTING -p tcp -m addrtype --dst-type LOCAL -j SPIP",
        "-A OUTPUT -o lo -p tcp -j SPIP_LOCAL",
        "-A SPIP -p tcp -m multiport --dports 22,100:200,8080 -j RETURN",
        "-A SPIP -p tcp -j REDIRECT --to-ports 8080",
        "-A SPIP_LOCAL -p tcp -m multiport --dports 22,100:200,8080 -j RETURN",
        "-A SPIP_LOCAL -p tcp -j REDIRECT --to-ports 8080",
    ];
    let mut expected = [one_family, one_family].concat();
    let mut found = added(&before, &installed);
    expected.sort_unstable();
    found.sort_unstable();
    assert_eq!(found, expected);

    assert!(run_rules(Action::Install, DUAL, true).ends_with("nothing to change\n"));
    assert_eq!(rules(), installed);

    run_rules(Action::Remove, DUAL, false);
    assert_eq!(rules(), before);
    assert!(run_rules(Action::Remove, DUAL, false).starts_with("nothing to remove"));
    assert_eq!(rules(), before);
}

#[test]
fn another_configuration_replaces_the_rules_of_the_one_before() {
    if !namespace() {
        return;
    }
    let before = rules();
    run_rules(Action::Install, DUAL, true);
    run_rules(Action::Install, "ip = \"0.0.0.0\"\nport = 9090", false);
    let mut found = added(&before, &rules());
    found.sort_unstable();
    assert_eq!(
        found,
        [
            "-A PREROUTING -p tcp -m addrtype --dst-type LOCAL -j SPIP",
            "-A SPIP -p tcp -j REDIRECT --to-ports 9090",
            "-A SPIP -p tcp -m multiport --dports 9090 -j RETURN",
            ":SPIP -",
        ]
    );
}

#[test]
fn showing_changes_nothing() {
    if !namespace() {
        return;
    }
    let before = rules();
    assert!(run_rules(Action::Show, DUAL, true).contains("ip6tables-restore --noflush"));
    assert_eq!(rules(), before);
}

#[test]
fn half_an_installation_is_mended_or_removed() {
    if !namespace() {
        return;
    }
    let before = rules();
    let iptables = Iptables::from_environment();
    let half = "*nat\n:SPIP - [0:0]\n-A SPIP -j RETURN\n-I PREROUTING -j SPIP\n-A DOCKER -j SPIP\nCOMMIT\n";
    iptables.restore(Family::V4, half).expect("half");
    iptables.restore(Family::V6, "*nat\n:SPIP_LOCAL - [0:0]\nCOMMIT\n").expect("half");
    run_rules(Action::Remove, DUAL, false);
    assert_eq!(rules(), before);

    iptables.restore(Family::V4, half).expect("half");
    run_rules(Action::Install, DUAL, false);
    let mended = added(&before, &rules());
    let jumps = mended.iter().filter(|line| line.ends_with("-j SPIP")).count();
    assert_eq!(jumps, 2, "one in each family: {mended:#?}");
}

#[test]
fn a_refused_step_changes_nothing_and_says_why() {
    if !namespace() {
        return;
    }
    let before = rules();
    let broken = "*nat\n:SPIP - [0:0]\n-D PREROUTING -p tcp -j SPIP\nCOMMIT\n";
    let error = Iptables::from_environment().restore(Family::V4, broken).expect_err("no such rule").to_string();
    assert!(error.starts_with("iptables-restore failed, and nothing of IPv4 was changed: "), "{error}");
    assert_eq!(rules(), before);
}

#[test]
fn without_a_terminal_there_is_no_yes() {
    // The test harness may or may not have a terminal; without one the question must not be taken for answered.
    if !io::stdin().is_terminal() {
        let error = confirmed(&mut Vec::new()).expect_err("nobody to ask");
        assert_eq!(error.exit_status(), 2);
    }
}

#[test]
fn rules_beside_steering_by_sk_lookup_are_said_to_be_needless() {
    let text = format!("{DUAL}\nsteering = \"sk_lookup\"");
    let config = Config::from_str(&text, Path::new("/spip.toml")).expect("valid").config;
    let notes =
        wanted(&config, Options::default(), &Sockets { complete: true, ..Sockets::default() }, None).expect("reach").1;
    assert!(notes.iter().any(|note| note.contains("needs no rules")), "{notes:?}");
}
