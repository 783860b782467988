//! Room for the log: what the rotation may keep against what is free, and whether anything bounds it at all.

use std::fs;
use std::path::Path;

use nix::sys::statvfs::statvfs;

use super::{Finding, Subject, Topic};
use crate::config::{Compress, Log};

/// Free room below which a log without bounds is about to stop.
const LITTLE: u64 = 1 << 30;

pub(super) fn findings(subject: &Subject<'_>) -> Vec<Finding> {
    let topic =
        Topic::new("log.disk", "a full disk loses no connection but its record: the log must fit, and go on fitting");
    let config = match subject.config(&topic) {
        Ok(config) => config,
        Err(finding) => return vec![*finding],
    };
    let Some(file) = &config.log.file else {
        return vec![topic.skipped("records go to standard output: whoever reads them keeps them")];
    };
    let directory = file.parent().unwrap_or(Path::new("/"));
    let room = match statvfs(directory) {
        Ok(room) => room,
        Err(_) if !directory.exists() => {
            let remedy = format!("mkdir -p {}", directory.display());
            return vec![
                topic.failure(format!("{} does not exist: the agent would not start", directory.display()), remedy),
            ];
        }
        Err(error) => return vec![topic.skipped(format!("{}: {error}", directory.display()))],
    };
    #[allow(clippy::unnecessary_cast)] // 32 bits on some architectures
    let free = (room.blocks_available() as u64).saturating_mul(room.fragment_size() as u64);
    vec![judge(topic, &config.log, free, written(file)), inodes(&room)]
}

fn judge(topic: Topic, log: &Log, free: u64, written: u64) -> Finding {
    let (free_text, written_text) = (size(free), size(written));
    let Some(most) = most(log) else {
        let found = format!("nothing bounds the log ({written_text} now, {free_text} free)");
        let remedy = format!(
            "log_rotate_bytes = 256_000_000 and log_keep_bytes = {} in the configuration",
            (free.saturating_add(written) / 2 / 1_000_000).max(1) * 1_000_000
        );
        return if free < LITTLE { topic.failure(found, remedy) } else { topic.warning(found, remedy) };
    };
    let found = format!("{free_text} free; the log may grow to {}, of which {written_text} are written", size(most));
    if most.saturating_sub(written) > free {
        topic.warning(
            found,
            format!(
                "log_keep_bytes = {} in the configuration, or a larger disk",
                (free.saturating_add(written) / 2).max(1)
            ),
        )
    } else {
        topic.ok(found)
    }
}

/// Bytes that the log may take together with the files it keeps; none when nothing bounds it.
fn most(log: &Log) -> Option<u64> {
    if log.rotate_bytes == 0 {
        return None;
    }
    let by_files = (log.keep_files > 0).then(|| log.rotate_bytes.saturating_mul(log.keep_files as u64));
    let by_bytes = (log.keep_bytes > 0).then_some(log.keep_bytes);
    let kept = match (by_files, by_bytes) {
        (Some(files), Some(bytes)) => files.min(bytes),
        (files, bytes) => files.or(bytes)?,
    };
    // The file that is written to, and one more while it is being compressed.
    let current = if log.compress == Compress::None { 1 } else { 2 };
    Some(kept.saturating_add(log.rotate_bytes.saturating_mul(current)))
}

/// What the log and its closed files have now: everything beside it that is named after it.
fn written(file: &Path) -> u64 {
    let Some((directory, name)) = file.parent().zip(file.file_name()) else { return 0 };
    // Closed files are named as the log, with a dot and a time behind.
    let ours = |found: &std::ffi::OsStr| {
        let rest = found.as_encoded_bytes().strip_prefix(name.as_encoded_bytes());
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(b"."))
    };
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries
        .filter(|entry| ours(&entry.file_name()))
        .filter_map(|entry| entry.metadata().ok())
        .filter(fs::Metadata::is_file)
        .map(|metadata| metadata.len())
        .sum()
}

fn inodes(room: &nix::sys::statvfs::Statvfs) -> Finding {
    let topic = Topic::new("log.inodes", "a file system without inodes takes no new file, however much room it has");
    match (room.files(), room.files_available()) {
        (0, _) => topic.ok("not limited"),
        (_, free) if free < 1_000 => topic.warning(format!("{free} free"), "remove small files, or move the log"),
        (_, free) => topic.ok(format!("{free} free")),
    }
}

/// For people: three digits and a unit.
#[allow(clippy::cast_precision_loss)] // three digits are shown
fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "kB", "MB", "GB", "TB"];
    let mut number = bytes as f64;
    let mut unit = 0;
    while number >= 1_000.0 && unit + 1 < UNITS.len() {
        number /= 1_000.0;
        unit += 1;
    }
    if unit == 0 { format!("{bytes} B") } else { format!("{number:.1} {}", UNITS[unit]) }
}

#[cfg(test)]
mod tests {
    use super::super::State;
    use super::*;

    fn log(text: &str) -> Log {
        let text = format!("ip = \"::\"\nport = 1\n{text}");
        crate::config::Config::from_str(&text, Path::new("/spip.toml")).expect("valid").config.log
    }

    fn judged(text: &str, free: u64, written: u64) -> Finding {
        judge(Topic::new("log.disk", ""), &log(text), free, written)
    }

    #[test]
    fn a_log_that_nothing_bounds_is_said_with_settings_that_fit() {
        let finding = judged("", 10 << 30, 0);
        assert_eq!(finding.state, State::Warning);
        assert!(finding.remedy.expect("a remedy").contains("log_keep_bytes = 5368000000"));
        assert_eq!(judged("log_rotate_bytes = 1000\nlog_keep_files = 0", 10 << 30, 0).state, State::Warning);
        assert_eq!(judged("", 1 << 20, 0).state, State::Failure);
    }

    #[test]
    fn what_may_be_kept_has_to_fit_beside_what_is_written_already() {
        let rotated = "log_rotate_bytes = 100_000_000\nlog_keep_files = 10";
        assert_eq!(judged(rotated, 2_000_000_000, 0).state, State::Ok);
        assert_eq!(judged(rotated, 1_000_000_000, 0).state, State::Warning);
        assert_eq!(judged(rotated, 1_000_000_000, 500_000_000).state, State::Ok);
    }

    #[test]
    fn the_tighter_of_two_bounds_counts() {
        assert_eq!(most(&log("log_rotate_bytes = 100\nlog_keep_files = 10\nlog_keep_bytes = 500")), Some(600));
        assert_eq!(most(&log("log_rotate_bytes = 100\nlog_keep_files = 3\nlog_compress = \"zstd\"")), Some(500));
    }

    #[test]
    fn sizes_have_three_digits() {
        assert_eq!([size(999), size(1_500), size(2_500_000_000)], ["999 B", "1.5 kB", "2.5 GB"]);
    }
}
