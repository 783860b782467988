//! The record of a session as it was logged: from the block that the store keeps, or from the log.

use std::collections::VecDeque;

use rusqlite::types::ValueRef;
use rusqlite::{OptionalExtension as _, Row};
use spip_record::log::{Content, Options, Position, Step};
use spip_record::read;

use crate::moment::Day;
use crate::store::{Error, Reader, Result, key};

/// Bytes of a block, uncompressed: many times what the store writes, for a record may be long.
const MAX_BLOCK: usize = 128 << 20;

/// Bytes of a log that are read to find a record.
const BATCH_BYTES: usize = 1 << 20;

/// Lines that one place of a log stands for, and bytes that are read of them at once.
const MAX_LINES: usize = 2 * 4_096;
const MAX_LOG_BYTES: usize = 16 << 20;

/// Longest line of a log.
const MAX_LINE_BYTES: usize = 64 << 20;

/// Blocks that are remembered while many records are read: neighbours in time lie in the same ones.
const BLOCKS: usize = 64;

/// Bytes of the remembered blocks.
const MAX_BLOCKS: usize = 64 << 20;

/// Reads records as they were logged.
pub(crate) struct Records<'r> {
    reader: &'r Reader,
    /// Lines of blocks, the newest last.
    blocks: VecDeque<((Day, i64), Vec<u8>)>,
}

impl<'r> Records<'r> {
    pub(crate) fn new(reader: &'r Reader) -> Self {
        Self { reader, blocks: VecDeque::new() }
    }

    /// Returns the line of a session, or why it cannot be read any more.
    ///
    /// # Errors
    /// There is no such session, or the store does not answer.
    pub(crate) fn line(&mut self, day: Day, id: i64) -> Result<std::result::Result<Vec<u8>, String>> {
        let reader = self.reader;
        let unknown = || Error::NotFound(format!("session {}", super::session_id(day, id)));
        let sql = "SELECT block, line, uuid FROM session_rows WHERE id = ?";
        let row = reader.in_day(day, |connection| {
            let row = connection.prepare_cached(sql).and_then(|mut statement| {
                let read = |row: &Row<'_>| {
                    Ok((row.get::<_, Option<i64>>(0)?, row.get::<_, Option<i64>>(1)?, row.get::<_, i64>(2)?))
                };
                statement.query_row([id], read).optional()
            });
            row.map_err(|source| reader.failed(source))
        })?;
        let (block, line, uuid) = row.flatten().ok_or_else(unknown)?;
        let (Some(block), Some(line)) = (block, line) else {
            let why = "the record is not kept (records = \"log\"), and its place in the log is not known";
            return Ok(Err(why.to_owned()));
        };
        let index = usize::try_from(line).unwrap_or(usize::MAX);
        let lines = match self.lines(day, block, index)? {
            Ok(lines) => lines,
            Err(why) => return Ok(Err(why)),
        };
        let Some(line) = lines.split(|byte| *byte == b'\n').nth(index) else {
            return Ok(Err("the log or the block has fewer lines than it had".to_owned()));
        };
        // A log that was replaced has another line there.
        let is_own = matches!(read::line(line), Ok(read::Line::Session(entry)) if key::uuid(entry.session_id.as_bytes()) == uuid);
        let line = line.to_vec();
        Ok(if is_own { Ok(line) } else { Err("the log does not have the record any more".to_owned()) })
    }

    /// Returns the lines of a block, at least up to `index`.
    fn lines(&mut self, day: Day, block: i64, index: usize) -> Result<std::result::Result<&[u8], String>> {
        let name = (day, block);
        if !self.blocks.iter().any(|(own, _)| *own == name) {
            let reader = self.reader;
            let kept = reader.in_day(day, |connection| {
                let kept = connection.query_row("SELECT lines FROM blocks WHERE id = ?", [block], |row| {
                    Ok(match row.get_ref(0)? {
                        ValueRef::Text(place) => Kept::Place(String::from_utf8_lossy(place).into_owned()),
                        other => Kept::Lines(other.as_blob().unwrap_or_default().to_vec()),
                    })
                });
                kept.optional().map_err(|source| reader.failed(source))
            })?;
            let lines = match kept.flatten() {
                None => Err("the block that holds the record is gone".to_owned()),
                Some(Kept::Place(place)) => from_log(&place, index),
                Some(Kept::Lines(compressed)) => from_block(&compressed),
            };
            match lines {
                Ok(lines) => self.blocks.push_back((name, lines)),
                Err(why) => return Ok(Err(why)),
            }
            keep_newest(&mut self.blocks, BLOCKS, MAX_BLOCKS);
        }
        let found = self.blocks.iter().find(|(own, _)| *own == name);
        Ok(Ok(found.map_or(&[][..], |(_, lines)| lines)))
    }
}

/// Forgets the oldest blocks, until there are `most` with `bytes` bytes together, or one.
fn keep_newest<N>(blocks: &mut VecDeque<(N, Vec<u8>)>, most: usize, bytes: usize) {
    let held = |blocks: &VecDeque<(N, Vec<u8>)>| blocks.iter().map(|(_, lines)| lines.len()).sum::<usize>();
    while blocks.len() > 1 && (blocks.len() > most || held(blocks) > bytes) {
        blocks.pop_front();
    }
}

/// Returns the line of one session, or why it cannot be read any more.
///
/// # Errors
/// There is no such session, or the store does not answer.
pub(super) fn read(reader: &Reader, day: Day, id: i64) -> Result<std::result::Result<Vec<u8>, String>> {
    Records::new(reader).line(day, id)
}

enum Kept {
    Lines(Vec<u8>),
    Place(String),
}

fn from_block(compressed: &[u8]) -> std::result::Result<Vec<u8>, String> {
    let size = zstd::zstd_safe::get_frame_content_size(compressed).ok().flatten();
    let size = size.and_then(|size| usize::try_from(size).ok()).filter(|size| *size <= MAX_BLOCK);
    let size = size.ok_or("the block that holds the record is damaged")?;
    zstd::bulk::decompress(compressed, size).map_err(|error| format!("the block is damaged: {error}"))
}

/// Reads the lines behind a place of a log: all that may be named from it, or as far as `index` where they are long.
fn from_log(place: &str, index: usize) -> std::result::Result<Vec<u8>, String> {
    let (log, position): (std::path::PathBuf, Position) =
        serde_json::from_str(place).map_err(|error| format!("the place in the log cannot be read: {error}"))?;
    let options = Options { follow: false, max_line_bytes: MAX_LINE_BYTES, ..Options::default() };
    let mut reader = spip_record::log::Reader::open(&log, options, Some(&position));
    let mut lines = Vec::new();
    let mut count = 0;
    while count <= index || (count < MAX_LINES && lines.len() < MAX_LOG_BYTES) {
        let step = reader.next_batch(BATCH_BYTES).map_err(|error| error.to_string())?;
        let Step::Batch(batch) = step else { break };
        // What comes behind a gap is not what stood there.
        if !batch.notices().is_empty() {
            break;
        }
        for line in batch.lines() {
            match line.content {
                Content::Whole(bytes) | Content::Torn(bytes) => lines.extend_from_slice(bytes),
                Content::TooLong(_) => {}
            }
            lines.push(b'\n');
            count += 1;
        }
    }
    if count <= index {
        return Err(format!("{} does not have the record any more: it was rotated away", log.display()));
    }
    Ok(lines)
}

/// Returns the payload of a record.
pub(super) fn payload(record: &[u8]) -> Option<Vec<u8>> {
    match read::line(record).ok()? {
        read::Line::Session(entry) => Some(entry.payload.into_owned()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_blocks_are_remembered_within_their_number_and_their_bytes() {
        let kept = |sizes: &[usize], most, bytes| {
            let mut blocks: VecDeque<_> = sizes.iter().enumerate().map(|(at, size)| (at, vec![0; *size])).collect();
            keep_newest(&mut blocks, most, bytes);
            blocks.into_iter().map(|(at, _)| at).collect::<Vec<_>>()
        };
        assert_eq!(kept(&[1, 1, 1], 3, 3), [0, 1, 2]);
        assert_eq!(kept(&[1, 1, 1], 2, 100), [1, 2], "number");
        assert_eq!(kept(&[1, 1, 1], 9, 2), [1, 2], "bytes");
        assert_eq!(kept(&[1, 1, 100], 9, 50), [2], "the one that is asked for stays");
    }
}
