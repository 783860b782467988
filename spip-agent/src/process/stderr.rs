//! Standard error, for what cannot go to the log: the same form as a system message, and no wait for a reader.

use std::io::{self, Write};
use std::os::fd::AsFd;

use log::{Level, Record};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use spip_record::message::Shape;

/// Time to wait for standard error, in milliseconds: a reader that stalls does not stop the agent.
const STDERR_WAIT_MS: u8 = 50;

/// Reports on standard error, at level error, what cannot go to the log.
pub fn emergency(message: &str) {
    to_stderr(Level::Error, message);
}

/// Reports something of the log on standard error, in the form of a system message.
pub fn to_stderr(level: Level, message: &str) {
    let line =
        Shape::default().line(&Record::builder().level(level).target("log").args(format_args!("{message}")).build());
    write(line);
}

/// Ends a line and writes it to standard error in one piece, unless it has no reader.
pub fn write(mut line: Vec<u8>) {
    line.extend_from_slice(b"}\n");
    let stderr = io::stderr();
    let mut waiting = [PollFd::new(stderr.as_fd(), PollFlags::POLLOUT)];
    if poll(&mut waiting, PollTimeout::from(STDERR_WAIT_MS)).is_ok_and(|ready| ready > 0) {
        // There is nowhere left to say that this failed.
        let _ = stderr.lock().write_all(&line);
    }
}
