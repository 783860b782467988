//! Excluded ports and their reasons: the reason is shown with each, because a port that is missing from the records
//! is the first thing that an operator asks about.

use std::net::{IpAddr, SocketAddr};

use crate::config::{Config, MetricsAddress};

use crate::kernel::sockets::{Listener, Sockets, is_ssh};

/// Ports that keep what they have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Exclusion {
    /// First port.
    pub(super) from: u16,
    /// Last port.
    pub(super) to: u16,
    /// For the operator, in one line.
    pub(super) reason: String,
}

/// The ports to leave alone for either kind of client.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Exclusions {
    /// For clients from outside. What listens on loopback only is out of their reach and needs no exception.
    pub(super) outside: Vec<Exclusion>,
    /// For clients on this machine.
    pub(super) local: Vec<Exclusion>,
}

impl Exclusions {
    /// Collects them. `ssh_connection` is the variable that `sshd` sets for a session: client address and port, then
    /// server address and port.
    pub(super) fn of(
        config: &Config,
        sockets: &Sockets,
        ssh_connection: Option<&str>,
        include_listening: bool,
    ) -> Self {
        let mut exclusions = Self::default();
        let own = config.listen.port();
        exclusions.both((own, own), "the agent itself listens here");
        for range in &config.exclude_ports {
            exclusions.both(*range, "exclude_ports");
        }
        if let Some(MetricsAddress::Tcp(address)) = &config.metrics {
            // Bound to loopback: out of reach from outside in any case.
            push(&mut exclusions.local, (address.port(), address.port()), "metrics");
        }
        let session = ssh_connection.and_then(|text| text.split(' ').nth(3)).and_then(|port| port.parse().ok());
        if let Some(port) = session {
            exclusions.both((port, port), "the SSH session of this terminal");
        }
        for port in sockets.ssh_sessions.iter().map(SocketAddr::port) {
            exclusions.both((port, port), "an open SSH session");
        }
        for listener in sockets.listeners.iter().filter(|listener| listener.port != own) {
            exclusions.listener(listener, include_listening);
        }
        exclusions
    }

    fn listener(&mut self, Listener { port, ip, owner }: &Listener, include: bool) {
        let port = (*port, *port);
        match owner.as_deref() {
            Some(name) if is_ssh(name) => self.both(port, &format!("{name} listens on {ip}")),
            // It may well be sshd: in doubt, the operator must not be locked out.
            None => self.reachable(port, *ip, &format!("a hidden process listens on {ip}")),
            Some(name @ "systemd") => self.reachable(port, *ip, &format!("{name} listens on {ip}, perhaps for sshd")),
            Some(_) if include => {}
            Some(name) => self.reachable(port, *ip, &format!("{name} listens on {ip}")),
        }
    }

    fn reachable(&mut self, range: (u16, u16), ip: IpAddr, reason: &str) {
        if ip.is_loopback() {
            push(&mut self.local, range, reason);
        } else {
            self.both(range, reason);
        }
    }

    fn both(&mut self, range: (u16, u16), reason: &str) {
        push(&mut self.outside, range, reason);
        push(&mut self.local, range, reason);
    }
}

/// The first reason that covers a port is the one to show.
fn push(exclusions: &mut Vec<Exclusion>, (from, to): (u16, u16), reason: &str) {
    if !exclusions.iter().any(|known| known.from <= from && to <= known.to) {
        exclusions.push(Exclusion { from, to, reason: reason.to_owned() });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> Config {
        let text = "ip = \"::\"\nport = 8080\nexclude_ports = [25, \"100-200\"]";
        Config::from_str(text, std::path::Path::new("/spip.toml")).expect("valid").config
    }

    fn sockets() -> Sockets {
        let listener = |port, ip: &str, owner: Option<&str>| Listener {
            port,
            ip: ip.parse().expect("address"),
            owner: owner.map(str::to_owned),
        };
        Sockets {
            listeners: vec![
                listener(22, "0.0.0.0", Some("sshd")),
                listener(2022, "127.0.0.1", Some("sshd")),
                listener(23, "::", Some("systemd")),
                listener(80, "0.0.0.0", Some("nginx")),
                listener(80, "::", Some("nginx")),
                listener(99, "192.0.2.1", None),
                listener(150, "0.0.0.0", Some("inside-a-range")),
                listener(5432, "127.0.0.1", Some("postgres")),
                listener(8080, "::", Some("spip-agent")),
            ],
            ssh_sessions: [22, 2222].map(|port| SocketAddr::from(([192, 0, 2, 1], port))).into(),
            complete: true,
        }
    }

    fn shown(exclusions: &[Exclusion]) -> Vec<String> {
        exclusions.iter().map(|e| format!("{}-{} {}", e.from, e.to, e.reason)).collect()
    }

    #[test]
    fn what_listens_outside_keeps_its_port_with_a_reason() {
        let exclusions = Exclusions::of(&config(), &sockets(), Some("192.0.2.9 50000 192.0.2.1 2022"), false);
        let outside = [
            "8080-8080 the agent itself listens here",
            "25-25 exclude_ports",
            "100-200 exclude_ports",
            "2022-2022 the SSH session of this terminal",
            "22-22 an open SSH session",
            "2222-2222 an open SSH session",
            "23-23 systemd listens on ::, perhaps for sshd",
            "80-80 nginx listens on 0.0.0.0",
            "99-99 a hidden process listens on 192.0.2.1",
        ];
        assert_eq!(shown(&exclusions.outside), outside);
        let mut local = outside.map(str::to_owned).to_vec();
        local.push("5432-5432 postgres listens on 127.0.0.1".to_owned());
        assert_eq!(shown(&exclusions.local), local);
    }

    #[test]
    fn ssh_and_what_might_be_ssh_stay_out_whatever_is_asked() {
        let exclusions = Exclusions::of(&config(), &sockets(), None, true);
        let ports: Vec<u16> = exclusions.outside.iter().map(|exclusion| exclusion.from).collect();
        assert_eq!(ports, [8080, 25, 100, 22, 2222, 2022, 23, 99]);
        assert_eq!(shown(&exclusions.local), shown(&exclusions.outside));
    }

    #[test]
    fn the_agents_own_metrics_are_left_alone_for_clients_on_this_machine() {
        let text = "ip = \"::\"\nport = 8080\nmetrics = \"127.0.0.1:9464\"";
        let config = Config::from_str(text, std::path::Path::new("/spip.toml")).expect("valid").config;
        let exclusions = Exclusions::of(&config, &Sockets::default(), None, true);
        assert_eq!(shown(&exclusions.outside), ["8080-8080 the agent itself listens here"]);
        assert_eq!(shown(&exclusions.local), ["8080-8080 the agent itself listens here", "9464-9464 metrics"]);
    }

    #[test]
    fn a_strange_ssh_connection_is_passed_over() {
        for text in ["", "a b c d", "1 2 3", "192.0.2.9 50000 192.0.2.1 99999"] {
            let exclusions = Exclusions::of(&config(), &Sockets::default(), Some(text), false);
            assert_eq!(exclusions.outside.len(), 3, "{text}");
        }
    }
}
