//! MySQL, as MariaDB speaks it: any user is let in, and queries are refused.
//! <https://dev.mysql.com/doc/dev/mysql-server/latest/page_protocol_connection_phase.html>

use super::{Dialogue, Reply, Scene, Service};

pub(super) static SERVICE: Service = Service {
    protocols: &["mysql"],
    speaks_first: true,
    begin: || Box::new(Mysql { is_in: false, offers_tls: false, sequence: 1 }),
};

/// The longest packet that is waited for.
const PACKET_BYTES: usize = 64 * 1024;
/// Long passwords, found rows, databases, the protocol of 4.1, transactions, secure connections.
const CAPABILITIES_LOW: u16 = 0xa7de;
/// TLS, where the sensor has it.
const CLIENT_SSL: u16 = 0x0800;
/// Length of a client's request for TLS: the fixed part of its handshake response.
const SSL_REQUEST_BYTES: usize = 32;
/// Plugins for authentication, connection attributes.
const CAPABILITIES_HIGH: u16 = 0x0018;
const UTF8MB4_GENERAL_CI: u8 = 45;

/// First byte of a command.
mod command {
    pub(super) const QUIT: u8 = 1;
    pub(super) const INIT_DB: u8 = 2;
    pub(super) const QUERY: u8 = 3;
    pub(super) const PING: u8 = 14;
}

struct Mysql {
    is_in: bool,
    /// Set when the greeting offered TLS.
    offers_tls: bool,
    /// Sequence number of the client's handshake response: 1, and 2 behind a request for TLS.
    sequence: u8,
}

impl Dialogue for Mysql {
    fn greet(&mut self, scene: &Scene<'_>, reply: &mut Reply<'_>) {
        // The challenge is text without zeros.
        let challenge = scene.random::<20>("mysql").map(|byte| b'!' + byte % 90);
        let [thread, ..] = scene.random::<1>("mysql thread");
        let mut packet = vec![10];
        packet.extend_from_slice(scene.face.mysql.as_bytes());
        packet.push(0);
        packet.extend_from_slice(&(u32::from(thread) + 30).to_le_bytes());
        packet.extend_from_slice(&challenge[..8]);
        packet.push(0);
        packet.extend_from_slice(&(CAPABILITIES_LOW | if scene.offers_tls { CLIENT_SSL } else { 0 }).to_le_bytes());
        packet.push(UTF8MB4_GENERAL_CI);
        // Status: autocommit.
        packet.extend_from_slice(&[2, 0]);
        packet.extend_from_slice(&CAPABILITIES_HIGH.to_le_bytes());
        packet.push(21);
        packet.extend_from_slice(&[0; 10]);
        packet.extend_from_slice(&challenge[8..]);
        packet.push(0);
        packet.extend_from_slice(b"mysql_native_password\0");
        reply.challenge(&challenge);
        reply.say("mysql_greeting", &framed(0, &packet));
        self.offers_tls = scene.offers_tls;
    }

    fn hear(&mut self, heard: &[u8], _: &Scene<'_>, reply: &mut Reply<'_>) -> usize {
        let Some((head, rest)) = heard.split_first_chunk::<4>() else { return 0 };
        let [a, b, c, sequence] = *head;
        let length = usize::try_from(u32::from_le_bytes([a, b, c, 0])).unwrap_or(usize::MAX);
        if length == 0 || length > PACKET_BYTES {
            reply.say("mysql_refusal", &error(sequence, 1156, "08S01", "Got packets out of order"));
            reply.close();
            return head.len();
        }
        let Some(packet) = rest.get(..length) else { return 0 };
        if self.is_in {
            Self::command(packet, sequence, reply);
        } else if self.offers_tls && sequence == 1 && length == SSL_REQUEST_BYTES && asks_tls(packet) {
            self.offers_tls = false;
            self.sequence = 2;
            reply.understood();
            reply.start_tls();
        } else if sequence == self.sequence && length > SSL_REQUEST_BYTES {
            self.is_in = true;
            reply.understood();
            reply.say("mysql_login", &ok(sequence));
        } else {
            reply.say("mysql_refusal", &error(sequence, 1043, "08S01", "Bad handshake"));
            reply.close();
        }
        head.len() + length
    }
}

/// Reports whether the capabilities of a handshake response have the bit for TLS.
fn asks_tls(packet: &[u8]) -> bool {
    packet.first_chunk().is_some_and(|[low, high]| u16::from_le_bytes([*low, *high]) & CLIENT_SSL != 0)
}

impl Mysql {
    fn command(packet: &[u8], sequence: u8, reply: &mut Reply<'_>) {
        let (command, text) = packet.split_first().map_or((0, packet), |(command, text)| (*command, text));
        let sets = text.get(..4).is_some_and(|word| word.eq_ignore_ascii_case(b"set "));
        match command {
            command::QUIT => reply.close(),
            command::PING | command::INIT_DB => reply.say("mysql_answer", &ok(sequence)),
            // What drivers say before the first query of their own.
            command::QUERY if sets => reply.say("mysql_answer", &ok(sequence)),
            command::QUERY => {
                let text = "Access denied; you need (at least one of) the SUPER privilege(s) for this operation";
                reply.say("mysql_refusal", &error(sequence, 1227, "42000", text));
                reply.count_refusal();
            }
            _ => {
                reply.say("mysql_refusal", &error(sequence, 1047, "08S01", "Unknown command"));
                reply.count_refusal();
            }
        }
    }
}

fn ok(answers: u8) -> Vec<u8> {
    framed(answers.wrapping_add(1), &[0, 0, 0, 2, 0, 0, 0])
}

fn error(answers: u8, code: u16, state: &str, text: &str) -> Vec<u8> {
    let mut packet = vec![0xff];
    packet.extend_from_slice(&code.to_le_bytes());
    packet.push(b'#');
    packet.extend_from_slice(state.as_bytes());
    packet.extend_from_slice(text.as_bytes());
    framed(answers.wrapping_add(1), &packet)
}

fn framed(sequence: u8, packet: &[u8]) -> Vec<u8> {
    let length = u32::try_from(packet.len()).unwrap_or_default().to_le_bytes();
    let mut frame = vec![length[0], length[1], length[2], sequence];
    frame.extend_from_slice(packet);
    frame
}
