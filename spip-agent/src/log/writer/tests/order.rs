//! Order, numbers, and what happens when the queue is full.

use std::cell::Cell;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use super::*;

#[test]
fn eight_threads_write_whole_lines_with_complete_numbers() {
    const THREADS: usize = 8;
    const RECORDS: usize = 10_000;
    let directory = Directory::new();
    let path = directory.file("log");
    let (log, thread) = started(&config(&path));
    thread::scope(|scope| {
        for number in 0..THREADS {
            let log = log.clone();
            scope.spawn(move || {
                block_on(async {
                    for index in 0..RECORDS {
                        log.record(&record(number, index)).await;
                    }
                });
            });
        }
    });
    let summary = end(thread);
    let lines = lines(&path);
    assert_complete(&lines, (THREADS * RECORDS) as u64);
    for number in 0..THREADS {
        let own: Vec<u64> =
            lines.iter().filter(|line| line["thread"] == number).filter_map(|line| line["number"].as_u64()).collect();
        assert!(own.into_iter().eq(0..RECORDS as u64), "thread {number} is out of order");
    }
    assert_eq!(summary.lines, (THREADS * RECORDS) as u64);
    assert_eq!(summary.bytes, fs::metadata(&path).expect("the log").len());
    assert!(summary.complete && summary.abandoned == 0);
    assert_eq!(log.stats().queued_bytes, 0);
}

/// Fills the queue and returns how many records went in.
fn fill(log: &Log) -> usize {
    (0..).take_while(|&number| log.try_record(&record(0, number))).count()
}

fn is_pending<F: Future>(future: std::pin::Pin<&mut F>) -> bool {
    matches!(future.poll(&mut Context::from_waker(Waker::noop())), Poll::Pending)
}

#[test]
fn a_full_queue_makes_records_wait_and_lets_them_in_again() {
    let directory = Directory::new();
    let path = directory.file("log");
    let (log, writer) = opened(&config(&path));
    let filled = fill(&log);
    assert!(filled > 100);
    assert!(log.stats().queued_bytes <= 64 * 1024);
    let thread = block_on(async {
        let large = record(1, 250);
        let mut waiting = pin!(log.record(&large));
        assert!(is_pending(waiting.as_mut()));
        let thread = writer.spawn().expect("the thread starts");
        waiting.await;
        thread
    });
    assert!(end(thread).complete);
    assert_complete(&lines(&path), filled as u64 + 1);
}

#[test]
fn a_wait_that_is_given_up_has_handed_over_nothing() {
    let directory = Directory::new();
    let path = directory.file("log");
    let (log, writer) = opened(&config(&path));
    let filled = fill(&log);
    let large = record(1, 250);
    for _ in 0..100 {
        assert!(is_pending(pin!(log.record(&large))));
    }
    let thread = writer.spawn().expect("the thread starts");
    until("room again", || log.try_record(&record(2, 0)));
    assert!(end(thread).complete);
    let lines = lines(&path);
    assert_complete(&lines, filled as u64 + 1);
    assert!(lines.iter().all(|line| line["thread"] != 1));
}

#[test]
fn those_who_wait_are_let_in_in_the_order_in_which_they_came() {
    const WAITING: usize = 20_000;
    let directory = Directory::new();
    let path = directory.file("log");
    let (log, writer) = opened(&config(&path));
    let filled = fill(&log) as u64;
    let thread = block_on(tokio::task::LocalSet::new().run_until(async {
        let polled = Rc::new(Cell::new(0));
        let tasks: Vec<_> = (0..WAITING)
            .map(|number| {
                let (log, polled) = (log.clone(), Rc::clone(&polled));
                tokio::task::spawn_local(async move {
                    polled.set(polled.get() + 1);
                    log.record(&record(1, number)).await;
                })
            })
            .collect();
        while polled.get() < WAITING {
            tokio::task::yield_now().await;
        }
        let thread = writer.spawn().expect("the thread starts");
        for task in tasks {
            task.await.expect("the record is handed over");
        }
        thread
    }));
    assert!(end(thread).complete);
    let lines = lines(&path);
    assert_complete(&lines, filled + WAITING as u64);
    let own = numbers(&lines[filled as usize..], "number");
    assert!(own.into_iter().eq(0..WAITING as u64));
}

#[test]
fn those_who_wait_at_the_end_are_still_written() {
    let directory = Directory::new();
    let path = directory.file("log");
    let (log, writer) = opened(&config(&path));
    let filled = fill(&log) as u64;
    let large = record(1, 250);
    let mut waiting: Vec<_> = (0..50).map(|_| Box::pin(log.record(&large))).collect();
    for waiting in &mut waiting {
        assert!(is_pending(waiting.as_mut()));
    }
    let thread = writer.spawn().expect("the thread starts");
    let ending = thread::spawn(move || end(thread));
    // Everything is written, and those who wait are let in, but none of them has come to append yet.
    until("the queue is empty", || log.stats().queued_bytes == 0);
    thread::sleep(Duration::from_millis(20));
    block_on(async {
        for waiting in waiting {
            waiting.await;
        }
    });
    let summary = ending.join().expect("the log ends");
    assert!(summary.complete && summary.abandoned == 0);
    assert_complete(&lines(&path), filled + 50);
}

#[test]
fn a_record_that_is_larger_than_the_queue_goes_through() {
    let directory = Directory::new();
    let path = directory.file("log");
    let (log, thread) = started(&config(&path));
    let mut large = br#"{"large":""#.to_vec();
    large.resize(1_000_000, b'y');
    large.push(b'"');
    block_on(async {
        log.record(&record(0, 0)).await;
        log.record(&large).await;
        log.record(&record(0, 1)).await;
    });
    assert!(end(thread).complete);
    let lines = lines(&path);
    assert_complete(&lines, 3);
    assert_eq!(lines[1]["large"].as_str().map(str::len), Some(1_000_000 - 10));
}

#[test]
fn what_cannot_wait_takes_the_reserve_and_then_leaves_a_gap_that_is_counted() {
    let directory = Directory::new();
    let path = directory.file("log");
    let (log, writer) = opened(&config(&path));
    let filled = fill(&log) as u64;
    let large = record(1, 250);
    for _ in 0..20_000 {
        log.record_now(&large);
    }
    let stats = log.stats();
    assert!(stats.abandoned > 10_000);
    assert!(stats.queued_bytes < 2 * 1024 * 1024);
    let thread = writer.spawn().expect("the thread starts");
    until("room again", || log.try_record(&record(2, 0)));
    let summary = end(thread);
    assert_eq!(summary.abandoned, stats.abandoned);
    let seqs = numbers(&lines(&path), "seq");
    assert_eq!(seqs.len() as u64 + stats.abandoned, filled + 20_000 + 1);
    assert_eq!(seqs.last(), Some(&(filled + 20_000 + 1)));
}

#[test]
fn a_reserve_that_is_written_can_be_used_again() {
    let directory = Directory::new();
    let path = directory.file("log");
    let (log, thread) = started(&config(&path));
    for number in 0..20_000 {
        log.record_now(&record(1, number));
        if number % 1000 == 0 {
            until("written", || log.stats().queued_bytes == 0);
        }
    }
    assert_eq!(end(thread).abandoned, 0);
    assert_complete(&lines(&path), 20_000);
}

#[test]
fn messages_have_no_number_and_are_dropped_and_counted_when_the_queue_is_full() {
    let directory = Directory::new();
    let path = directory.file("log");
    let (log, writer) = opened(&config(&path));
    assert!(log.message(br#"{"record_type":"log""#));
    let filled = fill(&log) as u64;
    // Longer than any that filled the queue.
    let large = [record(9, 250), vec![b' '; 300]].concat();
    assert!(!log.message(&large));
    assert_eq!(log.stats().messages_dropped, 1);
    assert!(end(writer.spawn().expect("the thread starts")).complete);
    let lines = lines(&path);
    assert_eq!(lines[0].get("seq"), None);
    assert_complete(&lines, filled);
}

#[test]
fn a_line_is_written_without_a_further_one_that_pushes_it() {
    for fsync in [Fsync::Never, Fsync::Interval, Fsync::Always] {
        let directory = Directory::new();
        let path = directory.file("log");
        let (log, writer) = open(&config::Log { fsync, ..config(&path) }).expect("the log opens");
        let thread = writer.spawn().expect("the thread starts");
        for number in 0..3 {
            block_on(log.record(&record(0, number)));
            until("the line is there", || lines(&path).len() == number + 1);
            if fsync == Fsync::Always {
                until("it is on the disk", || log.stats().syncs == number as u64 + 1);
            }
        }
        if fsync == Fsync::Interval {
            until("they are on the disk", || log.stats().syncs > 0);
        }
        assert!(end(thread).complete);
        assert_eq!(log.stats().syncs == 0, fsync == Fsync::Never, "{fsync:?}");
    }
}

#[test]
fn a_buffer_that_grew_by_a_burst_is_small_again_afterwards() {
    let directory = Directory::new();
    let path = directory.file("log");
    let (log, writer) = opened(&config::Log { queue_bytes: 8 * 1024 * 1024, ..config(&path) });
    fill(&log);
    assert!(log.shared.capacity_of_next() > 4 * 1024 * 1024);
    let thread = writer.spawn().expect("the thread starts");
    // Twice, because the two buffers change places.
    for _ in 0..2 {
        block_on(log.record(&record(0, 0)));
        until("written", || log.stats().queued_bytes == 0);
        until("small", || log.shared.capacity_of_next() <= 256 * 1024);
    }
    assert!(end(thread).complete);
}

#[test]
fn after_the_end_records_are_counted_and_nobody_waits() {
    let directory = Directory::new();
    let path = directory.file("log");
    let (log, thread) = started(&config(&path));
    assert!(end(thread).complete);
    block_on(log.record(&record(0, 0)));
    log.record_now(&record(0, 1));
    assert!(!log.try_record(&record(0, 2)));
    assert!(!log.message(&record(0, 3)));
    assert_eq!(log.stats().abandoned, 2);
    assert!(lines(&path).is_empty());
}
