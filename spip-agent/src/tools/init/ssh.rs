//! Every port by which the operator may come in: those on which an sshd listens, those of open sessions, and those that
//! configuration files name, because an sshd that is stopped now will be started again.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use crate::kernel::sockets::{Sockets, is_ssh};

/// Ports, each with the reasons for which it is one of them.
pub(super) type Ports = BTreeMap<u16, Vec<String>>;

/// Directory of the files of sshd.
const SSHD: &str = "etc/ssh";
const UNITS: [&str; 4] = ["etc/systemd/system", "run/systemd/system", "usr/lib/systemd/system", "lib/systemd/system"];

/// Finds them. `root` is `/` but in tests; `session` is the variable `SSH_CONNECTION`.
pub(super) fn ports(root: &Path, sockets: &Sockets, session: Option<&str>) -> Ports {
    let mut ports = Ports::new();
    let mut add = |port: u16, reason: String| {
        let reasons = ports.entry(port).or_default();
        if !reasons.contains(&reason) {
            reasons.push(reason);
        }
    };
    // Client address and port, then server address and port.
    if let Some(port) = session.and_then(|text| text.split(' ').nth(3)?.parse().ok()) {
        add(port, "this session".to_owned());
    }
    for session in &sockets.ssh_sessions {
        add(session.port(), "an open SSH session".to_owned());
    }
    for listener in &sockets.listeners {
        if let Some(owner) = listener.owner.as_deref().filter(|owner| is_ssh(owner)) {
            add(listener.port, format!("{owner} listens on {}", listener.ip));
        }
    }
    for file in configurations(&root.join(SSHD)) {
        let text = fs::read_to_string(&file).unwrap_or_default();
        let name = file.strip_prefix(root).unwrap_or(&file).display();
        sshd_config(&text).for_each(|port| add(port, format!("/{name}")));
    }
    let units = UNITS.iter().map(|units| root.join(units)).filter(|units| units.exists());
    for units in units {
        for unit in ["ssh.socket", "sshd.socket"] {
            let dropins = names(&units.join(format!("{unit}.d")), "conf");
            for file in std::iter::once(units.join(unit)).chain(dropins) {
                let text = fs::read_to_string(&file).unwrap_or_default();
                // A unit that is installed and not used names port 22: leaving that alone costs little.
                socket_unit(&text).for_each(|port| add(port, unit.to_owned()));
            }
        }
    }
    ports
}

/// The main file and those of its directory.
fn configurations(directory: &Path) -> Vec<std::path::PathBuf> {
    let mut files = vec![directory.join("sshd_config")];
    files.extend(names(&directory.join("sshd_config.d"), "conf"));
    files
}

fn names(directory: &Path, extension: &str) -> Vec<std::path::PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut files: Vec<_> = entries.filter(|path| path.extension().is_some_and(|found| found == extension)).collect();
    files.sort();
    files
}

/// `Port 2222`, `ListenAddress 192.0.2.1:2222`, `ListenAddress [2001:db8::1]:2222`; keywords in any case.
fn sshd_config(text: &str) -> impl Iterator<Item = u16> {
    text.lines().filter_map(|line| {
        let (keyword, value) = line.trim().split_once([' ', '\t', '='])?;
        let value = value.trim_start_matches([' ', '\t', '=']).split_ascii_whitespace().next()?.trim_matches('"');
        match keyword.to_ascii_lowercase().as_str() {
            "port" => value.parse().ok(),
            "listenaddress" => {
                let (host, port) = value.rsplit_once(':')?;
                // A bare IPv6 address has colons, too.
                if host.contains(':') && !host.ends_with(']') { None } else { port.parse().ok() }
            }
            _ => None,
        }
    })
}

/// `ListenStream=22`, `ListenStream=[::]:22`, `ListenStream=0.0.0.0:22`.
fn socket_unit(text: &str) -> impl Iterator<Item = u16> {
    text.lines().filter_map(|line| {
        let value = line.trim().strip_prefix("ListenStream=")?.trim();
        value.rsplit_once(':').map_or(value, |(_, port)| port).parse().ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::sockets::Listener;

    #[test]
    fn ports_of_sshds_configuration_are_found_in_every_spelling() {
        let text = "#Port 1\nPort 22\nport=2200\nPort \"2201\"\nListenAddress 192.0.2.1:2202\n\
                    ListenAddress [2001:db8::1]:2203\nListenAddress 2001:db8::2204\nListenAddress 0.0.0.0\nPorts 9\n";
        assert_eq!(sshd_config(text).collect::<Vec<_>>(), [22, 2200, 2201, 2202, 2203]);
    }

    #[test]
    fn ports_of_a_socket_unit_are_found() {
        let text = "[Socket]\nListenStream=\nListenStream=22\nListenStream=[::]:2222\nAccept=no\n";
        assert_eq!(socket_unit(text).collect::<Vec<_>>(), [22, 2222]);
    }

    #[test]
    fn every_way_in_is_found_with_its_reasons() {
        let root = std::env::temp_dir().join(format!("spip-ssh-{}", std::process::id()));
        fs::create_dir_all(root.join("etc/ssh/sshd_config.d")).expect("directory");
        fs::write(root.join("etc/ssh/sshd_config"), "Port 22\n").expect("file");
        fs::write(root.join("etc/ssh/sshd_config.d/more.conf"), "Port 2022\n").expect("file");
        fs::create_dir_all(root.join("etc/systemd/system/ssh.socket.d")).expect("directory");
        fs::write(root.join("etc/systemd/system/ssh.socket.d/port.conf"), "ListenStream=2023\n").expect("file");
        let listener = |port, owner: &str| Listener {
            port,
            ip: std::net::IpAddr::from([0, 0, 0, 0]),
            owner: Some(owner.to_owned()),
        };
        let sockets = Sockets {
            listeners: vec![listener(22, "sshd"), listener(80, "nginx"), listener(2024, "dropbear")],
            ssh_sessions: vec![std::net::SocketAddr::from(([192, 0, 2, 1], 2025))],
            complete: true,
        };
        let found = ports(&root, &sockets, Some("192.0.2.9 50000 192.0.2.1 2026"));
        fs::remove_dir_all(&root).expect("ours");
        assert_eq!(found.keys().copied().collect::<Vec<_>>(), [22, 2022, 2023, 2024, 2025, 2026]);
        assert_eq!(found[&22], ["sshd listens on 0.0.0.0", "/etc/ssh/sshd_config"]);
        assert_eq!(found[&2026], ["this session"]);
    }
}
