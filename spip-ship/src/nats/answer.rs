//! Answers of JetStream: acknowledgements, refusals, stored messages.

use std::fmt;
use std::str::FromStr as _;

use async_nats::{HeaderMap, HeaderName, HeaderValue, Message};
use base64::Engine as _;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::{Error, LastMessage};

/// A refusal. The numbers are in `server/errors.json` of nats-server.
#[derive(Clone, Debug, Deserialize)]
pub struct ApiError {
    /// As in HTTP.
    #[serde(default)]
    pub code: u16,
    /// Number of the refusal.
    #[serde(default)]
    pub err_code: u16,
    /// For people.
    #[serde(default)]
    pub description: String,
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (error {})", self.description, self.err_code)
    }
}

/// The acknowledgement of a publication.
#[derive(Clone, Debug, Deserialize)]
pub struct PublishAck {
    /// The stream that stored it.
    pub stream: String,
    /// The sequence of the message.
    pub seq: u64,
    /// Set when a message with the same id was stored before; `seq` is that one's.
    #[serde(default)]
    pub duplicate: bool,
}

/// Configuration of a stream, as far as it matters here.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct StreamConfig {
    /// Its name.
    pub name: String,
    /// Subjects that it stores.
    pub subjects: Vec<String>,
    /// `limits`, `interest` or `workqueue`.
    pub retention: String,
    /// `old` or `new`.
    pub discard: String,
    /// `file` or `memory`.
    pub storage: String,
    /// Copies.
    pub num_replicas: u32,
    /// Set when the last message of a subject can be asked for directly.
    pub allow_direct: bool,
    /// Set when publications are not acknowledged.
    pub no_ack: bool,
    /// Set when it takes no publications.
    pub sealed: bool,
    /// The largest message.
    pub max_msg_size: i64,
    /// The most bytes.
    pub max_bytes: i64,
    /// The longest time in nanoseconds.
    pub max_age: i64,
}

/// JetStream's description of a stream.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct StreamInfo {
    /// Configuration.
    pub config: StreamConfig,
    /// Contents.
    pub state: StreamState,
}

/// Contents of a stream.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct StreamState {
    /// Messages.
    pub messages: u64,
    /// Bytes.
    pub bytes: u64,
    /// The oldest sequence.
    pub first_seq: u64,
    /// The newest sequence.
    pub last_seq: u64,
}

#[derive(Deserialize)]
struct Refusal {
    error: Option<ApiError>,
}

pub(super) fn parse<T: DeserializeOwned>(payload: &[u8], subject: &str) -> Result<T, Error> {
    if let Ok(Refusal { error: Some(error) }) = serde_json::from_slice(payload) {
        return Err(Error::Api(error));
    }
    serde_json::from_slice(payload)
        .map_err(|error| Error::Answer { subject: subject.to_owned(), reason: error.to_string() })
}

impl PublishAck {
    /// Reads the answer to a publication on `subject`.
    ///
    /// # Errors
    /// It is a refusal, or no acknowledgement.
    pub fn read(payload: &[u8], subject: &str) -> Result<Self, Error> {
        parse(payload, subject)
    }
}

/// Reads the answer to a direct question.
pub(super) fn direct(message: Message, subject: &str) -> Result<Option<LastMessage>, Error> {
    let wrong = |reason: &str| Error::Answer { subject: subject.to_owned(), reason: reason.to_owned() };
    if let Some(status) = message.status {
        return match status.as_u16() {
            404 => Ok(None),
            other => Err(wrong(&format!("status {other} {}", message.description.unwrap_or_default()))),
        };
    }
    let headers = message.headers.ok_or_else(|| wrong("it has no headers"))?;
    let seq = headers.get("Nats-Sequence").and_then(|seq| seq.as_str().parse().ok());
    Ok(Some(LastMessage { seq: seq.ok_or_else(|| wrong("it has no Nats-Sequence"))?, headers }))
}

/// A stored message as `STREAM.MSG.GET` answers.
#[derive(Deserialize)]
pub(super) struct Stored {
    message: StoredMessage,
}

#[derive(Deserialize)]
struct StoredMessage {
    seq: u64,
    #[serde(default)]
    hdrs: Option<String>,
}

impl Stored {
    pub(super) fn into_last(self, subject: &str) -> Result<LastMessage, Error> {
        let wrong = |reason: String| Error::Answer { subject: subject.to_owned(), reason };
        let mut headers = HeaderMap::new();
        if let Some(text) = self.message.hdrs {
            let bytes =
                base64::engine::general_purpose::STANDARD.decode(text).map_err(|error| wrong(error.to_string()))?;
            // The first line is the version.
            for line in String::from_utf8_lossy(&bytes).split("\r\n").skip(1) {
                let Some((name, value)) = line.split_once(':') else { continue };
                if let (Ok(name), Ok(value)) = (HeaderName::from_str(name), HeaderValue::from_str(value.trim())) {
                    headers.append(name, value);
                }
            }
        }
        Ok(LastMessage { seq: self.message.seq, headers })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_no_acknowledgement() {
        let refused =
            br#"{"error":{"code":400,"err_code":10071,"description":"wrong last sequence: 5"},"stream":"S","seq":0}"#;
        let Err(Error::Api(error)) = PublishAck::read(refused, "s") else { panic!("a refusal") };
        assert_eq!(error.to_string(), "wrong last sequence: 5 (error 10071)");
        let stored = PublishAck::read(br#"{"stream":"S","seq":7,"duplicate":true}"#, "s").expect("stored");
        assert!(stored.duplicate && stored.seq == 7);
        for unclear in [&b""[..], b"{}", b"+OK", br#"{"stream":"S"}"#] {
            assert!(PublishAck::read(unclear, "s").is_err());
        }
    }
}
