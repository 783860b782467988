//! JSON objects written straight into bytes: keys are the program's own and need no escaping, values that can be a
//! client's are escaped.

use std::borrow::Cow;
use std::io::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;

use serde::Serialize;

use super::time::instant;
use crate::json;
use crate::message::quoted;

/// An object that is being written. The caller that opens one closes it, unless the log is to add to its end.
#[derive(Debug)]
pub(super) struct Members<'a> {
    pub(super) out: &'a mut Vec<u8>,
}

impl<'a> Members<'a> {
    /// Begins an object.
    pub(super) fn open(out: &'a mut Vec<u8>) -> Self {
        out.push(b'{');
        Self { out }
    }

    /// Ends it.
    pub(super) fn close(self) {
        self.out.push(b'}');
    }

    /// Begins the next member.
    pub(super) fn key(&mut self, key: &str) {
        if self.out.last() != Some(&b'{') {
            self.out.push(b',');
        }
        self.out.push(b'"');
        self.out.extend_from_slice(key.as_bytes());
        self.out.extend_from_slice(b"\":");
    }

    /// Members as they stand in the text, with the commas between them and before the first: several at once are
    /// written faster than one by one.
    pub(super) fn constant(&mut self, text: &'static str) {
        self.out.extend_from_slice(text.as_bytes());
    }

    /// Writes such members, then something, and returns where that stands: it can be copied from there.
    pub(super) fn constant_and(&mut self, text: &'static str, write: impl FnOnce(&mut Vec<u8>)) -> Range<usize> {
        self.constant(text);
        let start = self.out.len();
        write(self.out);
        start..self.out.len()
    }

    /// Begins a member that is an object.
    pub(super) fn nested(&mut self, key: &'static str) -> Members<'_> {
        self.key(key);
        Members::open(self.out)
    }

    /// A word of the program's own.
    pub(super) fn word(&mut self, key: &'static str, word: &str) {
        self.key(key);
        self.quoted(word.as_bytes());
    }

    pub(super) fn text(&mut self, key: &'static str, text: &str) {
        self.key(key);
        json::string(self.out, text);
    }

    /// A text that is cut at the length of messages.
    pub(super) fn formatted(&mut self, key: &'static str, text: impl std::fmt::Display) {
        self.key(key);
        quoted(self.out, text);
    }

    pub(super) fn optional(&mut self, key: &'static str, text: Option<&str>) {
        if let Some(text) = text {
            self.text(key, text);
        }
    }

    pub(super) fn texts<T: AsRef<str>>(&mut self, key: &'static str, texts: &[T]) {
        if !texts.is_empty() {
            self.key(key);
            list(self.out, texts, |out, text| json::string(out, text.as_ref()));
        }
    }

    /// Bytes as text.
    pub(super) fn lossy(&mut self, key: &'static str, bytes: &[u8]) {
        self.key(key);
        json::lossy_string(self.out, bytes);
    }

    pub(super) fn number(&mut self, key: &'static str, number: impl itoa::Integer) {
        self.key(key);
        json::number(self.out, number);
    }

    pub(super) fn flag(&mut self, key: &'static str, flag: bool) {
        self.key(key);
        self.out.extend_from_slice(if flag { b"true" } else { b"false" });
    }

    pub(super) fn value(&mut self, key: &str, value: &impl Serialize) {
        self.key(key);
        json::value(self.out, value);
    }

    pub(super) fn pairs(&mut self, key: &'static str, pairs: &[(Cow<'_, str>, Cow<'_, str>)]) {
        self.key(key);
        list(self.out, pairs, |out, (name, value)| {
            out.push(b'[');
            json::string(out, name);
            out.push(b',');
            json::string(out, value);
            out.push(b']');
        });
    }

    pub(super) fn hex(&mut self, key: &'static str, bytes: &[u8]) {
        self.key(key);
        let start = self.out.len() + 1;
        self.out.resize(start + bytes.len() * 2, b'"');
        // The slice is twice as long as the bytes, which is the only error there is.
        let _ = hex::encode_to_slice(bytes, &mut self.out[start..]);
        self.out.push(b'"');
    }

    /// An address and a port.
    pub(super) fn endpoint(&mut self, ip: &'static str, port: &'static str, endpoint: SocketAddr) {
        self.ip(ip, endpoint.ip());
        self.number(port, endpoint.port());
    }

    pub(super) fn ip(&mut self, key: &'static str, ip: IpAddr) {
        self.key(key);
        address(self.out, ip);
    }

    /// RFC 3339 in UTC, microseconds.
    pub(super) fn time(&mut self, key: &'static str, us: i64) {
        self.key(key);
        self.out.push(b'"');
        instant(self.out, us);
        self.out.push(b'"');
    }

    fn quoted(&mut self, bytes: &[u8]) {
        self.out.push(b'"');
        self.out.extend_from_slice(bytes);
        self.out.push(b'"');
    }
}

/// Appends an address as a string.
pub(super) fn address(out: &mut Vec<u8>, ip: IpAddr) {
    out.push(b'"');
    match ip {
        IpAddr::V4(ip) => {
            for (place, octet) in ip.octets().into_iter().enumerate() {
                if place > 0 {
                    out.push(b'.');
                }
                json::number(out, octet);
            }
        }
        // Writing to memory cannot fail.
        IpAddr::V6(ip) => drop(write!(out, "{ip}")),
    }
    out.push(b'"');
}

/// Appends a list.
pub(super) fn list<T>(out: &mut Vec<u8>, items: &[T], mut write: impl FnMut(&mut Vec<u8>, &T)) {
    out.push(b'[');
    for (index, item) in items.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        write(out, item);
    }
    out.push(b']');
}
