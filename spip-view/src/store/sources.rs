//! Numbers of each source, collected in memory and added to the catalog with the position in the log.

use std::collections::HashMap;
use std::net::IpAddr;

use rusqlite::Connection;
use rusqlite::types::Value;

use super::rollup::Key;
use crate::moment::Moment;

#[derive(Debug)]
struct SourceCount {
    first_us: i64,
    last_us: i64,
    n: u64,
    half_open: u64,
}

/// Sources that came since the last flush.
#[derive(Debug, Default)]
pub(super) struct Sources(HashMap<Key, SourceCount, foldhash::fast::RandomState>);

impl Sources {
    pub(super) fn count(&mut self, key: &Value, source: IpAddr, time: Moment, n: u64, half_open: u64) {
        // Stands for unknown sources.
        if source.is_unspecified() {
            return;
        }
        let counted = self.0.entry(Key::read(key.into())).or_insert(SourceCount {
            first_us: time.0,
            last_us: time.0,
            n: 0,
            half_open: 0,
        });
        counted.first_us = counted.first_us.min(time.0);
        counted.last_us = counted.last_us.max(time.0);
        counted.n = counted.n.saturating_add(n);
        counted.half_open = counted.half_open.saturating_add(half_open);
    }

    /// Adds the numbers to the catalog.
    pub(super) fn flush(&mut self, catalog: &Connection) -> rusqlite::Result<()> {
        let mut sources: Vec<(Key, SourceCount)> = self.0.drain().collect();
        sources.sort_unstable_by_key(|(key, _)| *key);
        let mut statement = catalog.prepare_cached(
            "INSERT INTO sources (source, first_us, last_us, n, half_open) VALUES (?, ?, ?, ?, ?)
             ON CONFLICT DO UPDATE SET first_us = min(first_us, excluded.first_us), last_us = max(last_us, excluded.last_us),
             n = n + excluded.n, half_open = half_open + excluded.half_open",
        )?;
        let signed = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        for (key, counted) in sources {
            statement.execute((
                key.value(),
                counted.first_us,
                counted.last_us,
                signed(counted.n),
                signed(counted.half_open),
            ))?;
        }
        Ok(())
    }

    /// Forgets what was counted and not flushed.
    pub(super) fn reset(&mut self) {
        self.0.clear();
    }
}
