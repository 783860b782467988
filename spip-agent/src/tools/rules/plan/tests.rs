//! The text of the rules, without a kernel.

use proptest::prelude::*;

use super::*;

fn exclusion(from: u16, to: u16, reason: &str) -> Exclusion {
    Exclusion { from, to, reason: reason.to_owned() }
}

fn exclusions() -> Exclusions {
    let outside = vec![
        exclusion(8080, 8080, "own"),
        exclusion(22, 22, "sshd listens on ::"),
        exclusion(100, 200, "exclude_ports"),
    ];
    let mut local = outside.clone();
    local.push(exclusion(5432, 5432, "postgres listens on 127.0.0.1"));
    Exclusions { outside, local }
}

/// Returns the output of `iptables-save` after `input` was applied to nothing.
fn applied(input: &str) -> Saved {
    Saved::parse(
        &input.lines().filter(|line| !line.starts_with('#')).map(|line| format!("{line}\n")).collect::<String>(),
    )
}

#[test]
fn both_chains_with_their_reasons() {
    assert_eq!(
        input(&chains(true, true, &exclusions(), 8080), &Saved::default()),
        "*nat\n\
         :SPIP - [0:0]\n\
         :SPIP_LOCAL - [0:0]\n\
         # left alone: 8080: own\n\
         # left alone: 22: sshd listens on ::\n\
         # left alone: 100-200: exclude_ports\n\
         -A SPIP -p tcp -m multiport --dports 22,100:200,8080 -j RETURN\n\
         -A SPIP -p tcp -j REDIRECT --to-ports 8080\n\
         -A PREROUTING -p tcp -m addrtype --dst-type LOCAL -j SPIP\n\
         # left alone: 8080: own\n\
         # left alone: 22: sshd listens on ::\n\
         # left alone: 100-200: exclude_ports\n\
         # left alone: 5432: postgres listens on 127.0.0.1\n\
         -A SPIP_LOCAL -p tcp -m multiport --dports 22,100:200,5432,8080 -j RETURN\n\
         -A SPIP_LOCAL -p tcp -j REDIRECT --to-ports 8080\n\
         -A OUTPUT -o lo -p tcp -j SPIP_LOCAL\n\
         COMMIT\n"
    );
}

#[test]
fn ports_with_the_same_reason_share_a_line() {
    let exclusions = [exclusion(1, 1, "x"), exclusion(2, 2, "y"), exclusion(3, 5, "x")];
    assert_eq!(comments(&exclusions), ["# left alone: 1, 3-5: x", "# left alone: 2: y"]);
}

#[test]
fn what_was_installed_is_in_place() {
    let wanted = chains(true, true, &exclusions(), 8080);
    assert!(!is_in_place(&wanted, &Saved::default()));
    assert!(is_in_place(&wanted, &applied(&input(&wanted, &Saved::default()))));
}

#[test]
fn another_port_refills_the_chain_and_leaves_the_jump_where_it_is() {
    let saved = applied(&input(&chains(true, false, &exclusions(), 8080), &Saved::default()));
    let wanted = chains(true, false, &Exclusions::default(), 9000);
    assert!(!is_in_place(&wanted, &saved));
    assert_eq!(input(&wanted, &saved), "*nat\n:SPIP - [0:0]\n-A SPIP -p tcp -j REDIRECT --to-ports 9000\nCOMMIT\n");
}

#[test]
fn jumps_that_are_not_ours_alone_become_one() {
    let jump = "-A PREROUTING -p tcp -m addrtype --dst-type LOCAL -j SPIP";
    let text = format!("*nat\n:SPIP - [0:0]\n{jump}\n-A PREROUTING -i eth0 -j SPIP\n{jump}\nCOMMIT\n");
    let wanted = chains(true, false, &Exclusions::default(), 9000);
    assert_eq!(
        input(&wanted, &Saved::parse(&text)),
        "*nat\n\
         :SPIP - [0:0]\n\
         -D PREROUTING -p tcp -m addrtype --dst-type LOCAL -j SPIP\n\
         -D PREROUTING -i eth0 -j SPIP\n\
         -D PREROUTING -p tcp -m addrtype --dst-type LOCAL -j SPIP\n\
         -A SPIP -p tcp -j REDIRECT --to-ports 9000\n\
         -A PREROUTING -p tcp -m addrtype --dst-type LOCAL -j SPIP\n\
         COMMIT\n"
    );
}

#[test]
fn without_local_the_local_chain_of_before_goes() {
    let saved = applied(&input(&chains(true, true, &Exclusions::default(), 9000), &Saved::default()));
    let wanted = chains(true, false, &Exclusions::default(), 9000);
    assert!(!is_in_place(&wanted, &saved));
    assert_eq!(
        input(&wanted, &saved),
        "*nat\n:SPIP - [0:0]\n-D OUTPUT -o lo -p tcp -j SPIP_LOCAL\n-F SPIP_LOCAL\n-X SPIP_LOCAL\n\
         -A SPIP -p tcp -j REDIRECT --to-ports 9000\nCOMMIT\n"
    );
}

#[test]
fn removing_takes_both_chains_and_every_jump_to_them() {
    let saved = applied(&input(&chains(true, true, &exclusions(), 9000), &Saved::default()));
    assert_eq!(
        input(&[], &saved),
        "*nat\n-D PREROUTING -p tcp -m addrtype --dst-type LOCAL -j SPIP\n-D OUTPUT -o lo -p tcp -j SPIP_LOCAL\n\
         -F SPIP\n-X SPIP\n-F SPIP_LOCAL\n-X SPIP_LOCAL\nCOMMIT\n"
    );
}

#[test]
fn removing_from_half_an_installation_takes_that_half() {
    let saved = Saved::parse("*nat\n:SPIP - [0:0]\nCOMMIT\n");
    assert!(!is_in_place(&[], &saved));
    assert_eq!(input(&[], &saved), "*nat\n-F SPIP\n-X SPIP\nCOMMIT\n");
    assert!(is_in_place(&[], &Saved::default()));
}

#[test]
fn an_empty_chain_with_its_jump_is_not_in_place() {
    let saved =
        Saved::parse("*nat\n:SPIP - [0:0]\n-A PREROUTING -p tcp -m addrtype --dst-type LOCAL -j SPIP\nCOMMIT\n");
    assert!(!is_in_place(&chains(true, false, &Exclusions::default(), 1), &saved));
}

#[track_caller]
fn reaches(ip: &str, local: bool, v4: (bool, bool), v6: (bool, bool), said: &[&str]) {
    let listen = SocketAddr::new(ip.parse().expect("address"), 8080);
    let (scope, notes) = Scope::of(listen, local);
    assert_eq!(scope, Scope { v4, v6 });
    assert_eq!(notes.len(), said.len(), "{notes:?}");
    for (note, said) in notes.iter().zip(said) {
        assert!(note.contains(said), "{note}");
    }
}

#[test]
fn rules_are_made_only_where_they_reach_the_listener() {
    let (none, outside, both) = ((false, false), (true, false), (true, true));
    let only_local = (false, true);
    reaches("::", true, both, both, &[]);
    reaches("::", false, outside, outside, &[]);
    reaches("0.0.0.0", true, both, none, &["IPv6 is left alone"]);
    reaches(
        "127.0.0.1",
        true,
        only_local,
        none,
        &["no connection from outside reaches 127.0.0.1", "IPv6 is left alone"],
    );
    reaches("127.0.0.1", false, none, none, &["no connection from outside", "with --local only"]);
    reaches("127.0.0.2", true, none, none, &["no connection from outside", "led to 127.0.0.1, not to 127.0.0.2"]);
    reaches("::1", true, none, only_local, &["no connection from outside reaches ::1", "IPv4 is left alone"]);
    reaches(
        "192.0.2.1",
        true,
        outside,
        none,
        &["first address of the interface", "led to loopback, not to 192.0.2.1", "IPv6"],
    );
    reaches("2001:db8::1", false, none, outside, &["first address of the interface", "IPv4 is left alone"]);
}

proptest! {
    #[test]
    fn the_lists_hold_exactly_the_excluded_ports_in_matches_that_fit(
        ranges in prop::collection::vec((1..=65_535u16, 0..300u16), 0..80)
    ) {
        let exclusions: Vec<Exclusion> =
            ranges.iter().map(|(from, more)| exclusion(*from, from.saturating_add(*more), "")).collect();
        let mut expected = vec![false; 65_536];
        for exclusion in &exclusions {
            expected[usize::from(exclusion.from)..=usize::from(exclusion.to)].fill(true);
        }
        let mut listed = vec![false; 65_536];
        for list in port_lists(&exclusions) {
            let mut slots = 0;
            for item in list.split(',') {
                let (from, to) = item.split_once(':').unwrap_or((item, item));
                slots += if from == to { 1 } else { 2 };
                let (from, to): (usize, usize) = (from.parse().expect("port"), to.parse().expect("port"));
                listed[from..=to].fill(true);
            }
            prop_assert!(slots <= 15, "{list}");
        }
        prop_assert!(listed == expected);
    }
}
