//! Lag of a reader.

use super::super::Error;
use super::super::directory;
use super::{Reader, State};

/// Amount that a reader still has to read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lag {
    /// Bytes on the disk that are not read: of a compressed file, compressed.
    pub bytes: u64,
    /// Closed files that are not read to their end.
    pub closed_files: usize,
    /// Number of compressed files among them.
    pub compressed_files: usize,
}

impl Reader {
    /// Measures how far the reader is behind. Lists the directory: for once in some seconds, not for every batch.
    ///
    /// # Errors
    /// The directory cannot be listed.
    pub fn lag(&mut self) -> Result<Lag, Error> {
        let mut lag = Lag::default();
        if matches!(self.state, State::Over(_)) {
            return Ok(lag);
        }
        let entries = directory::list(&self.log)?;
        let (mark, read) = match &mut self.state {
            State::Reading(reading) => {
                let cursor = &mut reading.cursor;
                let read = if cursor.source.is_plain() { cursor.offset() } else { cursor.source.raw_bytes() };
                if let Some(Ok(metadata)) = cursor.source.metadata() {
                    lag.bytes = metadata.len().saturating_sub(read);
                }
                (Some(cursor.mark()), None)
            }
            State::At { place, .. } => (Some(place.mark.clone()), Some(place.offset)),
            State::Begin | State::Between | State::Over(_) => (None, None),
        };
        let vain = self.vain.take();
        let (own, next) = self.successor(&entries, mark.as_ref());
        self.vain = vain;
        if let Some(entry) = own.and_then(|own| entries.get(own)) {
            if let Some(read) = read {
                lag.bytes = entry.size.saturating_sub(read);
            }
            if lag.bytes > 0 && entry.order != directory::Order::Current {
                lag.closed_files += 1;
                lag.compressed_files += usize::from(entry.is_compressed());
            }
        }
        let unread = next.and_then(|next| entries.get(next..)).unwrap_or_default();
        self.note_lost(&entries, next);
        for entry in unread {
            lag.bytes += entry.size;
            if entry.order != directory::Order::Current {
                lag.closed_files += 1;
                lag.compressed_files += usize::from(entry.is_compressed());
            }
        }
        Ok(lag)
    }
}
