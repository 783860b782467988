//! Listeners of this network namespace, looked up often: by netlink, which walks listening sockets only.
//!
//! `/proc/net/tcp` has every connection, too: on a sensor with a hundred thousand of them it takes a tenth of a second
//! of processor time to read, and this question is asked several times a second. It is the fallback where the kernel's
//! module `inet_diag` is missing. Neither needs a privilege, and both are opened once: the sandbox refuses to open them
//! later.

use std::fs::File;
use std::io::{self, BufReader, Seek as _, SeekFrom};
use std::iter;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd as _, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::sockopt::ReceiveTimeout;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, connect, recv, send, setsockopt, socket,
};
use nix::sys::time::{TimeVal, TimeValLike as _};

use crate::kernel::sockets;

/// The same, and much more, as text.
const TABLES: [&str; 2] = ["/proc/net/tcp", "/proc/net/tcp6"];

/// `SOCK_DIAG_BY_FAMILY` of linux/sock_diag.h.
const SOCK_DIAG_BY_FAMILY: u16 = 20;
/// `NLM_F_REQUEST | NLM_F_DUMP` of linux/netlink.h.
const DUMP: u16 = 0x301;
/// `NLMSG_ERROR` and `NLMSG_DONE` of linux/netlink.h.
const ERROR: u16 = 2;
const DONE: u16 = 3;
/// Bytes of `struct nlmsghdr`, and where it has the number of the question.
const HEADER: usize = 16;
const SEQUENCE: usize = 8;
/// Bytes of `struct inet_diag_req_v2` of linux/inet_diag.h.
const REQUEST: usize = 56;
/// Offsets in `struct inet_diag_msg` of the local port, the local address, the user and the inode, and its length.
const PORT: usize = 4;
const ADDRESS: usize = 8;
const USER: usize = 64;
const INODE: usize = 68;
const MESSAGE: usize = 72;
/// `1 << TCP_LISTEN`.
const LISTENING: u32 = 1 << 10;
/// The kernel fills messages of up to 32 kB.
const BUFFER: usize = 32 * 1024;
/// The kernel answers at once; this only keeps a thread from waiting for ever.
const PATIENCE_SECONDS: i64 = 2;

/// A listening socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Listening {
    /// Its port.
    pub port: u16,
    /// An IPv4 address is never written as IPv6.
    pub ip: IpAddr,
    /// Number of the socket; 0 when it is unknown.
    pub inode: u32,
    /// The user that made the socket, or was given it.
    pub user: u32,
}

/// Source of the list.
#[derive(Debug)]
pub enum Source {
    /// The kernel, by netlink.
    Netlink(Netlink),
    /// `/proc/net/tcp` and `/proc/net/tcp6`, as far as they exist.
    Tables(Vec<File>),
}

impl Source {
    /// Opens what answers.
    ///
    /// # Errors
    /// Neither netlink nor the tables can be opened.
    pub fn open() -> io::Result<Self> {
        if let Ok(mut netlink) = Netlink::open()
            && netlink.all().is_ok()
        {
            return Ok(Self::Netlink(netlink));
        }
        let first = File::open(TABLES[0])?;
        // A kernel without IPv6 has no second one.
        Ok(Self::Tables(iter::once(first).chain(File::open(TABLES[1])).collect()))
    }

    /// Every listening TCP socket of the namespace, sorted.
    ///
    /// # Errors
    /// The kernel does not answer, or not as it should.
    pub fn all(&mut self) -> io::Result<Vec<Listening>> {
        let mut found = match self {
            Self::Netlink(netlink) => netlink.all()?,
            Self::Tables(tables) => by_tables(tables)?,
        };
        found.sort_unstable();
        found.dedup();
        Ok(found)
    }
}

/// A socket to the kernel.
#[derive(Debug)]
pub struct Netlink {
    socket: OwnedFd,
    /// Number of the last question: an answer that comes too late is told by it.
    sequence: u32,
}

impl Netlink {
    fn open() -> Result<Self, Errno> {
        let socket =
            socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkSockDiag)?;
        setsockopt(&socket, ReceiveTimeout, &TimeVal::seconds(PATIENCE_SECONDS))?;
        // The kernel; the sandbox lets nothing be sent to an address.
        connect(socket.as_raw_fd(), &NetlinkAddr::new(0, 0))?;
        Ok(Self { socket, sequence: 0 })
    }

    fn all(&mut self) -> Result<Vec<Listening>, Errno> {
        let mut found = Vec::new();
        self.dump(libc::AF_INET, &mut found)?;
        match self.dump(libc::AF_INET6, &mut found) {
            // A kernel without IPv6.
            Err(Errno::ENOENT) => {}
            other => other?,
        }
        Ok(found)
    }

    fn dump(&mut self, family: libc::c_int, found: &mut Vec<Listening>) -> Result<(), Errno> {
        self.sequence = self.sequence.wrapping_add(1);
        let descriptor = self.socket.as_raw_fd();
        send(descriptor, &request(family, self.sequence), MsgFlags::empty())?;
        let mut buffer = vec![0; BUFFER];
        loop {
            let length = recv(descriptor, &mut buffer, MsgFlags::empty())?;
            if messages(buffer.get(..length).unwrap_or_default(), self.sequence, found)? {
                return Ok(());
            }
        }
    }
}

fn request(family: libc::c_int, sequence: u32) -> [u8; HEADER + REQUEST] {
    let mut request = [0; HEADER + REQUEST];
    let mut put = |at: usize, bytes: &[u8]| request[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, &((HEADER + REQUEST) as u32).to_ne_bytes());
    put(4, &SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    put(6, &DUMP.to_ne_bytes());
    put(SEQUENCE, &sequence.to_ne_bytes());
    put(HEADER, &[family as u8, libc::IPPROTO_TCP as u8]);
    put(HEADER + 4, &LISTENING.to_ne_bytes());
    request
}

/// Reads what one datagram holds; true when the answer is complete. A truncated message ends it with an error: a port
/// that is overlooked would be taken from its service. Answers to other questions are left out.
fn messages(mut bytes: &[u8], sequence: u32, found: &mut Vec<Listening>) -> Result<bool, Errno> {
    while !bytes.is_empty() {
        let length = word(bytes, 0).ok_or(Errno::EBADMSG)? as usize;
        let kind = u16::from_ne_bytes(array(bytes, 4).ok_or(Errno::EBADMSG)?);
        let body = bytes.get(HEADER..length).ok_or(Errno::EBADMSG)?;
        match kind {
            _ if word(bytes, SEQUENCE) != Some(sequence) => {}
            DONE => return Ok(true),
            ERROR => {
                let error = i32::from_ne_bytes(array(body, 0).ok_or(Errno::EBADMSG)?);
                return Err(Errno::from_raw(error.saturating_neg()));
            }
            SOCK_DIAG_BY_FAMILY => found.push(listening(body).ok_or(Errno::EBADMSG)?),
            _ => {}
        }
        // Messages begin at multiples of four.
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(false)
}

fn listening(body: &[u8]) -> Option<Listening> {
    let body = body.get(..MESSAGE)?;
    let address: [u8; 16] = array(body, ADDRESS)?;
    let ip = match i32::from(*body.first()?) {
        libc::AF_INET => IpAddr::from(Ipv4Addr::from(*address.first_chunk::<4>()?)),
        _ => IpAddr::from(Ipv6Addr::from(address)).to_canonical(),
    };
    let port = u16::from_be_bytes(array(body, PORT)?);
    Some(Listening { port, ip, inode: word(body, INODE)?, user: word(body, USER)? })
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk().copied()
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    array(bytes, at).map(u32::from_ne_bytes)
}

fn by_tables(tables: &mut [File]) -> io::Result<Vec<Listening>> {
    let mut all = Vec::new();
    for table in tables {
        table.seek(SeekFrom::Start(0))?;
        let found = sockets::listening(BufReader::new(table))?;
        let inode = |inode| u32::try_from(inode).unwrap_or(0);
        let listening =
            |row: sockets::Row| Listening { port: row.port, ip: row.ip, inode: inode(row.inode), user: row.user };
        all.extend(found.into_iter().map(listening));
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    fn inode(socket: &TcpListener) -> u32 {
        let path = format!("/proc/self/fd/{}", socket.as_raw_fd());
        u32::try_from(std::fs::metadata(path).expect("descriptor").ino()).expect("an inode of sockfs")
    }

    fn expect_own(source: &mut Source) {
        for address in ["127.0.0.1:0", "[::1]:0", "0.0.0.0:0"] {
            let socket = TcpListener::bind(address).expect("listener");
            let local = socket.local_addr().expect("address");
            let user = nix::unistd::geteuid().as_raw();
            let expected = Listening { port: local.port(), ip: local.ip(), inode: inode(&socket), user };
            assert!(source.all().expect("listeners").contains(&expected), "{expected:?}");
            drop(socket);
            assert!(!source.all().expect("listeners").contains(&expected), "{expected:?}");
        }
    }

    #[test]
    fn the_kernel_tells_own_listeners_of_both_families_again_and_again() {
        expect_own(&mut Source::Netlink(Netlink::open().expect("netlink")));
    }

    #[test]
    fn the_tables_tell_the_same() {
        expect_own(&mut Source::Tables(TABLES.map(|table| File::open(table).expect("table")).into()));
    }

    #[test]
    fn an_answer_that_is_cut_anywhere_is_an_error_and_not_a_shorter_list() {
        let mut answer = Vec::new();
        answer.extend(((HEADER + MESSAGE) as u32).to_ne_bytes());
        answer.extend(SOCK_DIAG_BY_FAMILY.to_ne_bytes());
        answer.extend([0, 0]);
        answer.extend(7_u32.to_ne_bytes());
        answer.resize(HEADER, 0);
        answer.extend([libc::AF_INET as u8, 10, 0, 0, 0, 80]);
        answer.resize(HEADER + ADDRESS, 0);
        answer.extend([192, 0, 2, 1]);
        answer.resize(HEADER + MESSAGE, 0);
        let mut found = Vec::new();
        assert_eq!(messages(&answer, 7, &mut found), Ok(false));
        assert_eq!(found, [Listening { port: 80, ip: IpAddr::from([192, 0, 2, 1]), inode: 0, user: 0 }]);
        // The answer to an earlier question is none to this one.
        assert_eq!(messages(&answer, 8, &mut found), Ok(false));
        assert_eq!(found.len(), 1);
        for length in 1..answer.len() {
            assert_eq!(messages(&answer[..length], 7, &mut Vec::new()), Err(Errno::EBADMSG), "{length}");
        }
    }

    #[test]
    fn a_message_begins_at_a_multiple_of_four() {
        let message = |length: usize, kind: u16, port: u8| {
            let mut message = Vec::new();
            message.extend(u32::try_from(length).expect("short").to_ne_bytes());
            message.extend(kind.to_ne_bytes());
            message.extend([0, 0]);
            message.extend(7_u32.to_ne_bytes());
            message.resize(HEADER, 0);
            message.extend([libc::AF_INET as u8, 10, 0, 0, 0, port]);
            message.resize(length.next_multiple_of(4), 0);
            message
        };
        // The kernel adds attributes of any length.
        let answer: Vec<u8> = [(2, 80), (3, 81), (0, 82)]
            .into_iter()
            .flat_map(|(more, port)| message(HEADER + MESSAGE + more, SOCK_DIAG_BY_FAMILY, port))
            .chain(message(HEADER + 6, DONE, 0))
            .collect();
        let mut found = Vec::new();
        assert_eq!(messages(&answer, 7, &mut found), Ok(true));
        assert_eq!(found.iter().map(|one| one.port).collect::<Vec<_>>(), [80, 81, 82]);
    }

    #[test]
    fn an_error_of_the_kernel_is_passed_on() {
        let mut answer = Vec::new();
        answer.extend(((HEADER + 4) as u32).to_ne_bytes());
        answer.extend(ERROR.to_ne_bytes());
        answer.extend([0, 0]);
        answer.extend(7_u32.to_ne_bytes());
        answer.resize(HEADER, 0);
        answer.extend((-libc::ENOENT).to_ne_bytes());
        assert_eq!(messages(&answer, 7, &mut Vec::new()), Err(Errno::ENOENT));
    }
}
