//! seccomp: the system calls that an agent at work makes, and no others.
//!
//! What is not on the list fails with EPERM, which library and log can live with; ending the process would make each
//! forgotten call a way to stop the sensor. Not on the list, on purpose: execve, ptrace, socket, connect, bind, listen,
//! mount, module, keyring and namespace calls, and of bpf(2) all but reading and writing maps that are open. A new
//! thread is allowed and a new process is not; memory is never made executable.

use std::collections::BTreeMap;
use std::env::consts::ARCH;

use nix::sys::prctl;
use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};

use super::StepResult;

/// Calls that are allowed with any argument.
const CALLS: &[libc::c_long] = &[
    // connections
    libc::SYS_accept4,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_sendto,
    libc::SYS_sendmsg,
    libc::SYS_shutdown,
    libc::SYS_getsockname,
    libc::SYS_getpeername,
    libc::SYS_getsockopt,
    libc::SYS_setsockopt,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_create1,
    libc::SYS_eventfd2,
    libc::SYS_pipe2,
    libc::SYS_ppoll,
    // files that are open or, under Landlock, may be opened
    libc::SYS_read,
    libc::SYS_readv,
    libc::SYS_pread64,
    libc::SYS_write,
    libc::SYS_writev,
    libc::SYS_pwrite64,
    libc::SYS_close,
    libc::SYS_lseek,
    libc::SYS_openat,
    libc::SYS_fstat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_fstatfs,
    libc::SYS_statfs,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_readlinkat,
    libc::SYS_getdents64,
    libc::SYS_getcwd,
    libc::SYS_flock,
    libc::SYS_fcntl,
    libc::SYS_dup,
    libc::SYS_fsync,
    libc::SYS_fdatasync,
    libc::SYS_ftruncate,
    libc::SYS_fchmod,
    libc::SYS_fchmodat,
    libc::SYS_renameat,
    libc::SYS_renameat2,
    libc::SYS_unlinkat,
    libc::SYS_mkdirat,
    libc::SYS_copy_file_range,
    // memory
    libc::SYS_brk,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_madvise,
    // threads, signals, time
    libc::SYS_futex,
    libc::SYS_set_robust_list,
    libc::SYS_rseq,
    libc::SYS_sched_yield,
    libc::SYS_sched_getaffinity,
    libc::SYS_gettid,
    libc::SYS_getpid,
    libc::SYS_tgkill,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_rt_sigtimedwait,
    libc::SYS_sigaltstack,
    libc::SYS_restart_syscall,
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_nanosleep,
    libc::SYS_getrandom,
    libc::SYS_getrusage,
    libc::SYS_sysinfo,
    libc::SYS_uname,
    libc::SYS_getuid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getegid,
];

/// Older forms of these calls, which other architectures never had.
#[cfg(target_arch = "x86_64")]
const OLDER_CALLS: &[libc::c_long] = &[
    libc::SYS_epoll_wait,
    libc::SYS_poll,
    libc::SYS_open,
    libc::SYS_stat,
    libc::SYS_lstat,
    libc::SYS_access,
    libc::SYS_readlink,
    libc::SYS_rename,
    libc::SYS_unlink,
    libc::SYS_mkdir,
    libc::SYS_rmdir,
    libc::SYS_chmod,
];
#[cfg(not(target_arch = "x86_64"))]
const OLDER_CALLS: &[libc::c_long] = &[];

/// Commands of bpf(2) that work on an open map (linux/bpf.h): look up, update, delete, next key, and the first of
/// these in batches.
const MAP_COMMANDS: &[u64] = &[1, 2, 3, 4, 24];

/// `SIOCGIFINDEX` of linux/sockios.h.
const SIOCGIFINDEX: u64 = 0x8933;

/// Questions of ioctl(2): non-blocking, bytes that wait, whether a descriptor is a terminal, and which number an
/// interface has.
const QUESTIONS: &[u64] = &[libc::FIONBIO, libc::FIONREAD, libc::TCGETS, SIOCGIFINDEX];

/// `PR_SET_VMA`: the allocator names its memory (linux/prctl.h).
const PR_SET_VMA: u64 = 0x5356_4d41;

/// Keeps this process and its threads from gaining anything by execve.
pub(super) fn no_new_privileges() -> StepResult {
    match prctl::set_no_new_privs() {
        Ok(()) => StepResult::Done("set".to_owned()),
        Err(error) => StepResult::Missing(error.to_string()),
    }
}

/// Installs the filter for this thread and all that it starts.
pub(super) fn install() -> StepResult {
    let programs = match programs() {
        Ok(programs) => programs,
        Err(error) => return StepResult::Missing(error.to_string()),
    };
    for program in &programs {
        if let Err(error) = seccompiler::apply_filter(program) {
            return StepResult::Missing(format!("this kernel refuses the filter: {error}"));
        }
    }
    StepResult::Done(format!("{} system calls", rules().map_or(0, |rules| rules.len())))
}

fn programs() -> Result<[BpfProgram; 2], BackendError> {
    let architecture = TargetArch::try_from(ARCH)?;
    let denied = SeccompAction::Errno(libc::EPERM.unsigned_abs());
    // The C library takes clone3 for threads, whose flags a filter cannot see; told that there is none, it takes clone.
    let absent = SeccompAction::Errno(libc::ENOSYS.unsigned_abs());
    let clone3 = BTreeMap::from([(libc::SYS_clone3, Vec::new())]);
    let no_clone3 = SeccompFilter::new(clone3, SeccompAction::Allow, absent, architecture)?;
    let allowed = SeccompFilter::new(rules()?, denied, SeccompAction::Allow, architecture)?;
    Ok([no_clone3.try_into()?, allowed.try_into()?])
}

fn rules() -> Result<BTreeMap<libc::c_long, Vec<SeccompRule>>, BackendError> {
    let mut rules: BTreeMap<_, _> = CALLS.iter().chain(OLDER_CALLS).map(|call| (*call, Vec::new())).collect();
    let thread = u64::from(libc::CLONE_THREAD.unsigned_abs());
    let executable = u64::from(libc::PROT_EXEC.unsigned_abs());
    // Left to the filter that is asked first.
    rules.insert(libc::SYS_clone3, Vec::new());
    rules.insert(libc::SYS_clone, vec![masked(0, thread, thread)?]);
    rules.insert(libc::SYS_mmap, vec![masked(2, executable, 0)?]);
    rules.insert(libc::SYS_mprotect, vec![masked(2, executable, 0)?]);
    // Limits are read, never set.
    rules.insert(libc::SYS_prlimit64, one_of(2, &[0])?);
    rules.insert(libc::SYS_bpf, one_of(0, MAP_COMMANDS)?);
    rules.insert(libc::SYS_ioctl, one_of(1, QUESTIONS)?);
    let name = u64::from(libc::PR_SET_NAME.unsigned_abs());
    rules.insert(libc::SYS_prctl, one_of(0, &[name, PR_SET_VMA])?);
    Ok(rules)
}

fn masked(argument: u8, mask: u64, value: u64) -> Result<SeccompRule, BackendError> {
    let operator = SeccompCmpOp::MaskedEq(mask);
    SeccompRule::new(vec![SeccompCondition::new(argument, SeccompCmpArgLen::Qword, operator, value)?])
}

fn one_of(argument: u8, values: &[u64]) -> Result<Vec<SeccompRule>, BackendError> {
    let equal = |value: &u64| {
        let condition = SeccompCondition::new(argument, SeccompCmpArgLen::Qword, SeccompCmpOp::Eq, *value)?;
        SeccompRule::new(vec![condition])
    };
    values.iter().map(equal).collect()
}
