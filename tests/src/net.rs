//! The network of one test: a sensor and a client, joined by one cable, and the firewall rules in front of the sensor.
//!
//! Addresses are from the ranges for documentation and benchmarks, so that a leak would reach no host. The rules here
//! are written by hand: what `spip-agent rules` makes is a subject of tests, not their ground.

use std::io::Read as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::Value;
use spip_agent::kernel::early_demux;

use crate::agent::Launch;
use crate::namespace::{Namespace, directory, host, remove_directory};

/// The port on which the agent under test listens.
pub const LISTENER: u16 = 12345;
/// The sensor's address.
pub const SENSOR_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 1));
/// The client's address.
pub const CLIENT_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 2));
/// The sensor's IPv6 address.
pub const SENSOR_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 1));
/// The client's IPv6 address.
pub const CLIENT_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 2));
/// First address of the /15 that [`Net::add_crowd`] gives to the client.
pub const CROWD_V4: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 0);
/// First address of the /33 that [`Net::add_crowd`] gives to the client: two thousand million /64 networks.
pub const CROWD_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x8000, 0, 0, 0, 0, 0);

/// The cable's name at both ends.
pub const WIRE: &str = "wire";
/// Locally administered address of the sensor's end of the cable.
pub const SENSOR_MAC: &str = "02:00:00:00:00:01";
/// The same of the client's end.
pub const CLIENT_MAC: &str = "02:00:00:00:00:02";

/// Two namespaces, joined.
#[derive(Debug)]
pub struct Net {
    /// Namespace of the agent.
    pub sensor: Namespace,
    /// Namespace of the clients.
    pub client: Namespace,
    directory: PathBuf,
    bpffs: bool,
}

impl Net {
    /// A directory for logs alone: one that holds the configuration, too, is no sandbox.
    ///
    /// # Panics
    /// When it cannot be made.
    #[must_use]
    pub fn logs(&self) -> PathBuf {
        let logs = self.directory.join("logs");
        std::fs::create_dir_all(&logs).expect("the test's directory is its own");
        logs
    }

    /// Makes the network, or says why the test is skipped (see [`crate::require_root`]).
    ///
    /// # Panics
    /// When a namespace cannot be made.
    #[must_use]
    pub fn new() -> Option<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        if !crate::require_root() {
            return None;
        }
        raise_descriptor_limit();
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let sensor = Namespace::create(number, "sensor");
        let client = Namespace::create(number, "client");
        let directory = directory(number);
        std::fs::create_dir_all(&directory).expect("the directory for temporary files can be written");
        // Both ends know each other from the start: an IPv6 link-local address is not ready to ask for neighbours yet.
        host(&format!(
            "ip link add wire address {SENSOR_MAC} netns {s} type veth peer name wire address {CLIENT_MAC} netns {c} &&
             ip -n {s} addr add {SENSOR_V4}/24 dev wire && ip -n {c} addr add {CLIENT_V4}/24 dev wire &&
             ip -n {s} addr add {SENSOR_V6}/64 dev wire nodad && ip -n {c} addr add {CLIENT_V6}/64 dev wire nodad &&
             ip -n {s} link set wire up && ip -n {c} link set wire up &&
             ip -n {s} neigh replace {CLIENT_V4} lladdr {CLIENT_MAC} dev wire nud permanent &&
             ip -n {s} neigh replace {CLIENT_V6} lladdr {CLIENT_MAC} dev wire nud permanent &&
             ip -n {c} neigh replace {SENSOR_V4} lladdr {SENSOR_MAC} dev wire nud permanent &&
             ip -n {c} neigh replace {SENSOR_V6} lladdr {SENSOR_MAC} dev wire nud permanent",
            s = sensor.name(),
            c = client.name(),
        ));
        if confuses_connections() {
            sensor.sysctl("ipv4/tcp_early_demux", "0");
        }
        let net = Self { bpffs: mount_bpffs(&directory), sensor, client, directory };
        // Duplicate address detection is off, but the link must carry before an IPv6 address answers.
        crate::eventually("the veth pair carries", || {
            let state = net.sensor.shell("ip -6 addr show dev wire scope global; ip link show dev wire");
            (state.contains("state UP") && !state.contains("tentative")).then_some(())
        });
        Some(net)
    }

    /// The directory for the test's files, removed with it.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.directory
    }

    /// A directory on a BPF file system of this test's own, or the same path without one where the kernel refuses.
    #[must_use]
    pub fn pins(&self) -> PathBuf {
        self.directory.join("bpf/spip")
    }

    /// Reports whether [`Net::pins`] lies on a BPF file system.
    #[must_use]
    pub fn has_bpffs(&self) -> bool {
        self.bpffs
    }

    /// An agent that is to run in the sensor's namespace, with the defaults of a test.
    pub fn agent(&self) -> Launch<'_> {
        Launch::new(self)
    }

    /// Redirects every TCP port to the agent, IPv4 and IPv6.
    pub fn redirect(&self) {
        self.rules("PREROUTING", "");
    }

    /// Sends every TCP port of the loopback interface to the agent, IPv4 and IPv6.
    pub fn redirect_local(&self) {
        self.rules("OUTPUT", "-o lo");
    }

    fn rules(&self, chain: &str, matching: &str) {
        for program in ["iptables", "ip6tables"] {
            self.sensor.shell(&format!(
                "{program} -w -t nat -A {chain} {matching} -p tcp ! --dport {LISTENER} -j REDIRECT --to-ports {LISTENER}"
            ));
        }
    }

    /// Gives the client [`CROWD_V4`]/15 and [`CROWD_V6`]/33: it may connect from any address in there.
    pub fn add_crowd(&self) {
        self.sensor.shell(&format!(
            "ip route add {CROWD_V4}/15 via {CLIENT_V4} && ip -6 route add {CROWD_V6}/33 via {CLIENT_V6}"
        ));
        self.client
            .shell(&format!("ip route add local {CROWD_V4}/15 dev lo && ip -6 route add local {CROWD_V6}/33 dev lo"));
        self.client.sysctl("ipv6/ip_nonlocal_bind", "1");
    }

    /// Mounts a file system of `bytes` bytes in memory, with an own directory, for logs that run out of room.
    ///
    /// # Panics
    /// When the kernel refuses.
    #[must_use]
    pub fn small_disk(&self, bytes: u32) -> PathBuf {
        let path = self.directory.join("disk");
        std::fs::create_dir_all(&path).expect("the test's directory is its own");
        let options = format!("size={bytes}");
        let flags = nix::mount::MsFlags::empty();
        nix::mount::mount(Some("tmpfs"), &path, Some("tmpfs"), flags, Some(options.as_str())).expect("root may mount");
        path
    }

    /// Returns the status of the running agent.
    ///
    /// # Panics
    /// When none answers.
    #[must_use]
    pub fn status(&self) -> Value {
        let mut report = String::new();
        let status = UnixStream::connect(self.directory.join("run/status.sock"));
        status.and_then(|mut status| status.read_to_string(&mut report)).expect("the agent answers");
        serde_json::from_str(&report).expect("JSON")
    }

    /// Connects from the client to a port of the sensor's IPv4 address.
    ///
    /// # Panics
    /// When the connection is refused.
    #[must_use]
    pub fn connect(&self, port: u16) -> TcpStream {
        self.client.connect((SENSOR_V4, port))
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        remove_directory(&self.directory);
    }
}

/// A BPF file system under `directory`, readable as the maps in it are.
fn mount_bpffs(directory: &Path) -> bool {
    let target = directory.join("bpf");
    std::fs::create_dir_all(&target).expect("the test's directory is its own");
    let none: Option<&str> = None;
    nix::mount::mount(Some("bpf"), &target, Some("bpf"), nix::mount::MsFlags::empty(), none).is_ok()
}

/// Tests hold thousands of sockets: the soft limit of this process becomes the hard one.
fn raise_descriptor_limit() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
}

/// Reports whether this kernel may need the sysctl that `spip-agent doctor` advises for connections from one source
/// port: its NAT is not known to do without. Looked up once: the kernel has a hundred thousand symbols.
fn confuses_connections() -> bool {
    static CONFUSES: LazyLock<bool> = LazyLock::new(|| early_demux::kernel_confuses_connections() != Some(false));
    *CONFUSES
}
