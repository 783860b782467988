//! The record of a session as it was logged: from the block that the store keeps, or from the log.

use rusqlite::OptionalExtension as _;
use rusqlite::types::ValueRef;
use spip_record::log::{Content, Options, Position, Step};
use spip_record::read;

use crate::moment::Day;
use crate::store::{Error, Reader, Result};

/// Bytes of a block, uncompressed: many times what the store writes, for a record may be long.
const MAX_BLOCK: usize = 128 << 20;

/// Bytes of a log that are read to find a record.
const BATCH_BYTES: usize = 1 << 20;

/// Longest line of a log.
const MAX_LINE_BYTES: usize = 64 << 20;

/// Returns the line of a session, or why it cannot be read any more.
///
/// # Errors
/// There is no such session, or the store does not answer.
pub(super) fn read(reader: &Reader, day: Day, id: i64) -> Result<std::result::Result<Vec<u8>, String>> {
    let unknown = || Error::NotFound(format!("session {}", super::session_id(day, id)));
    let found = reader.in_day(day, |connection| {
        let row = connection
            .query_row("SELECT block, line FROM sessions WHERE id = ?", [id], |row| {
                Ok((row.get::<_, Option<i64>>(0)?, row.get::<_, Option<i64>>(1)?))
            })
            .optional()
            .map_err(|source| reader.failed(source))?;
        let Some((Some(block), Some(line))) = row else {
            return Ok(row.map(|_| {
                Err("the record is not kept (records = \"log\"), and its place in the log is not known".to_owned())
            }));
        };
        let index = usize::try_from(line).unwrap_or(usize::MAX);
        let kept = connection
            .query_row("SELECT lines FROM blocks WHERE id = ?", [block], |row| {
                Ok(match row.get_ref(0)? {
                    ValueRef::Text(place) => Kept::Place(String::from_utf8_lossy(place).into_owned()),
                    other => Kept::Lines(other.as_blob().unwrap_or_default().to_vec()),
                })
            })
            .optional()
            .map_err(|source| reader.failed(source))?;
        Ok(Some(match kept {
            None => Err("the block that holds the record is gone".to_owned()),
            Some(Kept::Place(place)) => from_log(&place, index),
            Some(Kept::Lines(compressed)) => from_block(&compressed, index),
        }))
    })?;
    found.flatten().ok_or_else(unknown)
}

enum Kept {
    Lines(Vec<u8>),
    Place(String),
}

fn from_block(compressed: &[u8], index: usize) -> std::result::Result<Vec<u8>, String> {
    let size = zstd::zstd_safe::get_frame_content_size(compressed).ok().flatten();
    let size = size.and_then(|size| usize::try_from(size).ok()).filter(|size| *size <= MAX_BLOCK);
    let size = size.ok_or("the block that holds the record is damaged")?;
    let lines = zstd::bulk::decompress(compressed, size).map_err(|error| format!("the block is damaged: {error}"))?;
    let line = lines.split(|byte| *byte == b'\n').nth(index).map(<[u8]>::to_vec);
    line.ok_or_else(|| "the block is damaged: it has fewer lines".to_owned())
}

fn from_log(place: &str, index: usize) -> std::result::Result<Vec<u8>, String> {
    let (log, position): (std::path::PathBuf, Position) =
        serde_json::from_str(place).map_err(|error| format!("the place in the log cannot be read: {error}"))?;
    let options = Options { follow: false, max_line_bytes: MAX_LINE_BYTES, ..Options::default() };
    let mut reader = spip_record::log::Reader::open(&log, options, Some(&position));
    let mut passed = 0;
    loop {
        let step = reader.next_batch(BATCH_BYTES).map_err(|error| error.to_string())?;
        let Step::Batch(batch) = step else {
            return Err(format!("{} does not have the record any more: it was rotated away", log.display()));
        };
        if let Some(notice) = batch.notices().first() {
            return Err(format!("the log does not have the record any more: {notice}"));
        }
        if let Some(line) = batch.lines().nth(index - passed) {
            return match line.content {
                Content::Whole(bytes) | Content::Torn(bytes) => Ok(bytes.to_vec()),
                Content::TooLong(_) => Err("the line is too long".to_owned()),
            };
        }
        passed += batch.len();
    }
}

/// Returns the payload of a record.
pub(super) fn payload(record: &[u8]) -> Option<Vec<u8>> {
    match read::line(record).ok()? {
        read::Line::Session(entry) => Some(entry.payload.into_owned()),
        _ => None,
    }
}
