//! Makes the stream, or checks that the one that is there keeps what it acknowledges.

use std::time::Duration;

use super::{Connection, Error, StreamConfig, StreamInfo};
use crate::config::WantedStream;
use crate::sink::Failure;

/// `stream not found`.
const NOT_FOUND: u16 = 10059;

/// `stream name already in use`: another sensor was faster.
const IN_USE: u16 = 10058;

/// Makes or checks the stream. Where this client may not ask, the first publication shows whether it is there.
pub(crate) fn ensure(connection: &mut Connection, config: &WantedStream) -> Result<(), Failure> {
    if !config.create {
        return connection.client().map(|_| ()).map_err(|error| Failure::new(error.to_string()));
    }
    let stream = connection.access().stream.clone();
    let subjects = format!("{}.*", connection.access().subject_prefix);
    let info = match connection.api::<StreamInfo>(&format!("STREAM.INFO.{stream}"), &serde_json::Value::Null) {
        Ok(info) => info,
        Err(Error::Api(error)) if error.err_code == NOT_FOUND => {
            let wanted = serde_json::json!({
                "name": stream,
                "subjects": [subjects],
                "description": "records of spip, one subject per sensor",
                "retention": "limits",
                "discard": "new",
                "storage": "file",
                "num_replicas": config.replicas,
                "allow_direct": true,
                "max_age": config.max_age.map_or(0, |age| u64::try_from(age.as_nanos()).unwrap_or(0)),
                "max_bytes": config.max_bytes.map_or(-1, |bytes| i64::try_from(bytes).unwrap_or(-1)),
                "max_msgs": -1,
                "max_consumers": -1,
                "max_msg_size": -1,
                "duplicate_window": 120_000_000_000_u64,
            });
            match connection.api::<StreamInfo>(&format!("STREAM.CREATE.{stream}"), &wanted) {
                Ok(info) => {
                    log::info!("nats: made the stream {stream} with subjects {subjects}, {} replicas", config.replicas);
                    info
                }
                Err(Error::Api(error)) if error.err_code == IN_USE => return Ok(()),
                Err(error) => {
                    return Err(Failure::new(format!(
                        "there is no stream {stream}, and it cannot be made: {error}; make it with subjects {subjects}"
                    )));
                }
            }
        }
        Err(Error::Timeout { reason, .. }) if reason.contains("Permissions Violation") => {
            log::info!("nats: this client may not look at the stream {stream}; set create_stream = false");
            return Ok(());
        }
        Err(error) => return Err(Failure::new(error.to_string())),
    };
    check(&info.config, &subjects).map_err(|message| Failure {
        message: format!("the stream {stream} {message}"),
        after: Some(Duration::from_secs(10)),
    })
}

/// Refuses a stream that would lose what it acknowledged, or that takes other subjects.
fn check(config: &StreamConfig, subjects: &str) -> Result<(), String> {
    if !config.retention.is_empty() && config.retention != "limits" {
        return Err(format!(
            "has retention = {}: its last message goes when it is consumed, and with it where to go on; use limits",
            config.retention
        ));
    }
    if config.no_ack {
        return Err("has no_ack: what is not acknowledged may be lost; switch it off".to_owned());
    }
    if config.sealed {
        return Err("is sealed: it takes nothing more".to_owned());
    }
    let prefix = subjects.trim_end_matches('*');
    let covers = |pattern: &String| {
        pattern == subjects
            || pattern == ">"
            || pattern.strip_suffix('>').is_some_and(|head| prefix.starts_with(head))
            || matches(pattern, subjects)
            || pattern.starts_with(prefix)
    };
    if !config.subjects.is_empty() && !config.subjects.iter().any(covers) {
        return Err(format!("stores {}, not {subjects}: add that to its subjects", config.subjects.join(", ")));
    }
    if config.storage == "memory" {
        log::warn!("nats: the stream {} is in memory: a restart of the server loses it", config.name);
    }
    Ok(())
}

/// Reports whether a pattern with `*` covers another one of the same length.
fn matches(pattern: &str, subjects: &str) -> bool {
    let (pattern, subjects): (Vec<_>, Vec<_>) = (pattern.split('.').collect(), subjects.split('.').collect());
    pattern.len() == subjects.len() && pattern.iter().zip(&subjects).all(|(one, other)| *one == "*" || one == other)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(subjects: &str) -> StreamConfig {
        StreamConfig { subjects: vec![subjects.to_owned()], retention: "limits".to_owned(), ..StreamConfig::default() }
    }

    #[test]
    fn a_stream_that_covers_the_subjects_is_accepted() {
        for subjects in ["spip.records.*", "spip.records.>", "spip.>", ">", "*.records.*", "spip.records.sensor-7"] {
            assert_eq!(check(&stream(subjects), "spip.records.*"), Ok(()), "{subjects}");
        }
        for subjects in ["spip.other.*", "spip.records", "other.>", "spip.*"] {
            assert!(check(&stream(subjects), "spip.records.*").is_err(), "{subjects}");
        }
    }

    #[test]
    fn a_stream_that_forgets_what_is_consumed_is_refused() {
        let queue = StreamConfig { retention: "workqueue".to_owned(), ..stream(">") };
        assert!(check(&queue, "spip.records.*").expect_err("a queue").contains("use limits"));
        let silent = StreamConfig { no_ack: true, ..stream(">") };
        assert!(check(&silent, "spip.records.*").expect_err("no_ack").contains("no_ack"));
    }
}
