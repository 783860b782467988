//! Posts lines as NDJSON to any HTTP server.
//!
//! A status of 2xx acknowledges all lines of a request; 413 asks for less at a time; 400 and 422 refuse something in it,
//! and the line is searched for. Everything else is tried again. `Idempotency-Key` is the same for a request that is sent
//! again: a server that heeds it stores each line once, and one that does not has (`name`, `run`, `seq`) in the lines.

use super::bulk::{Item, Said, Work};
use super::{Delivery, Failure, Sink};
use crate::batch::{Batch, Place};
use crate::config::{Compression, Http as Config};
use crate::state::State;
use crate::web::{Answer, Server};

/// The sink.
pub struct Http {
    server: Server,
    compression: Compression,
    work: Work,
}

impl Http {
    /// Makes the sink.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self { server: Server::new(config.access), compression: config.compression, work: Work::default() }
    }
}

impl Sink for Http {
    fn open(&mut self, _state: &State) -> Result<Option<Place>, Failure> {
        Ok(None)
    }

    fn deliver(&mut self, batch: &Batch, state: &State) -> Result<Delivery, Failure> {
        let (server, compression) = (&mut self.server, self.compression);
        let done = self.work.send(batch, state, &mut |lines, token| post(server, compression, lines, token))?;
        Ok(Delivery::Stored { duplicates: done.duplicates, rejects: done.rejects })
    }
}

fn post(server: &mut Server, compression: Compression, lines: &[Item<'_>], token: &str) -> Result<Said, Failure> {
    let mut body = Vec::with_capacity(lines.iter().map(|item| item.line.len() + 1).sum());
    for item in lines {
        body.extend_from_slice(item.line);
        body.push(b'\n');
    }
    let count = lines.len().to_string();
    let mut headers =
        vec![("Content-Type", "application/x-ndjson"), ("Idempotency-Key", token), ("Spip-Count", count.as_str())];
    if compression == Compression::Zstd {
        body = zstd::bulk::compress(&body, 1).map_err(|error| Failure::new(format!("cannot compress: {error}")))?;
        headers.push(("Content-Encoding", "zstd"));
    }
    let answer = server.post("", &headers, &body)?;
    verdict(server.url(), &answer)
}

/// Decides what a status means.
pub(super) fn verdict(url: &str, answer: &Answer) -> Result<Said, Failure> {
    let text = format!("{url} answers {}: {}", answer.status, answer.text());
    match answer.status {
        200..=299 => Ok(Said::Accepted { duplicates: 0, unfit: Vec::new(), refused: Vec::new(), again: Vec::new() }),
        413 => Ok(Said::TooLarge(text)),
        400 | 422 => Ok(Said::Refused(text)),
        401 | 403 => Err(Failure::new(format!("{text}; check the credentials of this sink"))),
        301..=308 => Err(Failure::new(format!("{text}; redirects are not followed: set url to the final address"))),
        _ => Err(Failure { message: text, after: answer.retry_after }),
    }
}
