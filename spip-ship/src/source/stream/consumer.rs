//! The durable consumer of one sink, and what its messages say of themselves.

use std::collections::VecDeque;
use std::time::Duration;

use async_nats::Message;
use serde::Deserialize;
use serde_json::json;

use crate::config::NatsAccess;
use crate::nats::{Connection, Error};

/// Messages that are asked for at a time.
const MESSAGES: usize = 256;

/// Bytes that are asked for at a time: what waits in the connection's memory.
const BYTES: usize = 8 * 1024 * 1024;

/// Messages that may be delivered and not acknowledged.
const MAX_ACK_PENDING: usize = 20_000;

/// `consumer not found`.
const NOT_FOUND: u16 = 10014;

/// A durable consumer.
pub(super) struct Consumer {
    /// Prefix of both names.
    base: String,
    /// The one that is used; empty before the first.
    name: String,
    stream: String,
    filter: String,
    inbox: String,
    /// The consumer's own number of the next message.
    next: u64,
    /// Subjects that acknowledge the messages taken, by sequence.
    replies: VecDeque<(u64, String)>,
}

/// Kinds of messages.
#[derive(Debug)]
pub(super) enum Taken {
    /// One of the stream.
    Message {
        /// Its sequence in the stream.
        seq: u64,
        /// Messages behind it.
        pending: u64,
    },
    /// One behind others that did not arrive.
    Gap,
    /// There are no more for now.
    Empty,
    /// The request has ended.
    End,
    /// The consumer or the stream is gone.
    Gone(String),
    /// The server is alive.
    Heartbeat,
}

#[derive(Deserialize)]
struct Info {
    #[serde(default)]
    ack_floor: Floor,
    #[serde(default)]
    num_pending: u64,
}

#[derive(Default, Deserialize)]
struct Floor {
    #[serde(default)]
    stream_seq: u64,
}

impl Consumer {
    pub(super) fn new(base: String, access: &NatsAccess) -> Self {
        Self {
            base,
            name: String::new(),
            stream: access.stream.clone(),
            filter: format!("{}.*", access.subject_prefix),
            inbox: String::new(),
            next: 1,
            replies: VecDeque::new(),
        }
    }

    pub(super) fn set_inbox(&mut self, inbox: String) {
        self.inbox = inbox;
    }

    pub(super) fn inbox(&self) -> &str {
        &self.inbox
    }

    /// Returns the last sequence that was acknowledged, as the server knows it; 0 without a consumer.
    pub(super) fn acknowledged(&mut self, connection: &mut Connection) -> Result<u64, String> {
        let mut newest = 0;
        for name in self.names() {
            let what = format!("CONSUMER.INFO.{}.{name}", self.stream);
            match connection.api::<Info>(&what, &serde_json::Value::Null) {
                Ok(info) if info.ack_floor.stream_seq >= newest => {
                    newest = info.ack_floor.stream_seq;
                    self.name = name;
                }
                Ok(_) => {}
                Err(Error::Api(error)) if error.err_code == NOT_FOUND => {}
                Err(error) => return Err(error.to_string()),
            }
        }
        Ok(newest)
    }

    /// Returns the two names that the consumer has in turn: the next one is made before the last one is removed, so that at
    /// each moment one of them knows what was acknowledged.
    fn names(&self) -> [String; 2] {
        [format!("{}-a", self.base), format!("{}-b", self.base)]
    }

    /// Reads messages of one subject only.
    pub(super) fn restrict(&mut self, subject: String) {
        self.filter = subject;
    }

    /// Removes the consumer, if it is there.
    pub(super) fn delete(&self, connection: &mut Connection) -> Result<(), String> {
        self.names().iter().try_for_each(|name| self.remove(connection, name))
    }

    fn remove(&self, connection: &mut Connection, name: &str) -> Result<(), String> {
        let what = format!("CONSUMER.DELETE.{}.{name}", self.stream);
        match connection.api::<serde_json::Value>(&what, &serde_json::Value::Null) {
            Ok(_) => Ok(()),
            Err(Error::Api(error)) if error.err_code == NOT_FOUND => Ok(()),
            Err(error) => Err(error.to_string()),
        }
    }

    /// Makes the consumer anew, behind `after`. Returns how many messages there are.
    pub(super) fn create(&mut self, connection: &mut Connection, after: u64) -> Result<u64, String> {
        if self.name.is_empty() {
            // Which of both names an earlier process used.
            self.acknowledged(connection)?;
        }
        let [one, other] = self.names();
        let before = std::mem::take(&mut self.name);
        self.name = if before == one { other } else { one };
        // What an attempt before this one left under the name.
        self.remove(connection, &self.name)?;
        let mut config = json!({
            "name": self.name,
            "durable_name": self.name,
            "description": "spip-ship: what this sink has delivered is acknowledged",
            "deliver_policy": "all",
            "ack_policy": "all",
            "ack_wait": 300_000_000_000_u64,
            "max_ack_pending": MAX_ACK_PENDING,
            "max_deliver": -1,
            "max_waiting": 16,
            "filter_subject": self.filter,
            "replay_policy": "instant",
        });
        if after > 0
            && let Some(config) = config.as_object_mut()
        {
            config.insert("deliver_policy".to_owned(), json!("by_start_sequence"));
            config.insert("opt_start_seq".to_owned(), json!(after + 1));
        }
        let what = format!("CONSUMER.CREATE.{}.{}.{}", self.stream, self.name, self.filter);
        let body = json!({ "stream_name": self.stream, "config": config });
        let info: Info = connection.api(&what, &body).map_err(|error| {
            format!("cannot make the consumer {} of the stream {}: {error}", self.name, self.stream)
        })?;
        self.next = 1;
        self.replies.clear();
        let [one, other] = self.names();
        self.remove(connection, if self.name == one { &other } else { &one })?;
        Ok(info.num_pending)
    }

    /// Returns subject and body of a request for messages, and how many it asks for.
    pub(super) fn request(&self, connection: &Connection, expires: Duration, is_once: bool) -> (String, String, usize) {
        let subject = connection.api_subject(&format!("CONSUMER.MSG.NEXT.{}.{}", self.stream, self.name));
        let expires = u64::try_from(expires.as_nanos()).unwrap_or(u64::MAX);
        let mut body = json!({ "batch": MESSAGES, "max_bytes": BYTES, "expires": expires });
        if is_once && let Some(body) = body.as_object_mut() {
            body.insert("no_wait".to_owned(), json!(true));
            body.remove("expires");
        }
        (subject, body.to_string(), MESSAGES)
    }

    /// Says what a message is.
    pub(super) fn take(&mut self, message: &Message) -> Taken {
        if let Some(status) = message.status {
            let text = message.description.as_deref().unwrap_or_default();
            return match status.as_u16() {
                100 => Taken::Heartbeat,
                404 => Taken::Empty,
                // Also that the next message is larger than what is left of the request.
                408 => Taken::End,
                409 if text.contains("Exceeded") || text.contains("exceeded") || text.contains("Batch") => Taken::End,
                other => Taken::Gone(format!("the consumer {} ended: {other} {text}", self.name)),
            };
        }
        let Some(reply) = message.reply.as_ref() else { return Taken::Heartbeat };
        let Some((seq, number, pending)) = numbers(reply.as_str()) else { return Taken::Heartbeat };
        if number != self.next {
            return Taken::Gap;
        }
        self.next += 1;
        self.replies.push_back((seq, reply.to_string()));
        Taken::Message { seq, pending }
    }

    /// Returns the subject that acknowledges everything up to `seq`.
    pub(super) fn acknowledgement(&mut self, seq: u64) -> Option<String> {
        let mut reply = None;
        while self.replies.front().is_some_and(|(taken, _)| *taken <= seq) {
            reply = self.replies.pop_front().map(|(_, reply)| reply);
        }
        reply
    }
}

/// Reads stream sequence, consumer sequence and pending messages out of a subject for acknowledgements: `$JS.ACK`,
/// then stream, consumer, deliveries, stream sequence, consumer sequence, time, pending; with a domain and an account
/// before the stream in its newer form.
fn numbers(reply: &str) -> Option<(u64, u64, u64)> {
    let tokens: Vec<_> = reply.strip_prefix("$JS.ACK.")?.split('.').collect();
    let at = match tokens.len() {
        7 => 3,
        9.. => 5,
        _ => return None,
    };
    let number = |index: usize| tokens.get(index)?.parse().ok();
    Some((number(at)?, number(at + 1)?, number(at + 3)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_of_the_reply_are_read() {
        assert_eq!(numbers("$JS.ACK.SPIP.hub.1.42.7.1700000000000.3"), Some((42, 7, 3)));
        assert_eq!(numbers("$JS.ACK._.hash.SPIP.hub.1.42.7.1700000000000.3.random"), Some((42, 7, 3)));
        for other in ["$JS.ACK.a.b", "_INBOX.x", "$JS.ACK.S.c.1.x.7.1.3", ""] {
            assert_eq!(numbers(other), None, "{other}");
        }
    }
}
