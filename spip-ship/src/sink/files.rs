//! Writes logs: a directory per sensor, a file in it that rotates. What `spip-view` follows where there is no database.
//!
//! Before a batch is written, the length of each of its files is stored with the batch. After a crash the same batch comes
//! again: what of it stands behind that length already is compared byte by byte and not written again, so that a file
//! neither repeats a line nor is ever cut back under the eyes of its readers. Without a state the first line of the batch is
//! looked for in the current file instead. Files are forced to the disk before the batch counts as delivered.

mod directory;

use std::collections::BTreeMap;
use std::io;

use serde::{Deserialize, Serialize};

use self::directory::Directory;
use super::{Delivery, Failure, Sink};
use crate::batch::{Batch, Place, Reject};
use crate::config::Files as Config;
use crate::nats::token_of;
use crate::state::State;

/// The longest name of a directory: 255 bytes for a file system, with room for endings.
pub(crate) const MAX_TOKEN_BYTES: usize = 200;

/// The sink.
pub struct Files {
    config: Config,
    own: Own,
    sensors: Option<usize>,
}

/// Lines to append, by directory.
type ByDirectory = BTreeMap<String, Vec<u8>>;

/// State stored with a batch that is being written.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Own {
    /// The batch: lines before and behind it.
    batch: (u64, u64),
    /// Inode and length of each of its files, by directory.
    before: BTreeMap<String, (u64, u64)>,
    /// The state was lost: what the files have already is looked for, until a batch has nothing of it.
    #[serde(default)]
    is_recovering: bool,
}

impl Files {
    /// Makes the sink.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self { config, own: Own::default(), sensors: None }
    }

    fn failed(&self, error: &io::Error) -> Failure {
        Failure::new(format!(
            "cannot write below {}: {error}; free space or let this user write there",
            self.config.path.display()
        ))
    }

    /// Returns the lines of each sensor's file, and those that get none.
    fn sort(&mut self, batch: &Batch) -> io::Result<(ByDirectory, Vec<Reject>)> {
        let mut files = ByDirectory::new();
        let mut rejects = Vec::new();
        for part in &batch.parts {
            let token = token_of(&part.sensor);
            let reason = if token.len() > MAX_TOKEN_BYTES {
                "the name of its sensor is too long for a directory".to_owned()
            } else if !files.contains_key(&token) && !self.admits(&token)? {
                format!("there are {} sensors already (max_sensors)", self.config.max_sensors)
            } else {
                files.entry(token).or_default().extend_from_slice(&part.bytes);
                continue;
            };
            rejects.extend(crate::line::lines(&part.bytes).map(|line| Reject {
                sensor: part.sensor.clone(),
                reason: reason.clone(),
                line: line.to_vec(),
            }));
        }
        Ok((files, rejects))
    }

    /// Makes the directory of a sensor, if there is room for another.
    fn admits(&mut self, token: &str) -> io::Result<bool> {
        let path = self.config.path.join(token);
        if path.is_dir() {
            return Ok(true);
        }
        let known = match self.sensors {
            Some(known) => known,
            None => std::fs::read_dir(&self.config.path)?.count(),
        };
        self.sensors = Some(known);
        if known >= self.config.max_sensors {
            return Ok(false);
        }
        directory::create(&path)?;
        self.sensors = Some(known + 1);
        Ok(true)
    }

    fn write(&mut self, batch: &Batch) -> io::Result<Vec<Reject>> {
        let (files, rejects) = self.sort(batch)?;
        for (token, bytes) in &files {
            let before = self.own.before.get(token).copied();
            Directory::new(self.config.path.join(token)).append(bytes, before)?;
        }
        Ok(rejects)
    }
}

impl Sink for Files {
    fn open(&mut self, state: &State) -> Result<Option<Place>, Failure> {
        self.own = serde_json::from_value(state.own.clone()).unwrap_or_default();
        directory::create(&self.config.path).map_err(|error| self.failed(&error))?;
        self.own.is_recovering |= state.own.is_null() && state.shipped == 0;
        Ok(None)
    }

    fn prepare(&mut self, batch: &Batch) -> Result<(), Failure> {
        let key = (batch.start.total, batch.end.total);
        if self.own.batch == key {
            return Ok(());
        }
        let result = (|| -> io::Result<Own> {
            let mut own = Own { batch: key, ..Own::default() };
            let mut found = 0;
            for part in &batch.parts {
                let token = token_of(&part.sensor);
                if token.len() > MAX_TOKEN_BYTES || own.before.contains_key(&token) {
                    continue;
                }
                let directory = Directory::new(self.config.path.join(&token));
                let before = if self.own.is_recovering { directory.find(&part.bytes)? } else { None };
                found += usize::from(before.is_some());
                if before.is_none() {
                    directory.rotate(self.config.rotate_bytes, self.config.keep_files)?;
                }
                own.before.insert(token, before.map_or_else(|| directory.end(), Ok)?);
            }
            own.is_recovering = self.own.is_recovering && (found > 0 || batch.parts.is_empty());
            Ok(own)
        })();
        self.own = result.map_err(|error| self.failed(&error))?;
        Ok(())
    }

    fn own_state(&self) -> serde_json::Value {
        serde_json::to_value(&self.own).unwrap_or_default()
    }

    fn deliver(&mut self, batch: &Batch, _state: &State) -> Result<Delivery, Failure> {
        let rejects = self.write(batch).map_err(|error| self.failed(&error))?;
        Ok(Delivery::Stored { duplicates: 0, rejects })
    }
}

#[cfg(test)]
mod tests;
