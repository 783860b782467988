//! Progress of the conversion, on one line of a terminal; silent where standard error is none.

use std::fs;
use std::io::{self, IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::Outcome;

/// Between two looks at the terminal.
const INTERVAL: Duration = Duration::from_millis(200);

pub(super) struct Progress {
    /// Bytes of all files; `None` where one of them has no length, or there are none.
    total: Option<u64>,
    is_shown: bool,
    is_on_line: bool,
    next: Instant,
}

impl Progress {
    pub(super) fn start(files: &[PathBuf]) -> Self {
        let size = |file: &PathBuf| fs::metadata(file).ok().filter(fs::Metadata::is_file).map(|data| data.len());
        Self {
            total: if files.is_empty() { None } else { files.iter().map(size).sum() },
            is_shown: io::stderr().is_terminal(),
            is_on_line: false,
            next: Instant::now() + INTERVAL,
        }
    }

    /// Reports whether there is a terminal.
    pub(super) fn is_shown(&self) -> bool {
        self.is_shown
    }

    /// Shows the state, now and then.
    pub(super) fn show(&mut self, read: u64, outcome: &Outcome) {
        if !self.is_shown || Instant::now() < self.next {
            return;
        }
        self.next = Instant::now() + INTERVAL;
        let text = text(read, self.total, outcome);
        // A terminal that is gone is no reason to stop.
        let _ = write!(io::stderr(), "\r\x1b[K{text}");
        self.is_on_line = true;
    }

    /// Leaves the line to something else.
    pub(super) fn clear(&mut self) {
        if std::mem::take(&mut self.is_on_line) {
            let _ = io::stderr().write_all(b"\r\x1b[K");
        }
    }
}

fn text(read: u64, total: Option<u64>, outcome: &Outcome) -> String {
    let part = match total {
        Some(total @ 1..) => format!("{} % of {} MB", read.saturating_mul(100) / total, total / 1_000_000),
        _ => format!("{} MB", read / 1_000_000),
    };
    format!("{part}, {} records, {} bad lines", outcome.records, outcome.bad_lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_is_a_part_of_a_known_whole() {
        let outcome = Outcome { records: 5, bad_lines: 1, ..Outcome::default() };
        assert_eq!(text(500_000, Some(2_000_000), &outcome), "25 % of 2 MB, 5 records, 1 bad lines");
        assert_eq!(text(3_000_000, None, &outcome), "3 MB, 5 records, 1 bad lines");
        assert_eq!(text(0, Some(0), &Outcome::default()), "0 MB, 0 records, 0 bad lines");
    }
}
