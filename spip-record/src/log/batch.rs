//! A batch of a reader: lines of one file, the position after them, and the notices before them.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::Position;

/// Lines of one file, and the position after them.
#[derive(Debug)]
pub struct Batch {
    pub(super) path: Arc<Path>,
    pub(super) bytes: Vec<u8>,
    pub(super) spans: Vec<Span>,
    /// Number of the first line in its file, from 1.
    pub(super) first: u64,
    pub(super) position: Position,
    pub(super) notices: Vec<Notice>,
}

/// Place of a line in the bytes of its batch.
#[derive(Clone, Copy, Debug)]
pub(super) struct Span {
    pub(super) start: usize,
    pub(super) end: usize,
    /// In the uncompressed file.
    pub(super) offset: u64,
    pub(super) kind: Kind,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    Whole,
    Torn,
    TooLong(u64),
}

/// One line of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line<'a> {
    /// Number in its file, from 1; after [`super::Start::End`], counted from there.
    pub number: u64,
    /// Offset of the line in the uncompressed file, in bytes.
    pub offset: u64,
    /// Content of the line.
    pub content: Content<'a>,
}

/// Kinds of content of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content<'a> {
    /// The bytes without the line feed.
    Whole(&'a [u8]),
    /// The last bytes of a file that ends without a line feed.
    Torn(&'a [u8]),
    /// A line longer than the bound, passed over; its length in bytes.
    TooLong(u64),
}

impl Batch {
    /// Iterates over the lines in the order of the log.
    pub fn lines(&self) -> impl ExactSizeIterator<Item = Line<'_>> {
        self.spans.iter().enumerate().map(|(index, span)| {
            let bytes = self.bytes.get(span.start..span.end).unwrap_or_default();
            let content = match span.kind {
                Kind::Whole => Content::Whole(bytes),
                Kind::Torn => Content::Torn(bytes),
                Kind::TooLong(length) => Content::TooLong(length),
            };
            Line { number: self.first.saturating_add(index as u64), offset: span.offset, content }
        })
    }

    /// Returns the number of lines.
    #[must_use]
    pub fn len(&self) -> usize {
        self.spans.len()
    }

    /// Reports whether there are no lines; there may be notices.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }

    /// Returns the file that the lines are of.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns where to go on after these lines.
    #[must_use]
    pub fn position(&self) -> &Position {
        &self.position
    }

    /// Returns what happened between the batch before and this one.
    #[must_use]
    pub fn notices(&self) -> &[Notice] {
        &self.notices
    }
}

/// Something that a reader of a log has to know beside its lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// A file is gone that was not read, or not to its end as far as is known.
    Lost {
        /// The last name that it was known by.
        path: PathBuf,
        /// Bytes read of the uncompressed file.
        read_bytes: u64,
        /// Its size in bytes as it was last seen, compressed or not; `None` when it went while no reader ran.
        size_bytes: Option<u64>,
    },
    /// The current file was truncated, and no copy of what was in it is found. What was written after the last look is lost.
    Truncated {
        /// The file.
        path: PathBuf,
        /// Bytes read of the file.
        read_bytes: u64,
    },
    /// A file begins as it did, but what was read of it is not there any more. It is read again from its beginning.
    Rewritten {
        /// The file.
        path: PathBuf,
        /// Bytes read of the file before.
        read_bytes: u64,
    },
    /// A compressed file breaks off or is damaged; what came before was delivered.
    Damaged {
        /// The file.
        path: PathBuf,
        /// Bytes of the uncompressed file that can be read.
        read_bytes: u64,
        /// Number of whole lines before the damage.
        lines: u64,
        /// Error of the decompressor.
        reason: String,
    },
    /// A named file cannot be read at all. Only [`super::Files`] goes on after that.
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Error of the system.
        reason: String,
    },
}

impl fmt::Display for Notice {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lost { path, read_bytes, size_bytes: Some(size) } => {
                write!(out, "{} was removed before it was read: {read_bytes} of {size} bytes were", path.display())
            }
            Self::Lost { path, read_bytes, size_bytes: None } => {
                write!(
                    out,
                    "{} is gone after {read_bytes} bytes were read; if it held more, that is lost",
                    path.display()
                )
            }
            Self::Truncated { path, read_bytes } => {
                let path = path.display();
                write!(out, "{path} was truncated after {read_bytes} bytes were read, and there is no copy of the rest")
            }
            Self::Rewritten { path, read_bytes } => {
                let path = path.display();
                write!(
                    out,
                    "{path} was rewritten after {read_bytes} bytes were read; it is read again from its beginning"
                )
            }
            Self::Damaged { path, read_bytes, lines, reason } => {
                let path = path.display();
                write!(out, "{path} is damaged after {lines} lines ({read_bytes} bytes uncompressed): {reason}")
            }
            Self::Unreadable { path, reason } => write!(out, "{}: cannot be read: {reason}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_notice_names_the_file_and_the_amount() {
        let path = || PathBuf::from("/log/a.jsonl");
        let notices = [
            (
                Notice::Lost { path: path(), read_bytes: 7, size_bytes: Some(9) },
                "was removed before it was read: 7 of 9 bytes",
            ),
            (Notice::Lost { path: path(), read_bytes: 7, size_bytes: None }, "is gone after 7 bytes were read"),
            (Notice::Truncated { path: path(), read_bytes: 7 }, "was truncated after 7 bytes were read"),
            (Notice::Rewritten { path: path(), read_bytes: 7 }, "was rewritten after 7 bytes were read"),
            (
                Notice::Damaged { path: path(), read_bytes: 7, lines: 2, reason: "bad block".to_owned() },
                "is damaged after 2 lines (7 bytes uncompressed): bad block",
            ),
            (Notice::Unreadable { path: path(), reason: "denied".to_owned() }, "cannot be read: denied"),
        ];
        for (notice, said) in notices {
            let text = notice.to_string();
            assert!(text.starts_with("/log/a.jsonl") && text.contains(said), "{text}");
        }
    }

    #[test]
    fn lines_of_a_batch_are_numbered_on() {
        let span = |start, end| Span { start, end, offset: 100 + start as u64, kind: Kind::Whole };
        let batch = Batch {
            path: Path::new("/log").into(),
            bytes: b"one\ntwo\n".to_vec(),
            spans: vec![span(0, 3), span(4, 7), Span { kind: Kind::TooLong(9), ..span(8, 8) }],
            first: 7,
            position: Position::default(),
            notices: Vec::new(),
        };
        let lines: Vec<_> = batch.lines().map(|line| (line.number, line.offset, line.content)).collect();
        let expected =
            [(7, 100, Content::Whole(b"one")), (8, 104, Content::Whole(b"two")), (9, 108, Content::TooLong(9))];
        assert_eq!(lines, expected);
    }
}
