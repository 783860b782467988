//! A scanner's SYNs: packets made by hand and sent through a raw socket, from any address, with any field.
//!
//! The sender's kernel knows nothing of them and resets what the sensor answers, where the source is an address that it
//! has; an unused source is never heard of again.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Instant;

use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use crate::PATIENCE;
use crate::namespace::Namespace;

/// `IPPROTO_RAW`: the packet brings its own IP header.
const RAW: i32 = 255;
/// TCP's number.
const TCP: u8 = 6;
/// IPv6 destination options (RFC 8200, 4.6).
const DESTINATION_OPTIONS: u8 = 60;

/// TCP flag SYN.
const SYN: u8 = 0x02;

/// A packet that begins a connection, or pretends to.
#[derive(Clone, Debug)]
pub struct RawSyn {
    /// Source address in the packet.
    pub source: IpAddr,
    /// The port that it says it comes from.
    pub source_port: u16,
    /// Destination, of the same family.
    pub destination: IpAddr,
    /// The port that it asks for.
    pub port: u16,
    /// Initial sequence number.
    pub sequence: u32,
    /// Acknowledgement number.
    pub acknowledgement: u32,
    /// IPv4 identification; the kernel replaces 0.
    pub ip_id: u16,
    /// IPv4 options, a multiple of 4 bytes; of IPv6, whether there is a header of destination options.
    pub ip_options: Vec<u8>,
    /// IPv6 headers of destination options, each of eight bytes of padding, beside that of `ip_options`.
    pub extensions: usize,
    /// Time to live.
    pub ttl: u8,
    /// Window.
    pub window: u16,
    /// TCP flags.
    pub flags: u8,
    /// TCP options, a multiple of 4 bytes.
    pub options: Vec<u8>,
    /// Data.
    pub data: Vec<u8>,
    /// Makes the checksum wrong, so that the kernel drops the packet once it checks.
    pub broken: bool,
}

impl RawSyn {
    /// An unremarkable SYN with nothing but a maximum segment size.
    #[must_use]
    pub fn new(source: impl Into<SocketAddr>, destination: impl Into<SocketAddr>) -> Self {
        let (source, destination) = (source.into(), destination.into());
        Self {
            source: source.ip(),
            source_port: source.port(),
            destination: destination.ip(),
            port: destination.port(),
            sequence: 0x1357_9bdf ^ u32::from(destination.port()) << 3 ^ u32::from(source.port()) << 11,
            acknowledgement: 0,
            ip_id: 7,
            ip_options: Vec::new(),
            extensions: 0,
            ttl: 64,
            window: 1024,
            flags: SYN,
            options: vec![2, 4, 0x05, 0xb4],
            data: Vec::new(),
            broken: false,
        }
    }

    /// The whole packet.
    ///
    /// # Panics
    /// When source and destination are of different families.
    #[must_use]
    pub fn packet(&self) -> Vec<u8> {
        match (self.source, self.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => self.ipv4(source, destination, &self.segment(), 0),
            (IpAddr::V6(source), IpAddr::V6(destination)) => self.ipv6(source, destination),
            _ => panic!("{} cannot reach {}", self.source, self.destination),
        }
    }

    /// The packet in two fragments, of which the first has the first `first` bytes of the segment, a multiple of 8.
    ///
    /// # Panics
    /// For IPv6, which is fragmented by an extension header.
    #[must_use]
    pub fn fragments(&self, first: usize) -> [Vec<u8>; 2] {
        let (IpAddr::V4(source), IpAddr::V4(destination)) = (self.source, self.destination) else {
            panic!("IPv4 only");
        };
        let segment = self.segment();
        let more = 0x2000;
        let offset = u16::try_from(first / 8).expect("a short segment");
        [
            self.ipv4(source, destination, &segment[..first], more),
            self.ipv4(source, destination, &segment[first..], offset),
        ]
    }

    fn ipv4(&self, source: Ipv4Addr, destination: Ipv4Addr, segment: &[u8], fragment: u16) -> Vec<u8> {
        let header = 20 + self.ip_options.len();
        let length = u16::try_from(header + segment.len()).expect("a short packet");
        let mut packet = vec![0x40 | u8::try_from(header / 4).expect("at most 60 bytes"), 0];
        packet.extend(length.to_be_bytes());
        packet.extend(self.ip_id.to_be_bytes());
        packet.extend(fragment.to_be_bytes());
        // The kernel fills in the checksum.
        packet.extend([self.ttl, TCP, 0, 0]);
        packet.extend(source.octets());
        packet.extend(destination.octets());
        packet.extend(&self.ip_options);
        packet.extend(segment);
        packet
    }

    fn ipv6(&self, source: Ipv6Addr, destination: Ipv6Addr) -> Vec<u8> {
        let segment = self.segment();
        let count = self.extensions + usize::from(!self.ip_options.is_empty());
        let following = |index: usize| if index == count { TCP } else { DESTINATION_OPTIONS };
        // PadN of four bytes (RFC 8200, 4.2).
        let extensions = (1..=count).flat_map(|index| [following(index), 0, 1, 4, 0, 0, 0, 0]);
        let length = u16::try_from(count * 8 + segment.len()).expect("a short packet");
        let next = following(0);
        let mut packet = vec![0x60, 0, 0, 0];
        packet.extend(length.to_be_bytes());
        packet.extend([next, self.ttl]);
        packet.extend(source.octets());
        packet.extend(destination.octets());
        packet.extend(extensions);
        packet.extend(segment);
        packet
    }

    fn segment(&self) -> Vec<u8> {
        let words = u8::try_from(5 + self.options.len() / 4).expect("at most 60 bytes");
        let mut segment = Vec::new();
        segment.extend(self.source_port.to_be_bytes());
        segment.extend(self.port.to_be_bytes());
        segment.extend(self.sequence.to_be_bytes());
        segment.extend(self.acknowledgement.to_be_bytes());
        segment.extend([words << 4, self.flags]);
        segment.extend(self.window.to_be_bytes());
        segment.extend([0; 4]);
        segment.extend(&self.options);
        segment.extend(&self.data);
        let checksum = self.checksum(&segment) ^ if self.broken { 0x5555 } else { 0 };
        segment[16..18].copy_from_slice(&checksum.to_be_bytes());
        segment
    }

    /// RFC 9293, 3.1, with the pseudo-header of either family.
    fn checksum(&self, segment: &[u8]) -> u16 {
        let octets = |address: IpAddr| match address {
            IpAddr::V4(address) => address.octets().to_vec(),
            IpAddr::V6(address) => address.octets().to_vec(),
        };
        let length = u32::try_from(segment.len()).expect("a short segment").to_be_bytes();
        let pseudo = [octets(self.source), octets(self.destination), length.to_vec(), vec![0, TCP]].concat();
        let words = pseudo.chunks(2).chain(segment.chunks(2));
        let mut sum: u32 = words.map(|word| u32::from(word[0]) << 8 | u32::from(*word.get(1).unwrap_or(&0))).sum();
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        !u16::try_from(sum).expect("folded")
    }
}

/// Packets between two looks at the queue of the receiver's side.
const BURST: usize = 128;
/// Upper bound of packets in flight: net.core.netdev_max_backlog is 1,000, and the kernel drops more without a message.
const BACKLOG: u32 = 600;
/// Column of /proc/net/softnet_stat with the number of packets that wait for a processor (Linux 5.10 and later).
const BACKLOG_COLUMN: usize = 11;

/// Waits until the processors have taken nearly all packets that were sent.
fn wait_for_room() {
    let end = Instant::now() + PATIENCE;
    let waiting = |line: &str| {
        let column = line.split_ascii_whitespace().nth(BACKLOG_COLUMN);
        column.and_then(|number| u32::from_str_radix(number, 16).ok()).unwrap_or_default()
    };
    while std::fs::read_to_string("/proc/net/softnet_stat")
        .is_ok_and(|table| table.lines().map(waiting).any(|packets| packets > BACKLOG))
    {
        assert!(Instant::now() < end, "the processors take no packets");
        std::thread::yield_now();
    }
}

impl Namespace {
    /// Sends packets that bring their own IP headers, one after the other, as fast as the other side takes them.
    ///
    /// # Panics
    /// When the kernel refuses one.
    pub fn send_raw(&self, packets: impl Iterator<Item = Vec<u8>> + Send) {
        self.enter(|| {
            let raw = |domain| Socket::new(domain, Type::RAW, Some(Protocol::from(RAW))).expect("root may");
            let (ipv4, ipv6) = (raw(Domain::IPV4), raw(Domain::IPV6));
            for (number, packet) in packets.enumerate() {
                if number % BURST == 0 {
                    wait_for_room();
                }
                let (socket, to) = match packet[0] >> 4 {
                    4 => (&ipv4, IpAddr::from(<[u8; 4]>::try_from(&packet[16..20]).expect("four bytes"))),
                    _ => (&ipv6, IpAddr::from(<[u8; 16]>::try_from(&packet[24..40]).expect("sixteen bytes"))),
                };
                let to = SockAddr::from(SocketAddr::new(to, 0));
                // The queue of the interface is short: its answer is to try again.
                while let Err(error) = socket.send_to(&packet, &to) {
                    assert_eq!(error.raw_os_error(), Some(nix::libc::ENOBUFS), "cannot send to {to:?}: {error}");
                }
            }
        });
    }

    /// Sends SYNs.
    ///
    /// # Panics
    /// When the kernel refuses one.
    pub fn send_syns(&self, syns: impl IntoIterator<Item = RawSyn, IntoIter: Send>) {
        self.send_raw(syns.into_iter().map(|syn| syn.packet()));
    }
}
