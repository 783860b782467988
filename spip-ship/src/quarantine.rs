//! Lines that cannot be delivered: kept in a file with the reason, so that what is missing is known.
//!
//! One JSON object a line: `time`, `sink`, `sensor`, `reason`, `line` (text, invalid bytes as U+FFFD) or, where the
//! bytes are no UTF-8, also `line_hex`. The file is bounded: beyond [`MAX_BYTES`] it is renamed to `….1`, replacing the
//! one before. After a crash a line may stand in it twice.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::Serialize;

use crate::batch::Reject;
use crate::state::hex;

/// Two files of this size are kept.
const MAX_BYTES: u64 = 64 * 1024 * 1024;

/// The quarantine of one sink.
#[derive(Debug)]
pub struct Quarantine {
    path: PathBuf,
    sink: String,
    max_bytes: u64,
}

#[derive(Serialize)]
struct Entry<'a> {
    time: &'a str,
    sink: &'a str,
    sensor: &'a str,
    reason: &'a str,
    line: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    line_hex: Option<String>,
}

impl Quarantine {
    /// Names the quarantine of the sink `name` in `directory`.
    #[must_use]
    pub fn new(directory: &Path, name: &str) -> Self {
        Self { path: directory.join(format!("{name}.quarantine.jsonl")), sink: name.to_owned(), max_bytes: MAX_BYTES }
    }

    /// Returns the file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Appends `rejects` and forces them to the disk.
    ///
    /// # Errors
    /// The disk is full, or the directory cannot be written.
    pub fn keep(&self, rejects: &[Reject]) -> io::Result<()> {
        if rejects.is_empty() {
            return Ok(());
        }
        let time = Timestamp::now().to_string();
        let mut file = self.open()?;
        for reject in rejects {
            let text = String::from_utf8_lossy(&reject.line);
            let is_exact = std::str::from_utf8(&reject.line).is_ok();
            let entry = Entry {
                time: &time,
                sink: &self.sink,
                sensor: &reject.sensor,
                reason: &reject.reason,
                line: &text,
                line_hex: (!is_exact).then(|| hex(&reject.line)),
            };
            // One by one: text that has to be escaped takes several times the memory of its line.
            serde_json::to_writer(&mut file, &entry)?;
            file.write_all(b"\n")?;
            if file.stream_position()? > self.max_bytes {
                finish(file)?;
                file = self.open()?;
            }
        }
        finish(file)
    }

    /// Opens the file to append; one that is full becomes the older one first.
    fn open(&self) -> io::Result<BufWriter<File>> {
        let size = fs::metadata(&self.path).map_or(0, |metadata| metadata.len());
        if size > self.max_bytes {
            let mut older = self.path.clone().into_os_string();
            older.push(".1");
            fs::rename(&self.path, older)?;
        }
        let mut file = OpenOptions::new().append(true).create(true).mode(0o640).open(&self.path)?;
        file.seek(SeekFrom::End(0))?;
        Ok(BufWriter::new(file))
    }
}

/// Forces a file to the disk.
fn finish(file: BufWriter<File>) -> io::Result<()> {
    file.into_inner().map_err(io::IntoInnerError::into_error)?.sync_data()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_any_bytes_can_be_had_back_exactly() {
        let directory = std::env::temp_dir().join(format!("spip-ship-quarantine-{}", std::process::id()));
        fs::create_dir_all(&directory).expect("a temporary directory");
        let quarantine = Quarantine::new(&directory, "http");
        let reject = |line: &[u8]| Reject { sensor: "s".into(), reason: "no".into(), line: line.to_vec() };
        quarantine.keep(&[reject(b"{\"half"), reject(b"\xff\x00")]).expect("a writable directory");
        let text = fs::read_to_string(quarantine.path()).expect("it was written");
        let values: Vec<serde_json::Value> =
            text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        assert_eq!(values[0]["line"], "{\"half");
        assert_eq!(values[1]["line_hex"], "ff00");
        fs::remove_dir_all(&directory).expect("it was made");
    }

    #[test]
    fn two_files_are_kept_however_much_comes_at_once() {
        let directory = std::env::temp_dir().join(format!("spip-ship-quarantine-full-{}", std::process::id()));
        fs::create_dir_all(&directory).expect("a temporary directory");
        let quarantine = Quarantine { max_bytes: 10_000, ..Quarantine::new(&directory, "http") };
        let rejects: Vec<_> = (0..1_000)
            .map(|number| Reject { sensor: "s".into(), reason: "no".into(), line: format!("line {number}").into() })
            .collect();
        quarantine.keep(&rejects).expect("a writable directory");
        quarantine.keep(&rejects[..1]).expect("a writable directory");
        let names = ["http.quarantine.jsonl", "http.quarantine.jsonl.1"].map(|name| directory.join(name));
        let texts = names.map(|path| fs::read_to_string(path).expect("it was written"));
        assert_eq!(fs::read_dir(&directory).expect("there").count(), 2);
        assert!(texts.iter().all(|text| text.len() < 11_000), "{texts:?}");
        let both = texts[1].clone() + &texts[0];
        let newest: Vec<_> = both.lines().rev().take(2).collect();
        assert!(newest[0].contains("\"line 0\"") && newest[1].contains("\"line 999\""), "{newest:?}");
        fs::remove_dir_all(&directory).expect("it was made");
    }
}
