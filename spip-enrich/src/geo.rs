//! Finds country, city and network of an address in MaxMind DB files of any maker, and in tables of ranges.
//!
//! The makers name the same facts differently: MaxMind and DB-IP nest them (`country.iso_code`, `city.names.en`,
//! `autonomous_system_number`), IPinfo and ip-location-db write them flat (`country_code`, `asn`, `as_name`). So a file
//! is not asked what type it is; each value that an address has is read for every one of these names. Several files
//! complete each other: the first in the order of names that knows a fact decides it.
//!
//! Files are read into memory and checked as a whole before they are used: a damaged one is an error, never a wrong
//! answer later. A file that is mapped instead would end the program when the file is truncated.

mod place;
mod table;

use std::collections::HashSet;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use maxminddb::{Reader, WithinOptions};

pub use place::Place;
use table::Table;

/// The largest file that is read: twice the size of the largest in use, MaxMind's Enterprise.
pub const FILE_BYTES: u64 = 1 << 30;

/// Reasons why a file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It cannot be read.
    #[error("cannot read {}: {cause}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Error of the system.
        cause: std::io::Error,
    },
    /// It is too large to be kept in memory.
    #[error("{} is larger than {FILE_BYTES} bytes; use a smaller edition", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// It is no database, or a damaged one.
    #[error("{} is no intact {kind}: {cause}; fetch it again", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Expected kind of file.
        kind: &'static str,
        /// Mistake in the file.
        cause: String,
    },
}

/// One file in memory.
#[derive(Debug)]
pub struct Database {
    contents: Contents,
    path: PathBuf,
}

/// Contents of a file.
#[derive(Debug)]
enum Contents {
    Tree(Box<Reader<Vec<u8>>>),
    Table(Table),
}

impl Database {
    /// Reads a file and checks every node and value of it.
    ///
    /// # Errors
    /// It cannot be read, or is not intact.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let read = |cause| Error::Read { path: path.to_owned(), cause };
        if std::fs::metadata(path).map_err(read)?.len() > FILE_BYTES {
            return Err(Error::TooLarge { path: path.to_owned() });
        }
        Self::new(path, std::fs::read(path).map_err(read)?)
    }

    /// Checks the bytes of a file: a table where its name ends in `.csv`.
    ///
    /// # Errors
    /// They are not intact.
    pub fn new(path: &Path, bytes: Vec<u8>) -> Result<Self, Error> {
        let damaged = |kind, cause| Error::Damaged { path: path.to_owned(), kind, cause };
        let contents = if path.extension().is_some_and(|extension| extension == "csv") {
            let table = Table::parse(&String::from_utf8_lossy(&bytes));
            Contents::Table(table.map_err(|cause| damaged("table of networks", cause))?)
        } else {
            let tree = |error: maxminddb::MaxMindDbError| damaged("MaxMind DB file", error.to_string());
            let reader = Reader::from_source(bytes).map_err(tree)?;
            check(&reader).map_err(tree)?;
            Contents::Tree(Box::new(reader))
        };
        Ok(Self { contents, path: path.to_owned() })
    }

    /// Returns the file that it was read from.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Adds to `place` what the file knows of `address` and `place` does not.
    fn complete(&self, address: IpAddr, place: &mut Place) {
        match &self.contents {
            // An IPv6 address in a file of IPv4 is an error of the reader, and here only an address that it does not
            // know.
            Contents::Tree(reader) => {
                if let Ok(found) = reader.lookup(address)
                    && let Ok(Some(more)) = found.decode::<Place>()
                {
                    place.complete(more);
                }
            }
            Contents::Table(table) => {
                if let Some(more) = table.find(address) {
                    place.complete(more);
                }
            }
        }
    }
}

/// Walks the whole tree and reads every value once. The reader's own check also asks for a description, which files in
/// use lack.
fn check(reader: &Reader<Vec<u8>>) -> Result<(), maxminddb::MaxMindDbError> {
    let mut seen = HashSet::new();
    for found in reader.networks(WithinOptions::default())? {
        let found = found?;
        if let Some(offset) = found.offset()
            && seen.insert(offset)
        {
            found.decode::<Place>()?;
        }
    }
    Ok(())
}

/// The files of one directory.
#[derive(Clone, Debug, Default)]
pub struct Geo {
    databases: Vec<Arc<Database>>,
}

impl Geo {
    /// Combines files. Earlier ones have precedence.
    #[must_use]
    pub fn new(databases: Vec<Arc<Database>>) -> Self {
        Self { databases }
    }

    /// Returns what the files know of `address`. Special addresses (RFC 6890) are in none.
    #[must_use]
    pub fn find(&self, address: IpAddr) -> Place {
        let address = address.to_canonical();
        let mut place = Place::default();
        if crate::special::special(address).is_none() {
            for database in &self.databases {
                database.complete(address, &mut place);
            }
        }
        place
    }

    /// Returns the files.
    #[must_use]
    pub fn databases(&self) -> &[Arc<Database>] {
        &self.databases
    }
}
