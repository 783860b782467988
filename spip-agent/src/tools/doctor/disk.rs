//! Room for the log: what the rotation may keep against what is free, and whether anything bounds it at all. What is kept
//! beside it, payloads and the agent's own messages, counts where it shares the disk, and is judged by itself where not.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use nix::sys::statvfs::{Statvfs, statvfs};

use super::{Finding, Subject, Topic};
use crate::config::{Config, Log};

/// Free room below which a log without bounds is about to stop.
const LITTLE: u64 = 1 << 30;
/// Size of a scan of all ports of one address: 65,535 records of some 700 bytes. A log that keeps less is of little
/// use.
const USEFUL: u64 = 50_000_000;
/// A log that keeps less is of none.
const LEAST: u64 = 1_000_000;

/// The key of the log of the agent's own messages, which has the bounds of the log of the records once more.
const MESSAGES: &str = "system_log";

/// Files that the agent writes beside the log of its records.
struct Beside {
    check: &'static str,
    /// The key of its configuration.
    key: &'static str,
    directory: PathBuf,
    /// Upper bound of their size; `None` when nothing bounds it.
    most: Option<u64>,
    written: u64,
}

impl Beside {
    /// Returns the size that they may still take.
    fn to_come(&self) -> u64 {
        self.most.unwrap_or(0).saturating_sub(self.written)
    }
}

pub(super) fn findings(subject: &Subject<'_>) -> Vec<Finding> {
    let topic = Topic::new("log.disk", "on a full disk records are lost: the log must fit, and keep fitting");
    let config = match subject.config(&topic) {
        Ok(config) => config,
        Err(finding) => return vec![*finding],
    };
    let beside = beside(config);
    let Some(file) = &config.log.file else {
        let skipped = topic.skipped("records go to standard output");
        return std::iter::once(skipped).chain(beside.iter().map(elsewhere)).collect();
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
    let (same, other): (Vec<_>, Vec<_>) =
        beside.into_iter().partition(|store| device(&store.directory) == device(directory));
    let log = judge(topic, &config.log, directory, free(&room), written(file), &same);
    [log, inodes(&room)].into_iter().chain(other.iter().map(elsewhere)).collect()
}

fn beside(config: &Config) -> Vec<Beside> {
    let payloads = config.payload_store.directory.as_ref().map(|directory| Beside {
        check: "payloads.disk",
        key: "payload_dir",
        directory: directory.clone(),
        most: Some(config.payload_store.max_bytes),
        written: held(directory, |_| true),
    });
    let messages = config.messages.own_log(&config.log).and_then(|log| {
        let file = log.file.clone()?;
        let directory = file.parent().unwrap_or(Path::new("/")).to_owned();
        Some(Beside {
            check: "messages.disk",
            key: MESSAGES,
            directory,
            most: log.most_bytes(),
            written: written(&file),
        })
    });
    payloads.into_iter().chain(messages).collect()
}

/// The file system of a directory, or of where it will be made.
fn device(directory: &Path) -> Option<u64> {
    directory.ancestors().find_map(|ancestor| fs::metadata(ancestor).ok()).map(|metadata| metadata.dev())
}

/// Reports whether a file has no room to grow.
pub(super) fn is_full(file: &Path) -> bool {
    statvfs(file).is_ok_and(|room| free(&room) == 0)
}

#[allow(clippy::unnecessary_cast)] // 32 bits on some architectures
fn free(room: &Statvfs) -> u64 {
    (room.blocks_available() as u64).saturating_mul(room.fragment_size() as u64)
}

/// Checks files on a file system of their own, or without a log of records beside them.
fn elsewhere(store: &Beside) -> Finding {
    let topic = Topic::new(store.check, "system messages and payloads need room of their own");
    let existing = store.directory.ancestors().find(|ancestor| ancestor.exists()).unwrap_or(Path::new("/"));
    match statvfs(existing) {
        Ok(room) => judge_beside(topic, store, free(&room)),
        Err(error) => topic.skipped(format!("{}: {error}", existing.display())),
    }
}

fn judge_beside(topic: Topic, store: &Beside, free: u64) -> Finding {
    let (free_text, key) = (size(free), store.key);
    match store.most {
        None => topic.warning(
            format!("nothing bounds {key} ({free_text} free)"),
            "log_rotate_bytes and log_keep_files in the configuration, which bound it too",
        ),
        Some(most) => {
            let found = format!("{free_text} free; {key} may grow to {}", size(most));
            if store.to_come() > free {
                let budget = if key == MESSAGES { "log_keep_bytes" } else { "payload_store_max_bytes" };
                topic.warning(found, format!("set a smaller {budget}, or {key} on a larger disk"))
            } else {
                topic.ok(found)
            }
        }
    }
}

/// `beside` is what shares the disk with the log: what it may still take is not the log's.
fn judge(topic: Topic, log: &Log, directory: &Path, free: u64, written: u64, beside: &[Beside]) -> Finding {
    let shares = beside.iter().map(|store| match store.most {
        Some(_) => format!("{} may take {} more", store.key, size(store.to_come())),
        None => format!("nothing bounds {}", store.key),
    });
    let shares: String = shares.map(|share| format!("; {share}")).collect();
    let (free_text, written_text) = (format!("{}{shares}", size(free)), size(written));
    let left = free.saturating_sub(beside.iter().map(Beside::to_come).sum());
    let most = log.most_bytes();
    let found = match most {
        None => format!("nothing bounds the log ({written_text} now); free: {free_text}"),
        Some(most) => {
            format!("the log may grow to {}, of which {written_text} are written; free: {free_text}", size(most))
        }
    };
    let remedy = || remedy(log, directory, free, written, beside);
    match most {
        _ if free == 0 => topic.failure(found, remedy()),
        None if left < LITTLE => topic.failure(found, remedy()),
        None => topic.warning(found, remedy()),
        Some(most) if most.saturating_sub(written) > left => topic.warning(found, remedy()),
        Some(_) => topic.ok(found),
    }
}

/// Returns the settings that make the log fit, as far as settings can: a disk that is too small or full needs more.
fn remedy(log: &Log, directory: &Path, free: u64, written: u64, beside: &[Beside]) -> String {
    let directory = directory.display();
    // Each of the logs has what the settings say.
    let (messages, payloads): (Vec<_>, Vec<_>) = beside.iter().partition(|store| store.key == MESSAGES);
    let taken = payloads.iter().map(|store| store.to_come()).sum();
    let own = messages.iter().fold(written, |sum, store| sum.saturating_add(store.written));
    let room = free.saturating_sub(taken).saturating_add(own) / (messages.len() as u64 + 1);
    let settings = settings(log, room).map(|settings| format!("{settings} in the configuration"));
    let smaller = if taken > 0 { ", or set a smaller payload_store_max_bytes" } else { "" };
    match settings {
        Some(settings) if free > 0 && room / 2 >= USEFUL => format!("{settings}, or a larger disk"),
        Some(settings) if free > 0 => format!(
            "set log_file to a larger disk: a scan of all ports of one address leaves some {} of records; on this one no \
             more fits than {settings}{smaller}",
            size(USEFUL)
        ),
        Some(settings) => format!("free room on the disk of {directory}, then {settings}{smaller}"),
        None => format!("free room on the disk of {directory}, or set log_file to a larger one{smaller}"),
    }
}

/// Settings with which the log takes half of `room`, in files of which a few are kept: what goes, goes file by file.
/// Nothing where that would be no log any more.
fn settings(log: &Log, room: u64) -> Option<String> {
    let unit = if room < 16_000_000 { 1_000 } else { 1_000_000 };
    let keep = room / 2 / unit * unit;
    if keep < LEAST {
        return None;
    }
    let fits = |rotate: u64| rotate > 0 && rotate <= keep / 2;
    let rotate = if fits(log.rotate_bytes) { log.rotate_bytes } else { (keep / 8).min(256_000_000) };
    Some(if rotate == log.rotate_bytes {
        format!("log_keep_bytes = {keep}")
    } else {
        format!("log_rotate_bytes = {rotate} and log_keep_bytes = {keep}")
    })
}

/// Returns the size of the log and its closed files: all files beside it that are named after it.
fn written(file: &Path) -> u64 {
    let Some((directory, name)) = file.parent().zip(file.file_name()) else { return 0 };
    // Closed files are named as the log, with a dot and a time behind.
    held(directory, |found| {
        let rest = found.as_encoded_bytes().strip_prefix(name.as_encoded_bytes());
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(b"."))
    })
}

/// Bytes of the files of a directory by their names.
fn held(directory: &Path, ours: impl Fn(&std::ffi::OsStr) -> bool) -> u64 {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries
        .filter(|entry| ours(&entry.file_name()))
        .filter_map(|entry| entry.metadata().ok())
        .filter(fs::Metadata::is_file)
        .map(|metadata| metadata.len())
        .sum()
}

fn inodes(room: &Statvfs) -> Finding {
    let topic = Topic::new("log.inodes", "a file system without inodes takes no new file, however much space is free");
    match (room.files(), room.files_available()) {
        (0, _) => topic.ok("not limited"),
        (_, free) if free < 1_000 => topic.warning(format!("{free} free"), "remove small files, or move the log"),
        (_, free) => topic.ok(format!("{free} free")),
    }
}

/// For people: three digits and a unit.
#[allow(clippy::cast_precision_loss)] // three digits are shown
pub(super) fn size(bytes: u64) -> String {
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
        judge(Topic::new("log.disk", ""), &log(text), Path::new("/"), free, written, &[])
    }

    #[test]
    fn payloads_and_messages_on_the_disk_of_the_log_take_their_part_of_it() {
        let rotated = log("log_rotate_bytes = 100_000_000\nlog_keep_files = 10");
        let payloads = |most, written| Beside {
            check: "payloads.disk",
            key: "payload_dir",
            directory: "/".into(),
            most: Some(most),
            written,
        };
        let judged =
            |beside: &[Beside]| judge(Topic::new("log.disk", ""), &rotated, Path::new("/"), 2_000_000_000, 0, beside);
        assert_eq!(judged(&[payloads(800_000_000, 0)]).state, State::Ok);
        let full = judged(&[payloads(1_000_000_000, 0)]);
        assert_eq!(full.state, State::Warning);
        assert!(full.found.ends_with("free: 2.0 GB; payload_dir may take 1.0 GB more"), "{}", full.found);
        assert_eq!(judged(&[payloads(1_000_000_000, 500_000_000)]).state, State::Ok);
        let alone = |most, free| judge_beside(Topic::new("payloads.disk", ""), &payloads(most, 0), free);
        assert_eq!(alone(1_000, 2_000).state, State::Ok);
        let full = alone(2_000, 1_000);
        assert_eq!(full.state, State::Warning);
        assert!(full.remedy.is_some_and(|remedy| remedy.starts_with("set a smaller payload_store_max_bytes")));
    }

    #[test]
    fn what_is_written_beside_the_log_is_read_from_the_configuration() {
        let directory = std::env::temp_dir().join(format!("spip-doctor-disk-{}", std::process::id()));
        let payloads = directory.join("payloads");
        fs::create_dir_all(&payloads).expect("a directory");
        fs::write(payloads.join("a"), [0; 100]).expect("a file");
        fs::write(directory.join("messages.json.1"), [0; 30]).expect("a file");
        let text = format!(
            "ip = \"::\"\nport = 1\nlog_rotate_bytes = 1000\nlog_keep_files = 2\npayload_dir = {payloads:?}\n\
             payload_store_max_bytes = 5000\nsystem_log = {:?}\n",
            directory.join("messages.json")
        );
        let config = Config::from_str(&text, Path::new("/spip.toml")).expect("valid").config;
        let found: Vec<_> = beside(&config).iter().map(|store| (store.key, store.most, store.written)).collect();
        fs::remove_dir_all(&directory).expect("ours");
        assert_eq!(found, [("payload_dir", Some(5_000), 100), ("system_log", Some(3_000), 30)]);
    }

    #[test]
    fn a_log_that_nothing_bounds_is_said_with_settings_that_fit() {
        let finding = judged("log_rotate_bytes = 0", 10 << 30, 0);
        assert_eq!(finding.state, State::Warning);
        assert!(finding.remedy.expect("a remedy").contains("log_keep_bytes = 5368000000"));
        assert_eq!(judged("log_rotate_bytes = 1000\nlog_keep_files = 0", 10 << 30, 0).state, State::Warning);
        assert_eq!(judged("log_rotate_bytes = 0", 1 << 20, 0).state, State::Failure);
    }

    /// The numbers that a remedy gives for these keys.
    fn advised(remedy: &str, key: &str) -> Option<u64> {
        let (_, behind) = remedy.split_once(&format!("{key} = "))?;
        behind.split(' ').next()?.trim_end_matches(',').parse().ok()
    }

    #[test]
    fn what_is_advised_fits_the_room_whatever_its_size_and_what_shares_it() {
        let messages =
            |written| Beside { check: "messages.disk", key: "system_log", directory: "/".into(), most: None, written };
        for megabytes in [0, 1, 2, 4, 16, 100, 1_000, 1_000_000] {
            let unbounded = ["log_rotate_bytes = 0", "log_rotate_bytes = 0\nlog_compress = \"zstd\""];
            for text in unbounded.into_iter().chain(["log_rotate_bytes = 1_000_000_000\nlog_keep_files = 100_000"]) {
                for beside in [vec![], vec![messages(500_000)]] {
                    let (free, written) = (megabytes * 1_000_000, 300_000);
                    let log = log(text);
                    let finding =
                        judge(Topic::new("log.disk", ""), &log, Path::new("/var/log/spip"), free, written, &beside);
                    let remedy = finding.remedy.unwrap_or_default();
                    assert_eq!(
                        finding.state == State::Failure,
                        free == 0 || (!text.contains("keep_files") && free < LITTLE),
                        "{remedy}"
                    );
                    let Some(keep) = advised(&remedy, "log_keep_bytes") else {
                        assert!(
                            megabytes <= 4 && remedy.starts_with("free room on the disk of /var/log/spip, or"),
                            "{remedy}"
                        );
                        continue;
                    };
                    let rotate = advised(&remedy, "log_rotate_bytes").unwrap_or(log.rotate_bytes);
                    let then = Log { rotate_bytes: rotate, keep_bytes: keep, ..log };
                    let room = free + written + beside.iter().map(|store| store.written).sum::<u64>();
                    let logs = beside.len() as u64 + 1;
                    assert!(then.most_bytes().is_some_and(|most| most * logs <= room), "{megabytes} MB: {remedy}");
                    assert!(rotate * 2 <= keep && rotate > 0, "{remedy}");
                    assert_eq!(remedy.contains("larger disk: a scan"), keep < USEFUL, "{remedy}");
                }
            }
        }
    }

    #[test]
    fn a_disk_without_room_for_a_log_or_with_none_at_all_is_said_to_be_so() {
        let remedy = |text, free, written| judged(text, free, written).remedy.unwrap_or_default();
        let rotated = "log_rotate_bytes = 100_000_000\nlog_keep_files = 10";
        assert_eq!(judged(rotated, 0, 1_100_000_000).state, State::Failure);
        assert!(remedy(rotated, 0, 0).starts_with("free room on the disk of /, or set log_file"));
        assert!(
            remedy(rotated, 0, 800_000_000).starts_with("free room on the disk of /, then log_keep_bytes = 400000000")
        );
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
        assert_eq!(log("log_rotate_bytes = 100\nlog_keep_files = 10\nlog_keep_bytes = 500").most_bytes(), Some(600));
        assert_eq!(log("log_rotate_bytes = 100\nlog_keep_files = 3\nlog_compress = \"zstd\"").most_bytes(), Some(500));
    }

    #[test]
    fn sizes_have_three_digits() {
        assert_eq!([size(999), size(1_500), size(2_500_000_000)], ["999 B", "1.5 kB", "2.5 GB"]);
    }
}
