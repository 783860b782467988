//! Two hosts in one machine: network namespaces joined by a veth pair, gone with the value that made them.
//!
//! Both ends are created inside the namespaces, so the machine's own network never sees a link of theirs.
//! Names carry the process id: what a killed process left behind is recognised by its id being unused, and
//! removed by the next one. Addresses are those reserved for documentation (RFC 5737, RFC 3849).

use std::fs::{self, File};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use anyhow::{Context, Result, anyhow};
use nix::sched::{CloneFlags, setns};

use crate::process;

/// Directory in which `ip netns` keeps the namespaces that it names.
const NAMED: &str = "/run/netns";

/// The sensor's address on the link, and the client's.
pub(crate) const SENSOR: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 1));
const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 2));
/// The same for IPv6.
pub(crate) const SENSOR_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1));
const CLIENT_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2));

/// A named network namespace, deleted on drop.
#[derive(Debug)]
pub(crate) struct Namespace {
    name: String,
}

impl Namespace {
    fn create(name: String) -> Result<Self> {
        ip(&["netns", "add", &name])?;
        Ok(Self { name })
    }

    fn file(&self) -> PathBuf {
        Path::new(NAMED).join(&self.name)
    }

    /// A command that runs inside. Not `ip netns exec`: that mounts a new /sys and so hides the cgroups.
    pub(crate) fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut flag = std::ffi::OsString::from("--net=");
        flag.push(self.file());
        let mut command = Command::new("nsenter");
        command.arg(flag).arg("--").arg(program).env("PATH", process::full_path());
        command
    }

    /// Runs `work` on a thread inside and returns what it returned.
    pub(crate) fn inside<T: Send + 'static>(&self, work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
        let namespace = File::open(self.file()).with_context(|| format!("cannot open {}", self.name))?;
        let thread = thread::spawn(move || {
            // Only this thread moves, and it ends here.
            setns(namespace, CloneFlags::CLONE_NEWNET).context("cannot enter the namespace")?;
            work()
        });
        thread.join().map_err(|_| anyhow!("the thread in {} panicked", self.name))?
    }

    fn ip(&self, arguments: &[&str]) -> Result<()> {
        let mut all = vec!["-n", &self.name];
        all.extend(arguments);
        ip(&all)
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // Nothing is left to be done about a failure but to say it.
        if let Err(error) = ip(&["netns", "delete", &self.name]) {
            crate::report::note(format!("{error:#}"));
        }
    }
}

/// The sensor's host and a client's, joined.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) sensor: Namespace,
    pub(crate) client: Namespace,
    /// Set when the kernel has IPv6.
    pub(crate) has_ipv6: bool,
}

impl Link {
    /// Makes both and brings the link up. `purpose` begins the names, as `spip-demo`.
    pub(crate) fn create(purpose: &str) -> Result<Self> {
        let id = std::process::id();
        let link = Self {
            sensor: Namespace::create(format!("{purpose}-{id}-sensor"))?,
            client: Namespace::create(format!("{purpose}-{id}-client"))?,
            has_ipv6: Path::new("/proc/net/if_inet6").exists(),
        };
        let (sensor, client) = (&link.sensor, &link.client);
        let pair = ["link", "add", "eth0", "netns", &sensor.name, "type", "veth"];
        let peer = ["peer", "name", "eth0", "netns", &client.name];
        ip(&[&pair[..], &peer[..]].concat())?;
        for (host, address, address_v6) in [(sensor, SENSOR, SENSOR_V6), (client, CLIENT, CLIENT_V6)] {
            host.ip(&["link", "set", "lo", "up"])?;
            host.ip(&["address", "add", &format!("{address}/24"), "dev", "eth0"])?;
            if link.has_ipv6 {
                // Without nodad the address could not be used in its first second.
                let address = format!("{address_v6}/64");
                host.ip(&["-6", "address", "add", &address, "dev", "eth0", "nodad"])?;
            }
            host.ip(&["link", "set", "eth0", "up"])?;
        }
        Ok(link)
    }
}

/// Deletes namespaces of this purpose whose process is gone.
pub(crate) fn remove_stale(purpose: &str) -> Result<()> {
    for name in names(Path::new(NAMED)) {
        if is_stale(&name, purpose) {
            crate::report::note(format!("removing {name}, which an earlier run left"));
            ip(&["netns", "delete", &name])?;
        }
    }
    Ok(())
}

/// The entries of a folder; none when it is not there.
pub(crate) fn names(folder: &Path) -> Vec<String> {
    fs::read_dir(folder).into_iter().flatten().filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect()
}

/// Reports whether a name is `purpose-PID` or `purpose-PID-…` and no process has this id.
pub(crate) fn is_stale(name: &str, purpose: &str) -> bool {
    name.strip_prefix(purpose)
        .and_then(|rest| rest.strip_prefix('-')?.split('-').next())
        .and_then(|id| id.parse::<u32>().ok())
        .is_some_and(|id| !Path::new(&format!("/proc/{id}")).exists())
}

fn ip(arguments: &[&str]) -> Result<()> {
    let mut command = Command::new("ip");
    command.env("PATH", process::full_path()).args(arguments);
    process::output(&mut command).map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_dead_process_left_is_stale() {
        let own = std::process::id();
        // Above the largest process id that Linux gives (PID_MAX_LIMIT, 4,194,304).
        let dead = 4_194_305;
        assert!(is_stale(&format!("spip-demo-{dead}-sensor"), "spip-demo"));
        assert!(is_stale(&format!("spip-demo-{dead}"), "spip-demo"));
        assert!(!is_stale(&format!("spip-demo-{own}-sensor"), "spip-demo"));
        assert!(!is_stale(&format!("spip-test-{dead}-sensor"), "spip-demo"));
        assert!(!is_stale("spip-demo", "spip-demo"));
        assert!(!is_stale("spip-demo-sensor", "spip-demo"));
        assert!(!is_stale("spip-demo-", "spip-demo"));
    }
}
