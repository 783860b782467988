//! Missing and repeated records: the numbers of a sensor's records, run by run.
//!
//! `seq` begins at 1 with each run of the agent and counts sessions and scans. Where records name their run, the
//! numbers of a run are kept as what is missing below the greatest: a number that is missing may still come (from
//! another file), one that is there already is a duplicate and is left out. Older agents do not name the run: there a
//! number that is not above the last one begins another run, and nothing is a duplicate.
//!
//! The first run of a sensor begins with the first number that came: what was removed before this program saw it is not
//! missing. Every later one begins with 1.

use std::collections::HashMap;

use rusqlite::{Connection, OptionalExtension as _};

use crate::moment::Moment;

/// Ranges of missing numbers that are kept a run; what is more stays missing, and its duplicates are not recognised.
const MAX_RANGES: usize = 1_024;

/// Runs in memory.
const MAX_RUNS: usize = 1_024;

#[derive(Clone, Debug, PartialEq, Eq)]
struct Run {
    ordinal: i64,
    first_us: i64,
    last_us: i64,
    records: u64,
    first_seq: u64,
    last_seq: u64,
    missing: u64,
    /// Missing numbers, inclusive, ascending.
    ranges: Vec<(u64, u64)>,
    duplicates: u64,
    is_dirty: bool,
}

/// Result of looking a record's number up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Seen {
    /// It is new.
    New,
    /// It was there already.
    Duplicate,
}

#[derive(Debug, Default)]
pub(super) struct Runs {
    /// By sensor and run.
    known: HashMap<(i64, String), Run>,
}

impl Runs {
    /// Takes the number of a record. `ended` is when it was written.
    pub(super) fn take(
        &mut self,
        catalog: &Connection,
        sensor: i64,
        run: Option<&str>,
        seq: Option<u64>,
        ended: Moment,
    ) -> rusqlite::Result<Seen> {
        // A record without a number says nothing of others.
        let Some(seq) = seq else {
            return Ok(Seen::New);
        };
        let name = (sensor, run.unwrap_or_default().to_owned());
        if !self.known.contains_key(&name) {
            let run = match load(catalog, &name)? {
                Some(run) => run,
                None => {
                    let is_first: bool = catalog.query_row(
                        "SELECT NOT EXISTS (SELECT 1 FROM runs WHERE sensor = ?)",
                        [sensor],
                        |row| row.get(0),
                    )?;
                    let is_first = is_first && !self.known.keys().any(|(own, _)| *own == sensor);
                    Run::begun(0, if is_first { seq } else { 1 }, ended)
                }
            };
            self.known.insert(name.clone(), run);
        }
        let Some(known) = self.known.get_mut(&name) else {
            return Ok(Seen::New);
        };
        if run.is_none() && seq <= known.last_seq && known.records > 0 {
            // The agent has started again; the run before is complete.
            save(catalog, &name, known)?;
            *known = Run::begun(known.ordinal + 1, 1, ended);
        }
        Ok(known.take(seq, ended))
    }

    /// Writes what has changed, in the transaction of the position.
    pub(super) fn flush(&mut self, catalog: &Connection) -> rusqlite::Result<()> {
        for (name, run) in self.known.iter_mut().filter(|(_, run)| run.is_dirty) {
            save(catalog, name, run)?;
            run.is_dirty = false;
        }
        if self.known.len() > MAX_RUNS {
            self.known.clear();
        }
        Ok(())
    }

    pub(super) fn reset(&mut self) {
        self.known.clear();
    }
}

impl Run {
    fn begun(ordinal: i64, first_seq: u64, at: Moment) -> Self {
        Self {
            ordinal,
            first_us: at.0,
            last_us: at.0,
            records: 0,
            first_seq,
            last_seq: first_seq.saturating_sub(1),
            missing: 0,
            ranges: Vec::new(),
            duplicates: 0,
            is_dirty: true,
        }
    }

    fn take(&mut self, seq: u64, at: Moment) -> Seen {
        self.is_dirty = true;
        self.first_us = self.first_us.min(at.0);
        self.last_us = self.last_us.max(at.0);
        if seq > self.last_seq {
            if seq > self.last_seq + 1 {
                self.lack(self.last_seq + 1, seq - 1);
            }
            self.last_seq = seq;
        } else if seq < self.first_seq {
            // Older files came later: the run begins earlier than it seemed.
            if seq + 1 < self.first_seq {
                self.lack(seq + 1, self.first_seq - 1);
            }
            self.first_seq = seq;
        } else if !self.fill(seq) {
            self.duplicates += 1;
            return Seen::Duplicate;
        }
        self.records += 1;
        Seen::New
    }

    fn lack(&mut self, first: u64, last: u64) {
        self.missing = self.missing.saturating_add(last - first + 1);
        if self.ranges.len() < MAX_RANGES {
            let at = self.ranges.partition_point(|range| range.0 < first);
            self.ranges.insert(at, (first, last));
        }
    }

    /// Takes a number out of those that are missing; false where it is not among them.
    fn fill(&mut self, seq: u64) -> bool {
        let at = self.ranges.partition_point(|range| range.1 < seq);
        let Some((first, last)) = self.ranges.get(at).copied().filter(|range| range.0 <= seq) else {
            return false;
        };
        let left = (first < seq).then(|| (first, seq - 1));
        let right = (seq < last).then(|| (seq + 1, last));
        self.ranges.splice(at..=at, left.into_iter().chain(right));
        self.missing -= 1;
        true
    }
}

fn load(catalog: &Connection, (sensor, run): &(i64, String)) -> rusqlite::Result<Option<Run>> {
    catalog
        .prepare_cached(
            "SELECT ordinal, first_us, last_us, records, first_seq, last_seq, missing, ranges, duplicates
             FROM runs WHERE sensor = ? AND run = ? ORDER BY ordinal DESC LIMIT 1",
        )?
        .query_row((sensor, run), |row| {
            let number = |index| row.get::<_, i64>(index).map(|number| u64::try_from(number).unwrap_or(0));
            Ok(Run {
                ordinal: row.get(0)?,
                first_us: row.get(1)?,
                last_us: row.get(2)?,
                records: number(3)?,
                first_seq: number(4)?,
                last_seq: number(5)?,
                missing: number(6)?,
                ranges: serde_json::from_str(&row.get::<_, String>(7)?).unwrap_or_default(),
                duplicates: number(8)?,
                is_dirty: false,
            })
        })
        .optional()
}

fn save(catalog: &Connection, (sensor, run): &(i64, String), state: &Run) -> rusqlite::Result<()> {
    let signed = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    let ranges = serde_json::to_string(&state.ranges).unwrap_or_default();
    catalog
        .prepare_cached(
            "INSERT OR REPLACE INTO runs
             (sensor, run, ordinal, first_us, last_us, records, first_seq, last_seq, missing, ranges, duplicates)
             VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        )?
        .execute((
            sensor,
            run,
            state.ordinal,
            state.first_us,
            state.last_us,
            signed(state.records),
            signed(state.first_seq),
            signed(state.last_seq),
            signed(state.missing),
            ranges,
            signed(state.duplicates),
        ))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn catalog() -> Connection {
        let connection = Connection::open_in_memory().unwrap();
        connection.execute_batch(crate::store::schema::CATALOG).unwrap();
        connection
    }

    fn missing(runs: &Runs) -> u64 {
        runs.known.values().map(|run| run.missing).sum()
    }

    proptest! {
        #[test]
        fn in_any_order_each_number_counts_once_and_the_rest_is_missing(
            numbers in proptest::collection::vec(1_u64..60, 1..80),
            restarts in proptest::collection::vec(any::<bool>(), 80),
        ) {
            let catalog = catalog();
            let mut runs = Runs::default();
            let mut seen = BTreeSet::new();
            for (number, restart) in numbers.iter().zip(restarts) {
                let result = runs.take(&catalog, 1, Some("a"), Some(*number), Moment(0)).unwrap();
                prop_assert_eq!(result == Seen::New, seen.insert(*number));
                if restart {
                    runs.flush(&catalog).unwrap();
                    runs = Runs::default();
                }
            }
            let (first, last) = (*seen.first().unwrap(), *seen.last().unwrap());
            runs.flush(&catalog).unwrap();
            let sum: i64 = catalog.query_row("SELECT missing FROM runs", [], |row| row.get(0)).unwrap();
            prop_assert_eq!(sum as u64, last - first + 1 - seen.len() as u64);
        }
    }

    #[test]
    fn a_later_run_begins_with_one() {
        let (catalog, mut runs) = (catalog(), Runs::default());
        for (run, seq) in [("a", 5), ("a", 6), ("b", 3)] {
            assert_eq!(runs.take(&catalog, 1, Some(run), Some(seq), Moment(0)).unwrap(), Seen::New);
        }
        assert_eq!(missing(&runs), 2);
    }

    #[test]
    fn without_a_run_a_number_that_falls_begins_another_one() {
        let (catalog, mut runs) = (catalog(), Runs::default());
        for seq in [7, 8, 10, 1, 2, 4] {
            assert_eq!(runs.take(&catalog, 1, None, Some(seq), Moment(0)).unwrap(), Seen::New);
        }
        runs.flush(&catalog).unwrap();
        let (count, sum): (i64, i64) = catalog
            .query_row("SELECT count(*), sum(missing) FROM runs", [], |row| Ok((row.get(0)?, row.get(1)?)))
            .unwrap();
        assert_eq!((count, sum), (2, 2));
    }

    #[test]
    fn two_sensors_do_not_share_numbers() {
        let (catalog, mut runs) = (catalog(), Runs::default());
        for sensor in [1, 2] {
            assert_eq!(runs.take(&catalog, sensor, Some("a"), Some(1), Moment(0)).unwrap(), Seen::New);
        }
        assert_eq!(runs.take(&catalog, 2, Some("a"), Some(1), Moment(0)).unwrap(), Seen::Duplicate);
    }
}
