//! Detects a kernel that loses connections from one source port behind REDIRECT.
//!
//! A scanner that sends everything from one port has many connections which differ in nothing but the port they go to.
//! REDIRECT makes that the same for all, so NAT gives all but the first another source port. Yet the kernel has looked
//! for a packet's socket before that (early demux), and found the first connection's: the others never open. Kernels
//! since 2023 look again when NAT has changed the port; others do it when early demux is off.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::Path;

/// Command that fixes it until the next boot.
pub const REMEDY: &str = "sysctl -w net.ipv4.tcp_early_demux=0";

/// Consequence, for messages.
pub const LOSS: &str =
    "behind REDIRECT this kernel opens one connection at a time from one source port: the others are half-open scans";

/// Hook of NAT that came with the fix.
const MENDED: &str = "nf_nat_ipv6_local_in";
/// Hook of NAT that is there with it and without.
const PRESENT: &str = "nf_nat_ipv4_local_in";

/// Reports whether connections are lost; `None` when the kernel does not tell, as before the first rule has loaded NAT.
#[must_use]
pub fn loses_connections() -> Option<bool> {
    let off = |key| fs::read_to_string(Path::new("/proc/sys/net/ipv4").join(key)).is_ok_and(|text| text.trim() == "0");
    if off("tcp_early_demux") || off("ip_early_demux") {
        return Some(false);
    }
    kernel_confuses_connections()
}

/// Reports whether the kernel would lose connections with early demux on; `None` as above.
#[must_use]
pub fn kernel_confuses_connections() -> Option<bool> {
    lacks_fix(BufReader::new(File::open("/proc/kallsyms").ok()?))
}

/// Reports whether NAT is among the kernel's symbols without the fix.
fn lacks_fix(symbols: impl BufRead) -> Option<bool> {
    let mut present = None;
    for line in symbols.lines().map_while(Result::ok) {
        match line.split_ascii_whitespace().nth(2) {
            Some(MENDED) => return Some(false),
            Some(PRESENT) => present = Some(true),
            _ => {}
        }
    }
    present
}

#[cfg(test)]
mod tests {
    use super::lacks_fix;

    const BEFORE: &str =
        "0000000000000000 t nf_nat_ipv6_in\t[nf_nat]\n0000000000000000 t nf_nat_ipv4_local_in\t[nf_nat]\n";

    #[test]
    fn the_mend_is_known_by_its_hook_and_nothing_is_said_without_nat() {
        let after = format!("{BEFORE}0000000000000000 t nf_nat_ipv6_local_in\n");
        assert_eq!(lacks_fix(BEFORE.as_bytes()), Some(true));
        assert_eq!(lacks_fix(after.as_bytes()), Some(false));
        assert_eq!(lacks_fix(&b"0000000000000000 T __pfx_nf_nat_ipv4_local_in\n"[..]), None);
        assert_eq!(lacks_fix(&b""[..]), None);
    }
}
