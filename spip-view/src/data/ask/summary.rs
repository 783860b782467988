//! Several answers about the sessions that a query means, from one pass over them.

use rusqlite::Row;
use rusqlite::types::ValueRef;

use super::{Ask, Scope, unsigned};
use crate::data::columns::Columns;
use crate::data::tally::{Key, Tally};
use crate::data::{Series, TopList, Totals};
use crate::moment::Day;
use crate::row::Kind;
use crate::store::{Result, key, rows};

impl Ask<'_> {
    /// Connections over time, totals and the most frequent values of several kinds. With a query, sessions are looked at once
    /// for all of them.
    pub(crate) fn summary(&self, kinds: &[Kind], limit: usize) -> Result<(Series, Totals, Vec<TopList>)> {
        if !self.has_query {
            return Ok((self.series(Kind::Connections, None)?, self.totals()?, self.tops(kinds, limit)?));
        }
        let (mut columns, mut totals) = (Columns::new(self.from, self.to), Totals::default());
        let tallies = self.tallies_of(kinds, |day, row, n| {
            columns.add(key::accepted(day, row.get(1)?).0, n);
            totals.sessions += 1;
            totals.connections += n;
            if row.get::<_, i64>(2)? & key::REJECTED != 0 {
                totals.rejected += n;
            }
            totals.bytes_in += unsigned(row, 3)?;
            Ok(())
        })?;
        let lists = kinds.iter().zip(tallies).map(|(kind, tally)| self.list(*kind, &tally, limit));
        Ok((columns.series(), totals, lists.collect::<Result<_>>()?))
    }

    /// Numbers of several kinds, of the sessions that the query means: those that are columns of a session in one pass.
    /// `also` gets each session of it and its number of connections; key, flags and bytes are in the columns 1 to 3.
    pub(super) fn tallies_of(
        &self,
        kinds: &[Kind],
        mut also: impl FnMut(Day, &Row<'_>, u64) -> rusqlite::Result<()>,
    ) -> Result<Vec<Tally>> {
        let mut tallies: Vec<Tally> = kinds.iter().map(|_| Tally::default()).collect();
        let (mut columns, mut counted) = ("s.n, s.id, s.flags, s.bytes_in".to_owned(), Vec::new());
        for (kind, tally) in kinds.iter().zip(&mut tallies) {
            let rows::Rows { key, n, tables, narrowing } = rows::of(*kind);
            if tables == "sessions s" && n == "s.n" {
                columns.push_str(&format!(", CASE WHEN {narrowing} THEN {key} END"));
                counted.push(tally);
            } else {
                *tally = self.tally(*kind)?;
            }
        }
        let is_exact = self.each(&Scope::all(), &columns, "", |day, row| {
            let n = unsigned(row, 0)?;
            also(day, row, n)?;
            for (index, tally) in (4..).zip(&mut counted) {
                let value = row.get_ref(index)?;
                if value != ValueRef::Null {
                    tally.add(Key::read(value), n);
                }
            }
            Ok(true)
        })?;
        for tally in counted {
            tally.is_exact &= is_exact;
        }
        Ok(tallies)
    }
}
