//! Reads copied logs once, in the order in which they are named, and goes on where one cannot be read.

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};

use super::batch::{Batch, Notice};
use super::cursor::{Cursor, Filled};
use super::directory::{self, Order};
use super::position::Position;
use super::reader::damaged;
use super::source::Source;
use super::{Error, Step};

/// Empty turns that are skipped at once before the caller gets one.
const ATTEMPTS: usize = 16;

/// Reads files one after the other: plain, `.zst` or `.gz`; `-` is standard input.
///
/// ```
/// use spip_record::log::{Files, Step};
///
/// # let directory = std::env::temp_dir().join(format!("spip-files-example-{}", std::process::id()));
/// # std::fs::create_dir_all(&directory)?;
/// # std::fs::write(directory.join("spip.json"), "{}\n")?;
/// # let pattern = directory.join("spip.json*");
/// let mut files = Files::new(Files::expand(&[pattern])?, 64 << 20);
/// while let Step::Batch(batch) = files.next_batch(1 << 20) {
///     for notice in batch.notices() {
///         eprintln!("{notice}");
///     }
///     for line in batch.lines() {
///         println!("{}:{}: {:?}", batch.path().display(), line.number, line.content);
///     }
/// }
/// # std::fs::remove_dir_all(&directory)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Files {
    rest: VecDeque<PathBuf>,
    cursor: Option<Cursor>,
    max_line_bytes: usize,
    notices: Vec<Notice>,
    raw_bytes: u64,
}

impl Files {
    /// Makes a reader of these files; of standard input if there are none.
    #[must_use]
    pub fn new(paths: Vec<PathBuf>, max_line_bytes: usize) -> Self {
        let mut rest = VecDeque::from(paths);
        if rest.is_empty() {
            rest.push_back("-".into());
        }
        Self { rest, cursor: None, max_line_bytes, notices: Vec::new(), raw_bytes: 0 }
    }

    /// Replaces each path with `*`, `?` or `[` in its name, if there is no such file, by the files that it matches, those
    /// of one log oldest first. A pattern that matches nothing stays as it is, and is then reported as not found.
    ///
    /// # Errors
    /// A directory cannot be listed.
    pub fn expand(paths: &[PathBuf]) -> Result<Vec<PathBuf>, Error> {
        let mut all = Vec::new();
        for path in paths {
            let is_pattern = path.as_os_str().as_encoded_bytes().iter().any(|byte| b"*?[".contains(byte));
            let Some(pattern) = path.to_str().filter(|_| is_pattern && path.symlink_metadata().is_err()) else {
                all.push(path.clone());
                continue;
            };
            let mut matches = Vec::new();
            // What is no pattern is a name, and not found.
            for found in glob::glob(pattern).into_iter().flatten() {
                let found =
                    found.map_err(|error| Error::List { path: error.path().to_owned(), cause: error.into() })?;
                if !found.is_dir() {
                    matches.push(found);
                }
            }
            matches.sort_by_cached_key(|path| age(path));
            if matches.is_empty() {
                matches.push(path.clone());
            }
            all.append(&mut matches);
        }
        Ok(all)
    }

    /// Returns the next lines, or [`Step::End`]. A file that cannot be read is a notice, and the next one follows.
    pub fn next_batch(&mut self, max_bytes: usize) -> Step {
        for _ in 0..ATTEMPTS {
            let Some(cursor) = &mut self.cursor else {
                if !self.open_next() {
                    return if self.notices.is_empty() {
                        Step::End
                    } else {
                        Step::Batch(Box::new(self.notices_alone()))
                    };
                }
                continue;
            };
            let filled = cursor.fill(max_bytes.max(1)).unwrap_or_else(|error| {
                self.notices.push(damaged(cursor, &error));
                Filled::End
            });
            if filled == Filled::Some {
                let taken = cursor.take_lines();
                return Step::Batch(Box::new(batch(cursor, taken, &mut self.notices)));
            }
            let taken = cursor.take_rest();
            let last = batch(cursor, taken, &mut self.notices);
            self.raw_bytes += cursor.source.raw_bytes();
            self.cursor = None;
            if !last.is_empty() || !last.notices.is_empty() {
                return Step::Batch(Box::new(last));
            }
        }
        Step::Batch(Box::new(self.notices_alone()))
    }

    /// Returns how many bytes were read from the disk, compressed or not.
    #[must_use]
    pub fn raw_bytes(&self) -> u64 {
        self.raw_bytes + self.cursor.as_ref().map_or(0, |cursor| cursor.source.raw_bytes())
    }

    /// Opens the next file that can be opened; false if there is none.
    fn open_next(&mut self) -> bool {
        while let Some(path) = self.rest.pop_front() {
            let source = if path == Path::new("-") { Ok(Source::stream(io::stdin())) } else { Source::named(&path) };
            match source {
                Ok(source) => {
                    self.cursor = Some(Cursor::new(&path, source, self.max_line_bytes));
                    return true;
                }
                Err(error) => self.notices.push(Notice::Unreadable { path, reason: error.to_string() }),
            }
        }
        false
    }

    fn notices_alone(&mut self) -> Batch {
        Batch {
            path: Path::new("").into(),
            bytes: Vec::new(),
            spans: Vec::new(),
            first: 0,
            position: Position::default(),
            notices: std::mem::take(&mut self.notices),
        }
    }
}

fn batch(
    cursor: &mut Cursor,
    (bytes, spans, first): (Vec<u8>, Vec<super::batch::Span>, u64),
    notices: &mut Vec<Notice>,
) -> Batch {
    let position = Position { file: Some(cursor.place()), ..Position::default() };
    Batch { path: cursor.path.clone(), bytes, spans, first, position, notices: std::mem::take(notices) }
}

/// Derives from a name the log that a file belongs to, and its age: files sort by it.
fn age(path: &Path) -> (PathBuf, String, Order) {
    let directory = path.parent().unwrap_or(Path::new("")).to_owned();
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let separators = name.char_indices().filter(|(_, separator)| matches!(separator, '.' | '-'));
    let closed = separators.filter_map(|(at, _)| {
        let (log, rest) = name.split_at(at);
        let (order, _) = directory::order(rest)?;
        (!log.is_empty() && order != Order::Current).then(|| (log.to_owned(), order))
    });
    let (log, order) = closed.into_iter().next().unwrap_or_else(|| (name.clone(), Order::Current));
    (directory, log, order)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_of_a_file_ends_at_its_place_in_it() {
        let path = std::env::temp_dir().join(format!("spip-record-files-place-{}", std::process::id()));
        std::fs::write(&path, "one\ntwo\nthree\n").expect("a temporary file");
        let mut files = Files::new(vec![path.clone()], 64);
        let Step::Batch(batch) = files.next_batch(64) else { panic!("three lines") };
        let place = batch.position().file.as_ref().expect("within the file");
        assert_eq!((batch.len(), place.line, place.offset), (3, 3, 14));
        let name = path.file_name().expect("a name").to_string_lossy();
        assert_eq!(batch.position().file(), Some((&*name, 14)));
        assert_eq!(Position::default().file(), None);
        std::fs::remove_file(&path).expect("ours");
    }

    #[test]
    fn the_files_of_a_log_sort_by_age() {
        let sorted = ["a.json.2.gz", "a.json.20250131T235959.000001Z.zst", "a.json", "b-1.json.1", "b-1.json"];
        let mut paths: Vec<PathBuf> = sorted.iter().rev().map(PathBuf::from).collect();
        paths.sort_by_cached_key(|path| age(path));
        assert_eq!(paths, sorted.map(PathBuf::from));
    }
}
