//! A client made of raw packets, which chooses in what form its SYN goes over the wire, and then speaks TCP.
//!
//! Its address belongs to no host: the client's kernel knows nothing of its connections, and resets none.

use std::io::Read as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, Socket, Type};

use crate::net::{CLIENT_MAC, Net, SENSOR_V4, SENSOR_V6, WIRE};
use crate::{PATIENCE, RawSyn};

/// The address of ghosts.
pub const GHOST_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 66));
/// Their IPv6 address.
pub const GHOST_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 0x66));
/// An address that is not the sensor's, and that the client reaches by way of the sensor.
pub const FAR_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 8));
/// The same for IPv6.
pub const FAR_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, 8));

/// TCP flags.
const FIN: u8 = 0x01;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const PSH: u8 = 0x08;
const ACK: u8 = 0x10;

/// One connection of a ghost.
#[derive(Debug)]
pub struct Ghost<'a> {
    net: &'a Net,
    syn: RawSyn,
    answers: Socket,
}

impl Net {
    /// Lets the sensor answer ghosts, and the client send to [`FAR_V4`] and [`FAR_V6`].
    pub fn add_ghosts(&self) {
        self.sensor.shell(&format!(
            "ip neigh replace {GHOST_V4} lladdr {CLIENT_MAC} dev {WIRE} nud permanent &&
             ip neigh replace {GHOST_V6} lladdr {CLIENT_MAC} dev {WIRE} nud permanent"
        ));
        self.client.shell(&format!(
            "ip route add {FAR_V4}/32 via {SENSOR_V4} && ip -6 route add {FAR_V6}/128 via {SENSOR_V6}"
        ));
    }
}

impl<'a> Ghost<'a> {
    /// A ghost whose SYN says what `syn` says. Nothing is sent yet.
    ///
    /// # Panics
    /// When there can be no packet socket.
    #[must_use]
    pub fn new(net: &'a Net, syn: RawSyn) -> Self {
        let answers = net.client.enter(|| {
            let all = Protocol::from(i32::from((nix::libc::ETH_P_ALL as u16).to_be()));
            Socket::new(Domain::PACKET, Type::DGRAM, Some(all)).expect("root may")
        });
        answers.set_read_timeout(Some(Duration::from_millis(100))).expect("a socket");
        Self { net, syn, answers }
    }

    /// Waits until the sensor answers, and leaves the connection half-open.
    ///
    /// # Panics
    /// When the sensor does not answer.
    pub fn wait_answer(mut self) {
        let _ = self.answer();
    }

    /// Completes the connection that was begun by a SYN in whatever form, sends `data`, and closes.
    ///
    /// # Panics
    /// When the sensor does not answer.
    pub fn complete(mut self, data: &[u8]) {
        let packets = self.completing(data);
        self.net.client.send_syns(packets);
    }

    /// The same, with a reset behind the end.
    ///
    /// # Panics
    /// When the sensor does not answer.
    pub fn complete_and_reset(mut self, data: &[u8]) {
        let [acknowledgement, last] = self.completing(data);
        let sent = u32::try_from(data.len()).expect("one packet") + 1;
        let reset =
            RawSyn { flags: RST | ACK, sequence: last.sequence.wrapping_add(sent), data: Vec::new(), ..last.clone() };
        self.net.client.send_syns([acknowledgement, last, reset]);
    }

    /// The same as [`Self::complete`] with both packets at once, from two threads: each of them completes the handshake.
    ///
    /// # Panics
    /// When the sensor does not answer.
    pub fn complete_twice(mut self, data: &[u8]) {
        let packets = self.completing(data).map(|packet| packet.packet());
        let waiting = AtomicUsize::new(packets.len());
        let at_once = |packet| {
            self.net.client.send_raw(std::iter::once_with(|| {
                waiting.fetch_sub(1, Ordering::AcqRel);
                while waiting.load(Ordering::Acquire) > 0 {
                    std::hint::spin_loop();
                }
                packet
            }));
        };
        std::thread::scope(|scope| {
            for packet in packets {
                scope.spawn(|| at_once(packet));
            }
        });
    }

    /// Packets that complete the connection: an acknowledgement, and `data` with the end of the stream.
    fn completing(&mut self, data: &[u8]) -> [RawSyn; 2] {
        let acknowledgement = self.answer().wrapping_add(1);
        let packet = |flags, data: &[u8]| RawSyn {
            flags: flags | ACK,
            sequence: self.syn.sequence.wrapping_add(1),
            acknowledgement,
            options: Vec::new(),
            extensions: 0,
            ip_options: Vec::new(),
            data: data.to_vec(),
            ..self.syn.clone()
        };
        [packet(0, b""), packet(PSH | FIN, data)]
    }

    /// The sequence number of the SYN that the sensor answers with.
    fn answer(&mut self) -> u32 {
        let end = Instant::now() + PATIENCE;
        let mut packet = [0; 2048];
        while Instant::now() < end {
            let Ok(length) = self.answers.read(&mut packet) else { continue };
            if let Some(sequence) = self.answered(&packet[..length]) {
                return sequence;
            }
        }
        panic!("the sensor does not answer {:?}", self.syn);
    }

    fn answered(&self, packet: &[u8]) -> Option<u32> {
        let (to, header) = match packet.first()? >> 4 {
            4 => (IpAddr::from(<[u8; 4]>::try_from(packet.get(16..20)?).ok()?), usize::from(packet[0] & 15) * 4),
            6 => (IpAddr::from(<[u8; 16]>::try_from(packet.get(24..40)?).ok()?), 40),
            _ => return None,
        };
        let segment = packet.get(header..header + 20)?;
        let word = |at: usize| u32::from_be_bytes([segment[at], segment[at + 1], segment[at + 2], segment[at + 3]]);
        let ports = u32::from(self.syn.port) << 16 | u32::from(self.syn.source_port);
        let is_answer = to == self.syn.source
            && word(0) == ports
            && segment[13] & (SYN | ACK) == SYN | ACK
            && word(8) == self.syn.sequence.wrapping_add(1);
        is_answer.then(|| word(4))
    }
}
