//! Delivers to NATS JetStream: a subject per sensor, a message per batch, exactly once without a window.
//!
//! Each message is published with the sequence that the subject's last message has to have. A message whose
//! acknowledgement was lost is found by the next attempt, which the server refuses for its wrong sequence: the
//! subject's last message then says in its headers how far the engine is, and delivery goes on behind it. The same
//! question is asked at the start, so that a lost state costs nothing. A message id is a second belt.

mod headers;

use std::cmp::Ordering;
use std::time::Duration;

use async_nats::HeaderMap;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::runtime::Handle;

pub(crate) use self::headers::ENCODING;
use self::headers::Mark;
use super::{Delivery, Failure, Sink};
use crate::batch::{At, Batch, Part, Place};
use crate::config::{Compression, NatsSink};
use crate::nats::{Connection, Error, PublishAck, stream, subject_of, token_of};
use crate::state::State;

/// Level of Zstandard: JSON shrinks to a seventh, at several hundred megabytes a second.
const LEVEL: i32 = 1;

/// Bytes of headers beside the payload in a message.
const HEADERS_BYTES: usize = 4 * 1024;

/// Refusals in a row that a changed sequence explains, before there is a pause.
const CORRECTIONS: usize = 3;

/// Refusals of JetStream by their number in `server/errors.json`.
mod refusal {
    /// The subject's last sequence is another one; also while an earlier message is under way in a cluster.
    pub(super) const WRONG_LAST_SEQUENCE: [u16; 2] = [10071, 10164];
    /// The message is larger than the stream takes.
    pub(super) const TOO_LARGE: u16 = 10054;
    /// A limit of the stream with `discard: new`, or of the account, or the disk.
    pub(super) const FULL: [u16; 5] = [10077, 10047, 10023, 10002, 10028];
    /// Another stream answers on this subject.
    pub(super) const OTHER_STREAM: u16 = 10060;
}

/// The sink.
pub struct Nats {
    config: NatsSink,
    connection: Connection,
    is_checked: bool,
    /// The last message of the subject that was looked at or published to last.
    last: Option<Last>,
    packed: Option<Packed>,
    own: Own,
    /// Number of times that a server remembered a message that it does not have: makes another id.
    again: u64,
}

/// The last message of a subject, as far as the next publication has to know it.
struct Last {
    subject: String,
    /// Its sequence; 0 where there is none.
    seq: u64,
    /// Lines of the source up to its end.
    total: u64,
}

/// State that this sink stores beside the place.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Own {
    /// `total` of the last place that the engine acknowledged: less than the state's where lines were refused since.
    #[serde(default)]
    acknowledged: u64,
    /// The identity of a state that was lost, whose last message is this shipper's to go on behind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    predecessor: Option<String>,
}

/// A payload, kept over attempts.
struct Packed {
    start: Place,
    end: Place,
    payload: Bytes,
}

/// Relation of the engine's last message to a batch.
enum Relation {
    /// The batch is the next one.
    Next,
    /// The engine has all of it, and nothing behind it.
    Stored,
    /// The engine is elsewhere: within the batch, beyond it, or before what it had acknowledged.
    Elsewhere(Place),
}

impl Nats {
    /// Makes the sink; `sensor` is the configured name.
    #[must_use]
    pub fn new(config: NatsSink, handle: Handle, sensor: Option<&str>) -> Self {
        let connection = Connection::new(config.access.clone(), handle, sensor.map(token_of));
        Self { config, connection, is_checked: false, last: None, packed: None, own: Own::default(), again: 0 }
    }

    fn subject(&self, sensor: &str) -> String {
        subject_of(&self.config.access.subject_prefix, sensor)
    }

    fn fail(&mut self, error: &Error) -> Failure {
        if let Error::Connect { .. } = error {
            // Secrets may have been renewed.
            self.connection.forget();
        }
        Failure::new(error.to_string())
    }

    /// Reads the last message of a subject. Its sequence is the one to expect from then on.
    fn look_up(&mut self, subject: &str) -> Result<Option<Mark>, Failure> {
        self.last = None;
        let last = self.connection.last_message(subject).map_err(|error| self.fail(&error))?;
        let Some(last) = last else {
            self.last = Some(Last { subject: subject.to_owned(), seq: 0, total: 0 });
            return Ok(None);
        };
        let seq = last.seq;
        let Some(mark) = Mark::read(&last.headers) else {
            let message = format!(
                "the last message of {subject} (sequence {seq}) is none of spip-ship's: remove it, or choose another \
                 subject_prefix"
            );
            return Err(Failure { message, after: Some(Duration::from_secs(10)) });
        };
        self.last = Some(Last { subject: subject.to_owned(), seq, total: mark.place.total });
        Ok(Some(mark))
    }

    /// Returns the sequence that `batch` may be published behind without another look at the subject.
    ///
    /// A message that ends behind the start of the batch is refused: expecting it would store its lines twice.
    fn expected(&self, subject: &str, batch: &Batch) -> Option<u64> {
        let last = self.last.as_ref()?;
        (last.subject == subject && last.total <= batch.start.total).then_some(last.seq)
    }

    /// Compares the engine's last message of `subject` with what is to be sent.
    fn relation(&mut self, subject: &str, batch: &Batch, state: &State) -> Result<Relation, Failure> {
        let Some(mark) = self.look_up(subject)? else { return Ok(Relation::Next) };
        if self.is_own(&mark, state) {
            let is_same_sensor = state.sensor.as_deref() == batch.parts.first().map(|part| part.sensor.as_str());
            return Ok(if mark.place.total == batch.end.total {
                Relation::Stored
            } else if mark.place.total > batch.start.total {
                // Also far beyond it, where the state is older than the last message by more than a batch.
                self.own.acknowledged = mark.place.total;
                Relation::Elsewhere(mark.place)
            } else if is_same_sensor && mark.place.total < self.own.acknowledged {
                self.warn_of_loss(subject, &mark);
                self.own.acknowledged = mark.place.total;
                Relation::Elsewhere(mark.place)
            } else {
                Relation::Next
            });
        }
        // A state that never had an acknowledgement takes over what another one left.
        if batch.start.total == 0 && self.own == Own::default() {
            log::info!("nats: {subject} was written with a state that is not here: goes on behind its last message");
            self.own = Own { acknowledged: mark.place.total, predecessor: Some(mark.shipper) };
            return Ok(match mark.place.at {
                At::Log { .. } => Relation::Elsewhere(mark.place),
                _ => Relation::Next,
            });
        }
        Err(conflict(subject, &mark))
    }

    /// Returns the payload of a batch of one part, compressed once however often it is sent.
    fn payload(&mut self, batch: &Batch, part: &Part) -> Result<Bytes, Failure> {
        if let Some(packed) = &self.packed
            && packed.start == batch.start
            && packed.end == batch.end
        {
            return Ok(packed.payload.clone());
        }
        let payload = match self.config.compression {
            Compression::None => Bytes::copy_from_slice(&part.bytes),
            Compression::Zstd => zstd::bulk::compress(&part.bytes, LEVEL)
                .map(Bytes::from)
                .map_err(|error| Failure::new(format!("cannot compress a batch: {error}")))?,
        };
        self.packed = Some(Packed { start: batch.start.clone(), end: batch.end.clone(), payload: payload.clone() });
        Ok(payload)
    }

    fn is_own(&self, mark: &Mark, state: &State) -> bool {
        mark.shipper == state.shipper || self.own.predecessor.as_ref() == Some(&mark.shipper)
    }

    fn warn_of_loss(&self, subject: &str, mark: &Mark) {
        let lost = self.own.acknowledged.saturating_sub(mark.place.total);
        log::warn!("nats: the stream lost {lost} lines of {subject} that it had acknowledged: sends them again");
    }

    fn publish(&mut self, subject: &str, headers: HeaderMap, payload: Bytes) -> Result<PublishAck, Error> {
        let answer = self.connection.request(subject, Some(headers), payload, self.config.ack_timeout)?;
        PublishAck::read(&answer.payload, subject)
    }
}

impl Sink for Nats {
    fn needs_same_cuts(&self) -> bool {
        false
    }

    fn knows_place(&self) -> bool {
        true
    }

    fn open(&mut self, state: &State) -> Result<Option<Place>, Failure> {
        self.own = serde_json::from_value(state.own.clone()).unwrap_or_default();
        if !self.is_checked {
            if let Err(failure) = stream::ensure(&mut self.connection, &self.config.wanted) {
                // A connection that cannot be made is made anew, with secrets as they are then.
                self.connection.forget();
                return Err(failure);
            }
            self.is_checked = true;
        }
        let Some(sensor) = state.sensor.clone() else { return Ok(None) };
        let subject = self.subject(&sensor);
        let Some(mark) = self.look_up(&subject)? else {
            if state.place.total > 0 {
                log::warn!("nats: no message of {subject} is left in the stream; goes on where the state is");
            }
            return Ok(None);
        };
        if !self.is_own(&mark, state) {
            return Err(conflict(&subject, &mark));
        }
        match mark.place.total.cmp(&self.own.acknowledged) {
            Ordering::Equal => return Ok(None),
            Ordering::Less => self.warn_of_loss(&subject, &mark),
            Ordering::Greater => {
                let more = mark.place.total - self.own.acknowledged;
                log::info!("nats: the stream has {more} lines more of {subject} than the state says");
            }
        }
        self.own.acknowledged = mark.place.total;
        Ok(Some(mark.place))
    }

    /// Publishes lines behind the last message of their subject, with the place and the shipper that it has: code that
    /// delivers to the subject goes on as if nothing had happened.
    fn replay(&mut self, batch: &Batch, state: &State) -> Result<Delivery, Failure> {
        let Some(part) = batch.parts.first() else {
            return Ok(Delivery::Stored { duplicates: 0, rejects: Vec::new() });
        };
        let subject = self.subject(&part.sensor);
        let mark = self.look_up(&subject)?;
        let expected = self.last.as_ref().map_or(0, |last| last.seq);
        let payload = self.payload(batch, part)?;
        let (shipper, place) = match mark {
            Some(mark) => (mark.shipper, mark.place),
            None => (state.shipper.clone(), Place::default()),
        };
        let as_if = State { shipper, ..state.clone() };
        let message = Batch { start: batch.start.clone(), end: place, ..Batch::default() };
        let mut headers = headers::of(&message, part, &as_if, &self.config, expected, 0);
        headers.insert("Nats-Msg-Id", format!("replay-{}-{}", state.shipper, batch.start.total).as_str());
        headers.insert("Spip-Replay", "true");
        self.publish(&subject, headers, payload).map_err(|error| self.explained(&subject, error))?;
        Ok(Delivery::Stored { duplicates: 0, rejects: Vec::new() })
    }

    fn own_state(&self) -> serde_json::Value {
        serde_json::to_value(&self.own).unwrap_or_default()
    }

    fn deliver(&mut self, batch: &Batch, state: &State) -> Result<Delivery, Failure> {
        let Some(part) = batch.parts.first() else {
            return Ok(Delivery::Stored { duplicates: 0, rejects: Vec::new() });
        };
        let stored = |duplicates| Ok(Delivery::Stored { duplicates, rejects: Vec::new() });
        let subject = self.subject(&part.sensor);
        let payload = self.payload(batch, part)?;
        for _ in 0..CORRECTIONS {
            let expected = match self.expected(&subject, batch) {
                Some(seq) => seq,
                None => match self.relation(&subject, batch, state)? {
                    Relation::Stored => {
                        self.own.acknowledged = batch.end.total;
                        return stored(part.count);
                    }
                    Relation::Elsewhere(place) => return Ok(Delivery::Elsewhere(place)),
                    Relation::Next => self.last.as_ref().map_or(0, |last| last.seq),
                },
            };
            let limit = self.connection.client().map_err(|error| self.fail(&error))?.max_payload();
            if limit > 0 && payload.len() + HEADERS_BYTES > limit {
                return Ok(Delivery::TooLarge(format!("{} bytes are more than max_payload ({limit})", payload.len())));
            }
            let headers = headers::of(batch, part, state, &self.config, expected, self.again);
            match self.publish(&subject, headers, payload.clone()) {
                Ok(ack) if !ack.duplicate => {
                    self.last = Some(Last { subject, seq: ack.seq, total: batch.end.total });
                    self.own.acknowledged = batch.end.total;
                    return stored(0);
                }
                Ok(_) => {
                    // The server remembers the id. Whether it has the message as well, only the message shows.
                    log::debug!("nats: {subject}: the server has had this message");
                    match self.relation(&subject, batch, state)? {
                        Relation::Stored => {
                            self.own.acknowledged = batch.end.total;
                            return stored(part.count);
                        }
                        Relation::Elsewhere(place) => return Ok(Delivery::Elsewhere(place)),
                        Relation::Next => self.again += 1,
                    }
                }
                Err(Error::Api(error)) if refusal::WRONG_LAST_SEQUENCE.contains(&error.err_code) => {
                    log::debug!("nats: {subject}: {error}");
                    match self.relation(&subject, batch, state)? {
                        Relation::Stored => {
                            self.own.acknowledged = batch.end.total;
                            return stored(part.count);
                        }
                        Relation::Elsewhere(place) => return Ok(Delivery::Elsewhere(place)),
                        // A replica that is behind, or messages that were removed by hand.
                        Relation::Next => {}
                    }
                }
                Err(Error::Api(error)) if error.err_code == refusal::TOO_LARGE => {
                    return Ok(Delivery::TooLarge(error.to_string()));
                }
                Err(error) => return Err(self.explained(&subject, error)),
            }
        }
        Err(Failure::new(format!("{subject} changes faster than its last message can be read: {}", self.hint())))
    }
}

impl Nats {
    fn hint(&self) -> &'static str {
        if self.config.access.urls.len() > 1 {
            "the cluster is electing a leader"
        } else {
            "does anybody else publish to it?"
        }
    }

    fn explained(&mut self, subject: &str, error: Error) -> Failure {
        let stream = &self.config.access.stream;
        match error {
            Error::Api(error) if refusal::FULL.contains(&error.err_code) => Failure {
                message: format!("the stream {stream} takes nothing more: {error}; raise its limits or free its disk"),
                after: Some(Duration::from_secs(2)),
            },
            Error::Api(error) if error.err_code == refusal::OTHER_STREAM => Failure::new(format!(
                "{subject} belongs to another stream than {stream}: {error}; set stream to its name"
            )),
            Error::NoResponders { reason, .. } => {
                // The stream may have been removed: it is made again, if it may be.
                self.is_checked = false;
                if let Err(failure) = stream::ensure(&mut self.connection, &self.config.wanted) {
                    return failure;
                }
                self.is_checked = true;
                Failure::new(format!("{stream} does not answer on {subject}: {reason}"))
            }
            error => self.fail(&error),
        }
    }
}

fn conflict(subject: &str, mark: &Mark) -> Failure {
    Failure {
        message: format!(
            "{subject} is written by another shipper, too (its last message is of {}, this one's is another): give each \
             sensor a name of its own, or remove this sink's state to take over",
            mark.shipper
        ),
        after: Some(Duration::from_secs(10)),
    }
}
