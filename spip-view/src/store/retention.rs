//! Keeps the store within its bounds: days and bytes that the operator allows, and room on the disk for everybody else.
//!
//! Days go as whole files, oldest first, never the newest. With them go facts and sources that no kept day has. When the
//! newest day alone is too large, nothing more is taken until the next one, and that is said.

use super::{Error, Result, Usage, Writer};
use crate::moment::Day;

/// Free bytes of the file system that the store leaves to others.
pub(super) const MIN_FREE_BYTES: u64 = 256 << 20;

/// Rows of the catalog that are removed in one transaction.
const STEP: i64 = 5_000;

impl Writer {
    /// Enforces the bounds. Everything that was taken has to be committed.
    ///
    /// # Errors
    /// The store cannot be read or written.
    pub fn retain(&mut self) -> Result<()> {
        let mut usage = self.store.usage()?;
        let mut dropped = Vec::new();
        while usage.days.len() > 1 && (usage.days.len() > usage.keep.days.max(1) as usize || is_too_large(&usage)) {
            let (day, bytes) = usage.days.remove(0);
            self.drop_day(day)?;
            usage.bytes = usage.bytes.saturating_sub(bytes);
            usage.free_bytes = usage.free_bytes.saturating_add(bytes);
            dropped.push(day);
        }
        let is_full = is_too_large(&usage);
        if is_full != self.is_full {
            self.is_full = is_full;
            if is_full {
                self.event(&format!(
                    "the store has {} of {} bytes and the disk {} free ({MIN_FREE_BYTES} are left to others): records are read and not kept \
                     until there is room; raise keep_bytes or free the disk",
                    usage.bytes, usage.keep.bytes, usage.free_bytes
                ))?;
            } else {
                self.event("there is room again: records are kept from now on")?;
            }
        }
        // A day that is older than all of a full store would be dropped at once.
        self.oldest =
            usage.days.first().map(|(day, _)| *day).filter(|_| usage.days.len() >= usage.keep.days.max(1) as usize);
        if let (Some(first), Some((oldest, _))) = (dropped.first(), usage.days.first()) {
            let oldest = *oldest;
            let last = dropped.last().unwrap_or(first);
            self.event(&format!(
                "dropped {first} to {last} to stay within {} days and {} bytes",
                usage.keep.days, usage.keep.bytes
            ))?;
            self.forget_before(oldest)?;
        }
        Ok(())
    }

    fn drop_day(&mut self, day: Day) -> Result<()> {
        self.days.remove(&day);
        let path = self.store.day(day);
        for end in ["", "-wal", "-shm"] {
            let mut name = path.as_os_str().to_owned();
            name.push(end);
            match std::fs::remove_file(&name) {
                Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                    return Err(Error::Io { path: name.into(), source });
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Removes what no day from `oldest` on has, some at a time, so that readers and the log do not wait.
    fn forget_before(&mut self, oldest: Day) -> Result<()> {
        let before = oldest.start().0;
        for sql in [
            "DELETE FROM facts WHERE (kind, id) IN (SELECT kind, id FROM facts WHERE last_us < ?1 LIMIT ?2)",
            "DELETE FROM sources WHERE source IN (SELECT source FROM sources WHERE last_us < ?1 LIMIT ?2)",
            "DELETE FROM runs WHERE (sensor, run, ordinal) IN (SELECT sensor, run, ordinal FROM runs WHERE last_us < ?1 LIMIT ?2)",
        ] {
            loop {
                let removed = self.catalog.execute(sql, (before, STEP)).map_err(|source| self.failed(source))?;
                self.catalog.execute_batch("COMMIT; BEGIN IMMEDIATE").map_err(|source| self.failed(source))?;
                if i64::try_from(removed).is_ok_and(|removed| removed < STEP) {
                    break;
                }
            }
        }
        self.facts.reset();
        self.runs.reset();
        Ok(())
    }
}

fn is_too_large(usage: &Usage) -> bool {
    usage.bytes > usage.keep.bytes || usage.free_bytes < MIN_FREE_BYTES
}
