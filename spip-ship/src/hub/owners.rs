//! Owners and modes of a hub's files: what the server's user and the shipper's user may read and write, and nothing more.
//!
//! The configuration belongs to root, so that neither service can change it. Each of both users reads its own secrets, and
//! writes to its own directory of the data. The hub's logs belong to the group of the package's readers (`spip-view`).

use std::fs::{self, DirBuilder, Permissions};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _, chown};
use std::path::{Path, PathBuf};

use nix::unistd::{Group, User, geteuid};

use super::Result;
use super::registry::Registry;

/// User of the servers' unit: Debian's package of nats-server makes it.
const NATS: &str = "nats";

/// User of the shipper's unit, and the group that reads logs: the package of Spip makes both.
const SHIP: &str = "spip-ship";
const READERS: &str = "spip";

/// A file or directory that a service needs.
struct Grant {
    path: PathBuf,
    user: Option<&'static str>,
    group: &'static str,
}

impl Grant {
    /// Lets the group read the file.
    fn read(path: PathBuf, group: &'static str) -> Self {
        Self { path, user: None, group }
    }

    /// Makes `user` the owner.
    fn own(path: PathBuf, user: &'static str, group: &'static str) -> Self {
        Self { path, user: Some(user), group }
    }

    /// Changes owner and group. Returns whether both are there.
    fn give(&self) -> Result<bool> {
        let failed = |error: String| format!("cannot give {} to {}: {error}", self.path.display(), self.group);
        let group = Group::from_name(self.group).map_err(|error| failed(error.to_string()))?;
        let user = self.user.map(User::from_name).transpose().map_err(|error| failed(error.to_string()))?;
        let (Some(group), false) = (group, matches!(user, Some(None))) else { return Ok(false) };
        let owner = user.flatten().map(|user| user.uid.as_raw());
        chown(&self.path, owner, Some(group.gid.as_raw())).map(|()| true).map_err(|error| failed(error.to_string()))
    }

    /// Returns the command that does the same.
    fn command(&self) -> String {
        match self.user {
            Some(user) => format!("chown {user}:{} {}", self.group, self.path.display()),
            None => format!("chgrp {} {}", self.group, self.path.display()),
        }
    }
}

/// Returns what each service needs.
fn grants(registry: &Registry, directory: &Path) -> Vec<Grant> {
    let mut grants = Vec::new();
    for host in registry.hosts() {
        let node = registry.node(directory, host);
        grants.extend(["nats.conf", "users.conf", "server.key"].map(|name| Grant::read(node.join(name), NATS)));
        grants.push(Grant::own(registry.store(host), NATS, NATS));
    }
    grants.push(Grant::own(directory.join("hub.nkey"), SHIP, SHIP));
    grants.push(Grant::own(registry.data().join("ship"), SHIP, SHIP));
    grants.push(Grant::own(registry.data().join("logs"), SHIP, READERS));
    grants
}

/// Makes the directories of the data, and gives each service what it needs. Returns the commands for services whose users
/// are not there yet. Without root everything stays with this user, who runs the programs, too.
pub(super) fn hand_over(registry: &Registry, directory: &Path) -> Result<Vec<String>> {
    for host in registry.hosts() {
        make_directory(&registry.store(host), 0o750)?;
    }
    for name in ["ship", "logs"] {
        make_directory(&registry.data().join(name), 0o750)?;
    }
    let mut left = Vec::new();
    if geteuid().is_root() {
        for grant in grants(registry, directory) {
            if !grant.give()? {
                left.push(grant.command());
            }
        }
    }
    Ok(left)
}

/// Lets the server read its users, which are written anew.
pub(super) fn give_users(path: PathBuf) {
    let grant = Grant::read(path, NATS);
    if geteuid().is_root()
        && let Err(message) = grant.give()
    {
        log::warn!("{message}");
    }
}

/// Makes a directory with exactly `mode`, and those above it that are missing with 0755, whatever the umask is. One that
/// is there stays as it is.
pub(crate) fn make_directory(path: &Path, mode: u32) -> Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        make_directory(parent, 0o755)?;
    }
    DirBuilder::new()
        .mode(mode)
        .create(path)
        .and_then(|()| fs::set_permissions(path, Permissions::from_mode(mode)))
        .map_err(|error| format!("cannot make {}: {error}", path.display()))
}
