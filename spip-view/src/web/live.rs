//! The live stream: server-sent events, one a record, filtered by the same query as the page.
//!
//! The ingest never waits for a browser: what a slow one misses is counted, and it is told. Nothing is made for the
//! stream while there is no listener.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::response::sse::{Event, KeepAlive, Sse};
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::broadcast::{Receiver, Sender, channel};

use crate::data::now::LiveEvent;
use crate::data::{LINE_TAGS, SessionLine, SessionTag, session_id, summary};
use crate::filter::Filter;
use crate::ingest::Arrived;
use crate::meaning::{self, Class};
use crate::query::eval;
use crate::row::{Kind, Row};

/// Records that wait for a browser.
const WAITING: usize = 1_024;

/// Events a second that a browser is sent: more cannot be read, and would only heat the operator's machine.
const PER_SECOND: u32 = 50;

/// From the ingest to the browsers.
#[derive(Clone, Debug)]
pub(crate) struct Live {
    sender: Sender<Arc<Arrived>>,
}

impl Live {
    pub(super) fn new() -> Self {
        Self { sender: channel(WAITING).0 }
    }

    /// Hands on a record that was taken.
    pub(super) fn arrived(&self, arrived: Arrived) {
        if self.sender.receiver_count() > 0 {
            // No listener is left: nothing is lost.
            let _ = self.sender.send(Arc::new(arrived));
        }
    }

    /// Answers with the stream of what arrives from now on.
    pub(super) fn stream(
        &self,
        filter: Filter,
        turn: OwnedSemaphorePermit,
    ) -> Sse<impl futures_core::Stream<Item = Result<Event, Infallible>> + use<>> {
        let feed = Feed {
            receiver: self.sender.subscribe(),
            filter,
            skipped: 0,
            second: tokio::time::Instant::now(),
            sent: 0,
            _turn: turn,
        };
        let events = futures_util::stream::unfold(feed, |mut feed| async move {
            let event = feed.next().await?;
            // JSON has no line feed in it.
            let data = serde_json::to_string(&event).unwrap_or_default();
            let event = Event::default().event(name(&event)).data(data);
            Some((Ok(event), feed))
        });
        Sse::new(events).keep_alive(KeepAlive::new().interval(Duration::from_secs(15)))
    }
}

fn name(event: &LiveEvent) -> &'static str {
    match event {
        LiveEvent::Session(_) => "session",
        LiveEvent::Scan { .. } => "scan",
        LiveEvent::Skipped { .. } => "skipped",
    }
}

struct Feed {
    receiver: Receiver<Arc<Arrived>>,
    filter: Filter,
    skipped: u64,
    second: tokio::time::Instant,
    sent: u32,
    /// Given back when the browser goes.
    _turn: OwnedSemaphorePermit,
}

impl Feed {
    async fn next(&mut self) -> Option<LiveEvent> {
        loop {
            let now = tokio::time::Instant::now();
            if now.duration_since(self.second) >= Duration::from_secs(1) {
                (self.second, self.sent) = (now, 0);
                if self.skipped > 0 {
                    return Some(LiveEvent::Skipped { count: std::mem::take(&mut self.skipped) });
                }
            }
            match self.receiver.recv().await {
                Ok(arrived) => match event(&arrived, &self.filter) {
                    Some(_) if self.sent >= PER_SECOND => self.skipped += 1,
                    Some(event) => {
                        self.sent += 1;
                        return Some(event);
                    }
                    None => {}
                },
                Err(RecvError::Lagged(count)) => self.skipped += count,
                Err(RecvError::Closed) => return None,
            }
        }
    }
}

fn event(arrived: &Arrived, filter: &Filter) -> Option<LiveEvent> {
    let is_meant = |sensor: &str| filter.sensor.as_ref().is_none_or(|wanted| wanted == sensor);
    match arrived {
        Arrived::Session(day, id, row) => {
            let fits = filter.query.as_ref().is_none_or(|query| eval::matches(query.expr(), row));
            let fits = fits && !filter.without.hides(Class::of(&row.meaning));
            (fits && is_meant(&row.sensor)).then(|| LiveEvent::Session(Box::new(line(session_id(*day, *id), row))))
        }
        // A query is about sessions.
        Arrived::Scan(row) => (filter.query.is_none()
            && is_meant(&row.sensor)
            && !filter.without.hides(Class::of(&row.meaning)))
        .then_some(LiveEvent::Scan { time: row.time, source: row.source, count: row.count, ports: row.port_count }),
    }
}

/// The same line as the store would give.
fn line(id: String, row: &Row) -> SessionLine {
    let printable = || Some(summary(&row.payload)).filter(|text| !text.is_empty());
    SessionLine {
        id,
        time: row.time,
        sensor: row.sensor.clone(),
        source: row.source,
        source_port: row.source_port,
        destination: row.destination,
        port: row.port,
        transport: if row.is_udp { "udp" } else { "tcp" },
        is_tls: row.is_tls,
        protocol: row.protocol.clone(),
        bytes_in: row.bytes_in,
        duration_us: row.duration_us,
        close_reason: row.close_reason.clone(),
        count: row.count,
        country: row.fact(Kind::Country).map(str::to_owned),
        tags: meaning::marks(&row.meaning)
            .into_iter()
            .filter(|mark| mark.kind == Kind::Tag)
            .map(|mark| SessionTag { id: mark.value, name: mark.label.unwrap_or_default() })
            .take(LINE_TAGS)
            .collect(),
        summary: row.fact(Kind::Path).or_else(|| row.fact(Kind::SshClient)).map(str::to_owned).or_else(printable),
    }
}

#[cfg(test)]
mod tests {
    use spip_record::enrichment::{Enrichment, Evidence, Scanner, ScannerKind, Source};

    use super::*;
    use crate::filter::Without;
    use crate::moment::Moment;
    use crate::query::Query;
    use crate::row::ScanRow;

    fn scan(evidence: Option<Evidence>) -> Arrived {
        let scanner = evidence.map(|evidence| Scanner { name: "s".into(), kind: ScannerKind::Search, evidence });
        let source = Source { scanner, ..Source::default() };
        Arrived::Scan(Box::new(ScanRow {
            time: Moment(0),
            last: Moment(0),
            source: [192, 0, 2, 1].into(),
            sensor: "one".to_owned(),
            run: None,
            seq: None,
            count: 1,
            undecided: 0,
            ports: Vec::new(),
            port_count: 0,
            destinations: Vec::new(),
            destination_count: 0,
            tools: None,
            syn: None,
            meaning: Enrichment { source, ..Enrichment::default() },
        }))
    }

    #[test]
    fn a_scan_is_shown_where_the_filter_does_not_leave_it_out() {
        let all = Filter::last_day(Moment(0));
        let shown = |evidence, filter: &Filter| event(&scan(evidence), filter).is_some();
        assert!(shown(None, &all) && shown(Some(Evidence::Listed), &all));
        let unlisted = Filter { without: Without::Listed, ..all.clone() };
        assert!(shown(None, &unlisted) && shown(Some(Evidence::Claimed), &unlisted));
        assert!(!shown(Some(Evidence::Listed), &unlisted));
        assert!(!shown(Some(Evidence::Claimed), &Filter { without: Without::Claimed, ..all.clone() }));
        assert!(!shown(None, &Filter { sensor: Some("two".to_owned()), ..all.clone() }));
        assert!(!shown(None, &Filter { query: Some(Query::parse("port:22").unwrap()), ..all }));
    }

    #[test]
    fn a_second_has_fifty_events_and_what_was_left_out_is_told_in_the_next_one() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let live = Live::new();
            let turn = Arc::new(tokio::sync::Semaphore::new(1)).acquire_owned().await.unwrap();
            let (receiver, filter) = (live.sender.subscribe(), Filter::last_day(Moment(0)));
            let second = tokio::time::Instant::now();
            let mut feed = Feed { receiver, filter, skipped: 0, second, sent: 0, _turn: turn };
            (0..60).for_each(|_| live.arrived(scan(None)));
            for number in 0..50 {
                assert!(matches!(feed.next().await, Some(LiveEvent::Scan { .. })), "{number}");
            }
            // Ten are passed over, and nothing more comes.
            assert!(tokio::time::timeout(Duration::from_secs(2), feed.next()).await.is_err());
            live.arrived(scan(None));
            assert!(matches!(feed.next().await, Some(LiveEvent::Skipped { count: 10 })));
            assert!(matches!(feed.next().await, Some(LiveEvent::Scan { .. })));
        });
    }

    #[test]
    fn what_a_slow_browser_missed_is_told() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let live = Live::new();
            let turn = Arc::new(tokio::sync::Semaphore::new(1)).acquire_owned().await.unwrap();
            let (receiver, filter) = (live.sender.subscribe(), Filter::last_day(Moment(0)));
            let second = tokio::time::Instant::now();
            let mut feed = Feed { receiver, filter, skipped: 0, second, sent: 0, _turn: turn };
            // More than wait for it: the oldest are gone before it reads.
            (0..WAITING + 76).for_each(|_| live.arrived(scan(None)));
            for _ in 0..PER_SECOND {
                assert!(matches!(feed.next().await, Some(LiveEvent::Scan { .. })));
            }
            assert!(tokio::time::timeout(Duration::from_secs(2), feed.next()).await.is_err());
            live.arrived(scan(None));
            let all = (WAITING + 76) as u64;
            let Some(LiveEvent::Skipped { count }) = feed.next().await else { panic!("it is told") };
            assert_eq!(count, all - u64::from(PER_SECOND));
        });
    }
}
