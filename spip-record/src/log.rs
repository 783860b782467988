//! A log as one stream of lines over all of its files.
//!
//! The agent writes `spip.json`, renames it to `spip.json.<time>` when it is full, compresses that to
//! `spip.json.<time>.zst` and finally removes it. [`Reader`] reads all of them, oldest first, and then follows the
//! current one: across rotation, truncation (`copytruncate`), removal and re-creation, and across restarts of the
//! reader. [`Files`] reads copied logs once, in the order in which they are named.
//!
//! What a reader can rely on:
//!
//! - **Every line once, in order.** Each [`Batch`] comes with the [`Position`] after its lines. Store both together
//!   (one transaction, or after the acknowledgement) and hand the position to [`Reader::open`] after a restart.
//! - **A position names content, not a name.** It holds device, inode and a hash of the file's first bytes and of the
//!   last ones before it, so a file that was renamed, compressed or copied is found again, and a reused inode is not
//!   mistaken.
//! - **Nothing is lost in silence.** A file that vanished before it was read, a truncation, damaged compressed data:
//!   each is a [`Notice`] in the batch that follows it. A file that came and went unseen is found in the records
//!   themselves, by gaps of `seq`.
//! - **Bounded memory.** At most about `max_bytes` and one line of `max_line_bytes`. Longer lines are
//!   [`Content::TooLong`].
//! - **A line is bytes.** It may be no UTF-8 and no JSON. An unfinished last line is held back while its file is
//!   followed; at the end of a closed file it is [`Content::Torn`].
//!
//! At-least-once is the worst case: a file that was rewritten in place, or shortened by a power cut, is read again from
//! its beginning, with [`Notice::Rewritten`]. Records carry (`name`, `run`, `seq`), by which repeated ones are
//! recognised.
//!
//! Closed files are recognised in three forms, oldest first: `spip.json-20250131` (logrotate with `dateext`),
//! `spip.json.2` (logrotate), `spip.json.20250131T235959.000001Z` (the agent), each plain, `.zst` or `.gz`.
//!
//! # Example
//!
//! ```
//! use std::time::Duration;
//!
//! use spip_record::log::{Content, Options, Position, Reader, Step};
//!
//! # fn stored_position() -> Option<Position> { None }
//! # fn store(_lines: &[Vec<u8>], _position: &Position) {}
//! # let directory = std::env::temp_dir().join(format!("spip-log-example-{}", std::process::id()));
//! # std::fs::create_dir_all(&directory)?;
//! # let path = directory.join("spip.json");
//! # std::fs::write(&path, "{\"seq\":0}\n{\"seq\":1}\n")?;
//! let mut reader = Reader::open(&path, Options::default(), stored_position().as_ref());
//! # let mut read = 0;
//! loop {
//!     match reader.next_batch(1 << 20) {
//!         Ok(Step::Batch(batch)) => {
//!             for notice in batch.notices() {
//!                 eprintln!("{notice}");
//!             }
//!             let mut rows = Vec::new();
//!             for line in batch.lines() {
//!                 match line.content {
//!                     Content::Whole(bytes) => rows.push(bytes.to_vec()),
//!                     Content::Torn(_) | Content::TooLong(_) => {} // counted by the caller
//!                 }
//!             }
//!             // In one transaction: the rows and where to go on.
//!             store(&rows, batch.position());
//! #           read += rows.len();
//!         }
//!         // Nothing new: waits until something changes, for a second at most.
//!         Ok(Step::Idle) => {
//! #           if read == 2 { break }
//!             reader.wait(Duration::from_secs(1));
//!         }
//!         // Only where `Options::follow` is false.
//!         Ok(Step::End) => break,
//!         // The operator has to do something: log it, and try again later.
//!         Err(error) => {
//!             eprintln!("{error}");
//!             reader.wait(Duration::from_secs(1));
//!         }
//!     }
//! }
//! # std::fs::remove_dir_all(&directory)?;
//! # Ok::<(), std::io::Error>(())
//! ```
//!
//! A reader that has its lines acknowledged later keeps the positions of the batches that are under way, and stores one
//! once everything before it is acknowledged. To send again, it calls [`Reader::seek`] with the last one that it
//! stored.

mod batch;
mod cursor;
mod directory;
mod files;
mod hold;
mod position;
mod reader;
mod source;
mod wait;

use std::io;
use std::path::PathBuf;

pub use batch::{Batch, Content, Line, Notice};
pub use files::Files;
pub use hold::{Hold, MAX_MARKER_BYTES, hold_directory};
pub use position::Position;
pub use reader::{Lag, Options, Reader, Start};
pub use source::Compression;

/// The longest line that is read unless another bound is given: 64 MiB, many times what the defaults of the agent
/// write.
pub const MAX_LINE_BYTES: usize = 64 << 20;

/// Result of reading on in a log.
#[derive(Debug)]
pub enum Step {
    /// Lines, notices, or both. Neither, where a line is so long that it is still being passed over.
    Batch(Box<Batch>),
    /// Nothing new for now.
    Idle,
    /// Nothing more: the log is not followed.
    End,
}

/// Reasons why a log cannot be read for now. Nothing is lost: the next attempt goes on at the same place.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The directory of the log.
    #[error("cannot list {}: {cause}; the reader needs to read and enter the directory of the log", path.display())]
    List {
        /// The directory.
        path: PathBuf,
        /// Error of the system.
        cause: io::Error,
    },
    /// A file of the log.
    #[error("cannot open {}: {cause}{}", path.display(), remedy(cause))]
    Open {
        /// The file.
        path: PathBuf,
        /// Error of the system.
        cause: io::Error,
    },
    /// A file of the log, while it is read.
    #[error("cannot read {}: {cause}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Error of the system.
        cause: io::Error,
    },
}

/// Returns what lets a reader open a file that it may not.
fn remedy(cause: &io::Error) -> &'static str {
    let is_refused = cause.kind() == io::ErrorKind::PermissionDenied;
    if is_refused { "; let the reader's user or group read it" } else { "" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_refused_file_has_a_remedy() {
        let said = |kind: io::ErrorKind| Error::Open { path: "spip.jsonl".into(), cause: kind.into() }.to_string();
        let refused = said(io::ErrorKind::PermissionDenied);
        assert!(refused.starts_with("cannot open spip.jsonl: "), "{refused}");
        assert!(refused.ends_with("; let the reader's user or group read it"), "{refused}");
        assert!(!said(io::ErrorKind::NotFound).contains(';'));
    }
}
