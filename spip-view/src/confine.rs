//! Confines the process before it reads the first line: it holds what clients sent, and must not be of use to them.
//!
//! - Landlock: logs can be read, the store can be written, nothing else of the file system is there; no TCP connection
//!   can be opened, no port be bound (Linux 6.7 and later).
//! - seccomp: no program is executed, no socket made or connected, no process looked into.
//! - no_new_privs, and a umask that keeps the store from others.
//!
//! Taken before any thread exists, because these hold for a thread and what it starts. A kernel that lacks a step is
//! named, and the page is served all the same.

use std::collections::BTreeMap;
use std::env::consts::ARCH;
use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access as _, AccessFs, AccessNet, CompatLevel, Compatible as _, PathBeneath, PathFd, Ruleset,
    RulesetAttr as _, RulesetCreatedAttr as _, RulesetStatus,
};
use nix::sys::stat::Mode;
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, TargetArch};

/// System calls that fail with EPERM: a reader of files with its sockets open needs none of them.
const DENIED: &[libc::c_long] = &[
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_socket,
    libc::SYS_connect,
    libc::SYS_bind,
    libc::SYS_listen,
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_pidfd_getfd,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_fsopen,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_unshare,
    libc::SYS_setns,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_io_uring_setup,
    libc::SYS_keyctl,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_acct,
    libc::SYS_quotactl,
    libc::SYS_setuid,
    libc::SYS_setgid,
    libc::SYS_setreuid,
    libc::SYS_setregid,
    libc::SYS_setresuid,
    libc::SYS_setresgid,
    libc::SYS_setgroups,
    libc::SYS_capset,
];

/// Confines the process. Returns what could not be done.
#[must_use]
pub fn confine(reads: &[PathBuf], writes: &[PathBuf]) -> Vec<String> {
    nix::sys::stat::umask(Mode::from_bits_truncate(0o077));
    let mut missing = Vec::new();
    let steps = [
        ("no_new_privs", nix::sys::prctl::set_no_new_privs().map_err(|error| error.to_string())),
        ("landlock", restrict(reads, writes)),
        ("seccomp", filter()),
    ];
    for (name, result) in steps {
        missing.extend(result.err().map(|error| format!("{name}: {error}")));
    }
    missing
}

fn restrict(reads: &[PathBuf], writes: &[PathBuf]) -> Result<(), String> {
    let abi = ABI::V5;
    let attempt = || -> Result<RulesetStatus, landlock::RulesetError> {
        let mut ruleset = Ruleset::default()
            .set_compatibility(CompatLevel::BestEffort)
            .handle_access(AccessFs::from_all(abi))?
            .handle_access(AccessNet::from_all(abi))?
            .create()?;
        // What cannot be opened now cannot be read later either: the reader names it.
        for (paths, access) in [
            (reads, AccessFs::from_read(abi) & !AccessFs::Execute),
            (writes, AccessFs::from_all(abi) & !AccessFs::Execute),
        ] {
            for path in paths {
                if let Ok(descriptor) = PathFd::new(path) {
                    let access = if path.is_dir() { access } else { access & AccessFs::from_file(abi) };
                    ruleset = ruleset.add_rule(PathBeneath::new(descriptor, access))?;
                }
            }
        }
        Ok(ruleset.restrict_self()?.ruleset)
    };
    match attempt() {
        Ok(RulesetStatus::FullyEnforced) => Ok(()),
        Ok(RulesetStatus::PartiallyEnforced) => {
            Err("this kernel enforces only a part of it; Linux 6.10 enforces all".to_owned())
        }
        Ok(RulesetStatus::NotEnforced) => {
            Err("this kernel has none, or it is not enabled (lsm= on the command line)".to_owned())
        }
        Err(error) => Err(error.to_string()),
    }
}

fn filter() -> Result<(), String> {
    let attempt = || -> Result<(), Box<dyn std::error::Error>> {
        let rules: BTreeMap<_, _> = DENIED.iter().map(|call| (*call, Vec::new())).collect();
        let denied = SeccompAction::Errno(libc::EPERM.unsigned_abs());
        let filter = SeccompFilter::new(rules, SeccompAction::Allow, denied, TargetArch::try_from(ARCH)?)?;
        let program: BpfProgram = filter.try_into()?;
        seccompiler::apply_filter(&program)?;
        Ok(())
    };
    attempt().map_err(|error| error.to_string())
}

/// Returns what has to be readable for these logs: the directory of a file, because it is renamed there and replaced, and
/// behind a symbolic link the directory that it leads to.
#[must_use]
pub fn readable(logs: &[PathBuf]) -> Vec<PathBuf> {
    let mut paths = Vec::new();
    for log in logs.iter().filter(|log| log.as_path() != Path::new("-")) {
        for path in [Some(log.clone()), std::fs::canonicalize(log).ok()].into_iter().flatten() {
            let directory = if path.is_dir() { Some(path) } else { path.parent().map(Path::to_owned) };
            let directory = directory.map(|path| if path.as_os_str().is_empty() { PathBuf::from(".") } else { path });
            paths.extend(directory);
        }
    }
    paths.sort();
    paths.dedup();
    paths
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_log_its_directory_is_read_and_of_a_directory_itself() {
        let directory = std::fs::canonicalize(std::env::temp_dir()).unwrap();
        assert_eq!(readable(&["x.json".into()]), [PathBuf::from(".")]);
        assert_eq!(readable(&[directory.join("x.json")]), std::slice::from_ref(&directory));
        assert!(readable(std::slice::from_ref(&directory)).contains(&directory));
        assert!(readable(&["-".into()]).is_empty());
    }
}
