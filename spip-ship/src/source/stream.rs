//! Reads batches out of a stream that shippers fill: the hub's side of JetStream.
//!
//! The place is this shipper's own; the server's durable consumer follows it, so that operators see the lag and a lost
//! state has something to resume from. Messages are taken strictly in the order of the stream: whatever the server delivers
//! again, or a lost connection swallows, shows in the consumer's own count, and the consumer is then made anew behind the
//! last message that was taken.
//!
//! A sensor may have been stolen. Its messages are bounded when they are decompressed, each line has to be a record, and a
//! record under another name than that of its subject is refused.

mod consumer;
mod message;

use std::time::{Duration, Instant};

use async_nats::{Message, Subscriber};
use bytes::Bytes;
use futures_util::StreamExt as _;
use tokio::runtime::Handle;

use self::consumer::{Consumer, Taken};
use super::{Behind, Next, Source};
use crate::batch::{At, Batch, MAX_LINES, Place};
use crate::config::{Limits, NatsSource};
use crate::nats::{Connection, stream};

/// Time for which the server holds a request for messages.
const EXPIRES: Duration = Duration::from_secs(5);

/// A stream.
pub struct StreamSource {
    config: NatsSource,
    connection: Connection,
    consumer: Consumer,
    subscriber: Option<Subscriber>,
    /// End of the outstanding request for messages.
    asked: Option<Instant>,
    /// Messages that the request may still bring.
    wanted: usize,
    /// A message that did not fit into the batch before.
    held: Option<(Message, Taken)>,
    place: Place,
    /// Behind the last message that was taken from the connection.
    last_seq: u64,
    pending: u64,
    notices: Vec<String>,
    is_once: bool,
    is_empty: bool,
    is_checked: bool,
}

impl StreamSource {
    /// Makes the source; `sink` becomes part of the consumer's name, because each sink has its own place.
    #[must_use]
    pub fn new(config: NatsSource, sink: &str, handle: Handle, is_once: bool) -> Self {
        let name = format!("{}-{sink}", config.consumer);
        let connection = Connection::new(config.access.clone(), handle, Some(name.clone()));
        Self {
            consumer: Consumer::new(name, &config.access),
            config,
            connection,
            subscriber: None,
            asked: None,
            wanted: 0,
            held: None,
            place: Place::default(),
            last_seq: 0,
            pending: 0,
            notices: Vec::new(),
            is_once,
            is_empty: false,
            is_checked: false,
        }
    }

    /// Reads messages of one subject only.
    pub fn restrict(&mut self, subject: Option<String>) {
        if let Some(subject) = subject {
            self.consumer.restrict(subject);
        }
    }

    /// Removes the consumer from the server.
    pub fn remove(mut self) {
        self.subscriber = None;
        if let Err(error) = self.consumer.delete(&mut self.connection) {
            log::warn!("nats: cannot remove the consumer: {error}");
        }
    }

    /// Makes or checks the stream, once.
    fn check(&mut self) -> Result<(), String> {
        if !self.is_checked {
            stream::ensure(&mut self.connection, &self.config.wanted).map_err(|failure| {
                // A connection that cannot be made is made anew, with secrets as they are then.
                self.connection.forget();
                failure.message
            })?;
            self.is_checked = true;
        }
        Ok(())
    }

    /// Makes the consumer anew behind the last message that was taken.
    fn reset(&mut self) -> Result<(), String> {
        self.subscriber = None;
        self.asked = None;
        self.held = None;
        self.is_empty = false;
        self.check()?;
        self.pending = self.consumer.create(&mut self.connection, self.last_seq)?;
        let client = self.connection.client().map_err(|error| error.to_string())?;
        let inbox = client.new_inbox();
        let subscriber = self.connection.handle().block_on(client.subscribe(inbox.clone()));
        self.consumer.set_inbox(inbox);
        self.subscriber = Some(subscriber.map_err(|error| error.to_string())?);
        Ok(())
    }

    /// Asks for messages, if no request is under way.
    fn ask(&mut self) -> Result<(), String> {
        if self.asked.is_some() {
            return Ok(());
        }
        let client = self.connection.client().map_err(|error| error.to_string())?;
        let (subject, body, wanted) = self.consumer.request(&self.connection, EXPIRES, self.is_once);
        let inbox = self.consumer.inbox().to_owned();
        let sent = self.connection.handle().block_on(async {
            tokio::time::timeout(EXPIRES, client.publish_with_reply(subject, inbox, Bytes::from(body))).await
        });
        sent.map_err(|_| "the connection takes no request".to_owned())?.map_err(|error| error.to_string())?;
        self.asked = Some(Instant::now());
        self.wanted = wanted;
        Ok(())
    }

    /// Waits for the next message until `deadline`.
    fn receive(&mut self, deadline: Instant) -> Result<Option<(Message, Taken)>, String> {
        if let Some(held) = self.held.take() {
            return Ok(Some(held));
        }
        loop {
            if self.subscriber.is_none() {
                self.reset()?;
            }
            self.ask()?;
            let Some(subscriber) = &mut self.subscriber else { continue };
            let time = deadline.saturating_duration_since(Instant::now());
            let received =
                self.connection.handle().block_on(async { tokio::time::timeout(time, subscriber.next()).await });
            let message = match received {
                Ok(Some(message)) => message,
                Ok(None) => {
                    self.subscriber = None;
                    return Err("the server ended the subscription".to_owned());
                }
                Err(_) => {
                    // A server that is gone, or one that forgot the request: both show by silence beyond its end.
                    if self.asked.is_some_and(|asked| asked.elapsed() > EXPIRES * 2) {
                        self.subscriber = None;
                    }
                    return Ok(None);
                }
            };
            match self.consumer.take(&message) {
                Taken::Message { seq, .. } if seq <= self.last_seq => self.wanted = self.wanted.saturating_sub(1),
                taken @ Taken::Message { seq, pending, .. } => {
                    self.last_seq = seq;
                    self.pending = pending;
                    self.wanted = self.wanted.saturating_sub(1);
                    if self.wanted == 0 {
                        self.asked = None;
                    }
                    return Ok(Some((message, taken)));
                }
                Taken::Gap => {
                    log::debug!("nats: messages are missing behind {}: asks for them again", self.last_seq);
                    self.subscriber = None;
                }
                Taken::Empty => {
                    self.asked = None;
                    self.pending = 0;
                    self.is_empty = true;
                    if self.is_once {
                        return Ok(None);
                    }
                }
                Taken::End => self.asked = None,
                Taken::Gone(reason) => {
                    self.subscriber = None;
                    return Err(reason);
                }
                Taken::Heartbeat => {}
            }
            if self.wanted == 0 {
                self.asked = None;
            }
        }
    }
}

impl Source for StreamSource {
    fn next(&mut self, limits: Limits, exact: Option<u64>, wait: Duration) -> Result<Next, String> {
        let mut batch = Batch { start: self.place.clone(), end: self.place.clone(), ..Batch::default() };
        let mut deadline = Instant::now() + wait;
        loop {
            let received = match self.receive(deadline) {
                Ok(received) => received,
                Err(error) => {
                    // What was taken is taken again.
                    let start = batch.start.clone();
                    self.seek(&start)?;
                    return Err(error);
                }
            };
            let Some((message, taken)) = received else {
                let is_empty = batch.lines_read() == 0;
                if self.is_once && self.is_empty {
                    return Ok(if is_empty { Next::End } else { self.finish(batch) });
                }
                if is_empty {
                    return Ok(Next::Idle);
                }
                if exact.is_some() {
                    let start = batch.start.clone();
                    self.seek(&start)?;
                    return Ok(Next::Idle);
                }
                return Ok(self.finish(batch));
            };
            let Taken::Message { seq, .. } = taken else { continue };
            let opened = message::open(&message, &self.config);
            let is_first = batch.lines_read() == 0;
            let bytes = opened.part.as_ref().map_or(0, |part| part.bytes.len());
            let is_over =
                batch.bytes() as usize + bytes > limits.bytes || batch.lines_read() + opened.lines > MAX_LINES;
            if exact.is_none() && !is_first && is_over {
                self.held = Some((message, taken));
                return Ok(self.finish(batch));
            }
            if is_first {
                deadline = Instant::now() + if exact.is_some() { wait.max(EXPIRES) } else { limits.time };
            }
            batch.end = Place { total: batch.end.total + opened.lines, at: At::Stream { seq } };
            batch.parts.extend(opened.part);
            batch.rejects.extend(opened.rejects);
            let is_full = match exact {
                Some(lines) => batch.lines_read() >= lines,
                None => {
                    batch.bytes() as usize >= limits.bytes
                        || batch.rejects.len() >= MAX_REJECTS
                        || batch.lines_read() >= MAX_LINES
                }
            };
            if is_full {
                return Ok(self.finish(batch));
            }
        }
    }

    fn seek(&mut self, place: &Place) -> Result<(), String> {
        self.place = place.clone();
        self.held = None;
        self.subscriber = None;
        self.last_seq = match place.at {
            At::Beginning => {
                self.check()?;
                let known = self.consumer.acknowledged(&mut self.connection)?;
                if known > 0 {
                    self.notices.push(format!("no state: resumes after message {known}, the last one acknowledged"));
                }
                known
            }
            At::Stream { seq } => seq,
            At::Log { .. } => return Err("this place is in a log and the source is a stream".to_owned()),
        };
        self.reset()
    }

    fn release(&mut self, place: &Place) -> Result<(), String> {
        let At::Stream { seq } = place.at else { return Ok(()) };
        let Some(subject) = self.consumer.acknowledgement(seq) else { return Ok(()) };
        let client = self.connection.client().map_err(|error| error.to_string())?;
        let sent = self.connection.handle().block_on(async {
            tokio::time::timeout(EXPIRES, client.publish(subject, Bytes::from_static(b"+ACK"))).await
        });
        sent.map_err(|_| "the acknowledgement cannot be sent".to_owned())?.map_err(|error| error.to_string())
    }

    fn behind(&mut self) -> Behind {
        Behind { bytes: 0, files: 0, messages: self.pending + u64::from(self.held.is_some()) }
    }

    fn notices(&mut self) -> Vec<String> {
        std::mem::take(&mut self.notices)
    }
}

/// Lines that are no records and are taken into one batch.
const MAX_REJECTS: usize = 1_000;

impl StreamSource {
    fn finish(&mut self, batch: Batch) -> Next {
        self.place = batch.end.clone();
        Next::Batch(batch)
    }
}
