//! PostgreSQL, protocol 3: TLS is agreed to where the sensor has it, the password is asked for in clear, any is taken, and queries are refused.
//! <https://www.postgresql.org/docs/current/protocol-flow.html>

use super::{Dialogue, Reply, Scene, Service};

pub(super) static SERVICE: Service =
    Service { protocols: &["postgresql"], speaks_first: false, begin: || Box::new(Postgresql::Startup) };

/// The longest message that is waited for.
const MESSAGE_BYTES: usize = 64 * 1024;

enum Postgresql {
    Startup,
    Password,
    Commands {
        /// An error was sent; all up to the next Sync is passed over.
        skips: bool,
    },
}

impl Dialogue for Postgresql {
    fn hear(&mut self, heard: &[u8], scene: &Scene<'_>, reply: &mut Reply<'_>) -> usize {
        if matches!(self, Self::Startup) {
            return self.startup(heard, scene, reply);
        }
        let Some((head, rest)) = heard.split_first_chunk::<5>() else { return 0 };
        let [kind, length @ ..] = *head;
        let Some(length) = body_length(length, 4) else {
            reply.say("postgresql_refusal", &error("FATAL", "08P01", "invalid message length"));
            reply.close();
            return head.len();
        };
        if rest.len() < length {
            return 0;
        }
        self.message(kind, scene, reply);
        head.len() + length
    }
}

impl Postgresql {
    /// A message without a type: start-up, or what may stand before it.
    fn startup(&mut self, heard: &[u8], scene: &Scene<'_>, reply: &mut Reply<'_>) -> usize {
        let Some((head, rest)) = heard.split_first_chunk::<8>() else { return 0 };
        let [length @ .., a, b, c, d] = *head;
        let Some(length) = body_length(length, 8) else {
            reply.close();
            return head.len();
        };
        if rest.len() < length {
            return 0;
        }
        match (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])) {
            (1234, 5679) if scene.offers_tls => {
                reply.understood();
                reply.say("postgresql_tls", b"S");
                reply.start_tls();
            }
            (1234, 5679 | 5680) => reply.say("postgresql_no_tls", b"N"),
            (3, minor) => {
                reply.understood();
                *self = Self::Password;
                let mut answer = Vec::new();
                if minor > 0 {
                    // NegotiateProtocolVersion: 3.0, and no option that is unknown.
                    answer.extend(message(b'v', &[0; 8]));
                }
                answer.extend(message(b'R', &[0, 0, 0, 3]));
                reply.say("postgresql_password_wanted", &answer);
            }
            (1234, 5678) => reply.close(),
            _ => {
                reply.say("postgresql_refusal", &error("FATAL", "0A000", "unsupported frontend protocol"));
                reply.close();
            }
        }
        head.len() + length
    }

    fn message(&mut self, kind: u8, scene: &Scene<'_>, reply: &mut Reply<'_>) {
        match (&mut *self, kind) {
            (_, b'X') => reply.close(),
            (Self::Password, b'p') => {
                *self = Self::Commands { skips: false };
                reply.say("postgresql_login", &let_in(scene));
            }
            (Self::Commands { .. }, b'Q') => {
                let mut answer = refusal();
                answer.extend(ready());
                reply.say("postgresql_refusal", &answer);
                reply.count_refusal();
            }
            (Self::Commands { skips }, b'S') => {
                *skips = false;
                reply.say("postgresql_answer", &ready());
            }
            (Self::Commands { skips: true }, _) | (Self::Commands { .. }, b'H') => {}
            (Self::Commands { skips }, b'P' | b'B' | b'D' | b'E' | b'C' | b'F') => {
                *skips = true;
                reply.say("postgresql_refusal", &refusal());
                reply.count_refusal();
            }
            _ => {
                reply.say("postgresql_refusal", &error("FATAL", "08P01", "invalid frontend message type"));
                reply.close();
            }
        }
    }
}

/// Returns the bytes that follow a length that counts `counted` bytes of the head; `None` when it is too short or too
/// long.
fn body_length(length: [u8; 4], counted: usize) -> Option<usize> {
    let length = usize::try_from(u32::from_be_bytes(length)).ok()?;
    length.checked_sub(counted).filter(|length| *length <= MESSAGE_BYTES)
}

/// Authentication is ok; parameters, a key for cancellations, ready.
fn let_in(scene: &Scene<'_>) -> Vec<u8> {
    let mut answer = message(b'R', &[0; 4]);
    let parameters = [
        ("server_version", scene.face.postgresql.as_str()),
        ("server_encoding", "UTF8"),
        ("client_encoding", "UTF8"),
        ("DateStyle", "ISO, MDY"),
        ("IntervalStyle", "postgres"),
        ("TimeZone", "Etc/UTC"),
        ("integer_datetimes", "on"),
        ("is_superuser", "off"),
        ("standard_conforming_strings", "on"),
    ];
    for (name, value) in parameters {
        answer.extend(message(b'S', format!("{name}\0{value}\0").as_bytes()));
    }
    let [process, secret @ ..] = scene.random::<6>("postgresql");
    let mut key = vec![0, 0, secret[0] | 0x40, process];
    key.extend_from_slice(&secret[1..]);
    answer.extend(message(b'K', &key));
    answer.extend(ready());
    answer
}

fn ready() -> Vec<u8> {
    message(b'Z', b"I")
}

fn refusal() -> Vec<u8> {
    error("ERROR", "42501", "permission denied for schema public")
}

fn error(severity: &str, state: &str, text: &str) -> Vec<u8> {
    message(b'E', format!("S{severity}\0V{severity}\0C{state}\0M{text}\0\0").as_bytes())
}

fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut message = vec![kind];
    message.extend_from_slice(&u32::try_from(body.len() + 4).unwrap_or_default().to_be_bytes());
    message.extend_from_slice(body);
    message
}
