//! The SYN that the kernel accepted, as it keeps it for the socket (`TCP_SAVE_SYN`): the authority on what a SYN looked
//! like. Its addresses and ports are those after address translation.

use std::net::{Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd};

use spip_common::{Parsed, Syn};

/// `TCP_SAVE_SYN` of linux/tcp.h: a listener keeps the headers of each SYN for the accepted socket.
const TCP_SAVE_SYN: libc::c_int = 27;
/// `TCP_SAVED_SYN` of linux/tcp.h: takes those headers from the accepted socket, once.
const TCP_SAVED_SYN: libc::c_int = 28;
/// More than the headers of ordinary SYNs: IPv6 with some extension headers, and TCP's 60 bytes.
const USUAL_BYTES: usize = 512;
/// The longest headers that a packet can have: the length of an IP packet is a number of 16 bits.
const LONGEST_BYTES: usize = 65_535 + 40;

/// The kernel's copy of a connection's SYN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Saved {
    /// Nothing: a SYN cookie was used, or the listener does not save SYNs.
    Nothing,
    /// The SYN.
    Syn(Syn),
    /// Headers that the parser refuses.
    Unreadable,
}

impl Saved {
    /// The SYN, where it can be read.
    pub(super) fn syn(self) -> Option<Syn> {
        match self {
            Self::Syn(syn) => Some(syn),
            Self::Nothing | Self::Unreadable => None,
        }
    }

    /// Takes the headers from an accepted socket. The kernel hands them out once.
    pub(super) fn take(socket: &impl AsFd) -> Self {
        Self::take_with_source(socket).0
    }

    /// Takes the headers likewise, and the address that they came from.
    pub(super) fn take_with_source(socket: &impl AsFd) -> (Self, Option<SocketAddr>) {
        let mut usual = [0; USUAL_BYTES];
        match take_into(socket, &mut usual) {
            Ok(headers) => Self::read(headers),
            // The kernel keeps what does not fit, and returns its length (Linux net/ipv4/tcp.c, TCP_SAVED_SYN).
            Err(needed) if needed > USUAL_BYTES && needed <= LONGEST_BYTES => {
                let mut long = vec![0; needed];
                take_into(socket, &mut long).map_or((Self::Nothing, None), Self::read)
            }
            Err(_) => (Self::Nothing, None),
        }
    }

    fn read(headers: &[u8]) -> (Self, Option<SocketAddr>) {
        if headers.is_empty() {
            return (Self::Nothing, None);
        }
        let Ok(Parsed { source, syn, .. }) = spip_common::packet::parse_headers(headers, 0) else {
            return (Self::Unreadable, None);
        };
        (Self::Syn(syn), Some(SocketAddr::new(Ipv6Addr::from(source).to_canonical(), syn.source_port)))
    }
}

/// Asks `listener` to keep the headers of each SYN.
///
/// # Errors
/// The kernel's refusal; `TCP_SAVE_SYN` is there since Linux 4.3.
pub fn save_syns(listener: &impl AsFd) -> std::io::Result<()> {
    let on: libc::c_int = 1;
    let length = size_of_val(&on) as libc::socklen_t;
    let descriptor = listener.as_fd().as_raw_fd();
    // SAFETY: the pointer names a live integer of the length that is given with it.
    let result =
        unsafe { libc::setsockopt(descriptor, libc::IPPROTO_TCP, TCP_SAVE_SYN, (&raw const on).cast(), length) };
    if result == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
}

/// Takes the headers into `buffer`, or returns the length that the kernel names instead.
fn take_into<'a>(socket: &impl AsFd, buffer: &'a mut [u8]) -> Result<&'a [u8], usize> {
    let mut length = buffer.len() as libc::socklen_t;
    let descriptor = socket.as_fd().as_raw_fd();
    // SAFETY: the buffer is writable for the length that is given with it.
    let result = unsafe {
        libc::getsockopt(descriptor, libc::IPPROTO_TCP, TCP_SAVED_SYN, buffer.as_mut_ptr().cast(), &raw mut length)
    };
    let length = length as usize;
    if result == 0 { buffer.get(..length).ok_or(length) } else { Err(length) }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    fn accepted() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        save_syns(&listener).expect("the kernel saves SYNs");
        let client = TcpStream::connect(listener.local_addr().expect("bound")).expect("connected");
        (client, listener.accept().expect("a connection waits").0)
    }

    #[test]
    fn the_kernel_hands_the_syn_out_once() {
        let (client, socket) = accepted();
        let (saved, source) = Saved::take_with_source(&socket);
        assert!(saved.syn().is_some(), "the SYN was saved");
        assert_eq!(source, client.local_addr().ok());
        assert_eq!(Saved::take(&socket), Saved::Nothing);
    }

    #[test]
    fn headers_that_do_not_fit_stay_with_the_kernel_which_names_their_length() {
        let (_client, socket) = accepted();
        let needed = take_into(&socket, &mut [0; 8]).expect_err("a SYN has more than 8 bytes");
        assert!((40..=120).contains(&needed), "{needed}");
        assert_eq!(take_into(&socket, &mut vec![0; needed]).map(<[u8]>::len), Ok(needed));
    }

    #[test]
    fn headers_that_are_none_are_told_from_no_headers() {
        assert_eq!(Saved::read(&[]), (Saved::Nothing, None));
        assert_eq!(Saved::read(&[0x45; 20]), (Saved::Unreadable, None));
    }
}
