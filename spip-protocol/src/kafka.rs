//! Kafka: which request a client sends first, and what it calls itself.
//!
//! Decides at the end of the client's name in the first request: length, API and its version, correlation, name. The first
//! eight bytes are also a start-up of PostgreSQL 3 where the API is Metadata in version 0 to 2, so both wait.
//! <https://kafka.apache.org/protocol.html>

use super::reader::{End, Reader};
use super::{Protocol, Understanding};

/// The registry's entry.
pub(super) static PROTOCOL: Protocol = Protocol {
    name: "kafka",
    recognise: |reader| Ok(request(reader)?.is_some_and(|request| request.client.is_some())),
    understand,
    #[cfg(any(test, feature = "samples"))]
    samples: &[
        b"\x00\x00\x00\x28\x00\x03\x00\x02\x00\x00\x00\x8e\x00\x07rdkafka\x00\x00\x00\x01\x00\x11LB_MAIN_LOG_INPUT",
        b"\x00\x00\x00\x23\x00\x12\x00\x03\x00\x00\x00\x01\x00\x12rdkafka-client-namex\x00\x00\x00\x00\x00\x00\x00\x00\x00",
    ],
};

/// The longest request with which a client may begin.
const REQUEST_BYTES: u32 = 64 * 1024;
/// The highest API that is assigned (Kafka 4.1 has 92).
const LAST_API: u16 = 95;
/// The highest version of an API (Fetch has 17).
const LAST_VERSION: u16 = 20;
/// The longest name that is believed.
const NAME_BYTES: u16 = 249;
/// API and version, correlation, length of the name.
const HEADER_BYTES: u32 = 10;

/// The header of a request.
struct Request<'a> {
    api: u16,
    version: u16,
    /// `None`: the client gives itself no name.
    client: Option<&'a [u8]>,
}

fn request<'a>(reader: &mut Reader<'a>) -> Result<Option<Request<'a>>, End> {
    let length = reader.be32()?;
    // Refused as early as it can be: other protocols wait for the answer.
    if !(HEADER_BYTES..=REQUEST_BYTES).contains(&length) {
        return Ok(None);
    }
    let (api, version) = (reader.be16()?, reader.be16()?);
    if api > LAST_API || version > LAST_VERSION {
        return Ok(None);
    }
    let _correlation = reader.be32()?;
    let name = reader.be16()?;
    if name == u16::MAX {
        return Ok(Some(Request { api, version, client: None }));
    }
    // A name of one character is as likely a length and a byte of something else.
    if !(2..=NAME_BYTES).contains(&name) || length < HEADER_BYTES + u32::from(name) {
        return Ok(None);
    }
    let mut ahead = *reader;
    for _ in 0..name {
        if !matches!(ahead.u8()?, b' '..=b'~') {
            return Ok(None);
        }
    }
    Ok(Some(Request { api, version, client: Some(reader.take(usize::from(name))?) }))
}

/// Returns the name of a request, for those with which clients and scanners begin.
fn api_name(api: u16) -> Option<&'static str> {
    Some(match api {
        0 => "produce",
        1 => "fetch",
        2 => "list_offsets",
        3 => "metadata",
        8 => "offset_commit",
        9 => "offset_fetch",
        10 => "find_coordinator",
        16 => "list_groups",
        17 => "sasl_handshake",
        18 => "api_versions",
        19 => "create_topics",
        20 => "delete_topics",
        36 => "sasl_authenticate",
        _ => return None,
    })
}

fn understand<'a>(bytes: &'a [u8], out: &mut Understanding<'a>) -> Result<(), End> {
    let Some(request) = request(&mut Reader::new(bytes))? else { return Ok(()) };
    out.details.number("api", request.api);
    out.details.number("api_version", request.version);
    if let Some(name) = api_name(request.api) {
        out.details.word("api_name", name);
    }
    if let Some(client) = request.client {
        out.details.text("client_id", client);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::{Verdict, classify, understand};
    use super::*;

    #[test]
    fn a_request_shows_what_it_asks_for_and_who_asks() {
        let details = understand(PROTOCOL.samples[0], false).details;
        let expected = r#"{"api":3,"api_version":2,"api_name":"metadata","client_id":"rdkafka"}"#;
        assert_eq!(serde_json::to_string(&details).expect("json"), expected);
    }

    #[test]
    fn metadata_and_a_start_up_of_postgresql_are_told_apart_by_what_follows_eight_equal_bytes() {
        let start_up = b"\x00\x00\x00\x28\x00\x03\x00\x02user\x00postgres\x00database\x00x\x00\x00";
        assert_eq!(PROTOCOL.samples[0][..8], start_up[..8]);
        for length in 0..=12 {
            assert_eq!(classify(&start_up[..length]), Verdict::NeedMore, "{length}");
            assert_eq!(classify(&PROTOCOL.samples[0][..length]), Verdict::NeedMore, "{length}");
        }
        assert_eq!(understand(start_up, false).protocol, Some("postgresql"));
        assert_eq!(understand(PROTOCOL.samples[0], false).protocol, Some("kafka"));
    }
}
