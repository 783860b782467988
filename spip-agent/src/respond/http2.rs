//! HTTP/2 (RFC 9113): settings, and for each request the answer that HTTP/1 would give.
//!
//! Of the client's bytes only those of a PING come back, because the protocol demands it.

use super::http::{self, Status};
use super::{Dialogue, Reply, Scene, Service};
use spip_protocol::hpack::Decoder;

pub(super) static SERVICE: Service =
    Service { protocols: &["http2"], speaks_first: false, begin: || Box::new(Http2::default()) };

/// Bytes that every client sends first (RFC 9113, section 3.4).
pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// The longest frame that a server takes that asks for nothing else (RFC 9113, section 4.2).
const FRAME_BYTES: usize = 16 * 1024;
/// Requests that may be open at once.
const STREAMS: usize = 16;
/// The longest block of headers, folded and unfolded.
const BLOCK_BYTES: usize = 32 * 1024;

/// Frame types and flags (RFC 9113, section 6).
mod frame {
    pub(super) const DATA: u8 = 0;
    pub(super) const HEADERS: u8 = 1;
    pub(super) const SETTINGS: u8 = 4;
    pub(super) const PING: u8 = 6;
    pub(super) const GOAWAY: u8 = 7;
    pub(super) const CONTINUATION: u8 = 9;
    pub(super) const ACK: u8 = 0x1;
    pub(super) const END_STREAM: u8 = 0x1;
    pub(super) const END_HEADERS: u8 = 0x4;
    pub(super) const PADDED: u8 = 0x8;
    pub(super) const PRIORITY: u8 = 0x20;
}

/// Error codes (RFC 9113, section 7).
mod error {
    pub(super) const PROTOCOL: u8 = 1;
    pub(super) const FRAME_SIZE: u8 = 6;
    pub(super) const REFUSED_STREAM: u8 = 7;
    pub(super) const COMPRESSION: u8 = 9;
}

#[derive(Default)]
struct Http2 {
    is_open: bool,
    decoder: Decoder,
    /// The block of headers whose end is outstanding: stream, whether the stream ends with it, bytes.
    block: Option<(u32, bool, Vec<u8>)>,
    /// Requests whose body is outstanding.
    streams: Vec<(u32, Request)>,
    last_stream: u32,
}

#[derive(Clone, Copy)]
struct Request {
    status: Status,
    head_only: bool,
}

impl Dialogue for Http2 {
    fn hear(&mut self, heard: &[u8], scene: &Scene<'_>, reply: &mut Reply<'_>) -> usize {
        if !self.is_open {
            if heard.len() < PREFACE.len() {
                return 0;
            }
            self.is_open = true;
            // MAX_CONCURRENT_STREAMS and INITIAL_WINDOW_SIZE, as nginx sets them.
            let settings = [0, 3, 0, 0, 0, 128, 0, 4, 0, 1, 0, 0];
            reply.say("http2_settings", &framed(frame::SETTINGS, 0, 0, &settings));
            return PREFACE.len();
        }
        let Some((head, rest)) = heard.split_first_chunk::<9>() else { return 0 };
        let [a, b, c, kind, flags, stream @ ..] = *head;
        let length = usize::try_from(u32::from_be_bytes([0, a, b, c])).unwrap_or(usize::MAX);
        let stream = u32::from_be_bytes(stream) & 0x7fff_ffff;
        if length > FRAME_BYTES {
            self.fail(error::FRAME_SIZE, reply);
            return head.len();
        }
        let Some(payload) = rest.get(..length) else { return 0 };
        self.frame(kind, flags, stream, payload, scene, reply);
        head.len() + length
    }
}

impl Http2 {
    fn frame(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8], scene: &Scene<'_>, reply: &mut Reply<'_>) {
        if self.block.is_some() && kind != frame::CONTINUATION {
            return self.fail(error::PROTOCOL, reply);
        }
        match kind {
            frame::SETTINGS if flags & frame::ACK == 0 => {
                reply.say("http2_settings", &framed(frame::SETTINGS, frame::ACK, 0, &[]));
            }
            frame::PING if flags & frame::ACK == 0 && payload.len() == 8 => {
                reply.say("http2_pong", &framed(frame::PING, frame::ACK, 0, payload));
            }
            frame::GOAWAY => reply.close(),
            frame::HEADERS => {
                let Some(fragment) = fragment(payload, flags) else { return self.fail(error::PROTOCOL, reply) };
                self.last_stream = self.last_stream.max(stream);
                self.block = Some((stream, flags & frame::END_STREAM != 0, fragment.to_vec()));
                self.finish_block(flags, scene, reply);
            }
            frame::CONTINUATION => {
                match &mut self.block {
                    Some((open, _, block)) if *open == stream && block.len() + payload.len() <= BLOCK_BYTES => {
                        block.extend_from_slice(payload);
                    }
                    _ => return self.fail(error::PROTOCOL, reply),
                }
                self.finish_block(flags, scene, reply);
            }
            frame::DATA if flags & frame::END_STREAM != 0 => {
                if let Some(at) = self.streams.iter().position(|(open, _)| *open == stream) {
                    let (_, request) = self.streams.swap_remove(at);
                    answer(stream, request, scene, reply);
                }
            }
            _ => {}
        }
    }

    fn finish_block(&mut self, flags: u8, scene: &Scene<'_>, reply: &mut Reply<'_>) {
        if flags & frame::END_HEADERS == 0 {
            return;
        }
        let Some((stream, ends, block)) = self.block.take() else { return };
        let mut fields = Vec::new();
        if self.decoder.decode(&block, BLOCK_BYTES, &mut fields).is_err() {
            return self.fail(error::COMPRESSION, reply);
        }
        let field = |wanted: &[u8]| fields.iter().find(|(name, _)| name == wanted).map(|(_, value)| value.as_slice());
        // Trailers have no method.
        let request = field(b":method").map(|method| Request {
            status: http::decide(method, field(b":path").unwrap_or_default()),
            head_only: method == b"HEAD",
        });
        match request {
            Some(request) if ends => answer(stream, request, scene, reply),
            Some(request) if self.streams.len() < STREAMS => self.streams.push((stream, request)),
            Some(_) => self.fail(error::REFUSED_STREAM, reply),
            None => {
                if let Some(at) = self.streams.iter().position(|(open, _)| *open == stream) {
                    let (_, request) = self.streams.swap_remove(at);
                    answer(stream, request, scene, reply);
                }
            }
        }
    }

    fn fail(&self, code: u8, reply: &mut Reply<'_>) {
        let mut payload = self.last_stream.to_be_bytes().to_vec();
        payload.extend_from_slice(&[0, 0, 0, code]);
        reply.say("http2_goaway", &framed(frame::GOAWAY, 0, 0, &payload));
        reply.close();
    }
}

/// The block of a HEADERS frame, without padding and priority; `None` where they are longer than the frame.
fn fragment(payload: &[u8], flags: u8) -> Option<&[u8]> {
    let (padding, rest) = match flags & frame::PADDED {
        0 => (0, payload),
        _ => payload.split_first().map(|(padding, rest)| (usize::from(*padding), rest))?,
    };
    let rest = if flags & frame::PRIORITY == 0 { rest } else { rest.get(5..)? };
    rest.get(..rest.len().checked_sub(padding)?)
}

fn answer(stream: u32, request: Request, scene: &Scene<'_>, reply: &mut Reply<'_>) {
    let body = request.status.body(scene);
    let mut block = Vec::new();
    // Indices of the static table (RFC 7541, appendix A).
    match request.status {
        Status::Ok => block.push(0x80 | 8),
        Status::NotFound => block.push(0x80 | 13),
        other => field(&mut block, 8, other.code()),
    }
    field(&mut block, 54, &scene.face.http);
    field(&mut block, 33, &http::date(scene.now));
    field(&mut block, 31, "text/html");
    field(&mut block, 28, &body.len().to_string());
    let flags = frame::END_HEADERS | if request.head_only { frame::END_STREAM } else { 0 };
    let mut message = framed(frame::HEADERS, flags, stream, &block);
    if !request.head_only {
        message.extend(framed(frame::DATA, frame::END_STREAM, stream, body.as_bytes()));
    }
    reply.say(request.status.name(), &message);
}

/// A literal that is not to be indexed, with a name of the static table (RFC 7541, section 6.2.2).
fn field(block: &mut Vec<u8>, index: u8, value: &str) {
    match index.checked_sub(15) {
        Some(more) => block.extend_from_slice(&[15, more]),
        None => block.push(index),
    }
    // Values are shorter than 127 bytes: the persona is bounded.
    block.push(u8::try_from(value.len().min(126)).unwrap_or_default());
    block.extend_from_slice(value.as_bytes().get(..126).unwrap_or(value.as_bytes()));
}

fn framed(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap_or_default().to_be_bytes();
    let mut frame = vec![length[1], length[2], length[3], kind, flags];
    frame.extend_from_slice(&stream.to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}
