use std::io::Write as _;
use std::net::{Shutdown, TcpListener, TcpStream};

use super::*;
use crate::session::limits::Source;
use crate::session::record::tests::UNREADABLE;
use crate::session::tests::Bench;

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime").block_on(future)
}

/// A batch in which the kernel answers with these errors, one after the other, and then as if nothing waited.
fn batch_of(intake: &Intake, errors: &[Errno], waiting: usize) -> io::Result<Batch> {
    let mut errors = errors.iter();
    take_batch(intake, || Err(*errors.next().unwrap_or(&Errno::EAGAIN)), || waiting)
}

#[test]
fn errors_of_single_connections_are_counted_and_the_next_one_is_tried() {
    let bench = Bench::new("accept-errors");
    let errors = [Errno::ECONNABORTED, Errno::EPERM, Errno::EHOSTUNREACH, Errno::EINTR];
    let batch = batch_of(&bench.intake, &errors, 0).expect("the socket is fine");
    assert_eq!(batch, Batch { accepted: 0, then: Then::Wait });
    assert_eq!(bench.intake.faults(), Faults { errors: 4, shortages: 0 });
}

#[test]
fn an_error_that_lasts_is_not_met_again_at_once() {
    let bench = Bench::new("accept-lasting");
    let mut attempts = 0;
    let refuse = || {
        attempts += 1;
        Err(Errno::EPERM)
    };
    let batch = take_batch(&bench.intake, refuse, || 0).expect("the socket is fine");
    assert_eq!((batch, attempts), (Batch { accepted: 0, then: Then::Pause }, BATCH));
    // One that lets some through is worth going on.
    let mut attempts = 0;
    let mixed = || {
        attempts += 1;
        if attempts == 7 { Ok(()) } else { Err(Errno::ECONNABORTED) }
    };
    let batch = take_batch(&bench.intake, mixed, || 0).expect("the socket is fine");
    assert_eq!(batch, Batch { accepted: 1, then: Then::GoOn });
}

#[test]
fn a_shortage_is_counted_and_makes_room_for_those_who_wait() {
    let bench = Bench::new("accept-shortage");
    let open = &bench.intake.sessions_by_worker[0];
    let sessions: Vec<_> = (0..100).map(|_| open.enter(Source::V4([192, 0, 2, 1]), Instant::now())).collect();
    for error in [Errno::EMFILE, Errno::ENFILE, Errno::ENOBUFS, Errno::ENOMEM] {
        let batch = batch_of(&bench.intake, &[error], 10).expect("the socket is fine");
        assert_eq!(batch, Batch { accepted: 0, then: Then::Pause });
    }
    assert_eq!(bench.intake.faults(), Faults { errors: 0, shortages: 4 });
    assert_eq!(
        open_sessions::make_room(&bench.intake.sessions_by_worker, 0, Limit::Descriptors),
        10,
        "those who were told are not told again"
    );
    let _ = batch_of(&bench.intake, &[Errno::EMFILE], 1_000).expect("the socket is fine");
    assert_eq!(
        open_sessions::make_room(&bench.intake.sessions_by_worker, 0, Limit::Descriptors),
        10 + 100 / 4,
        "most may stay"
    );
    drop(sessions);
}

#[test]
fn a_broken_listening_socket_is_the_end() {
    let bench = Bench::new("accept-broken");
    for error in [Errno::EBADF, Errno::EINVAL, Errno::ENOTSOCK] {
        assert!(batch_of(&bench.intake, &[error], 0).is_err());
    }
}

#[test]
fn a_flood_behind_the_connections_that_are_owed_does_not_hold_the_stop() {
    let mut batches = 0;
    let flood = || {
        batches += 1;
        Ok(Batch { accepted: BATCH, then: Then::GoOn })
    };
    block_on(take_owed(2 * BATCH + 1, Instant::now() + Duration::from_secs(600), flood)).expect("no error");
    assert_eq!(batches, 3);
    // A shortage that stays ends with the time.
    let shortage = || Ok(Batch { accepted: 0, then: Then::Pause });
    block_on(take_owed(10, Instant::now() + Duration::from_millis(50), shortage)).expect("no error");
}

#[test]
fn what_waits_in_a_queue_that_another_agent_has_is_left_to_it() {
    let bench = Bench::new("accept-queue");
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.set_nonblocking(true).expect("a socket");
    let _clients: Vec<_> = (0..3)
        .map(|_| TcpStream::connect(listener.local_addr().expect("bound")).expect("the kernel completes it"))
        .collect();
    let socket = || OwnedFd::from(listener.try_clone().expect("a descriptor"));
    assert_eq!(waiting(&socket()), 3);
    bench.intake.stop();
    block_on(run(socket(), &bench.intake, &bench.intake.sessions_by_worker[0], true)).expect("the socket is fine");
    assert_eq!(waiting(&socket()), 3);
    block_on(async {
        run(socket(), &bench.intake, &bench.intake.sessions_by_worker[0], false).await.expect("the socket is fine");
    });
    assert_eq!(waiting(&socket()), 0);
    assert_eq!(bench.records().len(), 3);
}

#[test]
fn bytes_that_cannot_be_read_cost_neither_the_worker_nor_the_record() {
    let bench = Bench::new("accept-unreadable");
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    for bytes in [UNREADABLE, b"readable"] {
        let mut client = TcpStream::connect(listener.local_addr().expect("bound")).expect("connected");
        client.write_all(bytes).expect("sent");
        client.shutdown(Shutdown::Write).expect("closed");
        block_on(async {
            let taken = || accept(&OwnedFd::from(listener.try_clone().expect("a descriptor")));
            let (socket, peer) = taken().expect("a connection waits");
            admit(socket, peer, &bench.intake, &bench.intake.engine(), &bench.intake.sessions_by_worker[0]);
        });
    }
    assert_eq!(bench.intake.limits.open(), 0);
    let records = bench.records();
    let told: Vec<_> = records.iter().map(|record| (&record["payload"], &record["close_reason"])).collect();
    assert_eq!(told, [(&"test: unreadable".into(), &"aborted".into()), (&"readable".into(), &"client_closed".into())]);
    assert_eq!((&records[0]["protocol"], &records[0]["bytes_in"]), (&serde_json::Value::Null, &16.into()));
}
