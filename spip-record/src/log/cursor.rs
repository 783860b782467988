//! One file that is being read: its lines are cut out in order, and what is needed to recognise it is kept.

use std::io;
use std::mem;
use std::path::Path;
use std::sync::Arc;

use memchr::{memchr, memchr_iter, memrchr};

use super::batch::{Kind, Span};
use super::directory::Entry;
use super::position::{self, HEAD_BYTES, Mark, Place, TAIL_BYTES};
use super::source::{Source, is_damage};

/// Bytes that are asked for at once.
const READ_BYTES: usize = 256 * 1024;

/// Reads of `max_bytes` without the end of a line before the caller gets a turn.
const TURNS: usize = 8;

/// Result of filling the buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Filled {
    /// Whole lines, or a part of one that is too long.
    Some,
    /// The end of the file for now, and no whole line before it.
    End,
}

/// Reasons why reading cannot resume in a file at a position.
#[derive(Debug)]
pub(super) enum Mismatch {
    /// It is another file.
    Other,
    /// It begins as the file did, and does not hold what was read of it.
    Rewritten,
    /// It cannot be read.
    Failed(io::Error),
}

/// A file and how far it is read.
#[derive(Debug)]
pub(super) struct Cursor {
    pub(super) path: Arc<Path>,
    pub(super) source: Source,
    /// Bytes read behind `offset`: the beginning of a line, or lines that are not handed out yet.
    buffer: Vec<u8>,
    /// Bytes at the start of `buffer` that are searched and hold no line feed.
    searched: usize,
    /// Bytes of a too long line behind `offset` that are passed over and not in `buffer`.
    skipped: u64,
    /// The last ones of them.
    skipped_tail: Vec<u8>,
    /// Offset of the first line that is not handed out.
    offset: u64,
    /// Lines before it.
    line: u64,
    /// The first bytes of the file, as far as they are read.
    head: Vec<u8>,
    /// The last bytes before `offset`.
    tail: Vec<u8>,
    max_line_bytes: usize,
    /// Error that ended the stream; returned once the lines before it are handed out.
    failed: Option<io::Error>,
    /// The hash of this many bytes of the head.
    hashed: Option<(usize, String)>,
}

impl Cursor {
    /// Begins at the first line.
    pub(super) fn new(path: &Path, source: Source, max_line_bytes: usize) -> Self {
        Self {
            path: path.into(),
            source,
            buffer: Vec::new(),
            searched: 0,
            skipped: 0,
            skipped_tail: Vec::new(),
            offset: 0,
            line: 0,
            head: Vec::new(),
            tail: Vec::new(),
            max_line_bytes,
            failed: None,
            hashed: None,
        }
    }

    pub(super) fn open(entry: &Entry, max_line_bytes: usize) -> io::Result<Self> {
        Ok(Self::new(&entry.path, Source::open(&entry.path, entry.compression)?, max_line_bytes))
    }

    /// Goes on at `place`, if `entry` is the file that it is in.
    pub(super) fn resume(entry: &Entry, place: &Place, max_line_bytes: usize) -> Result<Self, Mismatch> {
        let mut cursor = Self::open(entry, max_line_bytes).map_err(Mismatch::Failed)?;
        let mut head = vec![0; HEAD_BYTES];
        let length = cursor.source.read_fully(&mut head, 0).map_err(Mismatch::Failed)?;
        head.truncate(length);
        if !place.mark.begins(&head) {
            return Err(Mismatch::Other);
        }
        let tail = match cursor.bytes_before(place.offset, &head) {
            // It was read as far as it goes, and is damaged behind that, or in what was read before.
            Err(error) if is_damage(&error) => {
                (cursor.head, cursor.offset, cursor.line) = (head, place.offset, place.line);
                cursor.drop_rest();
                return Ok(cursor);
            }
            tail => tail.map_err(Mismatch::Failed)?,
        };
        let Some(tail) = tail.filter(|tail| position::hash(tail) == place.tail) else {
            return Err(Mismatch::Rewritten);
        };
        if cursor.source.is_plain() {
            // What is behind the offset is read when its turn comes.
            head.truncate(usize::try_from(place.offset).unwrap_or(usize::MAX));
        }
        (cursor.head, cursor.tail, cursor.offset, cursor.line) = (head, tail, place.offset, place.line);
        Ok(cursor)
    }

    /// Returns the last bytes before `offset`, and has a stream go on there; `None` where the file ends before.
    fn bytes_before(&mut self, offset: u64, head: &[u8]) -> io::Result<Option<Vec<u8>>> {
        let length = TAIL_BYTES.min(usize::try_from(offset).unwrap_or(usize::MAX));
        if self.source.is_plain() {
            let mut tail = vec![0; length];
            let filled = self.source.read_fully(&mut tail, offset - length as u64)?;
            return Ok((filled == length).then_some(tail));
        }
        // The head is out of the stream already; what of it is behind the offset is kept.
        let (before, behind) = head.split_at(head.len().min(usize::try_from(offset).unwrap_or(usize::MAX)));
        let mut tail = before.to_vec();
        self.buffer = behind.to_vec();
        let mut at = before.len() as u64;
        let mut chunk = vec![0; READ_BYTES];
        while at < offset {
            let most = READ_BYTES.min(usize::try_from(offset - at).unwrap_or(usize::MAX));
            let count = self.source.read(chunk.get_mut(..most).unwrap_or_default(), at)?;
            if count == 0 {
                return Ok(None);
            }
            at += count as u64;
            keep_tail(&mut tail, chunk.get(..count).unwrap_or_default());
        }
        keep_tail(&mut tail, b"");
        Ok(Some(tail))
    }

    /// Takes it for a file that begins like this and is read.
    pub(super) fn assume(&mut self, head: Vec<u8>) {
        (self.offset, self.head) = (head.len() as u64, head);
    }

    /// Begins at the last line that begins in what is there now.
    pub(super) fn seek_to_end(&mut self) -> io::Result<()> {
        let Some(Ok(metadata)) = self.source.metadata() else { return Ok(()) };
        let mut head = vec![0; HEAD_BYTES];
        let length = self.source.read_fully(&mut head, 0)?;
        head.truncate(length);
        let size = metadata.len();
        // The end of the last line, searched from the back.
        let mut chunk = vec![0; READ_BYTES];
        let mut end = size;
        let mut start = 0;
        while end > 0 && size - end <= self.max_line_bytes as u64 {
            let from = end.saturating_sub(READ_BYTES as u64);
            let most = usize::try_from(end - from).unwrap_or(READ_BYTES);
            let count = self.source.read_fully(chunk.get_mut(..most).unwrap_or_default(), from)?;
            if let Some(found) = memrchr(b'\n', chunk.get(..count).unwrap_or_default()) {
                start = from + found as u64 + 1;
                break;
            }
            end = from;
        }
        let mut tail = vec![0; TAIL_BYTES.min(usize::try_from(start).unwrap_or(usize::MAX))];
        let from = start - tail.len() as u64;
        let filled = self.source.read_fully(&mut tail, from)?;
        if filled < tail.len() {
            // Truncated meanwhile: from the beginning.
            return Ok(());
        }
        head.truncate(usize::try_from(start).unwrap_or(usize::MAX));
        (self.head, self.tail, self.offset) = (head, tail, start);
        Ok(())
    }

    /// Reads until there are about `max_bytes` of whole lines, or nothing more for now.
    pub(super) fn fill(&mut self, max_bytes: usize) -> io::Result<Filled> {
        let mut budget = max_bytes.saturating_mul(TURNS);
        let mut has_line = self.has_line();
        if !has_line && let Some(error) = self.failed.take() {
            return Err(error);
        }
        while !(has_line && self.buffer.len() >= max_bytes) {
            if budget == 0 {
                return Ok(Filled::Some);
            }
            let known = self.buffer.len();
            let missing = if known < max_bytes { max_bytes - known } else { max_bytes };
            let wanted = READ_BYTES.min(missing).min(self.available());
            let read_to = self.read_to();
            self.buffer.resize(known + wanted, 0);
            let result = match self.buffer.get_mut(known..).filter(|space| !space.is_empty()) {
                Some(space) => self.source.read(space, read_to),
                None => Ok(0),
            };
            self.buffer.truncate(known + *result.as_ref().unwrap_or(&0));
            let count = match result {
                Ok(count) => count,
                // What came before the damage is handed out first.
                Err(error) if has_line => {
                    self.failed = Some(error);
                    return Ok(Filled::Some);
                }
                Err(error) => return Err(error),
            };
            if count == 0 {
                return Ok(if has_line { Filled::Some } else { Filled::End });
            }
            budget = budget.saturating_sub(count);
            if read_to == self.head.len() as u64 {
                let new = self.buffer.get(known..).unwrap_or_default();
                let missing = HEAD_BYTES.saturating_sub(self.head.len());
                self.head.extend_from_slice(new.get(..missing.min(new.len())).unwrap_or_default());
            }
            has_line = has_line || self.has_line();
            if has_line && self.source.is_pipe() {
                return Ok(Filled::Some);
            }
            if !has_line && self.skipped + self.buffer.len() as u64 > self.max_line_bytes as u64 {
                self.skipped += self.buffer.len() as u64;
                keep_tail(&mut self.skipped_tail, &self.buffer);
                self.buffer = Vec::new();
                self.searched = 0;
            }
        }
        Ok(Filled::Some)
    }

    /// Takes the whole lines out of the buffer, with the number of the first.
    pub(super) fn take_lines(&mut self) -> (Vec<u8>, Vec<Span>, u64) {
        let end = memrchr(b'\n', &self.buffer).map_or(0, |last| last + 1);
        let rest = self.buffer.get(end..).unwrap_or_default().to_vec();
        let mut bytes = mem::replace(&mut self.buffer, rest);
        bytes.truncate(end);
        self.searched = self.buffer.len();
        let first = self.line + 1;
        let mut spans = Vec::with_capacity(bytes.len() / 512);
        let mut start = 0;
        for end in memchr_iter(b'\n', &bytes) {
            let length = mem::take(&mut self.skipped) + (end - start) as u64;
            let kind = if length > self.max_line_bytes as u64 { Kind::TooLong(length) } else { Kind::Whole };
            spans.push(Span { start, end, offset: self.offset, kind });
            self.offset += length + 1;
            start = end + 1;
        }
        if !spans.is_empty() {
            keep_tail(&mut self.tail, &mem::take(&mut self.skipped_tail));
        }
        self.line += spans.len() as u64;
        keep_tail(&mut self.tail, &bytes);
        (bytes, spans, first)
    }

    /// Takes what is left at the end of a closed file: whole lines, and one that has no end.
    pub(super) fn take_rest(&mut self) -> (Vec<u8>, Vec<Span>, u64) {
        let (mut bytes, mut spans, first) = self.take_lines();
        let length = mem::take(&mut self.skipped) + self.buffer.len() as u64;
        if length > 0 {
            let start = bytes.len();
            bytes.append(&mut self.buffer);
            self.searched = 0;
            let too_long = length > self.max_line_bytes as u64;
            let kind = if too_long { Kind::TooLong(length) } else { Kind::Torn };
            spans.push(Span { start, end: bytes.len(), offset: self.offset, kind });
            self.offset += length;
            self.line += 1;
            keep_tail(&mut self.tail, &mem::take(&mut self.skipped_tail));
            keep_tail(&mut self.tail, bytes.get(start..).unwrap_or_default());
        }
        (bytes, spans, first)
    }

    /// Forgets the beginning of a line whose end is lost in damaged data.
    pub(super) fn drop_rest(&mut self) {
        (self.buffer, self.searched, self.skipped) = (Vec::new(), 0, 0);
        self.skipped_tail.clear();
    }

    /// Reports whether the file still holds what was read of it. Whatever was read before this was asked is then its own.
    pub(super) fn is_intact(&mut self) -> io::Result<bool> {
        if !self.source.is_plain() {
            return Ok(true);
        }
        if self.source.metadata().transpose()?.is_some_and(|metadata| metadata.len() < self.read_to()) {
            return Ok(false);
        }
        let mut head = [0; HEAD_BYTES];
        let head = head.get_mut(..self.head.len()).unwrap_or_default();
        let length = self.source.read_fully(head, 0)?;
        Ok(length == self.head.len() && *head == *self.head)
    }

    /// Returns the place behind the lines that were handed out.
    pub(super) fn place(&mut self) -> Place {
        Place { mark: self.mark(), offset: self.offset, line: self.line, tail: position::hash(&self.tail) }
    }

    /// Returns by what the file is recognised: by what was handed out of it.
    pub(super) fn mark(&mut self) -> Mark {
        let length = self.head.len().min(usize::try_from(self.offset).unwrap_or(usize::MAX));
        let head = match &self.hashed {
            Some((hashed, hash)) if *hashed == length => hash.clone(),
            _ => {
                let hash = position::hash(self.head.get(..length).unwrap_or_default());
                self.hashed = Some((length, hash.clone()));
                hash
            }
        };
        Mark {
            name: position::name(&self.path),
            device: self.source.device,
            inode: self.source.inode,
            head_bytes: u32::try_from(length).unwrap_or_default(),
            head,
        }
    }

    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    pub(super) fn line(&self) -> u64 {
        self.line
    }

    /// Returns how far the file is read, in uncompressed bytes.
    pub(super) fn read_to(&self) -> u64 {
        self.offset + self.skipped + self.buffer.len() as u64
    }

    /// Returns about how much can be read at once.
    fn available(&self) -> usize {
        if !self.source.is_plain() {
            return READ_BYTES;
        }
        match self.source.metadata() {
            Some(Ok(metadata)) => usize::try_from(metadata.len().saturating_sub(self.read_to())).unwrap_or(usize::MAX),
            _ => READ_BYTES,
        }
    }

    fn has_line(&mut self) -> bool {
        let found = memchr(b'\n', self.buffer.get(self.searched..).unwrap_or_default()).is_some();
        if !found {
            self.searched = self.buffer.len();
        }
        found
    }
}

/// Keeps the last bytes of what came before and `bytes`.
fn keep_tail(tail: &mut Vec<u8>, bytes: &[u8]) {
    tail.extend_from_slice(bytes.get(bytes.len().saturating_sub(TAIL_BYTES)..).unwrap_or_default());
    tail.drain(..tail.len().saturating_sub(TAIL_BYTES));
}
