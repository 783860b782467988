//! What makes a family deaf, what does not, and what ends it, in virtual time.

use spip_common::packet::mapped;

use super::*;

const SECOND: u64 = 1_000_000_000;
const AFTER: u64 = 60 * SECOND;
const LISTENER: u16 = 12_345;
const SENSOR: [u8; 4] = [198, 51, 100, 1];

fn hearing() -> Hearing {
    Hearing::new(LISTENER, [mapped(SENSOR)].into(), 0)
}

/// The SYN of one of 200 sources.
fn arrival(source: u8, port: u16) -> Arrival {
    Arrival { source: mapped([192, 0, 2, source]), destination: mapped(SENSOR), port, interface: 2 }
}

/// A family that has heard three ports by 10 s.
fn heard() -> Hearing {
    let mut hearing = hearing();
    hearing.at(10 * SECOND);
    for port in [23, 80, 445] {
        hearing.reached(&arrival(1, port));
    }
    hearing
}

/// Lets SYNs of several sources go unanswered, one each second from one time to the other.
fn miss(hearing: &mut Hearing, seconds: std::ops::Range<u64>, ports: &[u16]) {
    for second in seconds {
        hearing.at((second + 5) * SECOND);
        let number = usize::try_from(second).expect("small");
        let source = u8::try_from(number % 20).expect("small") + 1;
        hearing.unanswered(&arrival(source, ports[number % ports.len()]), second * SECOND);
    }
}

fn judge(hearing: &mut Hearing, second: u64) -> Vec<Change> {
    hearing.at(second * SECOND);
    hearing.judge(AFTER, |_| false)
}

#[track_caller]
fn assert_deaf(changes: &[Change]) -> &Deaf {
    match changes {
        [Change::Deaf(Family::V4, deaf)] => deaf,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_family_that_heard_is_deaf_after_a_minute_and_hears_when_a_syn_reaches_the_listener() {
    let mut hearing = heard();
    miss(&mut hearing, 20..75, &[23, 80, 445]);
    assert_eq!(judge(&mut hearing, 79), []);
    let changes = judge(&mut hearing, 81);
    let deaf = assert_deaf(&changes);
    assert_eq!((deaf.since_ns, deaf.heard_before), (20 * SECOND, true));
    assert_eq!(deaf.ports, [23, 80, 445]);
    assert!(hearing.deaf().eq([(Family::V4, deaf)]));
    assert_eq!(judge(&mut hearing, 300), [], "it is said once");
    hearing.reached(&arrival(9, 8080));
    assert_eq!(judge(&mut hearing, 301), [Change::Hears(Family::V4, 20 * SECOND)]);
    assert_eq!(hearing.deaf().count(), 0);
}

#[test]
fn the_listeners_own_port_proves_nothing_in_either_direction() {
    let mut hearing = heard();
    miss(&mut hearing, 20..75, &[23]);
    hearing.reached(&arrival(1, LISTENER));
    hearing.reached_one_of(&mapped(SENSOR), [80, LISTENER].into_iter());
    assert_deaf(&judge(&mut hearing, 90));

    let mut hearing = heard();
    miss(&mut hearing, 20..75, &[LISTENER]);
    assert_eq!(judge(&mut hearing, 90), []);
}

#[test]
fn one_syn_among_many_that_reaches_the_listener_shows_that_it_hears() {
    let mut hearing = heard();
    miss(&mut hearing, 20..75, &[23]);
    hearing.reached_one_of(&mapped(SENSOR), [80, 81].into_iter());
    assert_eq!(judge(&mut hearing, 90), []);
}

#[test]
fn a_reload_on_a_quiet_machine_is_no_deafness() {
    let mut hearing = heard();
    // Six seconds without rules, and then nothing comes for an hour.
    miss(&mut hearing, 20..40, &[23]);
    assert_eq!(judge(&mut hearing, 3_600), []);
    // The next one reaches the listener.
    hearing.reached(&arrival(1, 23));
    miss(&mut hearing, 3_601..3_605, &[23]);
    assert_eq!(judge(&mut hearing, 9_000), []);
}

#[test]
fn silence_is_no_deafness() {
    let mut hearing = heard();
    assert_eq!(judge(&mut hearing, 100_000), []);
    assert!(!hearing.is_in_doubt(AFTER));
}

#[test]
fn ports_that_are_excluded_or_belong_to_services_are_left_out() {
    let mut hearing = heard();
    miss(&mut hearing, 20..75, &[23, 445]);
    hearing.at(90 * SECOND);
    assert!(hearing.is_in_doubt(AFTER));
    assert_eq!(hearing.judge(AFTER, |port| port == 23 || port == 445), []);
    assert!(!hearing.is_in_doubt(AFTER));
}

#[test]
fn a_family_whose_missed_ports_are_excluded_later_is_deaf_no_longer() {
    let mut hearing = heard();
    miss(&mut hearing, 20..75, &[23]);
    assert_deaf(&judge(&mut hearing, 90));
    assert_eq!(hearing.judge(AFTER, |port| port == 23), [Change::Hears(Family::V4, 20 * SECOND)]);
}

#[test]
fn ports_and_addresses_that_never_reached_the_listener_are_not_missed() {
    let mut hearing = heard();
    miss(&mut hearing, 20..75, &[22, 3389]);
    for second in 20..75 {
        let source = u8::try_from(second).expect("small");
        for (destination, interface) in [(mapped([203, 0, 113, 9]), 2), (mapped(SENSOR), 7)] {
            let forwarded = Arrival { destination, interface, ..arrival(source, 23) };
            hearing.unanswered(&forwarded, second * SECOND);
        }
    }
    assert_eq!(judge(&mut hearing, 90), []);
}

#[test]
fn one_source_or_a_few_syns_are_not_enough() {
    let mut hearing = heard();
    for second in 20..75 {
        for source in [1, 2] {
            hearing.unanswered(&arrival(source, 23), second * SECOND);
        }
    }
    assert_eq!(judge(&mut hearing, 90), [], "two sources");
    hearing.unanswered(&arrival(3, 23), 76 * SECOND);
    assert_eq!(judge(&mut hearing, 90), [], "nine SYNs are kept");
    hearing.unanswered(&arrival(4, 23), 77 * SECOND);
    assert_deaf(&judge(&mut hearing, 90));
}

#[test]
fn sources_that_no_packet_can_come_from_are_left_out() {
    let mut hearing = heard();
    for second in 20..75 {
        let last = u8::try_from(second).expect("small");
        for source in [[127, 0, 0, last], [0, 1, 2, last], [224, 0, 0, last], [255, 1, 1, last], SENSOR] {
            let arrival = Arrival { source: mapped(source), ..arrival(1, 23) };
            hearing.unanswered(&arrival, second * SECOND);
        }
    }
    assert_eq!(judge(&mut hearing, 90), []);
    for (source, possible) in
        [("::", false), ("::1", false), ("ff02::1", false), ("2001:db8::1", true), ("fe80::1", true)]
    {
        let source: std::net::Ipv6Addr = source.parse().expect("an address");
        assert_eq!(is_possible(&source.octets()), possible, "{source}");
    }
}

#[test]
fn families_are_deaf_each_by_itself() {
    let to = |second: u16, port| Arrival {
        source: std::net::Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, second).octets(),
        destination: std::net::Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 1).octets(),
        port,
        interface: 2,
    };
    let mut hearing = heard();
    hearing.reached(&to(1, 23));
    for second in 20..75 {
        hearing.unanswered(&to(second, 23), u64::from(second) * SECOND);
    }
    hearing.at(80 * SECOND);
    hearing.reached(&arrival(1, 23));
    assert!(matches!(judge(&mut hearing, 90).as_slice(), [Change::Deaf(Family::V6, _)]));
}

#[test]
fn an_agent_that_never_heard_takes_ten_minutes_and_many_ports_to_be_deaf() {
    let ports: Vec<u16> = (1..=20).collect();
    let mut hearing = hearing();
    miss(&mut hearing, 20..600, &[23, 80]);
    assert_eq!(judge(&mut hearing, 700), [], "two ports may have no rule");
    let mut hearing = super::tests::hearing();
    miss(&mut hearing, 20..600, &ports);
    assert_eq!(judge(&mut hearing, 610), []);
    assert!(!assert_deaf(&judge(&mut hearing, 621)).heard_before);
    let mut elsewhere = Hearing::new(LISTENER, HashSet::new(), 0);
    miss(&mut elsewhere, 20..600, &ports);
    assert_eq!(judge(&mut elsewhere, 700), [], "the address may be another machine's");
}

#[test]
fn what_the_kernel_could_not_tell_speaks_for_hearing() {
    let mut hearing = heard();
    miss(&mut hearing, 20..75, &[23]);
    hearing.cannot_know();
    assert_eq!(judge(&mut hearing, 90), []);
    miss(&mut hearing, 100..165, &[23]);
    assert_deaf(&judge(&mut hearing, 170));
    hearing.cannot_know();
    assert_eq!(judge(&mut hearing, 171), [], "and not for its end");
    assert_eq!(hearing.deaf().count(), 1);
}

#[test]
fn a_flood_of_unanswered_syns_takes_no_more_memory() {
    let mut hearing = heard();
    for number in 0..100_000_u32 {
        let source = mapped((0x0a00_0000 + number / 8).to_be_bytes());
        hearing.unanswered(&Arrival { source, ..arrival(1, 23) }, 20 * SECOND + u64::from(number));
    }
    assert_eq!(hearing.families[0].unanswered.len(), KEPT);
}

#[test]
fn odd_syns_are_not_plain() {
    let mut plain = Syn::ZERO;
    (plain.source_port, plain.destination_port, plain.tcp_flags) = (1, 2, Syn::SYN | Syn::ECE | Syn::CWR);
    assert!(is_plain(&plain));
    for odd in [
        Syn { tcp_flags: Syn::SYN | Syn::FIN, ..plain },
        Syn { tcp_flags: Syn::SYN | Syn::RST, ..plain },
        Syn { ip_options_len: 4, ..plain },
        Syn { ip_flags: Syn::MF, ..plain },
        Syn { source_port: 0, ..plain },
        Syn { destination_port: 0, ..plain },
    ] {
        assert!(!is_plain(&odd), "{odd:?}");
    }
}
