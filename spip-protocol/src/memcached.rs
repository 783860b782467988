//! memcached, text and binary protocol: abused to amplify, to read and to store.
//!
//! The text protocol decides at the end of a line that only memcached understands: `stats`, `version`, `flush_all`,
//! `gets`, or a storage command with its three numbers. `get key` is a line of Redis too and decides nothing. (`stats`
//! is also a command of beanstalkd, which scanners do not ask for.) The binary protocol decides at its header of 24
//! bytes. <https://github.com/memcached/memcached/blob/master/doc/protocol.txt>

use super::reader::{End, Reader};
use super::text_commands::{self, word};
use super::value::LIST_ITEMS;
use super::{Protocol, Understanding, sasl};

/// The registry's entry.
pub(super) static PROTOCOL: Protocol = Protocol {
    name: "memcached",
    recognise,
    understand,
    #[cfg(any(test, feature = "samples"))]
    samples: &[
        b"stats\r\n",
        b"version\r\n",
        include_bytes!("../fixtures/protocol/pymemcache.memcached"),
        b"\x80\x10\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x15\xf0\xd1\x62\x00\x00\x00\x00\x00\x00\x00\x00",
        b"\x80\x21\x00\x05\x00\x00\x00\x00\x00\x00\x00\x0f\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00PLAIN\x00user\x00pass",
    ],
};

/// Magic byte of a binary request.
const REQUEST: u8 = 0x80;
/// Operation that begins a SASL exchange.
const SASL_AUTH: u8 = 0x21;
/// Arguments of `stats`.
const STATISTICS: [&[u8]; 9] =
    [b"items", b"slabs", b"sizes", b"settings", b"detail", b"reset", b"cachedump", b"conns", b"malloc"];
/// The longest key.
const KEY_BYTES: u16 = 250;

fn recognise(reader: &mut Reader<'_>) -> Result<bool, End> {
    let mut binary = *reader;
    if binary.u8()? == REQUEST {
        return Ok(header(&mut binary)?.is_some());
    }
    let mut end = *reader;
    let Some(line) = text_commands::text_line(reader)? else { return Ok(false) };
    // Munin asks for the version too, and ends its lines with LF alone.
    let has_return = end.take(line.len())?.len() == line.len() && end.u8()? == b'\r';
    Ok(decides(line) && (has_return || line != b"version"))
}

fn decides(line: &[u8]) -> bool {
    let words: Vec<_> = line.split(|byte| *byte == b' ').filter(|word| !word.is_empty()).take(7).collect();
    let number = |word: &&[u8]| word.iter().all(|byte| byte.is_ascii_digit() || *byte == b'-');
    match words.as_slice() {
        [b"version"] | [b"gets", _, ..] => true,
        [b"stats", what @ ..] => match what {
            [] => true,
            [what, ..] => STATISTICS.contains(what),
        },
        [b"flush_all", rest @ ..] => rest.iter().all(|word| number(word) || *word == b"noreply"),
        [b"set" | b"add" | b"replace" | b"append" | b"prepend", _key, numbers @ ..] => match numbers {
            [_, _, _] => numbers.iter().all(number),
            [numbers @ .., b"noreply"] => numbers.len() == 3 && numbers.iter().all(number),
            _ => false,
        },
        [b"cas", _key, numbers @ ..] => numbers.len() >= 4 && numbers.iter().take(4).all(number),
        _ => false,
    }
}

/// A binary request's header.
struct Header {
    operation: u8,
    key: u16,
    extras: u8,
    body: u32,
}

/// Reads the header behind the magic byte; `None` when the bytes are none.
fn header(reader: &mut Reader<'_>) -> Result<Option<Header>, End> {
    let operation = reader.u8()?;
    let key = reader.be16()?;
    let extras = reader.u8()?;
    let data_type = reader.u8()?;
    reader.take(2)?;
    let body = reader.be32()?;
    reader.take(12)?;
    let rest = body.checked_sub(u32::from(key) + u32::from(extras));
    let fits = key <= KEY_BYTES && data_type == 0 && body <= 1 << 20;
    let fits = fits && rest.is_some_and(|value| shape_fits(operation, key, extras, value));
    Ok(fits.then_some(Header { operation, key, extras, body }))
}

/// Reports whether a request of this operation has such a key, extras and value. A header of other bytes that begins
/// with 0x80 mostly has not. <https://docs.memcached.org/protocols/binary/>
fn shape_fits(operation: u8, key: u16, extras: u8, value: u32) -> bool {
    let (has_key, has_value) = (key > 0, value > 0);
    match operation {
        // Get in its forms, delete.
        0x00 | 0x09 | 0x0c | 0x0d | 0x04 | 0x14 => has_key && extras == 0 && !has_value,
        // Set, add, replace: flags and expiration.
        0x01..=0x03 | 0x11..=0x13 => has_key && extras == 8,
        // Increment, decrement: two numbers and the expiration.
        0x05 | 0x06 | 0x15 | 0x16 => has_key && extras == 20 && !has_value,
        // Quit, no operation, version, list of SASL mechanisms.
        0x07 | 0x17 | 0x0a | 0x0b | 0x20 => !has_key && extras == 0 && !has_value,
        // Flush.
        0x08 | 0x18 => !has_key && matches!(extras, 0 | 4) && !has_value,
        // Append, prepend.
        0x0e | 0x0f | 0x19 | 0x1a => has_key && extras == 0,
        // Statistics.
        0x10 => extras == 0 && !has_value,
        // Verbosity.
        0x1b => !has_key && extras == 4 && !has_value,
        // Touch, get and touch.
        0x1c..=0x1e | 0x23 | 0x24 => has_key && extras == 4 && !has_value,
        // Hello of Couchbase: the client's name, and features of two bytes.
        0x1f => extras == 0 && has_value && value.is_multiple_of(2),
        SASL_AUTH | 0x22 => has_key && extras == 0,
        _ => false,
    }
}

fn understand(bytes: &[u8], out: &mut Understanding) -> Result<(), End> {
    if bytes.first() == Some(&REQUEST) {
        return binary(&mut Reader::new(bytes), out);
    }
    let mut commands = Vec::new();
    let mut reader = Reader::new(bytes);
    while commands.len() <= LIST_ITEMS {
        let Some(line) = text_commands::next_line(&mut reader) else {
            break;
        };
        let (verb, _) = word(line);
        commands.push(line);
        // The data of a storage command follows as a block of its own.
        if matches!(verb, b"set" | b"add" | b"replace" | b"append" | b"prepend" | b"cas") {
            let length = line.split(|byte| *byte == b' ').filter(|word| !word.is_empty()).nth(4);
            let length = length.and_then(|length| std::str::from_utf8(length).ok()?.parse::<usize>().ok());
            let Some(length) = length.and_then(|length| length.checked_add(2)) else {
                break;
            };
            if reader.take(length).is_err() {
                out.details.texts("commands", commands);
                return Err(End);
            }
        }
    }
    out.details.texts("commands", commands);
    Ok(())
}

fn binary(reader: &mut Reader<'_>, out: &mut Understanding) -> Result<(), End> {
    out.details.flag("binary", true);
    reader.take(1)?;
    let Some(header) = header(reader)? else {
        return Ok(());
    };
    out.details.number("operation", header.operation);
    reader.take(usize::from(header.extras))?;
    let key = reader.take(usize::from(header.key))?;
    if !key.is_empty() {
        out.details.text("key", key);
    }
    if header.operation == SASL_AUTH {
        let value = header.body - u32::from(header.key) - u32::from(header.extras);
        let value = reader.take(usize::try_from(value).map_err(|_| End)?)?;
        if key == b"PLAIN" {
            sasl::message(value, &mut out.credentials);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::understand;
    use super::*;

    #[test]
    fn commands_are_shown_without_the_data_that_they_store() {
        let bytes = b"set k 0 0 9\r\nget\r\nevil\r\ngets k\r\n";
        let details = understand(bytes, false).details;
        let expected = r#"{"commands":["set k 0 0 9","gets k"]}"#;
        assert_eq!(serde_json::to_string(&details).expect("json"), expected);
    }

    #[test]
    fn a_line_that_redis_has_too_decides_nothing() {
        for line in ["get k\r\n", "set k v\r\n", "set k 1 2\r\n", "STATS\r\n", "cas k 1 2 3\r\n"] {
            assert_eq!(understand(line.as_bytes(), false).protocol, None, "{line}");
        }
    }

    #[test]
    fn each_binary_operation_has_its_shape_and_no_other() {
        /// Bytes of key, extras and value.
        type Shape = (u16, u8, u32);
        let shapes: &[(&[u8], &[Shape])] = &[
            (&[0x00, 0x04, 0x09, 0x0c, 0x0d, 0x14], &[(1, 0, 0)]),
            (&[0x01, 0x02, 0x03, 0x11, 0x12, 0x13], &[(1, 8, 0), (1, 8, 1), (1, 8, 2)]),
            (&[0x05, 0x06, 0x15, 0x16], &[(1, 20, 0)]),
            (&[0x07, 0x0a, 0x0b, 0x17, 0x20], &[(0, 0, 0)]),
            (&[0x08, 0x18], &[(0, 0, 0), (0, 4, 0)]),
            (&[0x0e, 0x0f, 0x19, 0x1a, 0x21, 0x22], &[(1, 0, 0), (1, 0, 1), (1, 0, 2)]),
            (&[0x10], &[(0, 0, 0), (1, 0, 0)]),
            (&[0x1b], &[(0, 4, 0)]),
            (&[0x1c, 0x1d, 0x1e, 0x23, 0x24], &[(1, 4, 0)]),
            (&[0x1f], &[(0, 0, 2), (1, 0, 2)]),
        ];
        for operation in 0..=u8::MAX {
            let taken = shapes.iter().find(|(operations, _)| operations.contains(&operation));
            let taken = taken.map_or(&[][..], |(_, shapes)| shapes);
            for key in [0, 1] {
                for extras in [0, 1, 4, 8, 20] {
                    for value in [0, 1, 2] {
                        let fits = shape_fits(operation, key, extras, value);
                        let expected = taken.contains(&(key, extras, value));
                        assert_eq!(fits, expected, "{operation:#x}: {key} {extras} {value}");
                    }
                }
            }
        }
    }

    #[test]
    fn commands_decide_by_the_form_of_their_numbers() {
        let protocol = |line: &str| understand(line.as_bytes(), false).protocol;
        for line in [
            "flush_all\r\n",
            "flush_all 10\r\n",
            "flush_all noreply\r\n",
            "flush_all 10 noreply\r\n",
            "set k 0 -1 5\r\n",
            "add k 0 0 5 noreply\r\n",
            "cas k 1 2 3 4\r\n",
        ] {
            assert_eq!(protocol(line), Some("memcached"), "{line}");
        }
        for line in ["flush_all now\r\n", "set k 0 x 5\r\n", "add k 0 0 noreply\r\n", "cas k 1 2 3 x\r\n"] {
            assert_ne!(protocol(line), Some("memcached"), "{line}");
        }
    }

    #[test]
    fn a_binary_login_is_read() {
        let understanding = understand(PROTOCOL.samples[4], false);
        let expected = r#"{"binary":true,"operation":33,"key":"PLAIN"}"#;
        assert_eq!(serde_json::to_string(&understanding.details).expect("json"), expected);
        let credential = understanding.credentials.list.first().expect("a login");
        assert_eq!((credential.user.as_deref(), credential.secret.as_deref()), (Some("user"), Some("pass")));
    }
}
