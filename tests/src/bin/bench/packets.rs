//! The load without a TCP stack behind it: the same closed loop of short sessions as [`crate::load`], whose packets are
//! made by hand and go straight to the cable.
//!
//! A client's sockets cost more than a sensor's. Where two ways into the sensor are compared, that would hide the
//! difference: here the client costs little beside what the sensor's kernel does with its packets, which happens in the
//! client's own time, as a network card's work would.
//!
//! A session is complete when the sensor has closed too. What is lost is sent again.

use std::collections::HashMap;
use std::io::{IoSlice, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, MultiHeaders, recvmmsg, sendmmsg, setsockopt, sockopt};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use spip_tests::{CLIENT_MAC, CLIENT_V4, CROWD_V4, Net, SENSOR_MAC, SENSOR_V4, WIRE};

use crate::load::{FIRST_PORT, Load, Outcome, PORTS, SOURCES, TIME_LIMIT};

/// Ports that sessions come from, from the first on: together with the sources they tell the sessions apart.
const FIRST_SOURCE_PORT: u16 = 1_024;
const SOURCE_PORTS: u32 = 60_000;
/// Packets for each system call.
const BATCH: usize = 64;
/// The longest packet that the sensor sends here fits.
const FRAME_BYTES: usize = 2_048;
/// Time after which an unanswered packet is sent again.
const RESEND: Duration = Duration::from_millis(300);

const ETHERNET_IPV4: [u8; 2] = [0x08, 0x00];
const IP_BYTES: usize = 20;
const TCP_BYTES: usize = 20;
const FIN: u8 = 0x01;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const PSH: u8 = 0x08;
const ACK: u8 = 0x10;
/// Maximum segment size, selective acknowledgements, window scale: what a SYN of most systems has, time stamps aside.
const SYN_OPTIONS: [u8; 12] = [2, 4, 0x05, 0xb4, 1, 1, 4, 2, 1, 3, 3, 7];

/// Sends packets to addresses of the crowd back to the client, which does not know that they are its own: its kernel
/// stays out of the sessions.
pub(crate) fn add_sources(net: &Net) {
    net.sensor.shell(&format!("ip route add {CROWD_V4}/15 via {CLIENT_V4}"));
}

/// One session.
struct Session {
    started: Instant,
    /// Time of its last packet.
    sent: Instant,
    port: u16,
    /// Sequence number that the sensor sends next; `None` before it has answered.
    expected: Option<u32>,
}

/// Contents of a packet of the sensor.
struct Answer {
    number: u32,
    sequence: u32,
    flags: u8,
    data: u32,
}

/// The cable's end, for whole frames out and packets in.
struct Wire {
    out: Socket,
    into: Socket,
    /// Frames to be sent.
    frames: Vec<Vec<u8>>,
    payload: Vec<u8>,
    ip_id: u16,
}

/// Runs the load; to be called inside the client's namespace of a network with [`add_sources`].
pub(crate) fn run(load: &Load) -> Outcome {
    let mut wire = Wire::open(&load.payload);
    let mut outcome = Outcome { completed: 0, failed: 0, elapsed: Duration::ZERO, micros: Vec::new() };
    let mut sessions: HashMap<u32, Session> = HashMap::new();
    let mut next = u32::try_from(load.first).expect("few enough");
    let last = next + u32::try_from(load.sessions).expect("few enough");
    let started = Instant::now();
    let mut last_look = started;
    while outcome.completed + outcome.failed < load.sessions && started.elapsed() < TIME_LIMIT {
        while sessions.len() < load.concurrent && next < last {
            let port = load.port.unwrap_or(FIRST_PORT + (next % u32::from(PORTS)) as u16);
            let now = Instant::now();
            let session = Session { started: now, sent: now, port, expected: None };
            wire.say(next, &session);
            sessions.insert(next, session);
            next += 1;
        }
        wire.send();
        for answer in wire.receive() {
            let Some(session) = sessions.get_mut(&answer.number) else { continue };
            let after = answer.sequence.wrapping_add(answer.data).wrapping_add(1);
            if answer.flags & RST != 0 {
                sessions.remove(&answer.number);
                outcome.failed += 1;
            } else if answer.flags & SYN != 0 {
                session.expected = Some(after);
                session.sent = Instant::now();
                wire.say(answer.number, session);
            } else if answer.flags & FIN != 0 {
                let micros = session.started.elapsed().as_micros();
                outcome.completed += 1;
                outcome.micros.push(u32::try_from(micros).unwrap_or(u32::MAX));
                wire.acknowledge_end(answer.number, session.port, after);
                sessions.remove(&answer.number);
            }
        }
        if last_look.elapsed() > RESEND {
            last_look = Instant::now();
            for (number, session) in &mut sessions {
                if session.sent.elapsed() > RESEND {
                    session.sent = last_look;
                    wire.say(*number, session);
                }
            }
        }
    }
    wire.send();
    outcome.elapsed = started.elapsed();
    outcome.failed = load.sessions - outcome.completed;
    outcome.micros.sort_unstable();
    outcome
}

impl Wire {
    fn open(payload: &[u8]) -> Self {
        let packet = |kind| Socket::new(Domain::PACKET, kind, None).expect("root may");
        let protocol = Protocol::from(i32::from(u16::from_ne_bytes(ETHERNET_IPV4)));
        let out = packet(Type::RAW);
        out.bind(&interface(nix::net::if_::if_nametoindex(WIRE).expect("the cable is there"))).expect("bound");
        // With a protocol of its own, it sees what comes and nothing of what goes.
        let into = Socket::new(Domain::PACKET, Type::DGRAM, Some(protocol)).expect("root may");
        setsockopt(&into, sockopt::RcvBufForce, &(64 << 20)).expect("root may");
        into.set_read_timeout(Some(Duration::from_millis(20))).expect("a time");
        Self { out, into, frames: Vec::new(), payload: payload.to_vec(), ip_id: 0 }
    }

    /// Sends a session's next packets: its SYN; or, to a sensor that has answered, its payload and its FIN.
    fn say(&mut self, number: u32, session: &Session) {
        let first = first_sequence(number);
        match session.expected {
            None => self.queue(number, session.port, first, 0, SYN, &SYN_OPTIONS, false),
            Some(expected) => {
                let next = first.wrapping_add(1);
                self.queue(number, session.port, next, expected, ACK, &[], false);
                self.queue(number, session.port, next, expected, ACK | PSH | FIN, &[], true);
            }
        }
    }

    fn acknowledge_end(&mut self, number: u32, port: u16, expected: u32) {
        let length = u32::try_from(self.payload.len()).expect("short");
        let next = first_sequence(number).wrapping_add(length + 2);
        self.queue(number, port, next, expected, ACK, &[], false);
    }

    #[expect(clippy::too_many_arguments, reason = "the fields of a header")]
    fn queue(&mut self, number: u32, port: u16, sequence: u32, expected: u32, flags: u8, options: &[u8], data: bool) {
        let IpAddr::V4(sensor) = SENSOR_V4 else { unreachable!("an IPv4 address") };
        let (source, source_port) = source(number);
        let data: &[u8] = if data { &self.payload } else { &[] };
        let segment_length = TCP_BYTES + options.len() + data.len();
        let mut frame = Vec::with_capacity(14 + IP_BYTES + segment_length);
        frame.extend(octets(SENSOR_MAC));
        frame.extend(octets(CLIENT_MAC));
        frame.extend(ETHERNET_IPV4);
        let ip = frame.len();
        self.ip_id = self.ip_id.wrapping_add(1);
        frame.extend([0x45, 0]);
        frame.extend(u16::try_from(IP_BYTES + segment_length).expect("short").to_be_bytes());
        frame.extend(self.ip_id.to_be_bytes());
        frame.extend([0x40, 0, 64, 6, 0, 0]);
        frame.extend(source.octets());
        frame.extend(sensor.octets());
        let sum = checksum(0, &frame[ip..]);
        frame[ip + 10..ip + 12].copy_from_slice(&sum.to_be_bytes());
        let tcp = frame.len();
        frame.extend(source_port.to_be_bytes());
        frame.extend(port.to_be_bytes());
        frame.extend(sequence.to_be_bytes());
        frame.extend(expected.to_be_bytes());
        frame.extend([u8::try_from((TCP_BYTES + options.len()) / 4).expect("short") << 4, flags]);
        frame.extend([0xfa, 0xf0, 0, 0, 0, 0]);
        frame.extend(options);
        frame.extend(data);
        let pseudo = [&source.octets()[..], &sensor.octets()].concat();
        let start = sum_of(&pseudo) + 6 + u32::try_from(segment_length).expect("short");
        let sum = checksum(start, &frame[tcp..]);
        frame[tcp + 16..tcp + 18].copy_from_slice(&sum.to_be_bytes());
        self.frames.push(frame);
    }

    fn send(&mut self) {
        let mut headers = MultiHeaders::<()>::preallocate(BATCH, None);
        let mut rest = &self.frames[..];
        while !rest.is_empty() {
            let batch: Vec<[IoSlice<'_>; 1]> = rest.iter().take(BATCH).map(|frame| [IoSlice::new(frame)]).collect();
            let nobody = vec![None::<()>; batch.len()];
            match sendmmsg(self.out.as_raw_fd(), &mut headers, &batch, nobody, [], MsgFlags::empty()) {
                Ok(sent) => rest = &rest[sent.count().max(1)..],
                // The queue of the interface is short: its answer is to try again.
                Err(Errno::ENOBUFS | Errno::EINTR) => {}
                Err(error) => panic!("cannot send: {error}"),
            }
        }
        self.frames.clear();
    }

    /// Returns the packets that came; waits a little when there are none.
    fn receive(&mut self) -> Vec<Answer> {
        let mut headers = MultiHeaders::<()>::preallocate(BATCH, None);
        let mut buffers = vec![[0_u8; FRAME_BYTES]; BATCH];
        let mut slices: Vec<[IoSliceMut<'_>; 1]> = buffers.iter_mut().map(|buffer| [IoSliceMut::new(buffer)]).collect();
        let flags = MsgFlags::MSG_WAITFORONE;
        let lengths: Vec<usize> = match recvmmsg(self.into.as_raw_fd(), &mut headers, slices.iter_mut(), flags, None) {
            Ok(messages) => messages.map(|message| message.bytes).collect(),
            Err(Errno::EAGAIN | Errno::EINTR) => Vec::new(),
            Err(error) => panic!("cannot receive: {error}"),
        };
        buffers.iter().zip(lengths).filter_map(|(buffer, length)| read(&buffer[..length])).collect()
    }
}

/// Of the interface with this index.
fn interface(index: u32) -> SockAddr {
    let address = nix::libc::sockaddr_ll {
        sll_family: nix::libc::AF_PACKET as u16,
        sll_protocol: 0,
        sll_ifindex: i32::try_from(index).expect("a small number"),
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    };
    let mut storage = socket2::SockAddrStorage::zeroed();
    // SAFETY: a sockaddr_ll fits into any storage for addresses.
    unsafe { *storage.view_as() = address };
    let length = size_of_val(&address) as nix::libc::socklen_t;
    // SAFETY: the storage holds an address of this length.
    unsafe { SockAddr::new(storage, length) }
}

/// Returns the source of a session.
fn source(number: u32) -> (Ipv4Addr, u16) {
    let port = (number / SOURCES) % SOURCE_PORTS;
    (Ipv4Addr::from(u32::from(CROWD_V4) + 1 + number % SOURCES), FIRST_SOURCE_PORT + port as u16)
}

/// A first sequence number that two sessions in a row do not share.
fn first_sequence(number: u32) -> u32 {
    number.wrapping_mul(0x9e37_79b9)
}

/// Parses a packet, when it belongs to a session.
fn read(packet: &[u8]) -> Option<Answer> {
    let header = usize::from(packet.first()? & 15) * 4;
    let total = usize::from(u16::from_be_bytes([*packet.get(2)?, *packet.get(3)?]));
    let client = Ipv4Addr::from(<[u8; 4]>::try_from(packet.get(16..20)?).ok()?);
    let tcp = packet.get(header..total)?;
    let word = |at: usize| Some(u16::from_be_bytes([*tcp.get(at)?, *tcp.get(at + 1)?]));
    let source = u32::from(client).checked_sub(u32::from(CROWD_V4) + 1).filter(|source| *source < SOURCES)?;
    let port = u32::from(word(2)?.checked_sub(FIRST_SOURCE_PORT)?);
    let sequence = u32::from_be_bytes(tcp.get(4..8)?.try_into().ok()?);
    let data = tcp.len().checked_sub(usize::from(*tcp.get(12)? >> 4) * 4)?;
    Some(Answer { number: port * SOURCES + source, sequence, flags: *tcp.get(13)?, data: u32::try_from(data).ok()? })
}

fn octets(mac: &str) -> Vec<u8> {
    mac.split(':').map(|octet| u8::from_str_radix(octet, 16).expect("two digits")).collect()
}

fn sum_of(bytes: &[u8]) -> u32 {
    bytes.chunks(2).map(|word| u32::from(word[0]) << 8 | u32::from(*word.get(1).unwrap_or(&0))).sum()
}

/// RFC 1071, beginning with `start`.
fn checksum(start: u32, bytes: &[u8]) -> u16 {
    let mut sum = start + sum_of(bytes);
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).expect("folded")
}
