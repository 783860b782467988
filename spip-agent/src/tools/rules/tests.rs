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

/// All tables of this namespace that nftables has, without handles and counts.
fn tables() -> String {
    let output = Command::new("nft").args(["-s", "list", "ruleset"]).output().expect("nft");
    String::from_utf8(output.stdout).expect("text")
}

/// Runs an action on a namespace that has nft alone.
fn run_by_nft(action: Action, config: &str, local: bool) -> String {
    let config = Config::from_str(config, Path::new("/spip.toml")).expect("valid").config;
    let options = Options { local, ..Options::default() };
    let sockets = Sockets { complete: true, ..Sockets::default() };
    let ruleset = match action {
        Action::Remove => Ruleset::default(),
        _ => wanted(&config, options, &sockets, None).expect("reachable").0.nft,
    };
    let mut output = Vec::new();
    carry_out_by_nft(action, &ruleset, &[], true, &Programs::from_environment(), &mut output).expect("done");
    String::from_utf8(output).expect("text")
}

const FOREIGN_TABLES: &str = "table inet other {
	chain prerouting {
		type nat hook prerouting priority dstnat; policy accept;
		tcp dport 9999 counter redirect to :9998
	}
}
table ip6 mine {
	chain spip {
		ip6 saddr ::1 drop comment \"spip\"
	}
}
";

fn has_nft() -> bool {
    let has = Programs::from_environment().has("nft");
    assert!(has || std::env::var_os("CI").is_none(), "no nft: install the package nftables");
    has
}

#[test]
fn nftables_alone_takes_one_table_beside_foreign_ones_which_goes_without_a_trace() {
    if !has_nft() || !namespace() {
        return;
    }
    checked_feed(FOREIGN_TABLES);
    let before = tables();
    let shown = run_by_nft(Action::Show, DUAL, true);
    assert!(shown.contains("nft -f - <<'END'") && shown.contains("redirect to :8080"), "{shown}");
    assert_eq!(tables(), before, "showing changes nothing");
    assert!(run_by_nft(Action::Install, DUAL, true).ends_with("takes it away again\n"));
    let installed = tables();
    assert!(installed.starts_with(before.trim_end()), "foreign tables have changed: {installed}");
    for line in [
        "table inet spip {",
        "tcp dport { 22, 100-200, 8080 } counter return",
        "meta l4proto tcp fib daddr type local jump from_outside",
        "meta l4proto tcp oifname \"lo\" jump from_here",
    ] {
        assert!(installed.contains(line), "no {line} in {installed}");
    }
    assert!(run_by_nft(Action::Install, DUAL, true).ends_with("nothing to change\n"));
    assert_eq!(tables(), installed);
    // Another configuration takes its place.
    run_by_nft(Action::Install, "ip = \"0.0.0.0\"\nport = 9090", false);
    let other = tables();
    assert!(other.contains("redirect to :9090") && !other.contains(":8080") && !other.contains("from_here"), "{other}");
    assert!(run_by_nft(Action::Remove, DUAL, false).ends_with("removed\n"));
    assert_eq!(tables(), before);
    assert!(run_by_nft(Action::Remove, DUAL, false).starts_with("nothing to remove"));
    assert_eq!(tables(), before);
}

#[track_caller]
fn checked_feed(input: &str) {
    let output = Programs::from_environment().feed("nft", &["-f", "-"], input).expect("nft").expect("it runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn rules_are_made_with_what_the_machine_uses() {
    if !has_nft() || !matches!(unshare(CloneFlags::CLONE_NEWNET), Ok(())) {
        return;
    }
    let choose = || Backend::choose(Programs::from_environment);
    assert!(matches!(choose(), Backend::Iptables(_)), "nothing is in use");
    assert!(choose().name().starts_with("iptables"), "{}", choose().name());
    // Directories with single programs.
    let directory = std::env::temp_dir().join(format!("spip-programs-{}", std::process::id()));
    std::fs::create_dir_all(&directory).expect("a directory");
    let nothing = || Programs::within(directory.clone());
    assert!(matches!(Backend::choose(nothing), Backend::Nft(_)), "neither is there");
    assert!(Backend::choose(nothing).name().contains("nftables"));
    std::fs::remove_dir_all(&directory).expect("ours");
    // Tables of nftables itself.
    checked_feed(FOREIGN_TABLES);
    assert!(matches!(choose(), Backend::Nft(_)), "tables of nftables are in use");
    assert!(choose().name().contains("table inet spip"));
    let iptables = Iptables::from_environment();
    iptables.restore(Family::V4, "*filter\n-A INPUT -p tcp --dport 1 -j DROP\nCOMMIT\n").expect("a rule");
    assert!(matches!(choose(), Backend::Iptables(_)), "both are in use");
    // Where ours are, they stay.
    run_by_nft(Action::Install, DUAL, false);
    assert!(matches!(choose(), Backend::Nft(_)), "ours are in nftables");
    run_by_nft(Action::Remove, DUAL, false);
    run_rules(Action::Install, DUAL, false);
    assert!(matches!(choose(), Backend::Iptables(_)), "ours are in iptables");
}

#[test]
fn rules_in_the_older_tables_alone_are_made_there() {
    let programs = Programs::from_environment();
    if !programs.has("iptables-legacy-restore") || !matches!(unshare(CloneFlags::CLONE_NEWNET), Ok(())) {
        return;
    }
    let legacy = Iptables::new(programs, iptables::Variant::Legacy);
    if legacy.restore(Family::V4, "*filter\n-A INPUT -p tcp --dport 1 -j DROP\nCOMMIT\n").is_err() {
        return eprintln!("skipped: this kernel has no older tables");
    }
    let Backend::Iptables(chosen) = Backend::choose(Programs::from_environment) else { panic!("nft was chosen") };
    assert!(chosen.version().contains("legacy"), "{}", chosen.version());
    assert_eq!(chosen.restore_command(Family::V6), "ip6tables-legacy-restore --noflush --wait=5");
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
fn a_container_engine_that_starts_later_gets_its_place_in_front_of_ours() {
    if !namespace() {
        return;
    }
    let jumps = || -> Vec<String> {
        rules().into_iter().filter(|rule| rule.starts_with("-A PREROUTING") && !rule.contains("-i lo")).collect()
    };
    run_rules(Action::Install, DUAL, false);
    let iptables = Iptables::from_environment();
    // What netavark 1.4 makes for its first published port.
    let engine = "*nat\n:NETAVARK-HOSTPORT-DNAT - [0:0]\n\
                  -A PREROUTING -m addrtype --dst-type LOCAL -j NETAVARK-HOSTPORT-DNAT\nCOMMIT\n";
    iptables.restore(Family::V4, engine).expect("an engine");
    let jump = "-A PREROUTING -p tcp -m addrtype --dst-type LOCAL -j SPIP";
    let place = |jumps: &[String], rule: &str| jumps.iter().position(|line| line.contains(rule)).expect("a jump");
    assert!(place(&jumps(), jump) < place(&jumps(), "NETAVARK"), "{:#?}", jumps());
    run_rules(Action::Install, DUAL, false);
    let after = jumps();
    assert!(place(&after, "NETAVARK") < place(&after, jump), "{after:#?}");
    assert_eq!(after.iter().filter(|line| *line == jump).count(), 2, "one in each family: {after:#?}");
    assert!(run_rules(Action::Install, DUAL, false).ends_with("nothing to change\n"));
    assert_eq!(jumps(), after);
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
