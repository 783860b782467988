//! Sends again what an engine lost.
//!
//! Where the engine can be asked, exactly the records that are in the source and not in the engine are sent; where it cannot,
//! everything since the given time. The place of the running shipper does not change: messages of a replay carry the place
//! of the subject's last message, and their sequence is checked as that of any other.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use tokio::runtime::Handle;

use crate::batch::{Batch, Part, Place};
use crate::config::{Config, Kind, Limits, Sink as SinkConfig, Source as SourceConfig};
use crate::sink::{Delivery, Failure, Sink};
use crate::source::stream::StreamSource;
use crate::source::{LogSource, Next, Source};
use crate::state::State;
use crate::verify::{self, Records};

/// Reads a point in time: RFC 3339, or a duration before now such as `36h` or `7d`.
///
/// # Errors
/// It is neither.
pub fn since(text: &str) -> Result<Timestamp, String> {
    if let Ok(time) = text.parse::<Timestamp>() {
        return Ok(time);
    }
    // A day of a log is 24 hours.
    let hours =
        text.strip_suffix('d').and_then(|days| days.trim().parse::<i64>().ok()).and_then(|days| days.checked_mul(24));
    let duration = match hours {
        Some(hours) => Some(SignedDuration::from_hours(hours)),
        None => text.parse::<SignedDuration>().ok(),
    };
    duration
        .filter(|duration| !duration.is_negative())
        .and_then(|duration| Timestamp::now().checked_sub(duration).ok())
        .ok_or_else(|| format!("{text:?} is no time: 2026-01-31T12:00:00Z, 36h or 7d are accepted"))
}

/// The time of a record.
#[derive(Deserialize)]
struct Time<'a> {
    #[serde(borrow, default)]
    time: Option<std::borrow::Cow<'a, str>>,
    #[serde(default)]
    timestamp: i64,
}

impl Time<'_> {
    fn of(line: &[u8]) -> Option<Timestamp> {
        let read: Time<'_> = serde_json::from_slice(line).ok()?;
        match read.time {
            Some(time) => time.parse().ok(),
            None => Timestamp::from_second(read.timestamp).ok(),
        }
    }
}

/// Sends again what the engine of `sink` lost since `since`. Returns how many records were sent.
///
/// # Errors
/// The source cannot be read, or the engine does not take them.
pub fn run(
    config: &Config,
    sink: &SinkConfig,
    destination: &mut dyn Sink,
    handle: &Handle,
    since: Timestamp,
) -> Result<u64, Failure> {
    let missing = match &sink.kind {
        Kind::Http(_) | Kind::Elasticsearch(_) => None,
        _ => {
            let logged = verify::logged(config, handle)?;
            let stored = verify::stored(sink, &logged, handle)?;
            Some(missing(&logged, &stored))
        }
    };
    if missing.as_ref().is_some_and(Records::is_empty) {
        return Ok(0);
    }
    let mut state = State::new();
    let _ = destination.open(&state)?;
    let mut temporary = None;
    let mut source: Box<dyn Source> = match &config.source {
        SourceConfig::Log(path) => Box::new(LogSource::open(path, config.name.clone(), true)),
        SourceConfig::Nats(source) => {
            let name = format!("replay-{}", std::process::id());
            temporary = Some((source.clone(), name.clone()));
            Box::new(StreamSource::new((**source).clone(), &name, handle.clone(), true))
        }
    };
    let mut sent = 0;
    let limits = Limits { bytes: sink.limits.bytes, time: Duration::from_secs(1) };
    let result = loop {
        match source.next(limits, None, Duration::from_secs(10)) {
            Ok(Next::Batch(batch)) => match resend(batch, missing.as_ref(), since, destination, &mut state) {
                Ok(count) => sent += count,
                Err(failure) => break Err(failure),
            },
            Ok(Next::Idle) => break Err(Failure::new("the stream does not answer")),
            Ok(Next::End) => break Ok(sent),
            Err(message) => break Err(Failure::new(message)),
        }
    };
    if let Some((source, name)) = temporary {
        StreamSource::new(*source, &name, handle.clone(), true).remove();
    }
    result
}

fn missing(logged: &Records, stored: &Records) -> Records {
    let left = logged.iter().map(|(key, ranges)| {
        let missing = stored.get(key).map_or_else(|| ranges.clone(), |stored| ranges.without(stored));
        (key.clone(), missing)
    });
    left.filter(|(_, ranges)| !ranges.is_empty()).collect()
}

/// Sends those lines of a batch that are missing.
fn resend(
    mut batch: Batch,
    missing: Option<&Records>,
    since: Timestamp,
    destination: &mut dyn Sink,
    state: &mut State,
) -> Result<u64, Failure> {
    batch.parts = batch.parts.iter().filter_map(|part| select(part, missing, since)).collect();
    batch.rejects.clear();
    let count = batch.count();
    if count == 0 {
        return Ok(0);
    }
    batch.start = Place { total: state.place.total, ..batch.start };
    batch.end = Place { total: state.place.total + count, ..batch.end };
    for attempt in 0.. {
        let delivered = destination.prepare(&batch).and_then(|()| destination.replay(&batch, state));
        match delivered {
            Ok(Delivery::Stored { rejects, .. }) if rejects.is_empty() => break,
            Ok(Delivery::Stored { rejects, .. }) => {
                return Err(Failure::new(format!("{} lines are refused: {}", rejects.len(), rejects[0].reason)));
            }
            Ok(Delivery::TooLarge(reason)) => return Err(Failure::new(format!("{reason}; lower batch_bytes"))),
            Ok(Delivery::Elsewhere(_)) => {}
            Err(failure) if attempt >= ATTEMPTS => return Err(failure),
            Err(failure) => {
                log::warn!("{failure}; trying again");
                std::thread::sleep(Duration::from_millis(200 << attempt));
            }
        }
        if attempt >= ATTEMPTS {
            return Err(Failure::new("the engine changes meanwhile; try again"));
        }
    }
    state.place.total += count;
    state.own = destination.own_state();
    Ok(count)
}

/// Attempts for one batch before a replay gives up: about twelve seconds.
const ATTEMPTS: u32 = 6;

fn select(part: &Part, missing: Option<&Records>, since: Timestamp) -> Option<Part> {
    let mut selected = Part { bytes: Vec::new(), count: 0, first_seq: None, last_seq: None, ..part.clone() };
    for line in crate::line::lines(&part.bytes) {
        let Ok(identity) = crate::line::identity(line) else { continue };
        if Time::of(line).is_none_or(|time| time < since) {
            continue;
        }
        if let Some(missing) = missing {
            let (Some(name), Some(seq)) = (&identity.name, identity.seq) else { continue };
            let run = identity.run.clone().unwrap_or_default().into_owned();
            if !missing.get(&(name.clone().into_owned(), run)).is_some_and(|ranges| ranges.contains(seq)) {
                continue;
            }
        }
        selected.first_seq = selected.first_seq.or(identity.seq);
        selected.last_seq = identity.seq.or(selected.last_seq);
        selected.count += 1;
        selected.bytes.extend_from_slice(line);
        selected.bytes.push(b'\n');
    }
    (selected.count > 0).then_some(selected)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_points_and_as_durations_before_now() {
        assert_eq!(since("2026-01-31T12:00:00Z").expect("a time").as_second(), 1_769_860_800);
        let before = Timestamp::now().as_second() - since("2d").expect("a duration").as_second();
        assert!((172_799..=172_801).contains(&before), "{before}");
        assert!(since("36h").is_ok());
        for text in ["", "yesterday", "-2h", "2x", "99999999999999999999d"] {
            assert!(since(text).is_err(), "{text}");
        }
    }

    #[test]
    fn only_what_is_missing_and_not_before_the_time_is_sent_again() {
        let line = |name: &str, seq: u64| {
            format!("{{\"name\":\"{name}\",\"run\":\"r\",\"time\":\"2026-01-01T00:00:0{seq}Z\",\"seq\":{seq}}}\n")
        };
        let bytes = [line("a", 1), line("a", 2), line("a", 3), line("b", 4), line("a", 5), "half".to_owned()].concat();
        let part = Part { sensor: "a".into(), run: "r".into(), count: 6, bytes: bytes.into_bytes(), ..Part::default() };
        let since: Timestamp = "2026-01-01T00:00:02Z".parse().expect("a time");
        let of = |missing: Option<&Records>| {
            select(&part, missing, since).map(|part| (part.first_seq, part.last_seq, part.count, part.bytes))
        };
        // The moment itself belongs to it.
        let all = [line("a", 2), line("a", 3), line("b", 4), line("a", 5)].concat().into_bytes();
        assert_eq!(of(None), Some((Some(2), Some(5), 4, all)));
        let mut missing = Records::new();
        verify::add(line("a", 3).as_bytes(), &mut missing);
        assert_eq!(of(Some(&missing)), Some((Some(3), Some(3), 1, line("a", 3).into_bytes())));
        assert_eq!(of(Some(&Records::new())), None);
    }

    #[test]
    fn runs_that_are_whole_are_not_among_the_missing() {
        let records = |lines: &str| {
            let mut records = Records::new();
            verify::add(lines.as_bytes(), &mut records);
            records
        };
        let line = |run: &str, seq: u64| format!("{{\"name\":\"a\",\"run\":\"{run}\",\"seq\":{seq}}}\n");
        let logged = records(&[line("x", 1), line("x", 2), line("y", 1), line("z", 1)].concat());
        let stored = records(&[line("x", 1), line("y", 1)].concat());
        assert_eq!(missing(&logged, &stored), records(&[line("x", 2), line("z", 1)].concat()));
    }
}
