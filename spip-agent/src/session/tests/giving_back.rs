//! What sessions give back when they end, and what a refusal must not cost.

use std::net::IpAddr;
use std::task::{Context, Poll, Waker};

use super::*;
use crate::session::limits::Source;
use crate::session::open_sessions::{OpenSessions, Registered, end_largest, make_room};

fn config(lines: &str) -> crate::config::Limits {
    let text = format!("ip = \"::\"\nport = 1\n{lines}\n");
    Config::from_str(&text, std::path::Path::new("/x")).expect("a valid configuration").config.limits
}

fn limits(sessions: usize, lines: &str) -> Limits {
    Limits::new(&config(lines), Bound { sessions, from: BoundFrom::Configuration })
}

fn ip(last: u8) -> IpAddr {
    [192, 0, 2, last].into()
}

fn admit(limits: &Limits, address: IpAddr, at: Instant) -> Result<Permit, Limit> {
    limits.admit(address, at, |_, _| panic!("the operator set the number"))
}

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

#[test]
fn a_bucket_that_was_idle_for_long_holds_its_burst_and_no_more() {
    let limits = limits(100, "rate_limit_per_second = 5\nrate_limit_burst = 3");
    let start = Instant::now();
    drop(admit(&limits, ip(1), start).expect("the first of three"));
    for at in [start + DAY, start + 2 * DAY] {
        let admitted: Vec<_> = (0..5).map(|_| admit(&limits, ip(1), at).is_ok()).collect();
        assert_eq!(admitted, [true, true, true, false, false]);
    }
}

#[test]
fn a_connection_that_another_limit_refuses_costs_no_token() {
    let start = Instant::now();
    let rate = "rate_limit_per_second = 0.000001\nrate_limit_burst = 2";
    let full = (limits(1, rate), Limit::Sessions);
    let alone = (limits(9, &format!("{rate}\nmax_sessions_per_source = 1")), Limit::SessionsPerSource);
    for (limits, limit) in [full, alone] {
        let held = admit(&limits, ip(1), start).expect("the first token");
        for _ in 0..5 {
            assert_eq!(admit(&limits, ip(1), start).err(), Some(limit));
        }
        drop(held);
        drop(admit(&limits, ip(1), start).expect("the second token is there"));
        assert_eq!(admit(&limits, ip(1), start).err(), Some(Limit::Rate));
    }
}

#[test]
fn a_balancer_spends_no_token_and_its_client_spends_one() {
    let limits = limits(9, "rate_limit_per_second = 0.000001\nrate_limit_burst = 1");
    let start = Instant::now();
    let mut balanced: Vec<_> =
        (0..3).map(|_| limits.admit_balancer(ip(1), start, |_, _| false).expect("a place")).collect();
    assert_eq!(balanced[0].move_to(ip(2), start), Ok(()));
    assert_eq!(balanced[1].move_to(ip(2), start), Err(Limit::Rate));
    assert_eq!(balanced[1].move_to(ip(3), start), Ok(()));
    assert!(admit(&limits, ip(1), start).is_ok(), "its own token is there");
    assert_eq!(admit(&limits, ip(3), start).err(), Some(Limit::Rate));
}

#[test]
fn a_balancer_that_leaves_takes_nothing_from_what_its_own_address_has_open() {
    let limits = limits(9, "max_sessions_per_source = 1");
    let now = Instant::now();
    let held = admit(&limits, ip(1), now).expect("a place");
    drop(limits.admit_balancer(ip(1), now, |_, _| false).expect("a place"));
    assert_eq!(admit(&limits, ip(1), now).err(), Some(Limit::SessionsPerSource));
    drop(held);
    assert!(admit(&limits, ip(1), now).is_ok());
}

#[test]
fn the_source_that_was_seen_longest_ago_is_forgotten_first() {
    let limits = limits(9, "rate_limit_per_second = 0.000001\nrate_limit_burst = 1\nmax_sources = 2");
    let start = Instant::now();
    let spend = |last| admit(&limits, ip(last), start).map(drop);
    assert_eq!([spend(7), spend(8), spend(9)], [Ok(()); 3]);
    assert_eq!([spend(8), spend(9)], [Err(Limit::Rate); 2], "the first of the three is forgotten, and no other");
    assert_eq!([spend(1), spend(2), spend(1)], [Ok(()), Ok(()), Err(Limit::Rate)]);
    // The first one was seen again since the second.
    assert_eq!(spend(3), Ok(()));
    assert_eq!(spend(1), Err(Limit::Rate), "it is remembered");
    assert_eq!(spend(2), Ok(()), "it is not");
    limits.change(&config("max_sources = 1"), Bound { sessions: 9, from: BoundFrom::Configuration });
    assert_eq!(limits.sources(), 1);
}

#[test]
fn sessions_of_a_source_that_was_forgotten_are_not_taken_from_its_next_ones() {
    let limits = limits(9, "max_sources = 1\nmax_sessions_per_source = 2");
    let now = Instant::now();
    let first = admit(&limits, ip(1), now).expect("a place");
    drop(admit(&limits, ip(2), now).expect("a place"));
    let second = admit(&limits, ip(1), now).expect("a place");
    drop((first, second));
    let held: Vec<_> = (0..3).map(|_| admit(&limits, ip(1), now)).collect();
    assert_eq!(held.iter().map(Result::is_ok).collect::<Vec<_>>(), [true, true, false]);
    assert_eq!(limits.open(), 2);
}

#[test]
fn a_session_that_waits_for_the_log_is_counted_once() {
    let bench = Bench::new("counted-once");
    let log = bench.intake.engine().log.clone();
    while log.try_record(br#"{"filler":1"#) {}
    let (client, mut guard, _socket) = bench.connect(b"waits");
    drop(client);
    for _ in 0..2 {
        assert!(guard.try_finish(CloseReason::ClientClosed).is_err(), "the log is full");
        assert!(guard.counted, "whoever looks at this does not count it again");
    }
    drop(guard);
    drop(bench.records());
}

fn enter(open: &OpenSessions, count: usize) -> Vec<Registered> {
    let far = Instant::now() + DAY;
    (0..count).map(|_| open.enter(Source::V4([192, 0, 2, 1]), far)).collect()
}

/// The sessions that were told to end, in order, with the reason.
fn told(sessions: &[Registered]) -> Vec<(usize, CloseReason)> {
    let order = |session: &Registered| session.poll_ordered(&mut Context::from_waker(Waker::noop()));
    let told = sessions.iter().map(order).enumerate();
    told.filter_map(|(number, order)| if let Poll::Ready(reason) = order { Some((number, reason)) } else { None })
        .collect()
}

#[test]
fn sessions_that_left_to_make_room_are_uncounted_and_others_can_be_told() {
    for limit in [Limit::Sessions, Limit::Descriptors] {
        let sessions_by_worker = [OpenSessions::default()];
        let mut sessions = enter(&sessions_by_worker[0], 8);
        for round in 0..8 {
            assert_eq!(make_room(&sessions_by_worker, 1, limit), 1, "round {round}");
            let leaving = told(&sessions);
            assert_eq!(leaving.len(), 1, "round {round}: one more, and not two");
            assert_eq!(leaving[0].1, CloseReason::Rejected(limit));
            drop(sessions.remove(leaving[0].0));
            assert_eq!(make_room(&sessions_by_worker, 0, limit), 0, "round {round}: it is gone");
        }
        assert!(sessions_by_worker[0].is_empty());
    }
}

#[test]
fn a_session_that_ends_for_another_reason_is_not_uncounted() {
    let sessions_by_worker = [OpenSessions::default()];
    let mut sessions = enter(&sessions_by_worker[0], 3);
    sessions[0].hold(1 << 20);
    assert_eq!(end_largest(&sessions_by_worker, 1), 1);
    assert_eq!(told(&sessions), [(0, CloseReason::Rejected(Limit::Memory))]);
    drop(sessions.remove(0));
    assert_eq!(make_room(&sessions_by_worker, 0, Limit::Sessions), 0);
    drop(sessions.remove(0));
    assert_eq!(make_room(&sessions_by_worker, 0, Limit::Sessions), 0, "it left by itself");
    sessions_by_worker[0].shut_down(None);
    assert_eq!(make_room(&sessions_by_worker, 1, Limit::Sessions), 0, "whoever ends already makes no room by an order");
    assert_eq!(told(&sessions), [(0, CloseReason::Shutdown)], "the first order holds");
}
