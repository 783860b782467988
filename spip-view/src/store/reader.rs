//! A view of the store for one question: one connection, the catalog, to which one day after the other is attached.
//!
//! Attaching costs a fraction of a millisecond and keeps memory and descriptors the same however many days there are.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rusqlite::{Connection, ErrorCode, OpenFlags};

use super::key::Salt;
use super::{Error, Result, Store, schema};
use crate::moment::{Day, Moment};

/// Steps of SQLite's machine between two looks at the clock: about a millisecond.
const STEPS: i32 = 20_000;

/// Deadline of a question, and the flag that the client has gone.
#[derive(Clone, Debug)]
pub struct Deadline {
    at: Instant,
    is_cancelled: Arc<AtomicBool>,
}

impl Deadline {
    /// Creates the deadline of a question that is asked now.
    #[must_use]
    pub fn within(time: Duration) -> Self {
        Self { at: Instant::now() + time, is_cancelled: Arc::default() }
    }

    /// Ends the question as soon as possible.
    pub fn cancel(&self) {
        self.is_cancelled.store(true, Ordering::Relaxed);
    }

    /// Reports whether there is no more time.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.is_cancelled.load(Ordering::Relaxed) || Instant::now() >= self.at
    }
}

/// A view of the store.
pub struct Reader {
    store: Store,
    connection: Connection,
    deadline: Deadline,
    days: Vec<Day>,
    attached: RefCell<Option<Day>>,
}

impl Reader {
    pub(super) fn open(store: &Store, deadline: Deadline) -> Result<Self> {
        let path = store.catalog();
        let failed = |source| Error::Sqlite { path: path.clone(), source };
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let mut connection = Connection::open_with_flags(&path, flags).map_err(failed)?;
        connection
            .execute_batch(&format!(
                "PRAGMA temp_store = MEMORY; {} PRAGMA busy_timeout = 5000; PRAGMA query_only = ON; PRAGMA trusted_schema = OFF;
                 PRAGMA cache_size = -4096;",
                schema::sessions("day", "main")
            ))
            .map_err(failed)?;
        connection.set_prepared_statement_cache_capacity(64);
        let until = deadline.clone();
        connection.progress_handler(STEPS, Some(move || until.is_over())).map_err(failed)?;
        let days = store.days()?;
        Ok(Self { store: store.clone(), connection, deadline, days, attached: RefCell::new(None) })
    }

    /// Returns the catalog. Tables of a day are there within [`Reader::in_day`] only.
    #[must_use]
    pub fn catalog(&self) -> &Connection {
        &self.connection
    }

    /// Returns the store.
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Returns the salt of the store's hashes.
    #[must_use]
    pub fn salt(&self) -> Salt {
        self.store.salt
    }

    /// Returns the deadline of the question.
    #[must_use]
    pub fn deadline(&self) -> &Deadline {
        &self.deadline
    }

    /// Returns the days that have records in `from..to`, ascending.
    #[must_use]
    pub fn days(&self, from: Moment, to: Moment) -> Vec<Day> {
        self.days.iter().copied().filter(|day| day.end() > from && day.start() < to).collect()
    }

    /// Returns `from..to` within what is stored, so that "all" has bounds; an empty range when nothing is.
    #[must_use]
    pub fn clamp(&self, from: Moment, to: Moment) -> (Moment, Moment) {
        let (Some(first), Some(last)) = (self.days.first(), self.days.last()) else {
            return if from.0 == i64::MIN || to.0 == i64::MAX { (Moment(0), Moment(0)) } else { (from, to) };
        };
        let from = if from.0 == i64::MIN { first.start() } else { from };
        let to = if to.0 == i64::MAX { last.end() } else { to };
        (from, to.max(from))
    }

    /// Attaches a day and calls `ask` with the connection: sessions, tries, scans, hourly and blocks are then
    /// those of the day. Returns nothing when retention has just removed the day. Calls within each other are for one day.
    ///
    /// # Errors
    /// What `ask` says, or the day cannot be opened.
    pub fn in_day<T>(&self, day: Day, ask: impl FnOnce(&Connection) -> Result<T>) -> Result<Option<T>> {
        if *self.attached.borrow() == Some(day) {
            return ask(&self.connection).map(Some);
        }
        if self.deadline.is_over() {
            return Err(Error::Deadline);
        }
        let path = self.store.day(day);
        if !path.exists() {
            return Ok(None);
        }
        let attached = self.connection.execute("ATTACH ? AS day", [path.to_string_lossy()]);
        attached.map_err(|source| self.failed(source))?;
        *self.attached.borrow_mut() = Some(day);
        let answer = ask(&self.connection);
        self.connection.flush_prepared_statement_cache();
        *self.attached.borrow_mut() = None;
        let detached = self.connection.execute("DETACH day", []);
        let answer = answer?;
        detached.map_err(|source| self.failed(source))?;
        Ok(Some(answer))
    }

    /// Turns an error of SQLite into one of the store.
    #[must_use]
    pub fn failed(&self, source: rusqlite::Error) -> Error {
        match source.sqlite_error_code() {
            Some(ErrorCode::OperationInterrupted) => Error::Deadline,
            _ => Error::Sqlite { path: self.store.directory.clone(), source },
        }
    }
}
