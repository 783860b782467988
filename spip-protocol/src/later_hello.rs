//! A ClientHello that comes later in a stream: behind `STARTTLS`, a request for TLS, or a tunnel.
//!
//! Its bytes, and the records behind them, are no commands of the protocol in clear. Only a message that is a ClientHello
//! by its structure counts, and what follows its records in clear is read again, so that a few bytes in front of a
//! command do not hide it.

use super::client_hello::{Detection, detect};

/// Type, version and length of a record.
const HEADER_BYTES: usize = 5;

/// The shortest first record: a hello without extensions has 41 bytes.
const LEAST_RECORD_BYTES: u16 = 41;

/// Returns how many bytes at the start of `bytes` are a ClientHello and records of TLS behind it; `None` where no hello
/// begins. A hello or a record that is cut off takes all bytes.
pub(super) fn length(bytes: &[u8]) -> Option<usize> {
    let mut end = match bytes {
        // The longest prefix that cannot be told from anything yet.
        [0x16, 3] | [0x16, 3, 0..=4] | [0x16, 3, 0..=4, _] | [0x16, 3, 0..=4, _, _] => return Some(bytes.len()),
        // Shorter ones are cut on purpose, and would have every line looked at to the end of the stream.
        [0x16, 3, _, high, low, ..] if u16::from_be_bytes([*high, *low]) < LEAST_RECORD_BYTES => return None,
        [0x16, 3, ..] => match detect(bytes) {
            Detection::ClientHello { length } => record_end(bytes, length),
            Detection::Undecided | Detection::Partial | Detection::Oversized { .. } => return Some(bytes.len()),
            _ => return None,
        },
        _ => return None,
    };
    while let Some([0x14..=0x17, 3, 0..=4, high, low]) = bytes.get(end..).and_then(<[u8]>::first_chunk) {
        end += HEADER_BYTES + usize::from(u16::from_be_bytes([*high, *low]));
    }
    Some(end.min(bytes.len()))
}

/// Returns the end of the record in which a hello of `length` bytes ends: it may hold more messages.
fn record_end(bytes: &[u8], length: usize) -> usize {
    let mut end = 0;
    while end < length {
        let Some([_, _, _, high, low]) = bytes.get(end..).and_then(<[u8]>::first_chunk) else { return bytes.len() };
        end += HEADER_BYTES + usize::from(u16::from_be_bytes([*high, *low]));
    }
    end
}

#[cfg(test)]
mod tests {
    use super::super::client_hello::sample::Hello;
    use super::super::understand;

    fn hello() -> Vec<u8> {
        Hello::new().ciphers(&[0x1301]).server_name(b"h.test").records(16 * 1024)
    }

    fn behind(text: &str) -> Vec<u8> {
        [text.as_bytes(), &hello()].concat()
    }

    fn commands(bytes: &[u8]) -> String {
        serde_json::to_string(&understand(bytes, false).details).expect("json")
    }

    #[test]
    fn no_protocol_reads_a_hello_as_commands() {
        let sessions = [
            ("smtp", "EHLO a.test\r\nSTARTTLS\r\n"),
            ("ftp", "AUTH TLS\r\n"),
            ("pop3", "CAPA\r\nSTLS\r\n"),
            ("imap", "a1 STARTTLS\r\n"),
            ("nntp", "CAPABILITIES\r\nSTARTTLS\r\n"),
            ("irc", "CAP LS 302\r\nSTARTTLS\r\n"),
        ];
        for (protocol, text) in sessions {
            let bytes = behind(text);
            for length in text.len()..=bytes.len() {
                let understanding = understand(&bytes[..length], false);
                assert_eq!(understanding.protocol, Some(protocol), "{text}");
                let facts = commands(&bytes[..length]);
                // One byte could be anything.
                let cut = length == text.len() + 1;
                assert!(cut || !facts.contains("\\u0016"), "{facts}");
            }
        }
    }

    #[test]
    fn what_follows_the_records_in_clear_is_read_again() {
        let bytes = [&behind("EHLO a.test\r\nSTARTTLS\r\n")[..], b"\x17\x03\x03\x00\x03\n\n\nVRFY root\r\n"].concat();
        assert!(commands(&bytes).ends_with(r#""commands":["EHLO a.test","STARTTLS","VRFY root"]}"#));
    }

    #[test]
    fn what_only_begins_like_a_hello_is_a_line() {
        let bytes = b"EHLO a.test\r\n\x16\x03\x01 x\r\nVRFY root\r\n";
        assert!(commands(bytes).contains("VRFY root"));
    }

    #[test]
    fn a_request_for_tls_of_postgresql_and_a_hello_are_whole() {
        let mut bytes = b"\x00\x00\x00\x08\x04\xd2\x16\x2f".to_vec();
        bytes.extend(hello());
        assert_eq!(commands(&bytes), r#"{"requests":["tls"]}"#);
    }
}
