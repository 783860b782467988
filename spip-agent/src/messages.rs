//! System messages: what the agent says of itself, in the same stream as the records.
//!
//! Whoever has something to say uses the macros of the `log` crate with fields; each message becomes one JSON line with
//! `record_type: "log"`. Until the log is open, and when it cannot take a message, warnings go to standard error in the
//! same form. No message ever waits: the sensor does not stand still because it has something to say.
//!
//! Text in messages can come from strangers, and events can be provoked by them. So text is escaped and cut, and a place
//! in the code is heard at most ten times a second; what is left out is counted and summed up in one line.

mod line;
mod repeats;

use std::io::{self, Write};
use std::os::fd::AsFd;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Instant;

use log::{Level, LevelFilter, Metadata, Record};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::writer;
use repeats::{LeftOut, Repeats};

/// How long standard error is waited for, in milliseconds: whoever does not read it does not stop the agent.
const STDERR_WAIT_MS: u8 = 50;

/// The process has one.
static MESSAGES: OnceLock<Messages> = OnceLock::new();

/// Lets messages up to `max_level` out, to standard error until [`init`].
pub fn start(max_level: LevelFilter) {
    let messages = MESSAGES.get_or_init(Messages::new);
    // Refused only when there is one already, which is this one, or another program's that uses this library.
    let _ = log::set_logger(messages);
    log::set_max_level(max_level);
}

/// Sends messages up to `max_level` to `log` from now on. The first log stays.
pub fn init(log: writer::Log, max_level: LevelFilter) {
    start(max_level);
    let _ = MESSAGES.get_or_init(Messages::new).log.set(log);
}

/// Says on standard error, at level error, what cannot go to the log.
pub fn emergency(message: &str) {
    to_stderr(Level::Error, message);
}

/// Says something of the log on standard error, in the form of a system message.
pub fn to_stderr(level: Level, message: &str) {
    let line = line::of(&Record::builder().level(level).target("log").args(format_args!("{message}")).build());
    write_stderr(line);
}

/// Ends a line and writes it to standard error in one piece, unless nobody takes it.
fn write_stderr(mut line: Vec<u8>) {
    line.extend_from_slice(b"}\n");
    let stderr = io::stderr();
    let mut waiting = [PollFd::new(stderr.as_fd(), PollFlags::POLLOUT)];
    if poll(&mut waiting, PollTimeout::from(STDERR_WAIT_MS)).is_ok_and(|ready| ready > 0) {
        // There is nowhere left to say that this failed.
        let _ = stderr.lock().write_all(&line);
    }
}

/// Turns messages into lines.
#[derive(Debug)]
struct Messages {
    log: OnceLock<writer::Log>,
    repeats: Mutex<Repeats>,
    start: Instant,
}

impl Messages {
    fn new() -> Self {
        Messages { log: OnceLock::new(), repeats: Mutex::new(Repeats::new()), start: Instant::now() }
    }

    fn emit(&self, level: Level, line: Vec<u8>) {
        let taken = match self.log.get() {
            Some(log) => log.message(&line) || (level > Level::Warn && !log.failed()),
            None => false,
        };
        if !taken {
            write_stderr(line);
        }
    }

    fn sum_up(&self, left_out: &LeftOut) {
        let line = line::of(
            &Record::builder()
                .level(left_out.level)
                .target(&left_out.target)
                .args(format_args!("{} more messages like this were left out: {}", left_out.count, left_out.example))
                .key_values(&("repeated", left_out.count))
                .build(),
        );
        self.emit(left_out.level, line);
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

impl log::Log for Messages {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= log::max_level()
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let (admitted, left_out) = {
            let mut repeats = self.repeats.lock().unwrap_or_else(PoisonError::into_inner);
            let now = self.now_ms();
            (repeats.admits(record, now), repeats.due(now))
        };
        left_out.iter().for_each(|left_out| self.sum_up(left_out));
        if admitted {
            self.emit(record.level(), line::of(record));
        }
    }

    /// Sums up what was left out more than a second ago. The next message does it too; this is for quiet times and the end.
    fn flush(&self) {
        let left_out = {
            let mut repeats = self.repeats.lock().unwrap_or_else(PoisonError::into_inner);
            repeats.due(self.now_ms())
        };
        left_out.iter().for_each(|left_out| self.sum_up(left_out));
    }
}
