//! DNS over TCP (RFC 1035, section 4.2.2): what is asked for, `version.bind` and zone transfers above all.
//!
//! Decides at the end of the first question of a query, a notification or an update, or at a status request without
//! one, where length, flags and counters are those of a request.

use super::reader::{End, Reader};
use super::{Protocol, Understanding};

/// The registry's entry.
pub(super) static PROTOCOL: Protocol = Protocol {
    name: "dns",
    recognise,
    understand,
    #[cfg(any(test, feature = "samples"))]
    samples: &[
        b"\x00\x1e\x00\x06\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x07version\x04bind\x00\x00\x10\x00\x03",
        b"\x00\x0c\x00\x00\x10\x00\x00\x00\x00\x00\x00\x00\x00\x00",
        b"\x00\x28\xd1\x3b\x01\x20\x00\x01\x00\x00\x00\x00\x00\x01\x07example\x03org\x00\x00\xfc\x00\x01\x00\x00\x29\x10\x00\x00\x00\x00\x00\x00\x00",
    ],
};

/// The header's length.
const HEADER_BYTES: u16 = 12;
/// The longest name (RFC 1035, section 2.3.4).
const NAME_BYTES: usize = 255;

fn type_name(number: u16) -> Option<&'static str> {
    Some(match number {
        1 => "A",
        2 => "NS",
        5 => "CNAME",
        6 => "SOA",
        12 => "PTR",
        15 => "MX",
        16 => "TXT",
        28 => "AAAA",
        33 => "SRV",
        48 => "DNSKEY",
        65 => "HTTPS",
        251 => "IXFR",
        252 => "AXFR",
        255 => "ANY",
        _ => return None,
    })
}

/// A request to a name server.
struct Request<'a> {
    operation: &'static str,
    question: Option<Question<'a>>,
}

struct Question<'a> {
    labels: Vec<&'a [u8]>,
    kind: u16,
    class: u16,
}

fn request<'a>(reader: &mut Reader<'a>) -> Result<Option<Request<'a>>, End> {
    let length = reader.be16()?;
    if length < HEADER_BYTES {
        return Ok(None);
    }
    let _identifier = reader.be16()?;
    let flags = reader.be16()?;
    let operation = match flags >> 11 & 0x0f {
        0 => "query",
        2 => "status",
        4 => "notify",
        5 => "update",
        _ => return Ok(None),
    };
    // No answer, not truncated, the reserved bit clear, no error (RFC 1035, section 4.1.1).
    if flags & 0b1000_0010_0100_1111 != 0 {
        return Ok(None);
    }
    let counts = [reader.be16()?, reader.be16()?, reader.be16()?, reader.be16()?];
    match counts {
        [0, 0, 0, 0] if operation == "status" && length == HEADER_BYTES => {
            return Ok(Some(Request { operation, question: None }));
        }
        // A query has no answers, but an update has prerequisites and updates, a notification may carry the record,
        // and IXFR its own; additional records are EDNS, TSIG.
        [1, 0..=64, 0..=64, 0..=4] => {}
        _ => return Ok(None),
    }
    let mut labels = Vec::new();
    let mut name = 0;
    loop {
        let label = usize::from(reader.u8()?);
        if label == 0 {
            break;
        }
        name += label + 1;
        if label > 63 || name > NAME_BYTES {
            return Ok(None);
        }
        let mut ahead = *reader;
        for _ in 0..label {
            if !ahead.u8()?.is_ascii_graphic() {
                return Ok(None);
            }
        }
        labels.push(reader.take(label)?);
    }
    let (kind, class) = (reader.be16()?, reader.be16()?);
    let consumed = usize::from(HEADER_BYTES) + name + 1 + 4;
    let fits = consumed <= usize::from(length) && kind != 0 && matches!(class, 1 | 3 | 4 | 254 | 255);
    Ok(fits.then_some(Request { operation, question: Some(Question { labels, kind, class }) }))
}

fn recognise(reader: &mut Reader<'_>) -> Result<bool, End> {
    Ok(request(reader)?.is_some())
}

fn understand(bytes: &[u8], out: &mut Understanding) -> Result<(), End> {
    let Some(request) = request(&mut Reader::new(bytes))? else {
        return Ok(());
    };
    out.details.word("operation", request.operation);
    if let Some(question) = request.question {
        let name = if question.labels.is_empty() { b".".to_vec() } else { question.labels.join(&b'.') };
        out.details.text("name", &name);
        match type_name(question.kind) {
            Some(name) => out.details.word("type", name),
            None => out.details.text("type", format!("TYPE{}", question.kind).as_bytes()),
        }
        out.details.word(
            "class",
            match question.class {
                1 => "IN",
                3 => "CH",
                4 => "HS",
                254 => "NONE",
                _ => "ANY",
            },
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::understand;
    use super::*;

    fn details(bytes: &[u8]) -> String {
        serde_json::to_string(&understand(bytes, false).details).expect("json")
    }

    #[test]
    fn questions_are_shown_as_a_resolver_writes_them() {
        let expected = r#"{"operation":"query","name":"version.bind","type":"TXT","class":"CH"}"#;
        assert_eq!(details(PROTOCOL.samples[0]), expected);
        let expected = r#"{"operation":"query","name":"example.org","type":"AXFR","class":"IN"}"#;
        assert_eq!(details(PROTOCOL.samples[2]), expected);
        assert_eq!(details(PROTOCOL.samples[1]), r#"{"operation":"status"}"#);
    }

    #[test]
    fn a_message_shorter_than_its_question_stays_unknown() {
        let mut bytes = PROTOCOL.samples[0].to_vec();
        bytes[1] = 20;
        assert_eq!(understand(&bytes, false).protocol, None);
    }
}
