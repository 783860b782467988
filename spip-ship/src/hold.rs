//! The markers by which the agent keeps closed files that are not shipped yet.
//!
//! Beside the log lies a directory `<log>.hold` (the package makes it). Each sink keeps a marker in it, named as the sink:
//! `spip_record::log::Hold` says what it means. The agent removes no file that a marker still needs, as long as its bounds
//! of size and free room allow. A sink that is configured no more must not hold anything: which directory of states a marker
//! belongs to stands in its second line, and the shipper of that directory removes it at its start.

use std::fs;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use spip_record::log::{Hold as Marker, MAX_MARKER_BYTES, Position, hold_directory};

use crate::batch::{At, Place};
use crate::state::write_durably;

/// Bytes of a marker that are read: a line, and the path of a directory.
const MAX_BYTES: u64 = MAX_MARKER_BYTES as u64 + 4096 + 16;

/// Start of the second line.
const OWNER: &str = "state_dir ";

/// The marker of one sink.
#[derive(Debug)]
pub struct Hold {
    path: PathBuf,
    owner: String,
    written: Option<Marker>,
}

impl Hold {
    /// Makes the marker of `sink`, whose state is in `state_dir`, where the directory for markers is there.
    #[must_use]
    pub fn new(log: &Path, sink: &str, state_dir: &Path) -> Option<Self> {
        let directory = hold_directory(log);
        directory.is_dir().then(|| Self { path: directory.join(sink), owner: owner(state_dir), written: None })
    }

    /// Says how far `place` is, when that is farther than before.
    ///
    /// # Errors
    /// The directory cannot be written.
    pub fn update(&mut self, place: &Place) -> io::Result<()> {
        let hold = match &place.at {
            At::Log { position, .. } => Marker::at(position),
            At::Beginning => Marker::at(&Position::default()),
            At::Stream { .. } => return Ok(()),
        };
        if self.written.as_ref() != Some(&hold) {
            write_durably(&self.path, format!("{hold}{}", self.owner).as_bytes(), 0o644)?;
            self.written = Some(hold);
        }
        Ok(())
    }
}

fn owner(state_dir: &Path) -> String {
    format!("{OWNER}{}\n", state_dir.display())
}

/// Removes the markers of sinks of `state_dir` that are not among `sinks` any more.
///
/// # Errors
/// The directory cannot be read or written.
pub fn remove_others(log: &Path, state_dir: &Path, sinks: &[&str]) -> io::Result<()> {
    let entries = match fs::read_dir(hold_directory(log)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    let owner = owner(state_dir);
    for entry in entries {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if sinks.contains(&name) || !fs::symlink_metadata(&path)?.is_file() {
            continue;
        }
        let mut text = Vec::new();
        fs::File::open(&path)?.take(MAX_BYTES).read_to_end(&mut text)?;
        if String::from_utf8_lossy(&text).ends_with(&format!("\n{owner}")) {
            log::info!("removed {}: its sink is not configured any more", path.display());
            fs::remove_file(&path)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sink_that_is_configured_no_more_holds_nothing() {
        let place = std::env::temp_dir().join(format!("spip-ship-hold-{}", std::process::id()));
        let (log, ours, others) = (place.join("spip.jsonl"), Path::new("/var/lib/one"), Path::new("/var/lib/other"));
        assert!(Hold::new(&log, "a", ours).is_none(), "no directory, no marker");
        remove_others(&log, ours, &[]).expect("nothing there");
        fs::create_dir_all(hold_directory(&log)).expect("a directory");
        for (sink, state_dir) in [("a", ours), ("b", ours), ("c", others)] {
            let mut hold = Hold::new(&log, sink, state_dir).expect("a directory");
            hold.update(&Place::default()).expect("writable");
        }
        let is_there = |sink: &str| hold_directory(&log).join(sink).exists();
        remove_others(&log, ours, &["a"]).expect("writable");
        assert_eq!(["a", "b", "c"].map(is_there), [true, false, true]);
        let text = fs::read(hold_directory(&log).join("a")).expect("there");
        assert_eq!(Marker::parse(&text), Marker::at(&Position::default()));
        fs::remove_dir_all(&place).expect("ours");
    }

    #[test]
    fn a_marker_follows_the_place() {
        let directory = std::env::temp_dir().join(format!("spip-ship-hold-follows-{}", std::process::id()));
        let log = directory.join("spip.jsonl");
        fs::create_dir_all(hold_directory(&log)).expect("a directory");
        let mut hold = Hold::new(&log, "a", Path::new("/var/lib/one")).expect("a directory");
        let read = r#"{"through":"20260101T000001.000001Z"}"#;
        let read: Box<Position> = serde_json::from_str(read).expect("as it stands in a state");
        let marker = || {
            let text = fs::read_to_string(hold_directory(&log).join("a")).expect("there");
            let (marker, owner) = text.split_once('\n').expect("two lines");
            assert_eq!(owner, "state_dir /var/lib/one\n");
            Marker::parse(marker.as_bytes())
        };
        hold.update(&Place::default()).expect("writable");
        assert_eq!(marker(), Marker::at(&Position::default()));
        let place = Place { total: 2, at: At::Log { position: read.clone(), skip: 0 } };
        hold.update(&place).expect("writable");
        assert_eq!(marker(), Marker::at(&read));
        assert_ne!(marker(), Marker::at(&Position::default()));
        // A place that says the same is not written again.
        fs::remove_file(hold_directory(&log).join("a")).expect("there");
        hold.update(&Place { total: 3, ..place }).expect("writable");
        assert!(!hold_directory(&log).join("a").exists());
        fs::remove_dir_all(&directory).expect("ours");
    }
}
