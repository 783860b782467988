//! AMQP 0-9-1 as RabbitMQ speaks it: any login is let in, channels open, and what they are asked for is refused. Clients of
//! AMQP 1.0 are asked for their login by SASL (<https://docs.oasis-open.org/amqp/core/v1.0/os/amqp-core-security-v1.0-os.html>).
//! <https://www.rabbitmq.com/resources/specs/amqp0-9-1.pdf>

use super::{Dialogue, Reply, Scene, Service};

pub(super) static SERVICE: Service =
    Service { protocols: &["amqp"], speaks_first: false, begin: || Box::new(Amqp { state: State::Header }) };

/// The header of version 0-9-1, which is said to clients of other ones, too.
const HEADER: &[u8; 8] = b"AMQP\0\0\x09\x01";
/// The header of SASL for version 1.0.
const SASL: &[u8; 8] = b"AMQP\x03\x01\0\0";
/// The longest frame that is waited for; the sensor announces 128 KiB, as RabbitMQ does.
const FRAME_BYTES: usize = 128 * 1024;
/// End of a frame.
const FRAME_END: u8 = 0xce;

/// Classes and methods.
mod method {
    pub(super) const START: [u8; 4] = [0, 10, 0, 10];
    pub(super) const START_OK: [u8; 4] = [0, 10, 0, 11];
    pub(super) const TUNE: [u8; 4] = [0, 10, 0, 30];
    pub(super) const TUNE_OK: [u8; 4] = [0, 10, 0, 31];
    pub(super) const OPEN: [u8; 4] = [0, 10, 0, 40];
    pub(super) const OPEN_OK: [u8; 4] = [0, 10, 0, 41];
    pub(super) const CLOSE: [u8; 4] = [0, 10, 0, 50];
    pub(super) const CLOSE_OK: [u8; 4] = [0, 10, 0, 51];
    pub(super) const CHANNEL_OPEN: [u8; 4] = [0, 20, 0, 10];
    pub(super) const CHANNEL_OPEN_OK: [u8; 4] = [0, 20, 0, 11];
    pub(super) const CHANNEL_CLOSE: [u8; 4] = [0, 20, 0, 40];
    pub(super) const CHANNEL_CLOSE_OK: [u8; 4] = [0, 20, 0, 41];
}

struct Amqp {
    state: State,
}

enum State {
    Header,
    /// Frames of 0-9-1 follow.
    Frames,
    /// A frame of SASL follows.
    Sasl,
}

impl Dialogue for Amqp {
    fn hear(&mut self, heard: &[u8], _: &Scene<'_>, reply: &mut Reply<'_>) -> usize {
        match self.state {
            State::Header => self.header(heard, reply),
            State::Frames => frame(heard, reply),
            State::Sasl => sasl(heard, reply),
        }
    }
}

impl Amqp {
    fn header(&mut self, heard: &[u8], reply: &mut Reply<'_>) -> usize {
        let Some(header) = heard.first_chunk::<8>() else { return 0 };
        reply.understood();
        match header {
            HEADER => {
                self.state = State::Frames;
                reply.say("amqp_greeting", &method_frame(0, method::START, &start()));
            }
            SASL => {
                self.state = State::Sasl;
                reply.say("amqp_greeting", &[SASL.as_slice(), &sasl_frame(&MECHANISMS)].concat());
            }
            _ => {
                reply.say("amqp_refusal", HEADER);
                reply.close();
            }
        }
        header.len()
    }
}

/// Version, properties, mechanisms and locales of connection.start.
fn start() -> Vec<u8> {
    let mut properties = Vec::new();
    for (name, value) in
        [("platform", "Erlang/OTP 25.3.2.8"), ("product", "RabbitMQ"), ("version", "3.10.8"), ("copyright", COPYRIGHT)]
    {
        properties.push(u8::try_from(name.len()).unwrap_or_default());
        properties.extend_from_slice(name.as_bytes());
        properties.push(b'S');
        long(&mut properties, value.as_bytes());
    }
    let mut arguments = vec![0, 9];
    long(&mut arguments, &properties);
    long(&mut arguments, b"PLAIN AMQPLAIN");
    long(&mut arguments, b"en_US");
    arguments
}

const COPYRIGHT: &str = "Copyright (c) 2007-2022 VMware, Inc. or its affiliates.";

fn frame(heard: &[u8], reply: &mut Reply<'_>) -> usize {
    let Some((head, rest)) = heard.split_first_chunk::<7>() else { return 0 };
    let [kind, high, low, length @ ..] = *head;
    let channel = u16::from_be_bytes([high, low]);
    let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
    if length > FRAME_BYTES {
        reply.close();
        return heard.len();
    }
    let Some((payload, [end, ..])) = rest.split_at_checked(length) else { return 0 };
    if *end != FRAME_END {
        reply.close();
        return heard.len();
    }
    // Headers, bodies and heartbeats want no answer.
    if let (1, Some((method, _))) = (kind, payload.split_first_chunk::<4>()) {
        answer(*method, channel, reply);
    }
    head.len() + length + 1
}

fn answer(asked: [u8; 4], channel: u16, reply: &mut Reply<'_>) {
    let mut say = |name, method, arguments: &[u8]| reply.say(name, &method_frame(channel, method, arguments));
    match asked {
        // Channels, bytes of a frame, seconds between heartbeats: what RabbitMQ says.
        method::START_OK => say("amqp_login", method::TUNE, &[0x07, 0xff, 0, 2, 0, 0, 0, 60]),
        method::OPEN => say("amqp_answer", method::OPEN_OK, &[0]),
        method::CHANNEL_OPEN => say("amqp_answer", method::CHANNEL_OPEN_OK, &[0; 4]),
        method::CHANNEL_CLOSE => say("amqp_answer", method::CHANNEL_CLOSE_OK, &[]),
        method::CLOSE => {
            say("amqp_farewell", method::CLOSE_OK, &[]);
            reply.close();
        }
        method::TUNE_OK | method::CLOSE_OK | method::CHANNEL_CLOSE_OK => {}
        _ => {
            const TEXT: &[u8] = b"ACCESS_REFUSED - access to the virtual host was refused";
            let mut arguments = 403_u16.to_be_bytes().to_vec();
            arguments.push(u8::try_from(TEXT.len()).unwrap_or_default());
            arguments.extend_from_slice(TEXT);
            // The method that is refused.
            arguments.extend_from_slice(&asked);
            say("amqp_refusal", method::CHANNEL_CLOSE, &arguments);
            reply.count_refusal();
        }
    }
}

/// The list of mechanisms: PLAIN (a performative of one field, an array of symbols).
const MECHANISMS: [u8; 16] = [0, 0x53, 0x40, 0xc0, 11, 1, 0xe0, 8, 1, 0xa3, 5, b'P', b'L', b'A', b'I', b'N'];
/// The outcome of SASL: authentication failed.
const OUTCOME: [u8; 8] = [0, 0x53, 0x44, 0xc0, 3, 1, 0x50, 1];

fn sasl(heard: &[u8], reply: &mut Reply<'_>) -> usize {
    let Some(length) = heard.first_chunk() else { return 0 };
    let length = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
    if !(8..=FRAME_BYTES).contains(&length) {
        reply.close();
        return heard.len();
    }
    if heard.len() < length {
        return 0;
    }
    reply.say("amqp_refusal", &sasl_frame(&OUTCOME));
    reply.close();
    length
}

fn sasl_frame(body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 8).unwrap_or_default();
    // Data offset in words of four bytes, type SASL, channel.
    [&length.to_be_bytes()[..], &[2, 1, 0, 0], body].concat()
}

fn method_frame(channel: u16, method: [u8; 4], arguments: &[u8]) -> Vec<u8> {
    let length = u32::try_from(arguments.len() + 4).unwrap_or_default();
    [&[1][..], &channel.to_be_bytes(), &length.to_be_bytes(), &method, arguments, &[FRAME_END]].concat()
}

/// Appends text behind its length.
fn long(into: &mut Vec<u8>, text: &[u8]) {
    into.extend_from_slice(&u32::try_from(text.len()).unwrap_or_default().to_be_bytes());
    into.extend_from_slice(text);
}

#[cfg(test)]
mod tests {
    use super::super::tests::Talk;
    use super::*;

    #[test]
    fn a_client_of_rabbitmq_logs_in_opens_a_channel_and_is_refused() {
        let mut talk = Talk::to(4444);
        assert!(talk.says(HEADER).contains("RabbitMQ"));
        let sample = include_bytes!("../../../spip-protocol/fixtures/protocol/pika.amqp");
        let login = sample.strip_prefix(HEADER).expect("the header first");
        talk.server.clear();
        talk.says(login);
        assert_eq!(talk.server[7..11], method::TUNE);
        for (asked, answered) in [
            (method::TUNE_OK, None),
            (method::OPEN, Some(method::OPEN_OK)),
            (method::CHANNEL_OPEN, Some(method::CHANNEL_OPEN_OK)),
            ([0, 50, 0, 10], Some(method::CHANNEL_CLOSE)),
            (method::CLOSE, Some(method::CLOSE_OK)),
        ] {
            talk.server.clear();
            talk.says(&method_frame(1, asked, &[0; 12]));
            assert_eq!(talk.server.get(7..11), answered.as_ref().map(<[u8; 4]>::as_slice), "{asked:?}");
        }
        assert!(talk.conversation.is_over());
        let names = ["amqp_greeting", "amqp_login", "amqp_answer", "amqp_refusal", "amqp_farewell"];
        assert_eq!(talk.conversation.responses(), names);
    }

    #[test]
    fn a_client_of_another_version_is_told_this_one() {
        let mut talk = Talk::to(4444);
        talk.says(b"AMQP\x01\x01\x00\x0a");
        assert_eq!(talk.server, HEADER);
        assert!(talk.conversation.is_over());
    }

    #[test]
    fn version_1_0_is_asked_for_a_login() {
        let mut talk = Talk::to(4444);
        talk.says(SASL);
        assert_eq!(talk.server[..8], *SASL);
        assert!(talk.server.ends_with(b"PLAIN"));
        talk.says(&sasl_frame(&[0, 0x53, 0x41]));
        assert!(talk.conversation.is_over());
    }

    #[test]
    fn frames_that_are_none_end_the_talk() {
        for broken in [&b"\x01\0\0\xff\xff\xff\xff"[..], b"\x01\0\0\0\0\0\x01xy"] {
            let mut talk = Talk::to(4444);
            talk.says(HEADER);
            talk.says(broken);
            assert!(talk.conversation.is_over(), "{broken:?}");
        }
    }
}
