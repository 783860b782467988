//! The `sk_lookup` programs that are attached to this network namespace, in the order in which the kernel asks them: what
//! one has chosen, no later one can change. aya has no query for this kind, so the call is made here.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd as _;
use std::path::Path;

use aya::programs::links::{FdLink, PinnedLink};

use super::steer::{OWN_NAMESPACE, pin_path};

/// `BPF_PROG_QUERY` of linux/bpf.h.
const PROG_QUERY: libc::c_long = 16;
/// `BPF_SK_LOOKUP` of linux/bpf.h.
const SK_LOOKUP: u32 = 36;
/// Upper bound of the programs that the kernel attaches (Linux kernel/bpf/net_namespace.c, `netns_bpf_max_progs`).
const MOST: usize = 64;

/// The part of `union bpf_attr` that asks what is attached.
#[repr(C)]
struct Query {
    target: u32,
    kind: u32,
    query_flags: u32,
    attach_flags: u32,
    programs: u64,
    count: u32,
    padding: u32,
}

/// The numbers of the programs. Needs `CAP_NET_ADMIN`.
pub(super) fn all() -> io::Result<Vec<u32>> {
    let namespace = File::open(OWN_NAMESPACE)?;
    let mut programs = [0_u32; MOST];
    let mut query = Query {
        target: namespace.as_raw_fd().cast_unsigned(),
        kind: SK_LOOKUP,
        query_flags: 0,
        attach_flags: 0,
        programs: (&raw mut programs).addr() as u64,
        count: MOST as u32,
        padding: 0,
    };
    ask(&mut query)?;
    Ok(programs.into_iter().take(query.count as usize).collect())
}

#[allow(unsafe_code)]
fn ask(query: &mut Query) -> io::Result<()> {
    // SAFETY: the pointer names a whole query of the length that is given with it, and the array that it names has room for
    // as many numbers as it says.
    let result = unsafe { libc::syscall(libc::SYS_bpf, PROG_QUERY, &raw mut *query, size_of::<Query>()) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The program of the link that is pinned in `directory` for this namespace, where one is.
pub(super) fn pinned(directory: &Path) -> Option<u32> {
    let link = PinnedLink::from_pin(pin_path(directory).ok()?).ok()?;
    Some(FdLink::from(link).info().ok()?.program_id())
}
