//! MQTT 3.1, 3.1.1 and 5: any login is let in, subscriptions are refused, and what is published is acknowledged and goes
//! nowhere. The packet identifier is repeated, because the protocol demands it.

use super::{Dialogue, Reply, Scene, Service};

pub(super) static SERVICE: Service =
    Service { protocols: &["mqtt"], speaks_first: false, begin: || Box::new(Mqtt::default()) };

/// The longest packet that is waited for.
const PACKET_BYTES: usize = 64 * 1024;

/// Packet types, the upper half of the first byte (MQTT 3.1.1, section 2.2.1).
mod packet {
    pub(super) const CONNECT: u8 = 1;
    pub(super) const PUBLISH: u8 = 3;
    pub(super) const SUBSCRIBE: u8 = 8;
    pub(super) const PINGREQ: u8 = 12;
    pub(super) const DISCONNECT: u8 = 14;
}

#[derive(Default)]
struct Mqtt {
    is_version_5: bool,
    is_in: bool,
}

impl Dialogue for Mqtt {
    fn hear(&mut self, heard: &[u8], _: &Scene<'_>, reply: &mut Reply<'_>) -> usize {
        let Some((first, rest)) = heard.split_first() else { return 0 };
        let Some((length, digits)) = remaining_length(rest) else {
            if rest.len() >= 4 {
                reply.close();
            }
            return 0;
        };
        if length > PACKET_BYTES {
            reply.close();
            return 0;
        }
        let Some(body) = rest.get(digits..digits + length) else { return 0 };
        self.packet(first >> 4, first & 0x0f, body, reply);
        1 + digits + length
    }
}

impl Mqtt {
    fn packet(&mut self, kind: u8, flags: u8, body: &[u8], reply: &mut Reply<'_>) {
        match kind {
            packet::CONNECT if !self.is_in => {
                self.is_in = true;
                self.is_version_5 = level(body) == Some(5);
                // No session, accepted; with version 5 no properties.
                let answer: &[u8] = if self.is_version_5 { &[0x20, 3, 0, 0, 0] } else { &[0x20, 2, 0, 0] };
                reply.say("mqtt_login", answer);
            }
            _ if !self.is_in => reply.close(),
            packet::PUBLISH => match (flags >> 1 & 3, published_identifier(body)) {
                (1, Some([a, b])) => reply.say("mqtt_answer", &[0x40, 2, a, b]),
                (2, Some([a, b])) => reply.say("mqtt_answer", &[0x50, 2, a, b]),
                _ => {}
            },
            packet::SUBSCRIBE => {
                let Some([a, b]) = body.first_chunk::<2>() else { return reply.close() };
                // One code for the first filter: 0x80 is a failure, in version 5 0x87 "not authorized".
                let answer: &[u8] =
                    if self.is_version_5 { &[0x90, 4, *a, *b, 0, 0x87] } else { &[0x90, 3, *a, *b, 0x80] };
                reply.say("mqtt_refusal", answer);
                reply.count_refusal();
            }
            packet::PINGREQ => reply.say("mqtt_answer", &[0xd0, 0]),
            packet::DISCONNECT => reply.close(),
            _ => {}
        }
    }
}

/// The length behind the first byte, and how many bytes say it (MQTT 3.1.1, section 2.2.3).
fn remaining_length(bytes: &[u8]) -> Option<(usize, usize)> {
    let mut length = 0;
    for (at, byte) in bytes.iter().take(4).enumerate() {
        length |= usize::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            return Some((length, at + 1));
        }
    }
    None
}

/// The version behind the protocol's name.
fn level(connect: &[u8]) -> Option<u8> {
    let (name, rest) = connect.split_first_chunk::<2>()?;
    rest.get(usize::from(u16::from_be_bytes(*name))).copied()
}

/// The identifier behind the topic.
fn published_identifier(publish: &[u8]) -> Option<[u8; 2]> {
    let (topic, rest) = publish.split_first_chunk::<2>()?;
    let rest = rest.get(usize::from(u16::from_be_bytes(*topic))..)?;
    rest.first_chunk::<2>().copied()
}
