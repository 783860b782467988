//! Checks that anticipate the start: files, directories and addresses that it opens or makes. Whether it could is
//! tried without making anything.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use nix::sys::statfs::{self, statfs};
use nix::unistd::{AccessFlags, access};

use super::{Finding, Subject, Topic};
use crate::config::{Config, MetricsAddress, SystemLog};
use crate::log::writer::Log;
use crate::observe::metrics;
use crate::respond::persona::Persona;
use crate::tools::shell;

pub(super) fn findings(subject: &Subject<'_>) -> Vec<Finding> {
    let Some(config) = subject.config else { return Vec::new() };
    [log(config), payloads(config), persona(config), metrics(subject, config)].into_iter().flatten().collect()
}

/// The files of the logs.
fn log(config: &Config) -> Option<Finding> {
    let topic = Topic::new("log.file", "the agent does not start with a log that it cannot open");
    let system_log = match &config.messages.target {
        SystemLog::File(path) => Some(("system_log", path)),
        SystemLog::Stream | SystemLog::Stderr => None,
    };
    let files: Vec<_> = config.log.file.iter().map(|file| ("log_file", file)).chain(system_log).collect();
    if files.is_empty() {
        return None;
    }
    Some(match files.iter().find_map(|(key, file)| unopenable(key, file)) {
        None => topic.ok("can be opened"),
        Some((found, _)) if !super::is_root() => topic.skipped(format!("{found}; run as root")),
        Some((found, remedy)) => topic.failure(found, remedy),
    })
}

/// Returns the reason why a log could not be opened, if so, with the remedy.
fn unopenable(key: &'static str, file: &Path) -> Option<(String, String)> {
    let remedy = format!("set {key} to a file that the agent can make and append to");
    if let Err(error) = Log::look(key, file) {
        return Some((error.to_string(), remedy));
    }
    if file.exists() {
        return None;
    }
    let directory = file.parent().filter(|directory| !directory.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if !directory.exists() {
        // Other directories the start makes, and those of logs it does not.
        let found =
            format!("the directory of {key}, {}, does not exist: the agent would not start", directory.display());
        return Some((found, format!("mkdir -p {}", shell::word(&directory.to_string_lossy()))));
    }
    let error = takes_files(directory).err()?;
    Some((format!("{key} {} cannot be made: {error}", file.display()), remedy))
}

fn payloads(config: &Config) -> Option<Finding> {
    let directory = config.payload_store.directory.as_deref()?;
    let topic = Topic::new("payloads.directory", "the agent does not start with a payload_dir that it cannot use");
    let remedy = "set payload_dir to a directory that the agent can make and write to";
    Some(match takes_files(directory) {
        Ok(()) => topic.ok(directory.display().to_string()),
        Err(error) if !super::is_root() => topic.skipped(format!("{}: {error}; run as root", directory.display())),
        Err(error) => topic.failure(format!("payload_dir {} cannot be used: {error}", directory.display()), remedy),
    })
}

/// The persona of this sensor: kept, or to be kept at the first start.
fn persona(config: &Config) -> Option<Finding> {
    if !config.respond.enabled {
        return None;
    }
    let directory = &config.respond.state_dir;
    let kept = Persona::kept_in(directory);
    let topic = Topic::new(
        "persona.kept",
        "a persona that cannot be kept is drawn anew at each start: clients see another host each time",
    );
    let remedy = "set state_dir to a directory that the agent can make and write to";
    let unusable = |error: String| {
        let found = format!("state_dir {} cannot be used: {error}", directory.display());
        if super::is_root() {
            topic.clone().warning(found, remedy)
        } else {
            topic.clone().skipped(format!("{found}; run as root"))
        }
    };
    // What is in it is judged with the other files.
    Some(match fs::metadata(&kept) {
        Ok(_) => topic.ok(kept.display().to_string()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => match takes_files(directory) {
            Ok(()) => topic.ok(format!("drawn at the first start, and kept in {}", directory.display())),
            Err(error) => unusable(error.to_string()),
        },
        Err(error) => unusable(error.to_string()),
    })
}

fn metrics(subject: &Subject<'_>, config: &Config) -> Option<Finding> {
    let address = config.metrics.as_ref()?;
    let topic = Topic::new("metrics.address", "the agent does not start with metrics that it cannot serve");
    if let Some(running) = &subject.running {
        return Some(topic.skipped(format!("an agent runs (process {}): its start is over", running.pid)));
    }
    if let Err(error) = metrics::Server::look(address) {
        return Some(topic.failure(format!("metrics cannot be served on {address}"), error.remedy()));
    }
    let MetricsAddress::Unix(path) = address else { return Some(topic.ok(address.to_string())) };
    Some(match takes_files(path.parent().unwrap_or(Path::new("/"))) {
        Ok(()) => topic.ok(address.to_string()),
        Err(error) if !super::is_root() => topic.skipped(format!("{address}: {error}; run as root")),
        Err(error) => topic.failure(
            format!("metrics cannot be served on {address}: {error}"),
            "set metrics to a socket in a directory where the agent can make files, or to an address such as 127.0.0.1:9464",
        ),
    })
}

/// Checks that files can be made in a directory, or in the one in which it would be made. Tries a file without a name,
/// which is gone when it is closed.
fn takes_files(directory: &Path) -> io::Result<()> {
    let existing = directory.ancestors().find(|ancestor| fs::symlink_metadata(ancestor).is_ok());
    let existing = existing.unwrap_or(Path::new("/"));
    match OpenOptions::new().write(true).mode(0o600).custom_flags(libc::O_TMPFILE).open(existing) {
        Ok(_) => Ok(()),
        // Not every file system has such files.
        Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => {
            if is_of_kernel(existing) {
                let text = format!("{} is on a file system of the kernel, which takes no files", existing.display());
                return Err(io::Error::other(text));
            }
            access(existing, AccessFlags::W_OK | AccessFlags::X_OK).map_err(io::Error::from)
        }
        Err(error) => Err(error),
    }
}

fn is_of_kernel(path: &Path) -> bool {
    let kinds = [
        statfs::PROC_SUPER_MAGIC,
        statfs::SYSFS_MAGIC,
        statfs::CGROUP_SUPER_MAGIC,
        statfs::CGROUP2_SUPER_MAGIC,
        statfs::BPF_FS_MAGIC,
        statfs::DEBUGFS_MAGIC,
        statfs::TRACEFS_MAGIC,
    ];
    statfs(path).is_ok_and(|found| kinds.contains(&found.filesystem_type()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_log_whose_directory_is_missing_is_said_by_its_key() {
        let directory = std::env::temp_dir().join(format!("spip-doctor-log-{}", std::process::id()));
        fs::create_dir_all(&directory).expect("a directory");
        for key in ["log_file", "system_log"] {
            assert_eq!(unopenable(key, &directory.join("log")), None);
            let (found, remedy) = unopenable(key, &directory.join("missing/log")).expect("no directory");
            assert!(found.starts_with(&format!("the directory of {key}, ")), "{found}");
            assert_eq!(remedy, format!("mkdir -p {}", directory.join("missing").display()));
        }
        fs::remove_dir_all(&directory).expect("ours");
    }

    #[test]
    fn a_directory_takes_files_also_when_it_has_to_be_made_and_nothing_is_left_in_it() {
        let directory = std::env::temp_dir().join(format!("spip-doctor-start-{}", std::process::id()));
        fs::create_dir_all(&directory).expect("a directory");
        takes_files(&directory.join("a/b")).expect("can be made");
        takes_files(&directory).expect("is there");
        assert_eq!(fs::read_dir(&directory).expect("a directory").count(), 0);
        fs::write(directory.join("file"), "").expect("a file");
        assert_eq!(takes_files(&directory.join("file/a")).expect_err("a file").raw_os_error(), Some(libc::ENOTDIR));
        fs::remove_dir_all(&directory).expect("ours");
        for path in ["/proc/spip/a", "/sys/spip"] {
            takes_files(Path::new(path)).expect_err(path);
        }
    }
}
