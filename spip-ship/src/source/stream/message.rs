//! One message of a sensor, distrusted: bounded when it is decompressed, and each line looked at.

use std::io::Read as _;

use async_nats::Message;

use crate::batch::{MAX_LINES, Part, Reject};
use crate::config::NatsSource;
use crate::line::{identity, lines};
use crate::nats::sensor_of;

/// Bytes of lines in one message. A shipper sends at most 64 MiB (`batch_bytes`) and by default 512 KiB; a message of
/// 1 MiB could hold gigabytes.
const MAX_BYTES: usize = 64 * 1024 * 1024;

/// Bytes of a message or line that are kept of what is refused.
const REJECT_BYTES: usize = 64 * 1024;

/// Contents of a message.
#[derive(Debug, Default)]
pub(super) struct Opened {
    /// Its records.
    pub(super) part: Option<Part>,
    /// Lines that are no records.
    pub(super) rejects: Vec<Reject>,
    /// Lines of both; 1 for a message that cannot be read.
    pub(super) lines: u64,
}

/// Takes a message apart.
pub(super) fn open(message: &Message, config: &NatsSource) -> Opened {
    let subject = message.subject.as_str();
    let refuse = |sensor: &str, reason: String| Opened {
        part: None,
        rejects: vec![Reject { sensor: sensor.to_owned(), reason, line: kept(&message.payload) }],
        lines: 1,
    };
    let Some(sensor) = sensor_of(&config.access.subject_prefix, subject) else {
        return refuse("", format!("{subject} is no subject of a sensor"));
    };
    let encoding = message.headers.as_ref().and_then(|headers| headers.get(crate::sink::nats::ENCODING));
    let bytes = match encoding.map(|encoding| encoding.as_str()) {
        None | Some("" | "identity") => message.payload.to_vec(),
        Some("zstd") => match decompress(&message.payload) {
            Ok(bytes) => bytes,
            Err(reason) => return refuse(&sensor, reason),
        },
        Some(other) => return refuse(&sensor, format!("Content-Encoding {other:?} is not known")),
    };
    let count = memchr::memchr_iter(b'\n', &bytes).count() as u64;
    if count > MAX_LINES {
        return refuse(&sensor, format!("{count} lines, more than {MAX_LINES}"));
    }
    sort(&sensor, &bytes, config.check_names)
}

/// Separates the records of a sensor from what it may not send.
fn sort(sensor: &str, bytes: &[u8], check_names: bool) -> Opened {
    let mut opened = Opened::default();
    let mut part = Part { sensor: sensor.to_owned(), bytes: Vec::with_capacity(bytes.len()), ..Part::default() };
    for line in lines(bytes) {
        opened.lines += 1;
        let reason = match identity(line) {
            Ok(identity) => match &identity.name {
                Some(name) if check_names && *name != sensor => {
                    format!("its name is {name:?}, its subject's {sensor:?}")
                }
                _ => {
                    if part.run.is_empty()
                        && let Some(run) = &identity.run
                    {
                        part.run = run.clone().into_owned();
                    }
                    part.first_seq = part.first_seq.or(identity.seq);
                    part.last_seq = identity.seq.or(part.last_seq);
                    part.count += 1;
                    part.bytes.extend_from_slice(line);
                    part.bytes.push(b'\n');
                    continue;
                }
            },
            Err(reason) => reason,
        };
        opened.rejects.push(Reject { sensor: sensor.to_owned(), reason, line: kept(line) });
    }
    opened.lines = opened.lines.max(1);
    opened.part = (part.count > 0).then_some(part);
    opened
}

fn decompress(payload: &[u8]) -> Result<Vec<u8>, String> {
    let wrong = |error: std::io::Error| format!("cannot be decompressed: {error}");
    let mut bytes = Vec::new();
    let decoder = zstd::stream::Decoder::new(payload).map_err(wrong)?;
    decoder.take(MAX_BYTES as u64 + 1).read_to_end(&mut bytes).map_err(wrong)?;
    if bytes.len() > MAX_BYTES { Err(format!("more than {MAX_BYTES} bytes of lines")) } else { Ok(bytes) }
}

fn kept(bytes: &[u8]) -> Vec<u8> {
    bytes.get(..REJECT_BYTES).unwrap_or(bytes).to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_under_another_name_is_refused_and_the_others_pass() {
        let bytes =
            b"{\"name\":\"a\",\"run\":\"r\",\"seq\":1}\n{\"name\":\"b\",\"seq\":2}\n{\"message\":\"ready\"}\nhalf";
        let opened = sort("a", bytes, true);
        let part = opened.part.expect("two lines");
        assert_eq!((part.count, part.first_seq, part.run.as_str()), (2, Some(1), "r"));
        assert_eq!(opened.lines, 4);
        let reasons: Vec<_> = opened.rejects.iter().map(|reject| reject.reason.as_str()).collect();
        assert!(reasons[0].contains("its name is \"b\"") && reasons[1].contains("not a record"), "{reasons:?}");
        assert_eq!(sort("a", bytes, false).part.expect("lines").count, 3);
    }

    #[test]
    fn a_message_that_grows_without_end_is_refused() {
        let bomb = zstd::bulk::compress(&vec![b'\n'; MAX_BYTES + 1], 3).expect("compressed");
        assert!(bomb.len() < 64 * 1024);
        assert!(decompress(&bomb).expect_err("a bomb").contains("more than"));
        for end in 0..bomb.len().min(64) {
            assert!(decompress(&bomb[..end]).map_or(true, |bytes| bytes.is_empty()), "{end}");
        }
    }

    #[test]
    fn a_message_of_too_many_lines_is_refused_as_a_whole() {
        use crate::config::{NatsAccess, WantedStream};
        let access = NatsAccess {
            urls: Vec::new(),
            stream: "SPIP".into(),
            subject_prefix: "spip.records".into(),
            domain: None,
            credentials: None,
            nkey: None,
            user: None,
            password: None,
            token: None,
            ca: None,
            certificate: None,
        };
        let wanted = WantedStream { create: false, replicas: 1, max_bytes: None, max_age: None };
        let config = NatsSource { access, wanted, consumer: "hub".into(), check_names: true };
        let opened = |lines: usize| {
            let message = Message {
                subject: "spip.records.a".into(),
                reply: None,
                payload: b"{}\n".repeat(lines).into(),
                headers: None,
                status: None,
                description: None,
                length: 0,
            };
            open(&message, &config)
        };
        assert_eq!(opened(1_000).part.expect("records").count, 1_000);
        let refused = opened(usize::try_from(MAX_LINES).expect("small") + 1);
        assert!(refused.part.is_none() && refused.rejects.len() == 1 && refused.lines == 1);
        assert!(refused.rejects[0].reason.contains("more than 200000"), "{}", refused.rejects[0].reason);
    }
}
