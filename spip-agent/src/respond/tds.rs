//! SQL Server ([MS-TDS]): any login is let in, and statements are refused.
//!
//! A client that asks for encryption, or requires it, gets TLS where the sensor has it: otherwise it would leave without its
//! login. One that would encrypt only its login gets ENCRYPT_NOT_SUP, and sends its login unencrypted. Clients of TDS 8 speak TLS
//! first, as any client of TLS, and the same inside.

use super::{Dialogue, Reply, Scene, Service};

pub(super) static SERVICE: Service =
    Service { protocols: &["tds"], speaks_first: false, begin: || Box::new(Tds { message: 0 }) };

/// Types of packets ([MS-TDS] 2.2.3.1.1).
mod kind {
    pub(super) const BATCH: u8 = 1;
    pub(super) const RPC: u8 = 3;
    pub(super) const RESPONSE: u8 = 4;
    pub(super) const ATTENTION: u8 = 6;
    pub(super) const LOGIN: u8 = 16;
    pub(super) const PRELOGIN: u8 = 18;
}

/// Bytes of a packet's header: type, status, length, process, number, window.
const HEADER: usize = 8;
/// Status of the last packet of a message.
const LAST: u8 = 1;
/// Least bytes of the headers in front of a batch: their length, and the one for transactions.
const HEADERS_BYTES: usize = 22;
/// Bytes of one message that the sensor goes along with.
const MESSAGE_BYTES: usize = 256 * 1024;

/// Token of the option for encryption, and its values ([MS-TDS] 2.2.6.5).
mod encryption {
    pub(super) const TOKEN: u8 = 1;
    pub(super) const ON: u8 = 1;
    pub(super) const NOT_SUPPORTED: u8 = 2;
    pub(super) const REQUIRED: u8 = 3;
    /// A bit beside them: the client shows a certificate.
    pub(super) const CLIENT_CERTIFICATE: u8 = 0x80;
}

/// Options of a pre-login with the server's answers: version (that of SQL Server 2019), encryption, instance, process (left
/// out), several results at once (no). A server answers those that it was asked for.
const OPTIONS: [&[u8]; 5] = [&[15, 0, 0x10, 0x04, 0, 0], &[encryption::NOT_SUPPORTED], &[0], &[], &[0]];
/// Bytes of an option in front of the values: token, offset, length; and what ends them.
const OPTION: usize = 5;
const END: u8 = 0xff;

struct Tds {
    /// Bytes of the message that is under way.
    message: usize,
}

impl Dialogue for Tds {
    fn hear(&mut self, heard: &[u8], scene: &Scene<'_>, reply: &mut Reply<'_>) -> usize {
        let Some([kind, status, high, low, ..]) = heard.first_chunk::<HEADER>() else { return 0 };
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        self.message += length;
        if length < HEADER || self.message > MESSAGE_BYTES {
            reply.close();
            return heard.len();
        }
        if heard.len() < length {
            self.message -= length;
            return 0;
        }
        // A message may have many packets; the last one is answered.
        if status & LAST != 0 {
            self.message = 0;
            answer(*kind, &heard[HEADER..length], scene, reply);
        }
        length
    }
}

/// `packet`: the last one of the message.
fn answer(kind: u8, packet: &[u8], scene: &Scene<'_>, reply: &mut Reply<'_>) {
    match kind {
        kind::PRELOGIN => {
            reply.understood();
            if scene.offers_tls && wants_encryption(packet) {
                reply.say("tds_tls", &framed(&prelogin(packet, encryption::ON)));
                reply.start_tls_in_packets();
            } else {
                reply.say("tds_greeting", &framed(&prelogin(packet, encryption::NOT_SUPPORTED)));
            }
        }
        kind::LOGIN => {
            reply.understood();
            reply.say("tds_login", &framed(&logged_in()));
        }
        kind::ATTENTION => reply.say("tds_answer", &framed(&done(0x20))),
        // What drivers say before the first statement of their own.
        kind::BATCH if only_sets(packet) => reply.say("tds_answer", &framed(&done(0))),
        kind::BATCH | kind::RPC => {
            let text = "The SELECT permission was denied on the object 'objects', database 'mssqlsystemresource', schema 'sys'.";
            let mut tokens = error(229, 5, 14, text, &server(scene));
            tokens.extend_from_slice(&done(2));
            reply.say("tds_refusal", &framed(&tokens));
            reply.count_refusal();
        }
        _ => {
            reply.say("tds_refusal", &framed(&done(2)));
            reply.count_refusal();
        }
    }
}

/// Reports whether a batch has no statement but settings of the session and the choice of a database.
fn only_sets(batch: &[u8]) -> bool {
    // Since version 7.2 headers precede the text ([MS-TDS] 2.2.5.3).
    let headers = batch.first_chunk().map_or(0, |length| u32::from_le_bytes(*length));
    let headers = usize::try_from(headers).unwrap_or(usize::MAX);
    let text = if (HEADERS_BYTES..=batch.len()).contains(&headers) { &batch[headers..] } else { batch };
    let (letters, _) = text.as_chunks::<2>();
    let text = char::decode_utf16(letters.iter().map(|letter| u16::from_le_bytes(*letter)));
    let text: String = text.map(|letter| letter.unwrap_or(char::REPLACEMENT_CHARACTER)).collect();
    let is_set = |statement: &str| {
        let word = statement.get(..4);
        word.is_some_and(|word| ["set ", "use "].iter().any(|setting| word.eq_ignore_ascii_case(setting)))
    };
    let mut statements = text.split(';').map(str::trim).filter(|statement| !statement.is_empty()).peekable();
    statements.peek().is_some() && statements.all(is_set)
}

/// Reports whether a client's pre-login asks for encryption of more than the login, or requires it.
fn wants_encryption(asked: &[u8]) -> bool {
    let mut options = asked.chunks_exact(OPTION).take_while(|option| option[0] != END);
    let place = options.find(|option| option[0] == encryption::TOKEN);
    let value = place.and_then(|option| asked.get(usize::from(u16::from_be_bytes([option[1], option[2]]))));
    value.is_some_and(|value| matches!(value & !encryption::CLIENT_CERTIFICATE, encryption::ON | encryption::REQUIRED))
}

/// The answers to the options of a client's pre-login, the version and encryption in any case.
fn prelogin(asked: &[u8], encrypts: u8) -> Vec<u8> {
    let tokens = asked.chunks_exact(OPTION).map(|option| option[0]).take_while(|token| *token != END);
    let asked: Vec<_> = tokens.collect();
    let answered: Vec<_> = (0..).zip(OPTIONS).filter(|(token, _)| *token < 2 || asked.contains(token)).collect();
    let mut offset = answered.len() * OPTION + 1;
    let (mut options, mut values) = (Vec::new(), Vec::new());
    for (token, value) in answered {
        let value = if token == encryption::TOKEN { std::slice::from_ref(&encrypts) } else { value };
        options.push(token);
        options.extend_from_slice(&u16::try_from(offset).unwrap_or_default().to_be_bytes());
        options.extend_from_slice(&u16::try_from(value.len()).unwrap_or_default().to_be_bytes());
        values.extend_from_slice(value);
        offset += value.len();
    }
    options.push(END);
    [options, values].concat()
}

fn server(scene: &Scene<'_>) -> String {
    let label = scene.face.host.split('.').next().unwrap_or_default();
    label.chars().take(15).collect::<String>().to_uppercase()
}

/// The database, the size of packets, and who lets the client in ([MS-TDS] 2.2.7.9, 2.2.7.14).
fn logged_in() -> Vec<u8> {
    let mut tokens = change(1, "master", "master");
    tokens.extend_from_slice(&change(4, "4096", "4096"));
    // Interface SQL_TSQL, version 7.4, name, version of the program.
    let mut acknowledged = vec![1, 0x74, 0, 0, 4];
    short(&mut acknowledged, "Microsoft SQL Server");
    acknowledged.extend_from_slice(&[15, 0, 0x10, 0x04]);
    tokens.extend_from_slice(&token(0xad, &acknowledged));
    tokens.extend_from_slice(&done(0));
    tokens
}

fn change(kind: u8, new: &str, old: &str) -> Vec<u8> {
    let mut body = vec![kind];
    short(&mut body, new);
    short(&mut body, old);
    token(0xe3, &body)
}

fn error(number: u32, state: u8, class: u8, text: &str, server: &str) -> Vec<u8> {
    let mut body = number.to_le_bytes().to_vec();
    body.extend_from_slice(&[state, class]);
    body.extend_from_slice(&u16::try_from(text.chars().count()).unwrap_or_default().to_le_bytes());
    body.extend(utf16(text));
    short(&mut body, server);
    short(&mut body, "");
    body.extend_from_slice(&1_u32.to_le_bytes());
    token(0xaa, &body)
}

/// The end of what answers a command: status, command, count of rows.
fn done(status: u16) -> [u8; 13] {
    let [low, high] = status.to_le_bytes();
    [0xfd, low, high, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
}

fn token(kind: u8, body: &[u8]) -> Vec<u8> {
    [&[kind][..], &u16::try_from(body.len()).unwrap_or_default().to_le_bytes(), body].concat()
}

/// Appends text behind its count of characters.
fn short(into: &mut Vec<u8>, text: &str) {
    into.push(u8::try_from(text.chars().count()).unwrap_or_default());
    into.extend(utf16(text));
}

fn utf16(text: &str) -> impl Iterator<Item = u8> {
    text.encode_utf16().flat_map(u16::to_le_bytes)
}

fn framed(body: &[u8]) -> Vec<u8> {
    let length = u16::try_from(body.len() + HEADER).unwrap_or_default().to_be_bytes();
    [&[kind::RESPONSE, LAST][..], &length, &[0, 0, 1, 0], body].concat()
}

#[cfg(test)]
mod tests {
    use super::super::tests::Talk;
    use super::*;
    use crate::tls::Framing;

    fn message(kind: u8, status: u8, body: &[u8]) -> Vec<u8> {
        let mut message = framed(body);
        (message[0], message[1]) = (kind, status);
        message
    }

    const ASKED: &[u8] = b"\0\0\x1a\0\x06\x01\0\x20\0\x01\x02\0\x21\0\x01\x03\0\x22\0\x04\x04\0\x26\0\x01\xff\x0a\0\x0f\xa0\0\0\0\0\0\0\0\0\0";

    #[test]
    fn a_client_logs_in_without_encryption_and_its_statements_are_refused() {
        let mut talk = Talk::to(4444);
        talk.says(&message(kind::PRELOGIN, 1, ASKED));
        assert_eq!((talk.server[0], talk.server[HEADER + 32]), (4, 2), "a response, and no encryption");
        assert_eq!(talk.server.len(), HEADER + 35);
        assert_eq!(usize::from(u16::from_be_bytes([talk.server[2], talk.server[3]])), talk.server.len());
        // The login in two packets.
        assert_eq!(talk.says(&message(kind::LOGIN, 0, &[7; 40])), "");
        talk.server.clear();
        talk.says(&message(kind::LOGIN, 1, &[7; 40]));
        assert_eq!(talk.server[HEADER], 0xe3);
        talk.server.clear();
        talk.says(&message(kind::BATCH, 1, b"s\0e\0l\0"));
        assert_eq!(talk.server[HEADER], 0xaa);
        assert_eq!(talk.conversation.responses(), ["tds_greeting", "tds_login", "tds_refusal"]);
        assert!(talk.server.ends_with(&done(2)));
    }

    #[test]
    fn options_are_answered_that_were_asked_for() {
        // Clients that know no more read the values behind those that they know.
        let asked = b"\0\0\x15\0\x06\x01\0\x1b\0\x01\x02\0\x1c\0\x01\x03\0\x1d\0\x04\xff";
        let expected = b"\0\0\x15\0\x06\x01\0\x1b\0\x01\x02\0\x1c\0\x01\x03\0\x1d\0\0\xff\x0f\0\x10\x04\0\0\x02\0";
        let clear = encryption::NOT_SUPPORTED;
        assert_eq!(prelogin(asked, clear), expected);
        assert_eq!(prelogin(b"", clear), prelogin(&[END; 7], clear));
    }

    #[test]
    fn settings_of_a_driver_are_taken_and_statements_refused() {
        let wide = |text: &str| utf16(text).collect::<Vec<u8>>();
        let headers = [&22_u32.to_le_bytes()[..], &[0; 18]].concat();
        for (text, taken) in [
            ("SET ARITHABORT ON;set ansi_nulls ON;", true),
            ("use [master]", true),
            ("SET TEXTSIZE 1; select 1", false),
            ("select 'SET X'", false),
            ("", false),
            (";", false),
            ("SETS", false),
        ] {
            for batch in [wide(text), [headers.clone(), wide(text)].concat()] {
                let mut talk = Talk::to(4444);
                talk.says(&message(kind::PRELOGIN, 1, ASKED));
                talk.server.clear();
                talk.says(&message(kind::BATCH, 1, &batch));
                assert_eq!(talk.server.get(HEADER) == Some(&0xfd), taken, "{text}: {:?}", talk.server);
            }
        }
    }

    #[test]
    fn a_client_that_wants_encryption_gets_it_where_the_sensor_has_tls() {
        let at = ASKED.iter().position(|byte| *byte == END).expect("an end") + 1 + 6;
        let of = |encryption: u8| {
            let mut asked = ASKED.to_vec();
            asked[at] = encryption;
            message(kind::PRELOGIN, 1, &asked)
        };
        // Off, on, not supported, required; the last two with a certificate.
        for (asked, answer, agrees) in
            [(0, 2, false), (1, 1, true), (2, 2, false), (3, 1, true), (0x81, 1, true), (0x80, 2, false)]
        {
            let asked = of(asked);
            let mut talk = Talk::to(1433);
            talk.offers_tls = true;
            talk.says(&asked);
            assert_eq!(talk.server[HEADER + 32], answer, "{asked:?}");
            let expected = agrees.then_some((asked.len(), Framing::TdsPackets));
            assert_eq!(talk.conversation.awaits_hello(), expected, "{asked:?}");

            let mut talk = Talk::to(1433);
            talk.says(&asked);
            assert_eq!((talk.server[HEADER + 32], talk.conversation.awaits_hello()), (2, None), "no TLS: {asked:?}");
        }
    }

    #[test]
    fn a_length_that_is_none_or_a_message_without_end_ends_the_talk() {
        let mut talk = Talk::to(4444);
        talk.says(&message(kind::PRELOGIN, 1, ASKED));
        talk.says(&[kind::LOGIN, 1, 0, 3, 0, 0, 1, 0]);
        assert!(talk.conversation.is_over());

        let mut talk = Talk::to(4444);
        talk.says(&message(kind::PRELOGIN, 1, ASKED));
        for _ in 0..=MESSAGE_BYTES / 32_008 {
            assert_eq!(talk.says(&message(kind::BATCH, 0, &[0; 32_000])), "");
        }
        assert!(talk.conversation.is_over());
    }
}
