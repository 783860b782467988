//! seccomp: the system calls that an agent at work makes, and no others.
//!
//! What is not on the list fails with EPERM, which library and log can live with; ending the process would make each
//! forgotten call a way to stop the sensor. Not on the list, on purpose: execve, ptrace, socket, connect, bind, listen,
//! chmod, chown, mount, module, keyring and namespace calls, io_uring, and of bpf(2) all but reading and writing maps
//! that are open. A new thread is allowed and a new process is not; memory is never made executable.
//!
//! Sockets that are open must not become other ones. Nothing is sent to an address: not by a packet socket to the wire,
//! not by TCP, which connects so with `MSG_FASTOPEN` and asks no Landlock. sendmsg and recvmsg, whose addresses and
//! descriptors a filter cannot see, are left out. Of all socket options one can be set; Landlock knows nothing of
//! these. Nor does it know of file modes: no file is made that runs as its owner, and no mode is changed.
//!
//! Calls of another architecture end the process, those of x32 are numbers that are not on the list.

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
    libc::SYS_shutdown,
    libc::SYS_getsockname,
    libc::SYS_getpeername,
    libc::SYS_getsockopt,
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
    libc::SYS_dup,
    libc::SYS_fsync,
    libc::SYS_fdatasync,
    libc::SYS_ftruncate,
    libc::SYS_renameat,
    libc::SYS_renameat2,
    libc::SYS_unlinkat,
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
    libc::SYS_stat,
    libc::SYS_lstat,
    libc::SYS_access,
    libc::SYS_readlink,
    libc::SYS_rename,
    libc::SYS_unlink,
    libc::SYS_rmdir,
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

/// Allowed commands of fcntl(2): duplicate a descriptor, and its flags.
const DESCRIPTOR_COMMANDS: &[libc::c_int] =
    &[libc::F_DUPFD_CLOEXEC, libc::F_GETFD, libc::F_SETFD, libc::F_GETFL, libc::F_SETFL];

/// New namespaces, which a new thread has no use for.
const NAMESPACES: u64 = (libc::CLONE_NEWNS
    | libc::CLONE_NEWCGROUP
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET)
    .cast_unsigned() as u64;

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
    let executable = bits(libc::PROT_EXEC);
    let privileged = u64::from(libc::S_ISUID | libc::S_ISGID);
    let mut insert = |call, alternatives: Vec<Vec<SeccompCondition>>| -> Result<(), BackendError> {
        rules.insert(call, alternatives.into_iter().map(SeccompRule::new).collect::<Result<_, _>>()?);
        Ok(())
    };
    // To the peer of the socket only.
    insert(libc::SYS_sendto, vec![vec![none_of(3, bits(libc::MSG_FASTOPEN))?, null(4)?]])?;
    // How long a client of the status socket is waited for.
    let patience = vec![is(1, bits(libc::SOL_SOCKET))?, is(2, bits(libc::SO_SNDTIMEO))?];
    insert(libc::SYS_setsockopt, vec![patience])?;
    // The mode of what is made.
    insert(libc::SYS_openat, vec![vec![none_of(3, privileged)?]])?;
    insert(libc::SYS_mkdirat, vec![vec![none_of(2, privileged)?]])?;
    #[cfg(target_arch = "x86_64")]
    {
        insert(libc::SYS_open, vec![vec![none_of(2, privileged)?]])?;
        insert(libc::SYS_mkdir, vec![vec![none_of(1, privileged)?]])?;
    }
    // Who is told of events on a descriptor may be any process: F_SETOWN is none of these.
    insert(libc::SYS_fcntl, one_of(1, DESCRIPTOR_COMMANDS.iter().copied().map(bits))?)?;
    // A signal for a thread of this process, as abort sends it.
    insert(libc::SYS_tgkill, vec![vec![is(0, u64::from(std::process::id()))?]])?;
    // The thread that compresses gives way to all others.
    insert(libc::SYS_setpriority, vec![vec![is(0, u64::from(libc::PRIO_PROCESS))?, is(1, 0)?]])?;
    // Left to the filter that is asked first.
    insert(libc::SYS_clone3, Vec::new())?;
    let thread = SeccompCmpOp::MaskedEq(bits(libc::CLONE_THREAD) | NAMESPACES);
    insert(libc::SYS_clone, vec![vec![condition(0, SeccompCmpArgLen::Qword, thread, bits(libc::CLONE_THREAD))?]])?;
    insert(libc::SYS_mmap, vec![vec![none_of(2, executable)?]])?;
    insert(libc::SYS_mprotect, vec![vec![none_of(2, executable)?]])?;
    // Limits are read, never set.
    insert(libc::SYS_prlimit64, vec![vec![is(0, 0)?, null(2)?]])?;
    insert(libc::SYS_bpf, one_of(0, MAP_COMMANDS.iter().copied())?)?;
    insert(libc::SYS_ioctl, one_of(1, QUESTIONS.iter().copied())?)?;
    insert(libc::SYS_prctl, one_of(0, [bits(libc::PR_SET_NAME), PR_SET_VMA].into_iter())?)?;
    Ok(rules)
}

/// Flags and numbers of C are bits to a filter.
fn bits(number: libc::c_int) -> u64 {
    u64::from(number.cast_unsigned())
}

fn condition(
    argument: u8,
    length: SeccompCmpArgLen,
    operator: SeccompCmpOp,
    value: u64,
) -> Result<SeccompCondition, BackendError> {
    SeccompCondition::new(argument, length, operator, value)
}

/// The argument, an `int` of which the kernel reads no more, is this one.
fn is(argument: u8, value: u64) -> Result<SeccompCondition, BackendError> {
    condition(argument, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, value)
}

/// The argument has none of these bits.
fn none_of(argument: u8, mask: u64) -> Result<SeccompCondition, BackendError> {
    condition(argument, SeccompCmpArgLen::Qword, SeccompCmpOp::MaskedEq(mask), 0)
}

/// The argument is no pointer.
fn null(argument: u8) -> Result<SeccompCondition, BackendError> {
    condition(argument, SeccompCmpArgLen::Qword, SeccompCmpOp::Eq, 0)
}

fn one_of(argument: u8, values: impl Iterator<Item = u64>) -> Result<Vec<Vec<SeccompCondition>>, BackendError> {
    values.map(|value| Ok(vec![is(argument, value)?])).collect()
}
