//! The file systems of the kernel side: where cgroups are, and where maps are pinned.

use std::path::Path;

use nix::sys::statfs::{BPF_FS_MAGIC, FsType, statfs};

use super::{Finding, Subject, Topic};
use crate::config::EbpfMode;
use crate::kernel::ebpf;

/// Usual mount point of a bpffs.
const USUAL_BPFFS: &str = "/sys/fs/bpf";

pub(super) fn findings(subject: &Subject<'_>) -> Vec<Finding> {
    vec![cgroup(subject), bpffs(subject)]
}

fn cgroup(subject: &Subject<'_>) -> Finding {
    let topic = Topic::new("ebpf.cgroup", "eBPF observes new connections below a cgroup of version 2");
    let mode = subject.config.map_or(EbpfMode::Auto, |config| config.ebpf.mode);
    if mode == EbpfMode::Off {
        return topic.skipped("ebpf = \"off\"");
    }
    let configured = subject.config.and_then(|config| config.ebpf.cgroup_path.as_deref());
    let found = ebpf::cgroup_directory(configured).map(|path| path.display().to_string());
    let elsewhere = configured.and_then(|_| ebpf::cgroup_directory(None).ok());
    judge_cgroup(topic, mode, found.map_err(|reason| reason.to_string()), elsewhere.as_deref())
}

/// `elsewhere` is where it would be found, were it not configured.
fn judge_cgroup(topic: Topic, mode: EbpfMode, found: Result<String, String>, elsewhere: Option<&Path>) -> Finding {
    match found {
        Ok(path) => topic.ok(path),
        Err(reason) => {
            let remedy = match elsewhere {
                Some(path) => {
                    format!("leave cgroup_path out of the configuration: {} is found without it", path.display())
                }
                None => "mkdir -p /sys/fs/cgroup/unified; mount -t cgroup2 none /sys/fs/cgroup/unified".to_owned(),
            };
            if mode == EbpfMode::Required { topic.failure(reason, remedy) } else { topic.warning(reason, remedy) }
        }
    }
}

fn bpffs(subject: &Subject<'_>) -> Finding {
    let topic = Topic::new("ebpf.bpffs", "maps are pinned there: bpftool finds them by name, and they outlive a crash");
    let config = match subject.config(&topic) {
        Ok(config) => config,
        Err(finding) => return *finding,
    };
    if config.ebpf.mode == EbpfMode::Off {
        return topic.skipped("ebpf = \"off\"");
    }
    let pins = &config.ebpf.pin_path;
    let existing = pins.ancestors().find(|ancestor| ancestor.exists());
    let kind = |path: &Path| statfs(path).ok().map(|kind| kind.filesystem_type());
    let usual = kind(Path::new(USUAL_BPFFS)) == Some(BPF_FS_MAGIC);
    judge_bpffs(topic, pins, existing.and_then(kind), usual, super::is_root())
}

/// `usual` says whether there is a bpffs where it usually is.
fn judge_bpffs(topic: Topic, pins: &Path, kind: Option<FsType>, usual: bool, is_root: bool) -> Finding {
    let below = format!("bpf_pin_path = \"{USUAL_BPFFS}/spip\" in the configuration, or leave it out");
    let mount = format!("mount -t bpf bpf {USUAL_BPFFS}");
    match kind {
        Some(BPF_FS_MAGIC) => topic.ok(pins.display().to_string()),
        None if !is_root => topic.skipped(format!("{} cannot be read: run as root", pins.display())),
        _ => topic.warning(
            format!("{} is not on a bpffs: maps are not pinned", pins.display()),
            match (pins.starts_with(USUAL_BPFFS), usual) {
                (true, _) => mount,
                (false, true) => below,
                (false, false) => format!("{mount}; then {below}"),
            },
        ),
    }
}

#[cfg(test)]
mod tests {
    use nix::sys::statfs::TMPFS_MAGIC;

    use super::super::State;
    use super::*;

    #[test]
    fn a_missing_cgroup_is_a_failure_only_where_ebpf_is_required() {
        let judged = |mode, found: Result<&str, &str>| {
            let found = found.map(str::to_owned).map_err(str::to_owned);
            judge_cgroup(Topic::new("ebpf.cgroup", ""), mode, found, None)
        };
        assert_eq!(judged(EbpfMode::Required, Ok("/sys/fs/cgroup")).state, State::Ok);
        assert_eq!(judged(EbpfMode::Auto, Err("none")).state, State::Warning);
        let failure = judged(EbpfMode::Required, Err("none"));
        assert_eq!((failure.state, failure.found.as_str()), (State::Failure, "none"));
        assert!(failure.remedy.is_some_and(|remedy| remedy.contains("mount -t cgroup2")));
        let elsewhere = Some(Path::new("/sys/fs/cgroup"));
        let configured = judge_cgroup(Topic::new("ebpf.cgroup", ""), EbpfMode::Auto, Err("no".to_owned()), elsewhere);
        assert!(configured.remedy.is_some_and(|remedy| remedy.starts_with("leave cgroup_path out")));
    }

    #[test]
    fn pins_elsewhere_than_on_a_bpffs_are_a_warning_and_those_out_of_sight_are_not_judged() {
        let judged = |kind, is_root| {
            judge_bpffs(Topic::new("ebpf.bpffs", ""), Path::new("/sys/fs/bpf/spip"), kind, false, is_root).state
        };
        let remedy = |pins: &str, usual| {
            judge_bpffs(Topic::new("ebpf.bpffs", ""), Path::new(pins), Some(TMPFS_MAGIC), usual, true).remedy
        };
        assert_eq!(remedy("/sys/fs/bpf/spip", false).as_deref(), Some("mount -t bpf bpf /sys/fs/bpf"));
        for usual in [false, true] {
            let elsewhere = remedy("/run/spip", usual).expect("a remedy");
            assert!(elsewhere.contains("bpf_pin_path = \"/sys/fs/bpf/spip\""), "{elsewhere}");
            assert_eq!(elsewhere.starts_with("mount"), !usual, "{elsewhere}");
        }
        assert_eq!(judged(Some(BPF_FS_MAGIC), false), State::Ok);
        assert_eq!(judged(Some(TMPFS_MAGIC), true), State::Warning);
        assert_eq!(judged(Some(TMPFS_MAGIC), false), State::Warning);
        assert_eq!(judged(None, true), State::Warning);
        assert_eq!(judged(None, false), State::Skipped);
    }
}
