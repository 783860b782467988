//! Standard output: pipes that are slow, full, or without a reader.

use std::io::Read;
use std::os::fd::OwnedFd;

use super::*;

fn on_pipe(queue_bytes: usize) -> (Log, WriterThread, io::PipeReader) {
    let (reader, pipe) = io::pipe().expect("a pipe");
    let (log, thread) = on(OwnedFd::from(pipe), queue_bytes);
    (log, thread, reader)
}

fn on(output: OwnedFd, queue_bytes: usize) -> (Log, WriterThread) {
    let config = config::Log { file: None, queue_bytes, ..config(Path::new("unused")) };
    let (log, writer) = open_with("log_file", &config, Target::Output(output), &fast()).expect("the log opens");
    (log, writer.spawn().expect("the thread starts"))
}

#[test]
fn a_slow_reader_gets_every_line() {
    let (log, thread, mut reader) = on_pipe(16 * 1024);
    let reading = thread::spawn(move || {
        let mut text = Vec::new();
        let mut buffer = [0; 1000];
        loop {
            match reader.read(&mut buffer).expect("the pipe") {
                0 => break text,
                count => text.extend_from_slice(&buffer[..count]),
            }
        }
    });
    block_on(async {
        for number in 0..5000 {
            log.record(&record(0, number)).await;
        }
    });
    assert!(end(thread).complete);
    drop(log);
    assert_complete(&parse(&reading.join().expect("the reader")), 5000);
}

#[test]
fn a_pipe_that_is_not_blocking_is_waited_for() {
    let (mut reader, pipe) = io::pipe().expect("a pipe");
    nix::fcntl::fcntl(&pipe, nix::fcntl::FcntlArg::F_SETFL(nix::fcntl::OFlag::O_NONBLOCK)).expect("the flag");
    let (log, thread) = on(OwnedFd::from(pipe), 1024 * 1024);
    (0..3000).for_each(|number| assert!(log.try_record(&record(0, number))));
    // The pipe is full before the first byte is read.
    until("the pipe is full", || log.stats().bytes > 0);
    let reading = thread::spawn(move || {
        let mut text = Vec::new();
        reader.read_to_end(&mut text).map(|_| text)
    });
    assert!(end(thread).complete);
    drop(log);
    let text = reading.join().expect("the reader").expect("the pipe");
    assert_complete(&parse(&text), 3000);
}

#[test]
fn a_closed_reader_releases_everybody_and_is_reported() {
    let (log, thread, reader) = on_pipe(16 * 1024);
    let waiting: Vec<_> = (0..8)
        .map(|number| {
            let log = log.clone();
            thread::spawn(move || {
                block_on(async {
                    for index in 0..1000 {
                        log.record(&record(number, index)).await;
                    }
                });
            })
        })
        .collect();
    until("the queue is full", || !log.try_record(&record(9, 250)));
    assert!(!log.failed());
    drop(reader);
    block_on(log.closed());
    assert!(log.failed());
    for waiting in waiting {
        waiting.join().expect("nobody waits for ever");
    }
    let stats = log.stats();
    assert!(stats.abandoned > 0);
    assert_eq!(stats.queued_bytes, 0);
    let before = Instant::now();
    let summary = end(thread);
    assert!(before.elapsed() < Duration::from_secs(10));
    // All 8,000, and those that the test tried itself.
    assert!(summary.abandoned + summary.lines >= 8000);
}

#[test]
fn the_end_does_not_wait_longer_than_its_deadline_for_a_reader() {
    let (log, thread, reader) = on_pipe(1024 * 1024);
    let count = (0..).take_while(|&number| log.try_record(&record(0, number))).count() as u64;
    let before = Instant::now();
    let summary = thread.finish(before + Duration::from_millis(100));
    assert!(before.elapsed() < Duration::from_secs(5));
    assert!(!summary.complete);
    assert_eq!(summary.lines + summary.abandoned, count);
    drop(reader);
}

#[test]
fn output_that_is_appended_to_a_file_begins_with_a_new_line_after_a_kill() {
    let directory = Directory::new();
    let path = directory.file("log");
    fs::write(&path, "{\"torn\":").expect("the file");
    let file = fs::OpenOptions::new().append(true).open(&path).expect("the file");
    let (log, thread) = on(OwnedFd::from(file), 16 * 1024);
    block_on(log.record(&record(0, 0)));
    assert!(end(thread).complete);
    let text = fs::read(&path).expect("the file");
    assert_complete(&parse(text.strip_prefix(b"{\"torn\":\n").expect("the part is ended")), 1);
}

#[test]
fn lines_that_nobody_takes_wait_longer_and_longer_and_no_line_waits_when_all_are_taken() {
    let (log, thread, mut reader) = on_pipe(1024 * 1024);
    assert_eq!(log.stats().waiting, Duration::ZERO);
    (0..3000).for_each(|number| assert!(log.try_record(&record(0, number))));
    // More than the pipe holds.
    until("lines wait", || log.stats().waiting >= Duration::from_millis(50));
    let stats = log.stats();
    assert!(!stats.failing && !stats.faulty, "not for long enough to be a fault: {stats:?}");
    let reading = thread::spawn(move || reader.read_to_end(&mut Vec::new()));
    until("all are taken", || log.stats().queued_bytes == 0);
    assert_eq!(log.stats().waiting, Duration::ZERO);
    // The first line after a quiet time has not waited for that time.
    thread::sleep(Duration::from_millis(50));
    let before = Instant::now();
    assert!(log.try_record(&record(0, 3000)));
    let waited = log.stats().waiting;
    // Counted in whole milliseconds.
    assert!(waited <= before.elapsed() + Duration::from_millis(1), "{waited:?}");
    assert!(end(thread).complete);
    drop(log);
    assert!(reading.join().expect("the reader").is_ok());
}
