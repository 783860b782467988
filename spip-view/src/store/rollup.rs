//! Roll-ups of a day: how often each value came, by hour, sensor and class of the source.
//!
//! What a batch counts is collected in memory and written with its rows as one *run* of packed [`cells`] a kind and place.
//! A run is merged with those before it that are not much longer, so that a place has a handful of runs however many
//! batches made it, and each cell is written again only as often as the logarithm of their number. Readers add up the
//! runs.

mod cells;

use std::collections::HashMap;

use rusqlite::{Connection, OptionalExtension as _};

pub(crate) use cells::{Cells, Key, find, pack, sum_up};

use crate::meaning::Class;
use crate::row::Kind;

/// Bytes of a run that is always merged with what is new: half a page of the file.
const SHORT_RUN: usize = 1_024;

/// Cells of one kind and place that are collected before those of one key are added up.
const MAX_COLLECTED: usize = 65_536;

/// One more than the greatest number of a kind.
const KINDS: usize = 48;

/// Place of a record in the roll-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Place {
    /// Hour of the day.
    pub(super) hour: u8,
    pub(super) sensor: i64,
    /// Class of the source.
    pub(super) class: Class,
}

/// Cells of one kind and place since the last commit.
#[derive(Debug, Default)]
struct Collected {
    numbers: Vec<(i64, u64)>,
    others: Vec<(Key, u64)>,
    /// Length at which those of one key are added up, so that memory is bounded by the number of different keys.
    bound: usize,
}

impl Collected {
    fn add(&mut self, key: Key, n: u64) {
        match key {
            Key::Number(number) => self.numbers.push((number, n)),
            key => self.others.push((key, n)),
        }
        if self.numbers.len() + self.others.len() >= self.bound.max(MAX_COLLECTED) {
            sum_up(&mut self.numbers);
            sum_up(&mut self.others);
            self.bound = 2 * (self.numbers.len() + self.others.len());
        }
    }

    /// Returns the cells, sorted, each key once.
    fn take(&mut self) -> Vec<(Key, u64)> {
        sum_up(&mut self.numbers);
        sum_up(&mut self.others);
        self.bound = 0;
        let numbers = self.numbers.drain(..).map(|(number, n)| (Key::Number(number), n));
        numbers.chain(self.others.drain(..)).collect()
    }
}

/// What is counted since the last commit of a day.
#[derive(Default)]
pub(super) struct Rollup {
    /// By kind.
    places: HashMap<Place, Vec<Collected>, foldhash::fast::RandomState>,
}

impl Rollup {
    /// Returns the counters of a place.
    pub(super) fn at(&mut self, place: Place) -> Counters<'_> {
        Counters(self.places.entry(place).or_insert_with(|| (0..KINDS).map(|_| Collected::default()).collect()))
    }

    /// Writes what was counted, and begins at nothing.
    pub(super) fn write(&mut self, connection: &Connection) -> rusqlite::Result<()> {
        let mut places: Vec<(Place, Vec<Collected>)> = self.places.drain().collect();
        places.sort_unstable_by_key(|(place, _)| *place);
        for kind in (0_u8..).take(KINDS) {
            for (place, collected) in &mut places {
                let cells = collected.get_mut(usize::from(kind)).map(Collected::take).unwrap_or_default();
                if !cells.is_empty() {
                    write_run(connection, kind, *place, cells)?;
                }
            }
        }
        Ok(())
    }
}

/// Counters of one place.
pub(super) struct Counters<'a>(&'a mut Vec<Collected>);

impl Counters<'_> {
    pub(super) fn add(&mut self, kind: Kind, key: Key, n: u64) {
        if let Some(collected) = self.0.get_mut(kind as usize) {
            collected.add(key, n);
        }
    }
}

/// Writes cells as the newest run, merged with those before it that are not much longer.
fn write_run(connection: &Connection, kind: u8, place: Place, mut cells: Vec<(Key, u64)>) -> rusqlite::Result<()> {
    let own = (kind, place.hour, place.sensor, place.class as u8);
    let of = "kind = ? AND hour = ? AND sensor = ? AND class = ?";
    let runs: Vec<(i64, i64)> = connection
        .prepare_cached(&format!("SELECT run, length(cells) FROM hourly WHERE {of} ORDER BY run DESC"))?
        .query_map(own, |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<rusqlite::Result<_>>()?;
    let mut number = runs.first().map_or(0, |(run, _)| run + 1);
    let mut packed = pack(cells.iter().copied());
    let mut merged = Vec::new();
    for (run, bytes) in runs {
        if usize::try_from(bytes).is_ok_and(|bytes| bytes > (2 * packed.len()).max(SHORT_RUN)) {
            break;
        }
        let before: Option<Vec<u8>> = connection
            .prepare_cached(&format!("SELECT cells FROM hourly WHERE {of} AND run = ?"))?
            .query_row((own.0, own.1, own.2, own.3, run), |row| row.get(0))
            .optional()?;
        cells.extend(Cells::new(&before.unwrap_or_default()));
        sum_up(&mut cells);
        packed = pack(cells.iter().copied());
        merged.push(number);
        number = run;
    }
    connection
        .prepare_cached(
            "INSERT OR REPLACE INTO hourly (kind, hour, sensor, class, run, cells) VALUES (?, ?, ?, ?, ?, ?)",
        )?
        .execute((own.0, own.1, own.2, own.3, number, packed))?;
    // The first of them was never written.
    for run in merged.into_iter().skip(1) {
        connection
            .prepare_cached(&format!("DELETE FROM hourly WHERE {of} AND run = ?"))?
            .execute((own.0, own.1, own.2, own.3, run))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn runs_add_up_to_what_was_counted_and_stay_few(
            batches in prop::collection::vec(prop::collection::vec((0_i64..5_000, 1_u64..3), 0..400), 1..60),
        ) {
            let connection = Connection::open_in_memory().unwrap();
            connection.execute_batch(crate::store::schema::DAY).unwrap();
            let place = Place { hour: 3, sensor: 1, class: Class::Unknown };
            let mut rollup = Rollup::default();
            let mut wanted: BTreeMap<Key, u64> = BTreeMap::new();
            for batch in &batches {
                for (number, n) in batch {
                    rollup.at(place).add(Kind::Source, Key::Number(*number), *n);
                    *wanted.entry(Key::Number(*number)).or_default() += n;
                }
                rollup.write(&connection).unwrap();
            }
            let mut found: BTreeMap<Key, u64> = BTreeMap::new();
            let mut statement = connection.prepare("SELECT cells FROM hourly").unwrap();
            let runs: Vec<Vec<u8>> = statement.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
            for run in &runs {
                for (key, n) in Cells::new(run) {
                    *found.entry(key).or_default() += n;
                }
            }
            prop_assert_eq!(found, wanted);
            prop_assert!(runs.len() <= 8, "{} runs", runs.len());
        }
    }
}
