//! The connection to NATS, and the few requests of JetStream that delivery needs.
//!
//! Requests are written out here instead of using a client's view of JetStream, because each answer decides whether a
//! record is stored: time-outs are this module's own, an answer is believed only where it says so, and what the server
//! says beside the answer (a permission that is missing) is kept for the message.

mod answer;
pub(crate) mod stream;
mod subject;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_nats::connection::State;
use async_nats::{Client, ConnectOptions, Event, HeaderMap, Message, Request};
use bytes::Bytes;
use serde::de::DeserializeOwned;
use tokio::runtime::Handle;

pub use answer::{ApiError, PublishAck, StreamConfig, StreamInfo};
pub use subject::{sensor_of, subject_of, token_of};

use crate::config::NatsAccess;

/// Time for a connection, authentication included.
const CONNECT: Duration = Duration::from_secs(10);

/// Time for a question that is no publication.
const ASK: Duration = Duration::from_secs(5);

/// A server that does not answer a ping within twice this time counts as gone.
const PING: Duration = Duration::from_secs(10);

/// Last error that the server sent outside of its answers.
type Said = Arc<Mutex<Option<(Instant, String)>>>;

/// A connection to a server or a cluster, made when it is first needed.
pub struct Connection {
    access: NatsAccess,
    handle: Handle,
    client: Option<Client>,
    said: Said,
    /// Prefix of the subjects of answers: a part of its own, so that permissions can be given for it.
    inbox: Option<String>,
}

/// Reasons why a request has no answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No server can be reached, or none lets this client in.
    #[error("cannot connect to {servers}: {reason}")]
    Connect {
        /// The servers.
        servers: String,
        /// Reason.
        reason: String,
    },
    /// No server listens to the subject.
    #[error("no server answers on {subject}: {reason}")]
    NoResponders {
        /// The subject of the request.
        subject: String,
        /// Possible reason.
        reason: String,
    },
    /// No answer within the time.
    #[error("no answer within {seconds} s on {subject}{reason}")]
    Timeout {
        /// The subject of the request.
        subject: String,
        /// The time.
        seconds: u64,
        /// Error that the server sent meanwhile.
        reason: String,
    },
    /// The answer is another one than JetStream gives.
    #[error("the answer on {subject} cannot be understood: {reason}")]
    Answer {
        /// The subject of the request.
        subject: String,
        /// Reason.
        reason: String,
    },
    /// JetStream refuses.
    #[error("{0}")]
    Api(ApiError),
}

/// The last message of a subject.
#[derive(Debug)]
pub struct LastMessage {
    /// Its sequence in the stream.
    pub seq: u64,
    /// Its headers.
    pub headers: HeaderMap,
}

impl Connection {
    /// Makes a connection that is not connected yet. Answers come to subjects with `inbox` in them, where it is given.
    #[must_use]
    pub fn new(access: NatsAccess, handle: Handle, inbox: Option<String>) -> Self {
        Self { access, handle, client: None, said: Said::default(), inbox }
    }

    /// Returns how to reach the servers.
    #[must_use]
    pub fn access(&self) -> &NatsAccess {
        &self.access
    }

    /// Connects, if there is no connection yet. After that the client connects again by itself.
    ///
    /// # Errors
    /// A secret cannot be read, no server can be reached, or none lets this client in.
    pub fn client(&mut self) -> Result<Client, Error> {
        if let Some(client) = &self.client {
            return Ok(client.clone());
        }
        let servers = self.access.urls.join(", ");
        let failed = |reason: String| Error::Connect { servers: servers.clone(), reason };
        let options = self.options().map_err(failed)?;
        let connected = self
            .handle
            .block_on(async { tokio::time::timeout(CONNECT, options.connect(self.access.urls.clone())).await });
        let failed = |reason: String| Error::Connect { servers: servers.clone(), reason };
        let client = match connected {
            Ok(Ok(client)) => client,
            Ok(Err(error)) => {
                use std::error::Error as _;
                let cause = error.source().map(|cause| format!(": {cause}")).unwrap_or_default();
                return Err(failed(format!("{error}{cause}")));
            }
            Err(_) => return Err(failed(format!("no answer within {} s", CONNECT.as_secs()))),
        };
        self.client = Some(client.clone());
        Ok(client)
    }

    /// Forgets the connection, so that the next request makes a new one, with secrets as they are then.
    pub fn forget(&mut self) {
        self.client = None;
    }

    fn options(&self) -> Result<ConnectOptions, String> {
        let access = &self.access;
        let said = Arc::clone(&self.said);
        let mut options = ConnectOptions::new()
            .name("spip-ship")
            .connection_timeout(CONNECT)
            .ping_interval(PING)
            .request_timeout(None)
            .client_capacity(16)
            .subscription_capacity(1024)
            .event_callback(move |event| {
                let said = Arc::clone(&said);
                async move { note(&said, &event) }
            });
        if let Some(inbox) = &self.inbox {
            options = options.custom_inbox_prefix(format!("_INBOX.spip-{inbox}"));
        }
        if let Some(ca) = &access.ca {
            options = options.add_root_certificates(ca.clone()).require_tls(true);
        }
        if let Some((certificate, key)) = &access.certificate {
            options = options.add_client_certificate(certificate.clone(), key.clone()).require_tls(true);
        }
        if let Some(credentials) = &access.credentials {
            // The client wants a line feed behind the last line, which a secret has lost.
            let text = credentials.read()? + "\n";
            options = options.credentials(&text).map_err(|error| format!("{credentials}: {error}"))?;
        }
        if let Some(nkey) = &access.nkey {
            options = options.nkey(seed(&nkey.read()?).ok_or_else(|| format!("{nkey} holds no nkey seed (SU…)"))?);
        }
        if let Some(token) = &access.token {
            options = options.token(token.read()?);
        }
        match (&access.user, &access.password) {
            (Some(user), Some(password)) => options = options.user_and_password(user.clone(), password.read()?),
            (None, None) => {}
            _ => return Err("user and password_file are needed together".to_owned()),
        }
        Ok(options)
    }

    /// Sends a request and returns the answer, whatever it says.
    ///
    /// # Errors
    /// There is no answer.
    pub fn request(
        &mut self,
        subject: &str,
        headers: Option<HeaderMap>,
        payload: Bytes,
        time: Duration,
    ) -> Result<Message, Error> {
        let client = self.client()?;
        let asked = Instant::now();
        let mut request = Request::new().payload(payload).timeout(None);
        if let Some(headers) = headers {
            request = request.headers(headers);
        }
        let answer = self
            .handle
            .block_on(async { tokio::time::timeout(time, client.send_request(subject.to_owned(), request)).await });
        let subject = subject.to_owned();
        match answer {
            Ok(Ok(message)) => Ok(message),
            Ok(Err(error)) if error.kind() == async_nats::RequestErrorKind::NoResponders => {
                let reason = self.said_since(asked).unwrap_or_else(|| {
                    "no stream takes it, JetStream is off or has no leader, or this client may not ask".to_owned()
                });
                Err(Error::NoResponders { subject, reason })
            }
            Ok(Err(error)) => Err(Error::Answer { subject, reason: error.to_string() }),
            Err(_) => {
                let reason = self.said_since(asked).map_or_else(String::new, |said| format!(": {said}"));
                // The client connects again with the secrets that it had, and those may have been renewed.
                if client.connection_state() != State::Connected {
                    self.forget();
                }
                Err(Error::Timeout { subject, seconds: time.as_secs(), reason })
            }
        }
    }

    /// Asks JetStream's API.
    ///
    /// # Errors
    /// There is no answer, or a refusal.
    pub fn api<T: DeserializeOwned>(&mut self, what: &str, body: &serde_json::Value) -> Result<T, Error> {
        let subject = self.api_subject(what);
        let payload = if body.is_null() { Bytes::new() } else { Bytes::from(body.to_string()) };
        let message = self.request(&subject, None, payload, ASK)?;
        answer::parse(&message.payload, &subject)
    }

    /// Returns the subject of a question to JetStream's API.
    #[must_use]
    pub fn api_subject(&self, what: &str) -> String {
        match &self.access.domain {
            Some(domain) => format!("$JS.{domain}.API.{what}"),
            None => format!("$JS.API.{what}"),
        }
    }

    /// Returns the last message of `subject`, or `None` where there is none.
    ///
    /// # Errors
    /// There is no answer, or a refusal.
    pub fn last_message(&mut self, subject: &str) -> Result<Option<LastMessage>, Error> {
        let asked = self.api_subject(&format!("DIRECT.GET.{}.{subject}", self.access.stream));
        match self.request(&asked, None, Bytes::new(), ASK) {
            Ok(message) => answer::direct(message, &asked),
            // The stream does not allow direct questions, or they are not permitted: the slower way.
            Err(first @ (Error::NoResponders { .. } | Error::Timeout { .. })) => {
                let what = format!("STREAM.MSG.GET.{}", self.access.stream);
                match self.api::<answer::Stored>(&what, &serde_json::json!({ "last_by_subj": subject })) {
                    Ok(stored) => stored.into_last(&asked).map(Some),
                    // 10037: no message found.
                    Err(Error::Api(error)) if error.err_code == 10037 => Ok(None),
                    // A sensor of a fleet may ask in the first way only.
                    Err(Error::Timeout { reason, .. }) if reason.contains("Permissions Violation") => Err(first),
                    Err(error) => Err(error),
                }
            }
            Err(error) => Err(error),
        }
    }

    /// Returns what the server said since `since`.
    #[must_use]
    pub fn said_since(&self, since: Instant) -> Option<String> {
        let said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        said.as_ref().filter(|(when, _)| *when >= since).map(|(_, text)| text.clone())
    }

    /// Returns the handle of the runtime.
    #[must_use]
    pub fn handle(&self) -> &Handle {
        &self.handle
    }
}

/// Keeps what the operator has to know, and logs what only helps to understand.
fn note(said: &Said, event: &Event) {
    match event {
        Event::ServerError(_) | Event::ClientError(_) | Event::Disconnected | Event::Closed => {
            let text = event.to_string();
            log::debug!("nats: {text}");
            let mut said = said.lock().unwrap_or_else(PoisonError::into_inner);
            // A lost connection follows many errors and says less.
            let is_reason = !matches!(event, Event::Disconnected | Event::Closed);
            if is_reason || said.as_ref().is_none_or(|(when, _)| when.elapsed() > Duration::from_secs(1)) {
                *said = Some((Instant::now(), text));
            }
        }
        _ => log::debug!("nats: {event}"),
    }
}

/// Finds the seed in a file of `nsc` or `nk`, which may have comments and markers around it.
fn seed(text: &str) -> Option<String> {
    text.lines().map(str::trim).find(|line| line.starts_with('S') && line.len() > 50).map(ToOwned::to_owned)
}
