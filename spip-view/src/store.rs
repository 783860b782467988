//! The store: a catalog and a file a day, in one directory.
//!
//! - One writer, the ingest, and any number of readers, each for one question, with a deadline. WAL keeps readers from
//!   waiting for the writer and the writer for readers.
//! - Rows of a day and how many lines of each log they come from are one transaction of the day's file; facts and the
//!   position in the log are one transaction of the catalog, committed after all days. A crash between the two leaves
//!   days that are ahead of the catalog: the lines are read again, and a day passes over what it has taken already.
//! - Retention removes files, never rows.
//! - A file that is damaged, or of another version, is moved aside, and the catalog says so; the logs can build it
//!   anew.

mod dayfile;
mod facts;
mod insert;
mod journal;
pub mod key;
mod profiles;
mod reader;
mod retag;
mod retention;
mod rollup;
pub(crate) mod rows;
mod rules;
mod runs;
pub mod schema;
mod sources;
mod writer;

use std::path::{Path, PathBuf};

use rusqlite::{Connection, OptionalExtension as _};

pub use facts::cut;
pub use journal::LogState;
pub use reader::{Deadline, Reader};
pub use retag::{Meanings, Retagged};
pub(crate) use rollup::{Cells, Key, find, pack, sum_up};
pub(crate) use rules::rule;
pub use writer::{Taken, Writer};

use crate::moment::Day;
use key::Salt;

/// Name of the catalog in the state directory.
const CATALOG: &str = "catalog.sqlite";

/// Reasons why the store does not answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// SQLite refuses something.
    #[error("store {path}: {source}")]
    Sqlite {
        /// The file.
        path: PathBuf,
        /// Error of SQLite.
        source: rusqlite::Error,
    },
    /// A file or directory cannot be used.
    #[error("store {path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Error of the system.
        source: std::io::Error,
    },
    /// The store is of another version of this program.
    #[error(
        "store {path} has version {found}, this program writes version {}; start spip-view once to build it anew",
        schema::VERSION
    )]
    Version {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: i32,
    },
    /// The question took too long, or the client has gone.
    #[error("the answer took too long: choose a shorter range or a narrower query")]
    Deadline,
    /// Another process writes to the store.
    #[error(
        "another spip-view writes to this store: stop it first (systemctl stop spip-view), and start it again afterwards"
    )]
    Busy,
    /// A question has panicked.
    #[error("the question has failed: please report what was asked")]
    Panicked,
    /// The store has no such value.
    #[error("{0} is not in the store")]
    NotFound(String),
}

/// Result of everything that asks the store.
pub type Result<T> = std::result::Result<T, Error>;

/// A store in a directory.
#[derive(Clone, Debug)]
pub struct Store {
    directory: PathBuf,
    salt: Salt,
    keep: Keep,
}

/// Bounds of the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keep {
    /// Days with records that it keeps.
    pub days: u32,
    /// Bytes of all its files.
    pub bytes: u64,
}

impl Default for Keep {
    /// A month, and 10 GB: about 60 million sessions with their records.
    fn default() -> Self {
        Self { days: 31, bytes: 10_000_000_000 }
    }
}

/// Size of the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Usage {
    /// Bytes of all its files.
    pub bytes: u64,
    /// Bytes of the files of each day, ascending.
    pub days: Vec<(Day, u64)>,
    /// Free bytes of the file system.
    pub free_bytes: u64,
    /// Bounds of the store.
    pub keep: Keep,
}

impl Store {
    /// Opens the store in `directory`, or creates it there.
    ///
    /// # Errors
    /// The directory cannot be used, or the catalog is damaged or of another version.
    pub fn open(directory: &Path, keep: Keep) -> Result<Self> {
        let days = directory.join("days");
        std::fs::create_dir_all(&days).map_err(|source| Error::Io { path: days, source })?;
        let path = directory.join(CATALOG);
        let failed = |source| Error::Sqlite { path: path.clone(), source };
        let connection = Connection::open(&path).map_err(failed)?;
        let version = prepare(&connection, schema::CATALOG).map_err(failed)?;
        if version != schema::VERSION {
            return Err(Error::Version { path, found: version });
        }
        let salt = salt(&connection).map_err(failed)?;
        Ok(Self { directory: directory.to_owned(), salt, keep })
    }

    /// Opens the store; one that is damaged or of another version is moved aside and begun anew.
    ///
    /// # Errors
    /// The directory cannot be used.
    pub fn open_or_renew(directory: &Path, keep: Keep) -> Result<Self> {
        let why = match Self::open(directory, keep) {
            Ok(store) => return Ok(store),
            Err(error @ Error::Version { .. }) => error,
            Err(Error::Sqlite { path, source }) if is_damaged(&source) => Error::Sqlite { path, source },
            Err(error) => return Err(error),
        };
        // Days name facts by the catalog's numbers: one is of no use without the other.
        let catalog = move_aside(&directory.join(CATALOG))?;
        let days = directory.join("days");
        let aside = directory.join("days.damaged");
        let _ = std::fs::remove_dir_all(&aside);
        std::fs::rename(&days, &aside).map_err(|source| Error::Io { path: days, source })?;
        let store = Self::open(directory, keep)?;
        let text = format!(
            "the store could not be used ({why}); it is now {} and {}, and is built again from the logs",
            catalog.display(),
            aside.display()
        );
        Writer::open(&store, true)?.note(&text)?;
        Ok(store)
    }

    /// Reports whether there is a store in a directory.
    #[must_use]
    pub fn exists(directory: &Path) -> bool {
        directory.join(CATALOG).is_file()
    }

    /// Returns the directory.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Returns the salt of its hashes.
    #[must_use]
    pub fn salt(&self) -> Salt {
        self.salt
    }

    /// Opens a view of what is committed now.
    ///
    /// # Errors
    /// The catalog cannot be opened.
    pub fn reader(&self, deadline: Deadline) -> Result<Reader> {
        Reader::open(self, deadline)
    }

    fn catalog(&self) -> PathBuf {
        self.directory.join(CATALOG)
    }

    fn day(&self, day: Day) -> PathBuf {
        self.directory.join("days").join(format!("{day}.sqlite"))
    }

    /// Returns the days that have a file, ascending.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn days(&self) -> Result<Vec<Day>> {
        let path = self.directory.join("days");
        let failed = |source| Error::Io { path: path.clone(), source };
        let mut days = Vec::new();
        for entry in std::fs::read_dir(&path).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name();
            days.extend(name.to_str().and_then(|name| name.strip_suffix(".sqlite")).and_then(Day::parse));
        }
        days.sort_unstable();
        Ok(days)
    }

    /// Measures the store.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn usage(&self) -> Result<Usage> {
        let size = |path: &Path| -> u64 {
            ["", "-wal", "-shm"]
                .iter()
                .filter_map(|end| {
                    let mut name = path.as_os_str().to_owned();
                    name.push(end);
                    std::fs::metadata(name).ok()
                })
                .map(|metadata| metadata.len())
                .sum()
        };
        let days: Vec<(Day, u64)> = self.days()?.into_iter().map(|day| (day, size(&self.day(day)))).collect();
        let bytes = size(&self.catalog()) + days.iter().map(|(_, bytes)| bytes).sum::<u64>();
        let failed = |source: nix::Error| Error::Io { path: self.directory.clone(), source: source.into() };
        let system = nix::sys::statvfs::statvfs(&self.directory).map_err(failed)?;
        let free_bytes = system.blocks_available() * system.fragment_size();
        Ok(Usage { bytes, days, free_bytes, keep: self.keep })
    }
}

/// Sets up a connection that writes, and makes the tables of a new file. Returns the version of the file.
fn prepare(connection: &Connection, schema: &str) -> rusqlite::Result<i32> {
    // A position in the log must never be on the disk before the rows that it stands for.
    connection.execute_batch(
        "PRAGMA page_size = 8192; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA temp_store = MEMORY;
         PRAGMA busy_timeout = 5000; PRAGMA trusted_schema = OFF; PRAGMA wal_autocheckpoint = 4000;
         PRAGMA journal_size_limit = 33554432;",
    )?;
    let version = |connection: &Connection| connection.query_row("PRAGMA user_version", [], |row| row.get::<_, i32>(0));
    let tables: i64 = connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    if tables == 0 && version(connection)? == 0 {
        connection
            .execute_batch(&format!("BEGIN IMMEDIATE; {schema} PRAGMA user_version = {}; COMMIT;", schema::VERSION))?;
    }
    version(connection)
}

fn salt(connection: &Connection) -> rusqlite::Result<Salt> {
    let read = || connection.query_row("SELECT value FROM meta WHERE key = 'salt'", [], |row| row.get(0)).optional();
    // Read first: a running page holds the lock for writing, and a report beside it only looks.
    let mut salt: Option<[u8; 16]> = read()?;
    if salt.is_none() {
        connection.execute("INSERT OR IGNORE INTO meta (key, value) VALUES ('salt', randomblob(16))", [])?;
        salt = read()?;
    }
    Ok(Salt(salt.unwrap_or_default()))
}

/// Moves a file that cannot be used out of the way, with what belongs to it. Returns its new name.
fn move_aside(path: &Path) -> Result<PathBuf> {
    let end = |end: &str| {
        let mut name = path.as_os_str().to_owned();
        name.push(end);
        PathBuf::from(name)
    };
    let aside = end(".damaged");
    for belongs in ["-wal", "-shm"] {
        match std::fs::remove_file(end(belongs)) {
            Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                return Err(Error::Io { path: end(belongs), source });
            }
            _ => {}
        }
    }
    std::fs::rename(path, &aside).map_err(|source| Error::Io { path: path.to_owned(), source })?;
    Ok(aside)
}

/// Reports whether a file is of no use, rather than the disk or the moment.
fn is_damaged(error: &rusqlite::Error) -> bool {
    use rusqlite::ErrorCode;
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase))
        || matches!(error, rusqlite::Error::InvalidParameterName(_))
}
