//! How a reader tells the agent which closed files it still needs.
//!
//! Beside the log lies a directory `<log>.hold` that readers may write to. Each reader keeps one file in it, its marker,
//! which names the newest closed file that it has read to its end, by the time in that file's name: that stays right
//! when files are renamed, compressed or removed, and says by itself that everything later is needed. A marker that cannot
//! be understood stands for a reader that needs everything.

use std::fmt;
use std::path::{Path, PathBuf};

use super::directory::is_time;
use super::position::Position;

/// Bytes of the longest marker.
pub const MAX_MARKER_BYTES: usize = 128;

/// Start of a marker's line.
const READ_THROUGH: &str = "read through ";

/// Returns the directory of markers of a log.
#[must_use]
pub fn hold_directory(log: &Path) -> PathBuf {
    let mut path = log.as_os_str().to_owned();
    path.push(".hold");
    PathBuf::from(path)
}

/// A marker: how far one reader is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hold {
    /// Time in the name of the newest closed file that is read to its end; `None` before the first.
    through: Option<String>,
}

impl Hold {
    /// Makes the marker of a reader that goes on at `position`.
    #[must_use]
    pub fn at(position: &Position) -> Self {
        Self { through: position.through.clone().filter(|time| is_time(time)) }
    }

    /// Reads a marker.
    #[must_use]
    pub fn parse(marker: &[u8]) -> Self {
        let text = std::str::from_utf8(marker).unwrap_or_default();
        let time = text.strip_prefix(READ_THROUGH).map(str::trim_end).filter(|time| is_time(time));
        Self { through: time.map(str::to_owned) }
    }

    /// Reports whether the closed file with `time` in its name is still needed.
    #[must_use]
    pub fn needs(&self, time: &str) -> bool {
        self.through.as_deref().is_none_or(|through| time > through)
    }
}

impl fmt::Display for Hold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{READ_THROUGH}{}", self.through.as_deref().unwrap_or("-"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMES: [&str; 3] = ["20260101T000000.000001Z", "20260101T000000.000002Z", "20270101T000000.000000Z"];

    #[test]
    fn a_marker_that_is_written_is_read_back() {
        for through in [None, Some(TIMES[1].to_owned())] {
            let hold = Hold { through };
            let text = hold.to_string();
            assert!(text.len() <= MAX_MARKER_BYTES);
            assert_eq!(Hold::parse(text.as_bytes()), hold, "{text}");
        }
    }

    #[test]
    fn a_marker_names_the_newest_file_that_is_read_to_its_end_if_it_is_the_agents() {
        let at = |through: Option<&str>| {
            Hold::at(&Position { through: through.map(str::to_owned), ..Position::default() }).through
        };
        assert_eq!(at(None), None);
        assert_eq!(at(Some(TIMES[1])).as_deref(), Some(TIMES[1]));
        // Never a line that another reader of the marker takes for something else.
        for other in ["1", "20260101T000000.000001Z\nstate_dir /", "-"] {
            assert_eq!(at(Some(other)), None, "{other:?}");
        }
    }

    #[test]
    fn later_files_are_needed_and_earlier_ones_are_not() {
        let hold = Hold::parse(format!("read through {}\n", TIMES[1]).as_bytes());
        assert_eq!(TIMES.map(|time| hold.needs(time)), [false, false, true]);
    }

    #[test]
    fn what_cannot_be_understood_needs_everything() {
        for text in [&b""[..], b"spip.jsonl\n", b"read through\n", b"read through 2026\n", b"\xff", b"read through -\n"]
        {
            assert!(Hold::parse(text).needs(TIMES[0]), "{}", String::from_utf8_lossy(text));
        }
    }
}
