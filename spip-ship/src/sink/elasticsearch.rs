//! The bulk API of Elasticsearch and OpenSearch.
//!
//! Each line becomes a document of the Elastic Common Schema and is sent with `create` and an id of its own: one that is
//! there already answers 409, which is success, so a request can be sent again at any time. Of a request that succeeded in
//! part, only what the server was too busy for is sent again, one by one; what it refuses for good (a mapping) goes to
//! quarantine. Not run against the real servers: the tests have a stand-in built from their documentation.

mod document;

use serde::Deserialize;

use super::bulk::{Item, Said, Work};
use super::http::verdict;
use super::{Delivery, Failure, Sink};
use crate::batch::{Batch, Place};
use crate::config::Elasticsearch as Config;
use crate::state::State;
use crate::web::Server;

/// The sink.
pub struct Elasticsearch {
    server: Server,
    path: String,
    work: Work,
}

impl Elasticsearch {
    /// Makes the sink.
    #[must_use]
    pub fn new(config: Config) -> Self {
        let path = format!("/{}/_bulk", config.index);
        Self { server: Server::new(config.access), path, work: Work::default() }
    }
}

impl Sink for Elasticsearch {
    fn open(&mut self, _state: &State) -> Result<Option<Place>, Failure> {
        Ok(None)
    }

    fn deliver(&mut self, batch: &Batch, state: &State) -> Result<Delivery, Failure> {
        let (server, path) = (&mut self.server, &self.path);
        let done = self.work.send(batch, state, &mut |lines, _| bulk(server, path, lines))?;
        Ok(Delivery::Stored { duplicates: done.duplicates, rejects: done.rejects })
    }
}

/// The answer to a bulk request.
#[derive(Deserialize)]
struct Bulk {
    items: Vec<Created>,
}

#[derive(Deserialize)]
struct Created {
    create: Status,
}

#[derive(Deserialize)]
struct Status {
    status: u16,
    #[serde(default)]
    error: serde_json::Value,
}

fn bulk(server: &mut Server, path: &str, lines: &[Item<'_>]) -> Result<Said, Failure> {
    let mut body = Vec::with_capacity(lines.iter().map(|item| item.line.len() * 2).sum());
    let mut unfit = Vec::new();
    let mut sent = Vec::new();
    for (index, item) in lines.iter().enumerate() {
        match document::write(item, &mut body) {
            Ok(()) => sent.push(index),
            Err(reason) => unfit.push((index, reason)),
        }
    }
    if sent.is_empty() {
        return Ok(Said::Accepted { duplicates: 0, unfit, refused: Vec::new(), again: Vec::new() });
    }
    let answer = server.post(path, &[("Content-Type", "application/x-ndjson")], &body)?;
    if !answer.is_success() {
        // Nothing is stored: also what is no record is looked at again.
        return verdict(server.url(), &answer);
    }
    let url = server.url();
    let parsed: Bulk = serde_json::from_slice(&answer.body).map_err(|error| {
        Failure::new(format!("{url} gives no answer of the bulk API ({error}): {}; is url right?", answer.text()))
    })?;
    if parsed.items.len() != sent.len() {
        let message = format!("{url} answers for {} of {} documents", parsed.items.len(), sent.len());
        return Err(Failure::new(message));
    }
    let (mut duplicates, mut refused, mut again) = (0, Vec::new(), Vec::new());
    for (index, item) in sent.into_iter().zip(parsed.items) {
        match item.create.status {
            200..=299 => {}
            409 => duplicates += 1,
            429 | 500.. => again.push(index),
            status => refused.push((index, format!("status {status}: {}", item.create.error))),
        }
    }
    Ok(Said::Accepted { duplicates, unfit, refused, again })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_of_the_bulk_api_is_read_item_by_item() {
        let text = br#"{"took":3,"errors":true,"items":[{"create":{"_id":"a","status":201}},
            {"create":{"_id":"b","status":409,"error":{"type":"version_conflict_engine_exception"}}}]}"#;
        let parsed: Bulk = serde_json::from_slice(text).expect("an answer");
        assert_eq!(parsed.items.iter().map(|item| item.create.status).collect::<Vec<_>>(), [201, 409]);
        assert!(serde_json::from_slice::<Bulk>(br#"{"items":[{"index":{"status":201}}]}"#).is_err());
    }
}
