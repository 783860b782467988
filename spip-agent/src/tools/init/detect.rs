//! Examines the machine before any question.

use std::net::IpAddr;
use std::path::Path;

use nix::sys::statvfs::statvfs;

use super::ssh::{self, Ports};
use crate::confine::sandbox;
use crate::kernel::ebpf;
use crate::kernel::sockets::Sockets;

/// Default directory of the records.
pub(super) const LOG_DIRECTORY: &str = "/var/log/spip";
/// The user that a package makes.
pub(super) const USER: &str = "spip";
/// The port that is proposed first; those after it follow.
pub(super) const PORT: u16 = 12_345;

/// The machine.
#[derive(Debug)]
pub(super) struct Found {
    /// Ports by which the operator may come in.
    pub(super) ssh: Ports,
    /// Other services: port, address, owner.
    pub(super) services: Vec<(u16, IpAddr, String)>,
    /// Set when the processes of other users could be read.
    pub(super) complete: bool,
    pub(super) ipv6: bool,
    /// Reports whether the kernel can steer without rules, or why that is not known.
    pub(super) sk_lookup: Result<bool, String>,
    /// Ports from which this machine connects out.
    pub(super) outgoing: Option<(u16, u16)>,
    /// Free bytes where the log would be.
    pub(super) free_bytes: u64,
    pub(super) is_root: bool,
    pub(super) has_user: bool,
}

impl Found {
    pub(super) fn look(root: &Path) -> Result<Self, crate::kernel::sockets::Unreadable> {
        let sockets = Sockets::read(&root.join("proc"))?;
        let session = std::env::var("SSH_CONNECTION").ok();
        let ssh = ssh::ports(root, &sockets, session.as_deref());
        let services = sockets.listeners.iter().filter(|found| !ssh.contains_key(&found.port));
        let services = services.map(|found| {
            let owner = found.owner.clone().unwrap_or_else(|| "a hidden process".to_owned());
            (found.port, found.ip, owner)
        });
        Ok(Self {
            services: services.collect(),
            ssh,
            complete: sockets.complete,
            ipv6: root.join("proc/net/if_inet6").exists(),
            sk_lookup: sk_lookup(),
            outgoing: crate::kernel::steering::outgoing_ports(),
            free_bytes: free_bytes(Path::new(LOG_DIRECTORY)),
            is_root: nix::unistd::geteuid().is_root(),
            has_user: sandbox::find_user(USER).is_some(),
        })
    }

    /// A high port that nothing has and that is in none of these ranges; outside of those from which this machine connects
    /// out, where there is one, because any of them may be taken when the agent starts.
    pub(super) fn free_port(&self, excluded: &[(u16, u16)]) -> u16 {
        let within = |port: u16, range: &(u16, u16)| (range.0..=range.1).contains(&port);
        let is_free = |port: &u16| {
            !self.ssh.contains_key(port)
                && self.services.iter().all(|(taken, ..)| taken != port)
                && !excluded.iter().any(|range| within(*port, range))
        };
        let lasting = |port: &u16| is_free(port) && !self.outgoing.is_some_and(|range| within(*port, &range));
        let ports = || (PORT..=u16::MAX).chain((1_024..PORT).rev());
        ports().find(lasting).or_else(|| ports().find(is_free)).unwrap_or(PORT)
    }
}

/// Both parts that steering takes.
fn sk_lookup() -> Result<bool, String> {
    let parts = ["sk_lookup", "sock_map"];
    ebpf::features()
        .into_iter()
        .filter(|feature| parts.contains(&feature.name))
        .try_fold(true, |all, feature| Ok(all && feature.state?))
}

/// Of the directory, or of the closest one above that exists.
fn free_bytes(directory: &Path) -> u64 {
    let room = directory.ancestors().find_map(|directory| statvfs(directory).ok());
    #[allow(clippy::unnecessary_cast)] // 32 bits on some architectures
    room.map_or(0, |room| (room.blocks_available() as u64).saturating_mul(room.fragment_size() as u64))
}

#[cfg(test)]
mod tests {
    use super::super::answers::tests::found;
    use super::*;

    #[test]
    fn the_port_that_is_proposed_is_nobodys() {
        assert_eq!(found().free_port(&[]), 12_346);
        assert_eq!(found().free_port(&[(12_000, 12_400)]), 12_401);
        let outgoing = |from, to| Found { outgoing: Some((from, to)), ..found() }.free_port(&[]);
        assert_eq!(outgoing(1_024, 60_999), 61_000);
        assert_eq!(outgoing(10_000, 65_535), 9_999);
        assert_eq!(outgoing(1_024, 65_535), 12_346, "there is none outside");
    }
}
