//! SYNs in every order: their fate, and counts that add up after each.

use proptest::prelude::*;
use spip_common::event::{KIND_JOINED, KIND_REACHED, KIND_SYN};
use spip_common::packet::mapped;

use super::*;

const SOURCE: [u8; 4] = [192, 0, 2, 7];
const LISTENER: u16 = 12_345;

fn pending(capacity: usize) -> Pending {
    let hearing = Hearing::new(LISTENER, [].into(), 0);
    Pending::new(NonZeroUsize::new(capacity).expect("above zero"), hearing)
}

fn syn(port: u16, source_port: u16, sequence: u32, seen_ns: u64) -> SynEvent {
    let mut syn = Syn::ZERO;
    syn.ip_version = 4;
    syn.destination = mapped([198, 51, 100, 1]);
    (syn.destination_port, syn.source_port) = (port, source_port);
    (syn.sequence, syn.seen_ns) = (sequence, seen_ns);
    SynEvent { kind: KIND_SYN, flags: 0, source: mapped(SOURCE), syn }
}

/// Builds the event of the listener after a REDIRECT that gave the connection another source port.
fn step(kind: u32, sequence: u32, source_port: u16) -> Step {
    Step {
        kind,
        next_sequence: sequence.wrapping_add(1),
        source: mapped(SOURCE),
        destination: mapped([198, 51, 100, 99]),
        source_port,
        destination_port: LISTENER,
        doubtful: 0,
    }
}

fn reached(pending: &mut Pending, sequence: u32, source_port: u16) {
    pending.reached(&step(KIND_REACHED, sequence, source_port));
}

fn joined(pending: &mut Pending, sequence: u32, source_port: u16) {
    pending.joined(&step(KIND_JOINED, sequence, source_port));
}

fn half_open(pending: &mut Pending) -> Vec<u16> {
    let mut ports = Vec::new();
    pending.decide(u64::MAX - 1, |one| ports.push(one.destination_port));
    assert_adds_up(pending);
    ports.sort_unstable();
    ports
}

#[track_caller]
fn assert_adds_up(pending: &Pending) {
    let Counts { seen, joined, half_open, evicted, ignored, contradicted, pending: waiting, .. } = pending.counts();
    assert_eq!(seen, joined + half_open + evicted + ignored + contradicted + waiting, "{:?}", pending.counts());
    for table in pending.fill() {
        assert!(table.entries <= table.most, "{table:?}");
    }
}

#[test]
fn a_syn_that_reached_the_listener_and_went_no_further_is_half_open() {
    let mut pending = pending(10);
    pending.seen(&syn(80, 40_000, 1, 100));
    reached(&mut pending, 1, 40_000);
    pending.decide(99, |_| panic!("it is too young"));
    assert_eq!(half_open(&mut pending), [80]);
    assert_eq!(half_open(&mut pending), [0; 0]);
}

#[test]
fn connections_that_the_kernel_refused_are_not_half_open() {
    let mut pending = pending(10);
    for port in 80..83 {
        pending.seen(&syn(port, 40_000, port.into(), 100));
        reached(&mut pending, port.into(), 40_000);
    }
    assert_eq!(half_open(&mut pending), [80, 81, 82]);
    pending.refuse(2);
    assert_eq!((pending.counts().half_open, pending.counts().refused), (1, 2));
}

#[test]
fn ends_of_connections_that_are_decided_are_not_carried_along_by_a_source_that_goes_on() {
    let mut pending = pending(1_000);
    let settled =
        |pending: &Pending| pending.fill().iter().find(|fill| fill.table == "settled").map(|fill| fill.entries);
    // One sequence number for all: they are told apart by where they went.
    let mut port = 0;
    for (seen_ns, count) in [(100, 500), (200, 2), (300, 2), (400, 2)] {
        for _ in 0..count {
            port += 1;
            pending.seen(&syn(port, 40_000, 1, seen_ns));
            reached(&mut pending, 1, port);
        }
        let mut ended = 0;
        pending.decide(seen_ns - 100, |_| ended += 1);
        assert_adds_up(&pending);
    }
    // Those 500 of the first part were more than what was left; those two of the second and the third part were not.
    assert_eq!(settled(&pending), Some(4));
    assert_eq!(half_open(&mut pending).len(), 2);
}

#[test]
fn a_syn_that_never_reached_the_listener_is_ignored() {
    let mut pending = pending(10);
    pending.seen(&syn(22, 40_000, 1, 100));
    assert_eq!(half_open(&mut pending), [0; 0]);
    assert_eq!(pending.counts().ignored, 1);
}

#[test]
fn a_connection_is_no_scan() {
    let mut pending = pending(10);
    pending.seen(&syn(80, 40_000, 1, 100));
    reached(&mut pending, 1, 61_000);
    joined(&mut pending, 1, 61_000);
    assert_eq!(half_open(&mut pending), [0; 0]);
    assert_eq!((pending.counts().joined, pending.counts().unmatched), (1, 0));
}

#[test]
fn retransmissions_count_once_before_and_after_the_decision() {
    let mut pending = pending(10);
    let [one, other] = [syn(80, 40_000, 1, 100), SynEvent { flags: 1, ..syn(81, 40_000, 1, 100) }];
    for event in [one, other, one, other] {
        pending.seen(&event);
        reached(&mut pending, 1, event.syn.destination_port);
    }
    assert_eq!(half_open(&mut pending), [80, 81]);
    for event in [one, other] {
        pending.seen(&event);
        reached(&mut pending, 1, event.syn.destination_port);
    }
    assert_eq!(half_open(&mut pending), [0; 0]);
    assert_eq!((pending.counts().seen, pending.counts().retransmitted), (2, 4));
}

#[test]
fn a_syn_that_follows_one_that_arrived_nowhere_is_judged_by_itself() {
    const LATER: u64 = 1_000;
    for ports in [80..81, 80..90] {
        let mut pending = pending(100);
        // Whatever the kernel threw away these for, they look and end differently.
        let decoys: Vec<_> = ports.clone().map(|port| syn(port, 40_000, 1, 100)).collect();
        decoys.iter().for_each(|decoy| pending.seen(decoy));
        // One while they wait, which makes it wait as long, and all of them when they are decided.
        pending.seen(&syn(80, 40_000, 1, 150));
        pending.decide(149, |_| panic!("nothing has arrived"));
        pending.decide(200, |_| panic!("nothing has arrived"));
        assert_eq!(pending.counts().ignored, decoys.len() as u64);
        for port in ports.clone() {
            pending.seen(&syn(port, 40_000, 1, LATER));
            reached(&mut pending, 1, port);
        }
        assert_eq!(half_open(&mut pending), ports.collect::<Vec<_>>());
    }
}

#[test]
fn of_decided_syns_under_shared_keys_no_more_are_remembered_than_there_is_room_for() {
    for (arrive, remembered) in [(false, 0), (true, DECIDED_MAX / 2)] {
        let mut pending = pending(1_000);
        for number in 0..40_000 {
            for port in [80, 81] {
                pending.seen(&syn(port, 40_000, number, number.into()));
                if arrive {
                    reached(&mut pending, number, port);
                }
            }
            pending.decide(number.into(), |_| {});
        }
        assert_adds_up(&pending);
        assert_eq!(pending.decided.len(), remembered);
    }
}

#[test]
fn what_was_half_open_is_a_retransmission_for_as_long_as_one_may_come() {
    for (later, times) in [(RETRANSMISSION_NS, 1), (RETRANSMISSION_NS + 1, 2)] {
        let mut pending = pending(100);
        let mut found = 0;
        for seen_ns in [100, 100 + later] {
            for port in [80, 81] {
                pending.seen(&syn(port, 40_000, 1, seen_ns));
                reached(&mut pending, 1, port);
            }
            found += half_open(&mut pending).len();
        }
        assert_eq!(found, 2 * times);
        assert_adds_up(&pending);
    }
}

#[test]
fn one_sequence_number_for_all_ports_is_as_many_syns() {
    let mut pending = pending(100_000);
    for port in 1..=u16::MAX {
        pending.seen(&syn(port, 40_000, 1, port.into()));
        // Port 22 is another service's.
        if port != 22 {
            reached(&mut pending, 1, port);
        }
    }
    joined(&mut pending, 1, 443);
    let expected: Vec<u16> = (1..=u16::MAX).filter(|port| ![22, 443].contains(port)).collect();
    assert_eq!(half_open(&mut pending), expected);
    let counts = pending.counts();
    assert_eq!((counts.ignored, counts.joined, counts.unmatched), (1, 1, 0));
}

#[test]
fn without_translation_the_ends_themselves_tell_which_of_a_burst_it_was() {
    let mut pending = pending(10);
    for port in [80, 22, 81] {
        pending.seen(&syn(port, 40_000, 1, 1));
    }
    for port in [80, 81] {
        let ends =
            Step { destination: mapped([198, 51, 100, 1]), destination_port: port, ..step(KIND_REACHED, 1, 40_000) };
        pending.reached(&ends);
    }
    assert_eq!(half_open(&mut pending), [80, 81]);
}

#[test]
fn without_room_the_oldest_are_given_up_and_counted() {
    let mut pending = pending(10);
    for number in 0..25 {
        pending.seen(&syn(80, 40_000, number, u64::from(number) + 1));
        reached(&mut pending, number, 40_000);
        assert_adds_up(&pending);
    }
    assert_eq!(pending.counts().evicted, 15);
    // All of one source: half of the room is kept, and the other half is for what comes.
    assert_eq!(pending.take_given_up(), GivenUp { count: 15, last_ns: 20 });
    assert_eq!(half_open(&mut pending).len(), 10);
}

/// Another source's.
fn from(source: u32, event: SynEvent) -> SynEvent {
    SynEvent { source: mapped(source.to_be_bytes()), ..event }
}

fn reached_from(pending: &mut Pending, event: &SynEvent) {
    let sequence = event.syn.sequence;
    let step = Step { source: event.source, ..step(KIND_REACHED, sequence, event.syn.source_port) };
    pending.reached(&step);
}

#[test]
fn a_scanner_in_a_flood_of_single_syns_is_kept_and_the_flood_gives_way() {
    // Where all send more than one, who sent most is found among some that are looked at.
    for (each, kept) in [(1, 299), (2, 270)] {
        let mut pending = pending(1_000);
        let mut scanned = 0;
        for number in 0..30_000_u32 {
            let flood = from(number / each + 1, syn(80, 40_000, number, u64::from(number) + 1));
            pending.seen(&flood);
            reached_from(&mut pending, &flood);
            if number % 100 == 0 {
                scanned += 1;
                let one = from(0xffff_0000, syn(scanned, 40_000, number, u64::from(number) + 1));
                pending.seen(&one);
                reached_from(&mut pending, &one);
            }
            assert!(pending.counts().pending <= 1_000);
        }
        assert_adds_up(&pending);
        let mut ports = Vec::new();
        pending.decide(u64::MAX, |one| {
            if one.source == mapped([0xff, 0xff, 0, 0]) {
                ports.push(one.destination_port);
            }
        });
        ports.sort_unstable();
        // The first one may have gone while it was the only one.
        assert!(ports.len() >= kept && scanned == 300, "{each} from each: {} of {scanned}", ports.len());
    }
}

#[test]
fn what_is_kept_in_a_flood_is_known_when_it_is_sent_again() {
    let mut pending = pending(100);
    let scan = |port| from(0xffff_0000, syn(port, 40_000, port.into(), 1));
    for port in 1..=20 {
        pending.seen(&scan(port));
        reached_from(&mut pending, &scan(port));
    }
    (0..1_000).for_each(|number| pending.seen(&from(number + 1, syn(80, 40_000, number, 2))));
    pending.decide(1, |_| {});
    // The kernel side has forgotten them in the flood, and tells them as new.
    (1..=20).for_each(|port| pending.seen(&scan(port)));
    assert_eq!((pending.counts().seen, pending.counts().retransmitted), (1_020, 20));
    assert_adds_up(&pending);
}

#[test]
fn of_many_under_one_key_each_is_decided_when_it_is_old_enough() {
    let mut pending = pending(100);
    let ends = |kind, port| {
        let destination = mapped([198, 51, 100, 1]);
        Step { destination, destination_port: port, ..step(kind, 1, 40_000) }
    };
    for (port, seen_ns) in [(80, 10), (81, 20), (82, 30)] {
        pending.seen(&syn(port, 40_000, 1, seen_ns));
        pending.reached(&ends(KIND_REACHED, port));
    }
    let decided = |pending: &mut Pending, until_ns| {
        let mut ports = Vec::new();
        pending.decide(until_ns, |one| ports.push(one.destination_port));
        assert_adds_up(pending);
        ports
    };
    assert_eq!(decided(&mut pending, 10), [80]);
    // What was decided is known when it comes again, and is not taken for one of the others.
    pending.seen(&syn(80, 40_000, 1, 35));
    pending.seen(&syn(83, 40_000, 1, 35));
    pending.reached(&ends(KIND_REACHED, 80));
    assert_eq!((pending.counts().retransmitted, pending.counts().pending), (1, 3));
    // The others become connections as late as the timeout lets them.
    pending.joined(&ends(KIND_JOINED, 82));
    assert_eq!(decided(&mut pending, 34), [81]);
    assert_eq!((pending.counts().joined, pending.counts().pending), (1, 1));
    assert_eq!(decided(&mut pending, 35), [0; 0]);
    assert_eq!(pending.counts().ignored, 1);
}

#[test]
fn one_sequence_number_without_end_is_bounded_too() {
    let mut pending = pending(1_000);
    for number in 0..10_000_u16 {
        pending.seen(&syn(number, 40_000, 1, number.into()));
        assert!(pending.counts().pending <= 1_000);
    }
    assert_adds_up(&pending);
}

#[test]
fn a_scan_with_one_sequence_number_that_finds_too_little_room_keeps_what_has_room() {
    const ROOM: usize = 4_096;
    let mut pending = pending(ROOM);
    // Some of the source's other SYNs are on their way to a decision when its scan begins.
    for number in 0..200u16 {
        pending.seen(&syn(number, 50_000, u32::from(number) + 1_000, 10));
    }
    let ports = 1..=u16::try_from(ROOM).expect("ports");
    for port in ports.clone() {
        pending.seen(&syn(port, 40_000, 1, 100 + u64::from(port)));
        reached(&mut pending, 1, port);
        assert_adds_up(&pending);
    }
    // One that was evicted and is sent again is none of the others.
    let before = pending.counts();
    reached(&mut pending, 1, 1);
    pending.seen(&syn(1, 40_000, 1, 9_999));
    assert_eq!(pending.counts().seen, before.seen);
    let found = half_open(&mut pending);
    assert!(found.len() >= ROOM - 200 - ROOM / 8, "{} of {ROOM}", found.len());
    // The oldest gave way.
    assert!(found.windows(2).all(|pair| pair[0] + 1 == pair[1]) && found.last() == Some(ports.end()), "{found:?}");
    assert!(pending.counts().evicted > 0);
}

#[test]
fn a_scan_that_was_kept_from_a_flood_and_outgrows_its_room_loses_its_oldest_part_only() {
    const ROOM: usize = 4_096;
    let mut pending = pending(ROOM);
    let mut now = 0;
    let mut scan = |pending: &mut Pending, ports: std::ops::Range<u16>| {
        for port in ports {
            now += 1;
            pending.seen(&syn(port, 40_000, 1, now));
            reached(pending, 1, port);
        }
    };
    scan(&mut pending, 0..100);
    for source in 0..u32::try_from(ROOM).expect("small") {
        pending.seen(&from(source, syn(23, 1, source, 200)));
    }
    scan(&mut pending, 100..6_000);
    assert_adds_up(&pending);
    let found = half_open(&mut pending);
    assert!(found.len() >= ROOM / 16 * 14 && found.last() == Some(&5_999), "{}", found.len());
}

#[test]
fn no_scan_is_claimed_when_the_completion_may_have_been_missed() {
    let mut pending = pending(10);
    pending.seen(&syn(80, 40_000, 1, 100));
    reached(&mut pending, 1, 40_000);
    // The one of that very moment is among those that may have been missed.
    pending.seen(&syn(82, 40_000, 3, 150));
    reached(&mut pending, 3, 40_000);
    pending.doubt(150);
    pending.seen(&syn(81, 40_000, 2, 200));
    reached(&mut pending, 2, 40_000);
    assert_eq!(half_open(&mut pending), [81]);
    assert_eq!(pending.counts().evicted, 2);
}

#[test]
fn what_the_kernel_could_not_tell_is_seen_and_given_up() {
    let mut pending = pending(10);
    pending.untold(7, 100);
    assert_adds_up(&pending);
    assert_eq!(pending.counts().seen, 7);
}

#[test]
fn a_port_that_is_used_again_is_another_connection() {
    let mut pending = pending(10);
    for sequence in [1, 2] {
        pending.seen(&syn(80, 40_000, sequence, 100));
        reached(&mut pending, sequence, 40_000);
        joined(&mut pending, sequence, 40_000);
    }
    assert_eq!(half_open(&mut pending), [0; 0]);
    assert_eq!(pending.counts().joined, 2);
}

proptest! {
    #[test]
    fn in_any_order_the_counts_add_up(
        events in proptest::collection::vec((0..6_u8, 0..4_u16, 0..3_u32, 0..4_u16), 0..200),
        capacity in 1..20_usize,
    ) {
        let mut pending = pending(capacity);
        for (number, (kind, port, sequence, source_port)) in (0_u64..).zip(events) {
            match kind {
                0 | 1 => pending.seen(&syn(port, source_port, sequence, number)),
                2 => reached(&mut pending, sequence, source_port),
                3 => joined(&mut pending, sequence, source_port),
                4 => pending.decide(number.saturating_sub(10), |_| {}),
                _ => pending.doubt(number),
            }
            assert_adds_up(&pending);
            prop_assert!(pending.counts().pending <= capacity as u64);
        }
        pending.decide(u64::MAX, |_| {});
        prop_assert_eq!(pending.counts().pending, 0);
        assert_adds_up(&pending);
    }
}

#[test]
fn nothing_is_claimed_of_a_syn_when_another_one_arrived_with_its_number() {
    let mut pending = pending(10);
    pending.seen(&syn(22, 31_337, 7, 1));
    pending.seen(&syn(80, 40_000, 8, 1));
    pending.reached(&Step { doubtful: 1, ..step(KIND_REACHED, 7, 40_001) });
    // It is sent again, and completed.
    pending.reached(&Step { doubtful: 1, ..step(KIND_REACHED, 7, 40_001) });
    joined(&mut pending, 7, 40_001);
    reached(&mut pending, 8, 40_000);
    assert_eq!(half_open(&mut pending), [80]);
    let counts = pending.counts();
    assert_eq!((counts.contradicted, counts.half_open, counts.unmatched), (1, 1, 1));
}

#[test]
fn a_syn_with_a_right_checksum_takes_the_place_and_the_look_of_one_without() {
    let mut pending = pending(10);
    let mut lie = syn(22, 31_337, 7, 1);
    lie.syn.ttl = 200;
    pending.seen(&lie);
    pending.seen(&SynEvent { flags: REPLACES, ..syn(80, 40_000, 7, 2) });
    assert_adds_up(&pending);
    reached(&mut pending, 7, 40_000);
    let mut shown = Vec::new();
    pending.decide(u64::MAX - 1, |one| shown.push((one.destination_port, one.syn.ttl)));
    assert_eq!(shown, [(80, 0)]);
    assert_eq!((pending.counts().ignored, pending.counts().half_open), (1, 1));
}

#[test]
fn a_tool_that_looks_different_when_it_sends_again_is_one_scan() {
    let mut pending = pending(10);
    pending.seen(&syn(80, 40_000, 7, 1));
    reached(&mut pending, 7, 40_000);
    pending.reached(&Step { doubtful: 1, ..step(KIND_REACHED, 7, 40_000) });
    assert_eq!(half_open(&mut pending), [80]);
    assert_eq!(pending.counts().contradicted, 0);
}
