//! The marker by which the agent keeps closed files that are not shipped yet.
//!
//! Beside the log lies a directory `<log>.hold` that the agent's operator makes for the shipper to write to (the unit and
//! `join` do). The shipper keeps one file per sink in it, named as the sink, with the name of the oldest file of the log that
//! it still needs. An agent that finds the directory removes no closed file that is not older than every one named there, as
//! long as `log_keep_bytes` allows.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::batch::{At, Place};
use crate::state::write_durably;

/// Returns the directory of markers of a log.
#[must_use]
pub fn directory(log: &Path) -> PathBuf {
    let mut path = log.as_os_str().to_owned();
    path.push(".hold");
    PathBuf::from(path)
}

/// The marker of one sink.
#[derive(Debug)]
pub struct Hold {
    path: PathBuf,
    written: Option<String>,
}

impl Hold {
    /// Makes the marker of `sink`, where the directory for it is there.
    #[must_use]
    pub fn new(log: &Path, sink: &str) -> Option<Self> {
        let directory = directory(log);
        directory.is_dir().then(|| Self { path: directory.join(sink), written: None })
    }

    /// Names the file that `place` is in, when it is another one than before.
    ///
    /// # Errors
    /// The directory cannot be written.
    pub fn update(&mut self, place: &Place) -> io::Result<()> {
        let At::Log { position, .. } = &place.at else { return Ok(()) };
        let Some((file, _)) = position.file() else { return Ok(()) };
        if self.written.as_deref() == Some(file) {
            return Ok(());
        }
        write_durably(&self.path, format!("{file}\n").as_bytes(), 0o644)?;
        self.written = Some(file.to_owned());
        Ok(())
    }

    /// Removes the marker: the sink is not configured any more.
    ///
    /// # Errors
    /// The directory cannot be written.
    pub fn remove(self) -> io::Result<()> {
        fs::remove_file(&self.path)
    }
}
