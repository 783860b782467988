//! The fleet's network: a namespace for each sensor and each server of the cluster, joined by that of the hub, which routes.
//!
//! Without root everything is on loopback, and the network cuts nothing.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::namespace::{Namespace, host as shell};

/// A host of the fleet.
pub(crate) struct Host {
    pub(crate) address: IpAddr,
    namespace: Option<Namespace>,
}

impl Host {
    /// Runs `act` inside. Programs that it starts, and threads, stay there.
    pub(crate) fn enter<T: Send>(&self, act: impl FnOnce() -> T + Send) -> T {
        match &self.namespace {
            Some(namespace) => namespace.enter(act),
            None => act(),
        }
    }
}

/// Names of hosts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum At {
    Hub,
    Server(usize),
    Sensor(usize),
}

/// Failures of the network between a host and all others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cut {
    /// The cable of a server or sensor is out.
    Link,
    /// What the host sends arrives, and no answer comes back.
    Answers,
    /// A firewall resets every connection.
    Resets,
}

/// The hosts.
pub(crate) struct Network {
    pub(crate) hub: Host,
    pub(crate) servers: [Host; 3],
    pub(crate) sensors: [Host; 3],
    /// Set when the firewall can reset connections.
    can_reset: bool,
}

impl Network {
    pub(crate) fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        if !nix::unistd::geteuid().is_root() {
            println!("on loopback, and the network cuts nothing: only root makes network namespaces");
            let host = || Host { address: Ipv4Addr::LOCALHOST.into(), namespace: None };
            let [servers, sensors] = [[(); 3].map(|()| host()), [(); 3].map(|()| host())];
            return Self { hub: host(), servers, sensors, can_reset: false };
        }
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let hub = Namespace::create(number, "hub");
        hub.sysctl("ipv4/ip_forward", "1");
        // Four addresses for each cable: the second is the hub's end, the third the host's.
        let join = |role: &str, index: u8| {
            let namespace = Namespace::create(number, &format!("{role}{index}"));
            let first = 16 * u8::from(role == "sensor") + 4 * index;
            let (router, address) = (Ipv4Addr::new(198, 51, 100, first + 1), Ipv4Addr::new(198, 51, 100, first + 2));
            let (hub, own) = (hub.name(), namespace.name());
            shell(&format!(
                "ip link add wire netns {own} type veth peer name {role}{index} netns {hub} &&
                 ip -n {own} addr add {address}/30 dev wire && ip -n {hub} addr add {router}/30 dev {role}{index} &&
                 ip -n {own} link set wire up && ip -n {hub} link set {role}{index} up &&
                 ip -n {own} route add default via {router}"
            ));
            Host { address: address.into(), namespace: Some(namespace) }
        };
        let servers = [0, 1, 2].map(|index| join("server", index));
        let sensors = [0, 1, 2].map(|index| join("sensor", index));
        let rule = "FORWARD -p tcp -j REJECT --reject-with tcp-reset";
        let tried = hub.shell(&format!("iptables -w -A {rule} && iptables -w -D {rule} && echo reset || true"));
        let can_reset = tried.contains("reset");
        let hub = Host { address: Ipv4Addr::new(198, 51, 100, 1).into(), namespace: Some(hub) };
        Self { hub, servers, sensors, can_reset }
    }

    /// Reports whether there is a network that can fail in this way.
    pub(crate) fn can(&self, cut: Cut) -> bool {
        self.hub.namespace.is_some() && (cut != Cut::Resets || self.can_reset)
    }

    /// Cuts a host off. Reports whether that is possible.
    pub(crate) fn cut(&self, at: At, cut: Cut) -> bool {
        let is_possible = self.can(cut);
        if is_possible {
            self.change(at, cut, true);
        }
        is_possible
    }

    /// Ends what [`Network::cut`] began.
    pub(crate) fn join(&self, at: At, cut: Cut) {
        self.change(at, cut, false);
    }

    /// All rules are in the hub's namespace, links are cut at the hub's end: a host whose own end is down loses its routes.
    fn change(&self, at: At, cut: Cut, begins: bool) {
        let Some(hub) = &self.hub.namespace else { return };
        let (cable, into, from) = match at {
            At::Hub => (String::new(), "INPUT ! -i lo".to_owned(), "OUTPUT ! -o lo".to_owned()),
            At::Server(index) | At::Sensor(index) => {
                let role = if matches!(at, At::Server(_)) { "server" } else { "sensor" };
                let cable = format!("{role}{index}");
                let (into, from) = (format!("FORWARD -o {cable}"), format!("FORWARD -i {cable}"));
                (cable, into, from)
            }
        };
        let (rule, link) = if begins { ("-I", "down") } else { ("-D", "up") };
        hub.shell(&match cut {
            Cut::Link => format!("ip link set {cable} {link}"),
            Cut::Answers => format!("iptables -w {rule} {into} -j DROP"),
            Cut::Resets => format!("iptables -w {rule} {from} -p tcp -j REJECT --reject-with tcp-reset"),
        });
    }
}
