//! Finds country, city and network of an address in MaxMind DB files, whoever made them.
//!
//! The makers name the same facts differently: MaxMind and DB-IP nest them (`country.iso_code`, `city.names.en`,
//! `autonomous_system_number`), IPinfo and ip-location-db write them flat (`country_code`, `asn`, `as_name`). So a file
//! is not asked what type it is; each value that an address has is read for every one of these names. Several files
//! complete each other: the first in the order of names that knows a fact decides it.
//!
//! Files are read into memory and checked as a whole before they are used: a damaged one is an error, never a wrong
//! answer later. A file that is mapped instead would end the program when somebody cuts it short.

mod place;

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use maxminddb::Reader;

pub use place::Place;

/// The largest file that is read: twice the size of the largest in use, MaxMind's Enterprise.
pub const FILE_BYTES: u64 = 1 << 30;

/// Why a file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It cannot be read.
    #[error("cannot read {}: {cause}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        cause: std::io::Error,
    },
    /// It is too large to be kept in memory.
    #[error("{} is larger than {FILE_BYTES} bytes; use a smaller edition", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// It is no database, or a damaged one.
    #[error("{} is no intact MaxMind DB file: {cause}; fetch it again", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        cause: String,
    },
}

/// One file in memory.
#[derive(Debug)]
pub struct Database {
    reader: Reader<Vec<u8>>,
    path: PathBuf,
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

    /// Checks the bytes of a file.
    ///
    /// # Errors
    /// They are not intact.
    pub fn new(path: &Path, bytes: Vec<u8>) -> Result<Self, Error> {
        let damaged =
            |cause: maxminddb::MaxMindDbError| Error::Damaged { path: path.to_owned(), cause: cause.to_string() };
        let reader = Reader::from_source(bytes).map_err(damaged)?;
        reader.verify().map_err(damaged)?;
        Ok(Self { reader, path: path.to_owned() })
    }

    /// Returns the file that it was read from.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns what the maker calls the type of the file, and when it was made (Unix seconds).
    #[must_use]
    pub fn edition(&self) -> (&str, u64) {
        let metadata = self.reader.metadata();
        (&metadata.database_type, metadata.build_epoch)
    }

    /// Adds to `place` what the file knows of `address` and `place` does not.
    fn complete(&self, address: IpAddr, place: &mut Place) {
        // An IPv6 address in a file of IPv4 is an error of the reader, and here only an address that it does not know.
        if let Ok(found) = self.reader.lookup(address)
            && let Ok(Some(more)) = found.decode::<Place>()
        {
            place.complete(more);
        }
    }
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
