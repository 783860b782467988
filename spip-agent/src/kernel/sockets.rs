//! Listeners of this machine, from `/proc`: the sockets of this network namespace, and the processes that hold them.
//!
//! Only TCP, and only what matters here: listening sockets, and the open connections of `sshd`, because a socket that
//! systemd opened for it does not bear its name. Names of processes are as hostile as packets, and
//! end in text that `iptables-restore` reads: everything outside a plain alphabet is replaced.

use std::collections::HashMap;
use std::fs;
use std::io::{self, BufReader};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;

/// State of a socket in `/proc/net/tcp` (`enum` in the kernel's `include/net/tcp_states.h`).
const ESTABLISHED: &str = "01";
const LISTEN: &str = "0A";

/// A port on which something listens.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Listener {
    pub(crate) port: u16,
    pub(crate) ip: IpAddr,
    /// Name of a process that holds it, made harmless; none when it is out of our sight.
    pub(crate) owner: Option<String>,
}

/// The sockets of the network namespace, as far as they matter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sockets {
    /// Sorted, one for each port and address.
    pub(crate) listeners: Vec<Listener>,
    /// Local ends of the connections that some `sshd` holds open.
    pub(crate) ssh_sessions: Vec<SocketAddr>,
    /// Set when the processes of other users could be read.
    pub(crate) complete: bool,
}

/// The listening sockets are unknown, and with them the port of `sshd`.
#[derive(Debug, thiserror::Error)]
#[error("cannot read the sockets of this machine from {0}: {1}; without them sshd might be cut off")]
pub struct Unreadable(String, io::Error);

impl Sockets {
    /// Reads them from a mounted procfs.
    pub(crate) fn read(proc: &Path) -> Result<Self, Unreadable> {
        let mut table = Table::default();
        for name in ["net/tcp", "net/tcp6"] {
            let path = proc.join(name);
            match fs::File::open(&path) {
                Ok(file) => table.add(BufReader::new(file)),
                // A kernel without IPv6.
                Err(error) if error.kind() == io::ErrorKind::NotFound && name == "net/tcp6" => Ok(()),
                Err(error) => Err(error),
            }
            .map_err(|error| Unreadable(path.display().to_string(), error))?;
        }
        Ok(table.owned_by(proc))
    }
}

/// A listening socket in a table as `/proc/net/tcp`.
pub(crate) struct Row {
    pub(crate) port: u16,
    pub(crate) ip: IpAddr,
    pub(crate) user: u32,
    pub(crate) inode: u64,
}

/// The listening sockets in such a table.
pub(crate) fn listening(lines: impl io::BufRead) -> io::Result<Vec<Row>> {
    let mut table = Table::default();
    table.add(lines)?;
    let rows = table.listening.into_iter();
    Ok(rows.map(|(inode, (port, ip, user))| Row { port, ip, user, inode }).collect())
}

#[derive(Default)]
struct Table {
    /// Port, address and user of each, by its number.
    listening: HashMap<u64, (u16, IpAddr, u32)>,
    established: HashMap<u64, SocketAddr>,
}

impl Table {
    fn add(&mut self, lines: impl io::BufRead) -> io::Result<()> {
        for line in lines.lines().skip(1) {
            let line = line?;
            let mut fields = line.split_ascii_whitespace().skip(1);
            let (local, state) = (fields.next(), fields.nth(1));
            let user = fields.nth(3).and_then(|user| user.parse().ok());
            let inode = fields.nth(1).and_then(|inode| inode.parse().ok());
            let (Some((ip, port)), Some(user), Some(inode)) = (local.and_then(address), user, inode) else {
                continue;
            };
            match state {
                Some(LISTEN) => drop(self.listening.insert(inode, (port, ip, user))),
                Some(ESTABLISHED) => drop(self.established.insert(inode, SocketAddr::new(ip, port))),
                _ => {}
            }
        }
        Ok(())
    }

    /// Finds the processes behind the sockets.
    fn owned_by(self, proc: &Path) -> Sockets {
        let mut owners: HashMap<u64, String> = HashMap::new();
        let mut ssh_sessions = Vec::new();
        let mut complete = true;
        for process in fs::read_dir(proc).into_iter().flatten().flatten() {
            if !process.file_name().as_encoded_bytes().iter().all(u8::is_ascii_digit) {
                continue;
            }
            let descriptors = match fs::read_dir(process.path().join("fd")) {
                Ok(descriptors) => descriptors,
                Err(error) => {
                    // A process that has just ended hides nothing.
                    complete &= error.kind() != io::ErrorKind::PermissionDenied;
                    continue;
                }
            };
            let name = harmless(&fs::read(process.path().join("comm")).unwrap_or_default());
            for descriptor in descriptors.flatten() {
                let Some(inode) = fs::read_link(descriptor.path()).ok().and_then(|link| inode(&link)) else {
                    continue;
                };
                if self.listening.contains_key(&inode) {
                    // systemd holds the sockets that it opened, besides the service that it passed them to.
                    let known = owners.entry(inode).or_insert_with(|| name.clone());
                    if is_ssh(&name) || known == "systemd" {
                        known.clone_from(&name);
                    }
                }
                if is_ssh(&name)
                    && let Some(session) = self.established.get(&inode)
                {
                    ssh_sessions.push(*session);
                }
            }
        }
        let mut listeners: Vec<Listener> = self
            .listening
            .into_iter()
            .map(|(inode, (port, ip, _))| Listener { port, ip, owner: owners.remove(&inode) })
            .collect();
        listeners.sort();
        listeners.dedup();
        ssh_sessions.sort_unstable();
        ssh_sessions.dedup();
        Sockets { listeners, ssh_sessions, complete }
    }
}

/// Reports whether a process of this name serves SSH: OpenSSH in all its parts, or Dropbear.
pub(crate) fn is_ssh(name: &str) -> bool {
    name.starts_with("sshd") || name == "dropbear"
}

/// Letters, digits and a few marks; the rest, a line end above all, becomes `?`.
fn harmless(name: &[u8]) -> String {
    let name = name.strip_suffix(b"\n").unwrap_or(name);
    let plain = |byte: &u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'/' | b':' | b'+' => char::from(*byte),
        _ => '?',
    };
    name.iter().take(32).map(plain).collect()
}

fn inode(link: &Path) -> Option<u64> {
    link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
}

/// `0100007F:1F90`: words of the address in the byte order of the machine, the port as a number.
fn address(text: &str) -> Option<(IpAddr, u16)> {
    let (address, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let word = |n: usize| u32::from_str_radix(address.get(n * 8..n * 8 + 8)?, 16).ok().map(u32::to_ne_bytes);
    let ip = match address.len() {
        8 => IpAddr::from(Ipv4Addr::from(word(0)?)),
        32 => {
            let mut bytes = [0; 16];
            for (n, part) in bytes.chunks_exact_mut(4).enumerate() {
                part.copy_from_slice(&word(n)?);
            }
            IpAddr::from(Ipv6Addr::from(bytes)).to_canonical()
        }
        _ => return None,
    };
    Some((ip, port))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    const TCP: &str = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 00000000:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 101 1 0000000000000000 100 0 0 10 0
   1: 0100007F:1538 00000000:0000 0A 00000000:00000000 00:00000000 00000000   105        0 102 1 0000000000000000 100 0 0 10 0
   2: 0A00000A:08AE 0B00000A:D431 01 00000000:00000000 02:000A0000 00000000     0        0 103 2 0000000000000000 20 4 30 10 -1
   3: 0A00000A:01BB 0B00000A:D432 01 00000000:00000000 02:000A0000 00000000     0        0 104 2 0000000000000000 20 4 30 10 -1
   4: broken
";
    const TCP6: &str = "  sl  local_address                         remote_address                        st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 00000000000000000000000000000000:0050 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 201 1 0000000000000000 100 0 0 10 0
   1: 0000000000000000FFFF00000100007F:1F91 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 202 1 0000000000000000 100 0 0 10 0
";

    /// A directory that looks like a procfs, as far as this module looks.
    struct Proc(std::path::PathBuf);

    impl Proc {
        fn new(test: &str) -> Self {
            let path = std::env::temp_dir().join(format!("spip-proc-{test}-{}", std::process::id()));
            fs::create_dir_all(path.join("net")).expect("directory");
            fs::write(path.join("net/tcp"), TCP).expect("file");
            Self(path)
        }

        fn process(&self, id: u32, name: &[u8], sockets: &[u64]) {
            let path = self.0.join(id.to_string());
            fs::create_dir_all(path.join("fd")).expect("directory");
            fs::write(path.join("comm"), name).expect("file");
            symlink("/dev/null", path.join("fd/0")).expect("link");
            for (n, inode) in sockets.iter().enumerate() {
                symlink(format!("socket:[{inode}]"), path.join(format!("fd/{}", n + 3))).expect("link");
            }
        }
    }

    impl Drop for Proc {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[cfg(target_endian = "little")] // the captured tables are those of a little-endian machine
    #[test]
    fn listeners_and_their_owners_are_found() {
        let proc = Proc::new("owners");
        fs::write(proc.0.join("net/tcp6"), TCP6).expect("file");
        proc.process(1, b"systemd\n", &[101]);
        proc.process(7, b"sshd\n", &[101]);
        proc.process(8, b"sshd-session\n", &[103]);
        proc.process(9, b"postgres\n", &[102, 104]);
        let listener = |port, ip: &str, owner: Option<&str>| Listener {
            port,
            ip: ip.parse().expect("address"),
            owner: owner.map(str::to_owned),
        };
        assert_eq!(
            Sockets::read(&proc.0).expect("sockets"),
            Sockets {
                listeners: vec![
                    listener(22, "0.0.0.0", Some("sshd")),
                    listener(80, "::", None),
                    listener(5432, "127.0.0.1", Some("postgres")),
                    listener(8081, "127.0.0.1", None),
                ],
                ssh_sessions: vec!["10.0.0.10:2222".parse().expect("address")],
                complete: true,
            }
        );
    }

    #[test]
    fn a_kernel_without_ipv6_has_sockets_all_the_same() {
        let proc = Proc::new("no-ipv6");
        assert_eq!(Sockets::read(&proc.0).expect("sockets").listeners.len(), 2);
    }

    #[test]
    fn without_a_table_there_is_an_error_and_not_an_empty_list() {
        let error = Sockets::read(Path::new("/nonexistent")).expect_err("no procfs").to_string();
        assert!(error.starts_with("cannot read the sockets of this machine from /nonexistent/net/tcp: "), "{error}");
    }

    #[test]
    fn the_name_of_a_process_cannot_end_a_line() {
        assert_eq!(harmless(b"x\nCOMMIT\n*nat\n"), "x?COMMIT??nat");
        assert_eq!(harmless("caf\u{e9}\x1b[1m".as_bytes()), "caf????1m");
    }

    #[test]
    fn an_own_listener_is_seen_in_the_real_table() {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").expect("listener");
        let port = socket.local_addr().expect("address").port();
        let sockets = Sockets::read(Path::new("/proc")).expect("sockets");
        let found = sockets.listeners.iter().find(|listener| listener.port == port).expect("our listener");
        assert_eq!(found.ip, IpAddr::from([127, 0, 0, 1]));
        assert!(found.owner.is_some());
    }
}
