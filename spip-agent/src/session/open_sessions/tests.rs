use std::sync::atomic::AtomicUsize;
use std::task::{Wake, Waker};
use std::thread::sleep;

use super::*;

const SOURCE: Source = Source::V4([192, 0, 2, 1]);

fn ordered(session: &Registered) -> Poll<CloseReason> {
    session.poll_ordered(&mut Context::from_waker(Waker::noop()))
}

fn sessions(sessions_by_worker: &[OpenSessions], source: [u8; 4], held: &[usize]) -> Vec<Registered> {
    let enter = |(number, &held): (usize, &usize)| {
        let session = sessions_by_worker[number % sessions_by_worker.len()].enter(Source::V4(source), Instant::now());
        session.hold(held);
        session
    };
    held.iter().enumerate().map(enter).collect()
}

fn told(sessions: &[Registered]) -> Vec<usize> {
    let is_told = |session: &Registered| ordered(session) == Poll::Ready(CloseReason::Rejected(Limit::Memory));
    (0..sessions.len()).filter(|&number| is_told(&sessions[number])).collect()
}

#[test]
fn the_sources_that_hold_most_give_way_by_their_largest_sessions() {
    let sessions_by_worker = OpenSessions::for_workers(2);
    let modest = sessions(&sessions_by_worker, [192, 0, 2, 1], &[60_000]);
    let greedy = sessions(&sessions_by_worker, [192, 0, 2, 2], &[20_000, 50_000, 40_000, 30_000, 50_000]);
    let least = sessions(&sessions_by_worker, [192, 0, 2, 3], &[GUARANTEED_BYTES; 1000]);
    assert_eq!(end_largest(&sessions_by_worker, 90_000), 2);
    assert_eq!(told(&greedy), [1, 4], "down to 90,000 bytes, and of both workers");
    assert_eq!(end_largest(&sessions_by_worker, 90_000), 0, "those who leave already bring it back");
    assert_eq!(end_largest(&sessions_by_worker, 130_000), 1);
    assert_eq!(told(&greedy), [1, 2, 4]);
    assert_eq!(end_largest(&sessions_by_worker, usize::MAX), 3);
    assert_eq!((told(&modest).len(), told(&least).len()), (1, 0), "nothing comes back of what is guaranteed");
    drop(greedy);
    assert_eq!(end_largest(&sessions_by_worker, 1), 0, "the modest one is leaving");
}

#[test]
fn many_small_holders_of_one_source_give_way_before_a_larger_one_of_another() {
    let sessions_by_worker = OpenSessions::for_workers(1);
    let many = sessions(&sessions_by_worker, [192, 0, 2, 1], &[4_096; 100]);
    let one = sessions(&sessions_by_worker, [192, 0, 2, 2], &[60_000]);
    assert_eq!(end_largest(&sessions_by_worker, 10 * 2_048), 10);
    assert_eq!((told(&many).len(), told(&one).len()), (10, 0));
}

#[test]
fn the_session_that_was_idle_for_longest_makes_room() {
    let sessions_by_worker = [OpenSessions::default(), OpenSessions::default()];
    let first = sessions_by_worker[0].enter(SOURCE, Instant::now());
    let second = sessions_by_worker[1].enter(SOURCE, Instant::now());
    sleep(Duration::from_millis(5));
    first.touch(Instant::now());
    assert_eq!(make_room(&sessions_by_worker, 1, Limit::Descriptors), 1);
    assert!(ordered(&first).is_pending());
    assert_eq!(ordered(&second), Poll::Ready(CloseReason::Rejected(Limit::Descriptors)));
    assert_eq!(make_room(&sessions_by_worker, 1, Limit::Sessions), 1, "one is leaving already");
    assert!(ordered(&first).is_pending());
    assert_eq!(make_room(&sessions_by_worker, 2, Limit::Sessions), 2, "the other one is next");
    assert_eq!(ordered(&first), Poll::Ready(CloseReason::Rejected(Limit::Sessions)), "by the limit that it went for");
    assert_eq!(make_room(&sessions_by_worker, 3, Limit::Descriptors), 2, "nobody is told twice");
    drop(second);
    assert_eq!(make_room(&sessions_by_worker, 2, Limit::Descriptors), 1, "whoever has left makes no more room");
}

#[test]
fn a_look_at_all_sessions_is_enough_for_many_newcomers() {
    let open = OpenSessions::default();
    let sessions: Vec<_> = (0..64 * 5).map(|_| open.enter(SOURCE, Instant::now())).collect();
    let sessions_by_worker = [open];
    assert_eq!(make_room(&sessions_by_worker, 1, Limit::Descriptors), 5, "some are told in advance");
    assert_eq!(make_room(&sessions_by_worker, 5, Limit::Descriptors), 5, "for those who come next");
    assert!(sessions[..5].iter().all(|session| ordered(session).is_ready()), "the first ones are the idlest");
    assert_eq!(make_room(&sessions_by_worker, 70, Limit::Descriptors), 70, "as many as there are places missing");
    assert_eq!(make_room(&sessions_by_worker, 320, Limit::Descriptors), 150, "most may stay");
}

#[test]
fn a_stop_reaches_every_session() {
    let open = OpenSessions::default();
    let sessions: Vec<_> = (0..10).map(|_| open.enter(SOURCE, Instant::now())).collect();
    open.shut_down(None);
    assert!(sessions.iter().all(|session| ordered(session) == Poll::Ready(CloseReason::Shutdown)));
    drop(sessions);
    assert!(open.is_empty());
}

#[test]
fn who_did_something_a_moment_ago_is_not_stopped_with_those_who_did_not() {
    let open = OpenSessions::default();
    let [idle, active] = [(); 2].map(|()| open.enter(SOURCE, Instant::now()));
    sleep(Duration::from_millis(2));
    let since = Instant::now();
    active.touch(Instant::now());
    open.shut_down(Some(since));
    assert_eq!(ordered(&idle), Poll::Ready(CloseReason::Shutdown));
    assert!(ordered(&active).is_pending());
    open.shut_down(None);
    assert_eq!(ordered(&active), Poll::Ready(CloseReason::Shutdown));
}

/// Counts how often it is woken.
#[derive(Default)]
struct Bell(AtomicUsize);

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn a_session_is_woken_at_its_deadline_and_not_at_one_that_was_moved() {
    let open = OpenSessions::default();
    let start = Instant::now();
    let second = Duration::from_secs(1);
    let session = open.enter(SOURCE, start + second);
    let bell = Arc::new(Bell::default());
    let rings_at = |at: Duration| {
        assert!(session.poll_ordered(&mut Context::from_waker(&Arc::clone(&bell).into())).is_pending());
        open.wake_due(start + at);
        bell.0.swap(0, Ordering::Relaxed)
    };
    assert_eq!((rings_at(second / 2), rings_at(second)), (0, 1));
    session.wake_at(session.micros(start + second * 4));
    assert_eq!((rings_at(second * 2), rings_at(second * 4)), (0, 1));
    session.wake_at(session.micros(start + second * 3));
    assert_eq!(rings_at(second * 3), 1, "a deadline can come nearer");
}
