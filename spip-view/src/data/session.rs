//! *Session*: one conversation as it went, and the record of it.

use serde::Serialize;

use super::{Fact, SessionLine};
use crate::moment::Moment;

/// The page.
#[derive(Clone, Debug, Serialize)]
pub struct SessionPage {
    /// What the store knows.
    pub session: SessionLine,
    /// The UUID.
    pub session_id: String,
    /// The end.
    pub ended: Moment,
    /// From the accept to the first byte, microseconds.
    pub first_byte_us: Option<u64>,
    /// Bytes sent to the client.
    pub bytes_out: u64,
    /// How the destination is known.
    pub destination_source: String,
    /// Community ID.
    pub community_id: String,
    /// Fingerprints and what it asked for.
    pub facts: Vec<Fact>,
    /// Names and secrets in clear.
    pub credentials: Vec<super::credentials::Attempt>,
    /// The conversation: who said what when. One turn of the client where the sensor said nothing.
    pub turns: Vec<TurnPart>,
    /// The kept bytes, or the first of them, as hexadecimal digits.
    pub payload_hex: String,
    /// The same as text.
    pub payload_text: String,
    /// SHA-256 of the payload, where there is one.
    pub sha256: Option<String>,
    /// Whether bytes came that are not here.
    pub is_truncated: bool,
    /// The request as a command of curl, where it is HTTP.
    pub curl: Option<String>,
    /// The record as it was logged; absent when it can no longer be read, and then why.
    pub record: Result<String, String>,
    /// The sessions of the same source around it, oldest first.
    pub neighbours: Vec<SessionLine>,
}

/// What one side said without the other saying anything.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TurnPart {
    /// `client` or `server`.
    pub from: String,
    /// Offset of its first byte among those of this side.
    pub offset: u64,
    /// How many bytes.
    pub length: u64,
    /// From the accept, milliseconds.
    pub ms: u64,
    /// The bytes, where they are the client's and in the record: hexadecimal digits.
    pub hex: Option<String>,
    /// The same as text.
    pub text: Option<String>,
}
