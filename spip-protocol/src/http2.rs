//! HTTP/2 (RFC 9113) with prior knowledge, or inside TLS after ALPN `h2`: the connection preface and what follows it.
//!
//! Decides at the end of the preface of 24 bytes. The first request's headers, with the pseudo-headers in their order,
//! go where those of HTTP/1 go; the order of settings, window and priorities, which tells libraries apart, is kept
//! beside them, also in the form `settings|window|priorities|pseudo-headers` that fingerprint collections use.

use super::hpack::{Decoder, Field};
use super::http::{self, Http, PIPELINED};
use super::reader::{End, Reader};
use super::value::{LIST_ITEMS, Value};
use super::{Protocol, Understanding};

/// Bytes that every client sends first (RFC 9113, section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Bytes of headers that one block may unfold to, counted as HPACK counts them.
const BLOCK_BUDGET: usize = 2 * http::HEADERS_BYTES;

/// The registry's entry.
pub(super) static PROTOCOL: Protocol = Protocol {
    name: "http2",
    recognise: |reader| reader.literal(PREFACE),
    understand,
    #[cfg(any(test, feature = "samples"))]
    samples: &[
        PREFACE,
        include_bytes!("../fixtures/protocol/curl.http2"),
        include_bytes!("../fixtures/protocol/h2.http2"),
    ],
};

/// Frame types (RFC 9113, section 6).
mod frame {
    pub(super) const DATA: u8 = 0;
    pub(super) const HEADERS: u8 = 1;
    pub(super) const PRIORITY: u8 = 2;
    pub(super) const SETTINGS: u8 = 4;
    pub(super) const WINDOW_UPDATE: u8 = 8;
    pub(super) const CONTINUATION: u8 = 9;
    pub(super) const END_HEADERS: u8 = 0x4;
    pub(super) const PADDED: u8 = 0x8;
    pub(super) const PRIORITY_FLAG: u8 = 0x20;
}

/// Facts gathered from the frames.
#[derive(Default)]
struct Frames {
    http: Http<'static>,
    decoder: Decoder,
    /// The header block at hand, while its last frame is outstanding.
    block: Option<Vec<u8>>,
    /// The stream of the first request.
    stream: u32,
    settings: Option<Vec<(u16, u32)>>,
    window_update: Option<u32>,
    priorities: Vec<String>,
    pseudo_headers: Vec<String>,
}

fn understand(bytes: &[u8], out: &mut Understanding) -> Result<(), End> {
    let mut reader = Reader::new(bytes);
    let mut frames = Frames::default();
    frames.http.set_version(b"2".as_slice());
    let end = if reader.literal(PREFACE)? { frames.read(&mut reader, out) } else { Ok(()) };
    if let Some(settings) = &frames.settings {
        let settings = settings
            .iter()
            .map(|(id, value)| Value::List(vec![Value::from(u32::from(*id)), Value::from(*value)]))
            .collect();
        out.details.list("settings", settings);
    }
    if let Some(increment) = frames.window_update {
        out.details.number("window_update", increment);
    }
    if frames.settings.is_some() && !frames.pseudo_headers.is_empty() {
        out.details.text("fingerprint", frames.fingerprint().as_bytes());
    }
    out.http = Some(frames.http);
    end
}

impl Frames {
    fn read(&mut self, reader: &mut Reader<'_>, out: &mut Understanding) -> Result<(), End> {
        while !reader.rest().is_empty() {
            let length = reader.be24()?;
            let kind = reader.u8()?;
            let flags = reader.u8()?;
            let stream = reader.be32()? & 0x7fff_ffff;
            let length = usize::try_from(length).unwrap_or(usize::MAX);
            if kind == frame::DATA && self.http.requests > 0 && stream == self.stream {
                self.http.body_kept += u64::try_from(reader.rest().len().min(length)).unwrap_or(u64::MAX);
            }
            let payload = reader.take(length)?;
            match kind {
                frame::SETTINGS if self.settings.is_none() && flags & 1 == 0 => self.settings = Some(settings(payload)),
                frame::WINDOW_UPDATE if stream == 0 && self.window_update.is_none() => {
                    self.window_update = Reader::new(payload).be32().ok();
                }
                frame::PRIORITY if self.priorities.len() < LIST_ITEMS => {
                    self.priorities.extend(priority(stream, payload));
                }
                frame::HEADERS => {
                    let Some(fragment) = fragment(payload, flags) else {
                        self.http.set_error("a HEADERS frame is shorter than its padding");
                        break;
                    };
                    if self.http.requests == 0 {
                        self.stream = stream;
                    }
                    self.http.requests += 1;
                    self.block = Some(fragment.to_vec());
                    self.finish_block(flags, out);
                }
                frame::CONTINUATION => {
                    if let Some(block) = &mut self.block {
                        block.extend_from_slice(payload);
                    }
                    self.finish_block(flags, out);
                }
                _ => {}
            }
            if self.http.error.is_some() {
                break;
            }
        }
        Ok(())
    }

    fn finish_block(&mut self, flags: u8, out: &mut Understanding) {
        if flags & frame::END_HEADERS == 0 {
            return;
        }
        let Some(block) = self.block.take() else {
            return;
        };
        // Later requests are named up to a limit; behind it their headers are not even unfolded.
        if self.http.pipelined.len() == PIPELINED {
            self.http.truncated = true;
            return;
        }
        let mut fields = Vec::new();
        let outcome = self.decoder.decode(&block, BLOCK_BUDGET, &mut fields);
        for (name, value) in &fields {
            http::header_credentials(name, value, &mut out.credentials);
        }
        if self.http.requests == 1 {
            self.describe(&fields);
        } else {
            let (method, path) = (pseudo_header(&fields, b":method"), pseudo_header(&fields, b":path"));
            self.http.add_pipelined(method.to_vec(), path.to_vec());
        }
        if let Err(error) = outcome {
            self.http.set_error(error.reason());
        }
    }

    fn describe(&mut self, fields: &[Field]) {
        for (name, value) in fields {
            match name.as_slice() {
                b":method" => self.http.set_method(value.clone()),
                b":path" => self.http.set_target(value.clone()),
                b":authority" => self.http.set_host(value.clone()),
                b"content-length" => {
                    let number = std::str::from_utf8(value).ok().and_then(|text| text.parse::<u64>().ok());
                    self.http.body_bytes = number.filter(|number| *number < 1 << 53);
                }
                _ => {}
            }
            if let Some(letter) = name.strip_prefix(b":").and_then(|name| name.first())
                && self.pseudo_headers.len() < LIST_ITEMS
            {
                self.pseudo_headers.push(char::from(*letter).to_string());
            }
            self.http.add_header(name.clone(), value.clone());
        }
    }

    fn fingerprint(&self) -> String {
        let settings: Vec<_> = self.settings.iter().flatten().map(|(id, value)| format!("{id}:{value}")).collect();
        let window = self.window_update.map_or_else(|| "00".to_owned(), |increment| increment.to_string());
        let priorities = if self.priorities.is_empty() { "0".to_owned() } else { self.priorities.join(",") };
        format!("{}|{window}|{priorities}|{}", settings.join(";"), self.pseudo_headers.join(","))
    }
}

fn pseudo_header<'a>(fields: &'a [Field], name: &[u8]) -> &'a [u8] {
    fields.iter().find(|(other, _)| other == name).map_or(b"", |(_, value)| value.as_slice())
}

/// Identifiers and values in the order of the wire.
fn settings(payload: &[u8]) -> Vec<(u16, u32)> {
    let mut reader = Reader::new(payload);
    let mut settings = Vec::new();
    while settings.len() <= LIST_ITEMS {
        let (Ok(id), Ok(value)) = (reader.be16(), reader.be32()) else {
            break;
        };
        settings.push((id, value));
    }
    settings
}

/// `stream:exclusive:parent:weight`, the weight from 1 to 256.
fn priority(stream: u32, payload: &[u8]) -> Option<String> {
    let mut reader = Reader::new(payload);
    let (parent, weight) = (reader.be32().ok()?, reader.u8().ok()?);
    let (exclusive, parent) = (parent >> 31, parent & 0x7fff_ffff);
    Some(format!("{stream}:{exclusive}:{parent}:{}", u32::from(weight) + 1))
}

/// The header block of a HEADERS frame without padding and priority; `None` when they do not fit into it.
fn fragment(payload: &[u8], flags: u8) -> Option<&[u8]> {
    let mut reader = Reader::new(payload);
    let padding = if flags & frame::PADDED != 0 { usize::from(reader.u8().ok()?) } else { 0 };
    if flags & frame::PRIORITY_FLAG != 0 {
        reader.take(5).ok()?;
    }
    let rest = reader.rest();
    rest.get(..rest.len().checked_sub(padding)?)
}

#[cfg(test)]
mod tests {
    use super::super::understand;
    use super::*;

    #[test]
    fn curl_with_prior_knowledge_shows_settings_and_headers_in_order() {
        let understanding = understand(PROTOCOL.samples[1], false);
        let details = serde_json::to_string(&understanding.details).expect("json");
        let expected = concat!(
            r#"{"settings":[[3,100],[4,33554432],[2,0]],"window_update":33488897,"#,
            r#""fingerprint":"3:100;4:33554432;2:0|33488897|0|m,p,s,a"}"#
        );
        assert_eq!(details, expected);
        let http = understanding.http.expect("http facts");
        assert_eq!((http.method.as_deref(), http.version.as_deref()), (Some("GET"), Some("2")));
        assert_eq!(http.target.as_deref(), Some("/api/v1/pods?x=1"));
        assert_eq!((http.host.as_deref(), http.api.as_deref()), (Some("127.0.0.1:8102"), Some("kubernetes")));
        assert_eq!(http.user_agent.as_deref(), Some("Mozilla/5.0 (scan)"));
        let names: Vec<_> = http.headers.iter().map(|(name, _)| &**name).collect();
        assert_eq!(names, [":method", ":path", ":scheme", ":authority", "authorization", "user-agent", "accept"]);
        let credential = understanding.credentials.list.first().expect("a login");
        assert_eq!((credential.user.as_deref(), credential.secret.as_deref()), (Some("me"), Some("pw")));
    }

    #[test]
    fn a_second_request_is_read_with_the_table_of_the_first() {
        let understanding = understand(PROTOCOL.samples[2], false);
        let http = understanding.http.expect("http facts");
        assert_eq!((http.requests, http.body_bytes, http.body_kept), (2, Some(5), 5));
        assert_eq!(http.pipelined, [("GET".into(), "/second".into())]);
        assert_eq!(http.error, None);
    }

    #[test]
    fn headers_in_a_continuation_and_with_padding_are_joined() {
        let mut bytes = PREFACE.to_vec();
        bytes.extend_from_slice(&[0, 0, 5, 1, frame::PADDED, 0, 0, 0, 1, 2, 0x82, 0x84, 0, 0]);
        bytes.extend_from_slice(&[0, 0, 2, 9, frame::END_HEADERS, 0, 0, 0, 1, 0x86, 0x41]);
        let http = understand(&bytes, false).http.expect("http facts");
        assert_eq!(http.error.as_deref(), Some("the header block ends early"));
        assert_eq!(http.headers.len(), 3);
        assert_eq!(http.target.as_deref(), Some("/"));
    }

    #[test]
    fn a_frame_that_is_not_whole_is_marked() {
        let sample = PROTOCOL.samples[1];
        let understanding = understand(&sample[..sample.len() - 20], false);
        assert_eq!(understanding.details.get("incomplete"), Some(&Value::Flag(true)));
        assert_eq!(understanding.http.expect("http facts").headers, []);
    }
}
