//! The probe's network: a namespace that one thread of this process is in, and a pair of virtual interfaces.
//!
//! The interfaces are made by the program `ip`, as people would. The kernel removes namespace and interfaces when the
//! thread ends; nothing has a name that could be left behind.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};
use std::process::Command;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use nix::sched::{CloneFlags, unshare};

use crate::kernel::routes::{self, Ipv4Route};

type Job = Box<dyn FnOnce() + Send>;

/// The namespace, with a way into it.
pub(super) struct Stage {
    jobs: Option<SyncSender<Job>>,
    thread: Option<JoinHandle<()>>,
    own: Vec<IpAddr>,
    interface: String,
}

/// Pairs of neighbours in ranges that are never routed (RFC 5737, RFC 2544): ours, the probe's.
const PAIRS: [([u8; 4], [u8; 4]); 4] = [
    ([192, 0, 2, 253], [192, 0, 2, 254]),
    ([203, 0, 113, 253], [203, 0, 113, 254]),
    ([198, 51, 100, 253], [198, 51, 100, 254]),
    ([198, 19, 255, 253], [198, 19, 255, 254]),
];
/// Locally administered, so that neighbours need not be asked for.
const OWN_MAC: &str = "02:00:5e:00:53:01";
const PROBE_MAC: &str = "02:00:5e:00:53:02";

impl Stage {
    /// Makes it for the address families that are asked for.
    pub(super) fn make(with_ipv4: bool, with_ipv6: bool) -> Result<Self, String> {
        let (jobs, queue) = sync_channel::<Job>(1);
        let (told, entered) = sync_channel(1);
        let thread = std::thread::Builder::new().name("probe".into()).spawn(move || live(&queue, &told));
        let thread = thread.map_err(|error| error.to_string())?;
        let interface = format!("spip-{}", std::process::id());
        let mut stage = Self { jobs: Some(jobs), thread: Some(thread), own: Vec::new(), interface };
        let id = entered.recv().map_err(|_| "the thread ended".to_owned())??;
        let namespace = format!("/proc/{}/task/{id}/ns/net", std::process::id());
        let own = stage.interface.clone();
        ip(&format!(
            "link add {own} address {OWN_MAC} type veth peer name probe address {PROBE_MAC} netns {namespace}"
        ))?;
        stage.inside_ip("link set lo up")?;
        if with_ipv4 {
            let (ours, theirs) = free_pair().ok_or("all addresses for documentation are in use here")?;
            ip(&format!("address add {ours}/32 peer {theirs}/32 dev {own}"))?;
            stage.inside_ip(&format!("address add {theirs}/32 peer {ours}/32 dev probe"))?;
            stage.own.push(ours.into());
        }
        if with_ipv6 {
            let (ours, theirs) = unique_local();
            // Without nodad the addresses could not be used in their first second.
            ip(&format!("-6 address add {ours}/127 dev {own} nodad"))?;
            stage.inside_ip(&format!("-6 address add {theirs}/127 dev probe nodad"))?;
            stage.own.push(ours.into());
        }
        ip(&format!("link set {own} up"))?;
        stage.inside_ip("link set probe up")?;
        for ours in stage.own.clone() {
            stage.inside_ip(&format!("neighbour replace {ours} lladdr {OWN_MAC} dev probe nud permanent"))?;
            let family = if ours.is_ipv4() { "-4" } else { "-6" };
            // A telescope's prefix is behind our end as well.
            stage.inside_ip(&format!("{family} route add default via {ours} dev probe"))?;
        }
        Ok(stage)
    }

    /// The addresses of our end.
    pub(super) fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.own.iter().copied()
    }

    /// Runs `act` in the namespace.
    pub(super) fn inside<T: Send + 'static>(
        &self,
        act: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let gone = || io::Error::other("the thread of the probe ended");
        let (told, answer) = sync_channel(1);
        let job: Job = Box::new(move || drop(told.send(act())));
        self.jobs.as_ref().ok_or_else(gone)?.send(job).map_err(|_| gone())?;
        answer.recv().map_err(|_| gone())?
    }

    fn inside_ip(&self, arguments: &str) -> Result<(), String> {
        let arguments = arguments.to_owned();
        self.inside(move || ip(&arguments).map_err(io::Error::other)).map_err(|error| error.to_string())
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        // The kernel removes the interfaces with the namespace, but takes its time; they must be gone afterwards.
        let _ = ip(&format!("link delete {}", self.interface));
        self.jobs.take();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The life of the thread: enters a namespace of its own, then does what it is told.
fn live(queue: &Receiver<Job>, told: &SyncSender<Result<i32, String>>) {
    let entered = unshare(CloneFlags::CLONE_NEWNET);
    let entered = entered.map(|()| nix::unistd::gettid().as_raw());
    let _ = told.send(entered.map_err(|error| format!("a network namespace is refused: {error}")));
    while let Ok(job) = queue.recv() {
        job();
    }
}

/// Runs `ip`, in the namespace of the calling thread.
fn ip(arguments: &str) -> Result<(), String> {
    let directories = ["/usr/sbin", "/sbin", "/usr/bin", "/bin"];
    let program = directories.iter().map(|directory| format!("{directory}/ip")).find(|path| fs::metadata(path).is_ok());
    let program = program.ok_or("the program ip is missing: apt-get install iproute2")?;
    let output = Command::new(program).args(arguments.split(' ')).output().map_err(|error| error.to_string())?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("ip {arguments}: {}", String::from_utf8_lossy(&output.stderr).trim()))
}

/// The first pair of which nothing here knows.
fn free_pair() -> Option<(Ipv4Addr, Ipv4Addr)> {
    let routes = routes::ipv4();
    let pairs = PAIRS.iter().map(|(ours, theirs)| (Ipv4Addr::from(*ours), Ipv4Addr::from(*theirs)));
    pairs.into_iter().find(|(ours, theirs)| [ours, theirs].iter().all(|address| !is_known(**address, &routes)))
}

/// Reports whether an address is local here, or behind a route other than the default one.
fn is_known(address: Ipv4Addr, routes: &[Ipv4Route]) -> bool {
    let is_local = UdpSocket::bind((address, 0)).is_ok() && UdpSocket::bind((Ipv4Addr::new(192, 0, 0, 9), 0)).is_err();
    let is_routed = |route: &Ipv4Route| route.mask != 0 && address.to_bits() & route.mask == route.network.to_bits();
    is_local || routes.iter().any(is_routed)
}

/// Two neighbours of a unique local prefix (RFC 4193) that is drawn by lot.
fn unique_local() -> (Ipv6Addr, Ipv6Addr) {
    let mut bytes = *uuid::Uuid::new_v4().as_bytes();
    bytes[0] = 0xfd;
    bytes[15] &= 0xfe;
    let ours = Ipv6Addr::from(bytes);
    bytes[15] |= 1;
    (ours, Ipv6Addr::from(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROUTES: &str = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n\
        eth0\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n\
        eth0\t000200C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n";

    #[cfg(target_endian = "little")] // the table is written in the byte order of the machine
    #[test]
    fn an_address_behind_a_route_is_known_and_the_default_route_does_not_count() {
        let routes = routes::parse_ipv4(ROUTES);
        assert!(is_known(Ipv4Addr::new(192, 0, 2, 253), &routes));
        assert!(!is_known(Ipv4Addr::new(203, 0, 113, 253), &routes));
    }

    #[test]
    fn the_two_ends_are_neighbours_of_a_local_prefix() {
        let (ours, theirs) = unique_local();
        assert_eq!(ours.to_bits() | 1, theirs.to_bits());
        assert_ne!(ours, theirs);
        assert!(ours.is_unique_local());
    }
}
