//! What becomes of SYNs in every order, and that the counts add up after each.

use proptest::prelude::*;
use spip_common::event::{KIND_JOINED, KIND_REACHED, KIND_SYN};
use spip_common::packet::mapped;

use super::*;

const SOURCE: [u8; 4] = [192, 0, 2, 7];
const LISTENER: u16 = 12_345;

fn pending(capacity: usize) -> Pending {
    Pending::new(NonZeroUsize::new(capacity).expect("above zero"))
}

fn syn(port: u16, source_port: u16, sequence: u32, seen_ns: u64) -> SynEvent {
    let mut syn = Syn::ZERO;
    syn.ip_version = 4;
    syn.destination = mapped([198, 51, 100, 1]);
    (syn.destination_port, syn.source_port) = (port, source_port);
    (syn.sequence, syn.seen_ns) = (sequence, seen_ns);
    SynEvent { kind: KIND_SYN, shared: 0, source: mapped(SOURCE), syn }
}

/// What the listener sees after a REDIRECT that gave the connection another source port.
fn step(kind: u32, sequence: u32, source_port: u16) -> Step {
    Step {
        kind,
        next_sequence: sequence.wrapping_add(1),
        source: mapped(SOURCE),
        destination: mapped([198, 51, 100, 99]),
        source_port,
        destination_port: LISTENER,
        padding: 0,
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
    let Counts { seen, joined, half_open, evicted, ignored, pending: waiting, .. } = pending.counts();
    assert_eq!(seen, joined + half_open + evicted + ignored + waiting, "{:?}", pending.counts());
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
    let [one, other] = [syn(80, 40_000, 1, 100), SynEvent { shared: 1, ..syn(81, 40_000, 1, 100) }];
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
        pending.seen(&syn(80, 40_000, number, number.into()));
        reached(&mut pending, number, 40_000);
        assert_adds_up(&pending);
    }
    assert_eq!(pending.counts().evicted, 15);
    assert_eq!(pending.take_given_up(), GivenUp { count: 15, last_ns: 14 });
    assert_eq!(half_open(&mut pending).len(), 10);
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
fn no_scan_is_claimed_when_the_completion_may_have_been_missed() {
    let mut pending = pending(10);
    pending.seen(&syn(80, 40_000, 1, 100));
    reached(&mut pending, 1, 40_000);
    pending.doubt(150);
    pending.seen(&syn(81, 40_000, 2, 200));
    reached(&mut pending, 2, 40_000);
    assert_eq!(half_open(&mut pending), [81]);
    assert_eq!(pending.counts().evicted, 1);
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
