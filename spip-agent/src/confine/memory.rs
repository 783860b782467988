//! Memory of the process, the number of sessions that it holds, and their budget beyond the guaranteed part: the
//! machine's, or what the process's cgroup or one above it may have (`memory.max` of cgroup v2), whichever is least.
//!
//! A bound of descriptors alone would promise more sessions than a small machine can hold, and the kernel would end the
//! sensor instead of its idlest sessions. Read at the start: the sandbox closes the way.

use std::fs;
use std::path::Path;

use crate::kernel::ebpf;

/// Memory that a session is counted with. An idle one costs about 5.3 kB, 1.4 kB of it here and the rest in the kernel;
/// [`GUARANTEED_BYTES`](crate::session::payload::GUARANTEED_BYTES) more may come from its client. Everything else, TLS
/// among it, has a bound of its own (`payload_memory_bytes`).
pub const SESSION_BYTES: u64 = 8 * 1024;

/// Sessions may have one half; payloads, the log, the tables and all others on the machine have the other.
const SHARE: u64 = 2;

/// Bytes for a process, `self` or its number, as far as that can be found out.
#[must_use]
pub fn of(process: &str) -> Option<u64> {
    let machine = fs::read_to_string("/proc/meminfo").ok().and_then(|text| total(&text));
    let cgroups = fs::read_to_string(Path::new("/proc").join(process).join("cgroup")).ok();
    let own = cgroups.as_deref().and_then(version_2).zip(ebpf::cgroup_root());
    let limit = own.and_then(|(path, root)| limit(&root, path));
    machine.into_iter().chain(limit).min()
}

/// Upper bound of the memory that sessions hold together beyond the guaranteed part, unless the machine is small: 128
/// MiB.
const HELD_BYTES: u64 = 128 << 20;
/// The part of a small machine's memory that they may hold.
const HELD_SHARE: u64 = 8;

/// Returns what sessions may hold together beyond the least on a machine of so many bytes, where one payload has up to
/// `payload_bytes`.
#[must_use]
pub fn held(memory: Option<u64>, payload_bytes: usize) -> usize {
    let bytes = memory.map_or(HELD_BYTES, |bytes| (bytes / HELD_SHARE).min(HELD_BYTES));
    usize::try_from(bytes).unwrap_or(usize::MAX).max(payload_bytes)
}

/// Returns the number of sessions that so many bytes hold.
#[must_use]
pub fn sessions(bytes: u64) -> usize {
    usize::try_from(bytes / SHARE / SESSION_BYTES).unwrap_or(usize::MAX).max(1)
}

/// `MemTotal` of `/proc/meminfo`, which is in kB.
fn total(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// The path of version 2 in `/proc/PID/cgroup` (cgroups(7)).
fn version_2(cgroups: &str) -> Option<&str> {
    let path = cgroups.lines().find_map(|line| line.strip_prefix("0::/"))?;
    // Of a process outside of this cgroup namespace.
    (!path.split('/').any(|part| part == "..")).then_some(path)
}

/// The least `memory.max` of the cgroup `path` and those above it.
fn limit(root: &Path, path: &str) -> Option<u64> {
    let own = root.join(path);
    let above = own.ancestors().take_while(|directory| directory.starts_with(root));
    above.filter_map(|directory| fs::read_to_string(directory.join("memory.max")).ok()?.trim().parse().ok()).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_gigabytes_hold_a_hundred_thousand_sessions() {
        // Of 2 GB the kernel keeps a part for itself.
        assert!(sessions(1_800_000_000) > 100_000);
        assert!((50_000..70_000).contains(&sessions(1 << 30)));
        assert_eq!(sessions(0), 1);
    }

    #[test]
    fn a_small_machine_lends_an_eighth_of_its_memory_and_at_least_one_payload() {
        assert_eq!(held(None, 1), 128 << 20);
        assert_eq!(held(Some(8 << 30), 1), 128 << 20);
        assert_eq!(held(Some(128 << 20), 65_536), 16 << 20);
        assert_eq!(held(Some(1 << 20), 1 << 18), 1 << 18);
    }

    #[test]
    fn memory_of_the_machine_is_read_as_the_kernel_writes_it() {
        assert_eq!(total("MemTotal:       24684084 kB\nMemFree: 1 kB\n"), Some(24_684_084 * 1024));
        for text in ["", "MemTotal: x kB", "MemTotal: 7", "MemFree: 7 kB"] {
            assert_eq!(total(text), None, "{text}");
        }
    }

    #[test]
    fn the_path_of_version_2_is_found_beside_those_of_version_1() {
        assert_eq!(version_2("4:memory:/a\n0::/system.slice/spip.service\n"), Some("system.slice/spip.service"));
        assert_eq!(version_2("0::/\n"), Some(""));
        for text in ["", "4:memory:/a\n", "0::/../other\n"] {
            assert_eq!(version_2(text), None, "{text}");
        }
    }

    #[test]
    fn the_least_limit_of_a_cgroup_and_those_above_it_holds() {
        let root = std::env::temp_dir().join(format!("spip-memory-{}", std::process::id()));
        let slice = root.join("system.slice");
        fs::create_dir_all(slice.join("spip.service")).expect("a directory for the test");
        let set = |path: &str, text: &str| fs::write(root.join(path).join("memory.max"), text).expect("ours");
        assert_eq!(limit(&root, "system.slice/spip.service"), None);
        set("system.slice/spip.service", "max\n");
        assert_eq!(limit(&root, "system.slice/spip.service"), None);
        set("system.slice", "1000000\n");
        assert_eq!(limit(&root, "system.slice/spip.service"), Some(1_000_000));
        set("system.slice/spip.service", "2000000\n");
        set("", "3000000\n");
        assert_eq!(limit(&root, "system.slice/spip.service"), Some(1_000_000));
        assert_eq!(limit(&root, ""), Some(3_000_000));
        fs::remove_dir_all(&root).expect("ours");
    }
}
