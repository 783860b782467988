//! Delivered and remaining lines of each sink, from the state directory and the source. Needs no running shipper.

use std::fs::File;
use std::path::Path;

use jiff::Timestamp;
use nix::fcntl::{Flock, FlockArg};
use serde::Serialize;
use spip_record::log::{Options, Reader};

use crate::batch::At;
use crate::config::{Config, Source};
use crate::state::{Found, State, Store};

/// The status of one sink.
#[derive(Debug, Serialize)]
struct Status {
    sink: String,
    kind: &'static str,
    /// `missing` before the first start, or what is wrong with it.
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<String>,
    shipped: u64,
    quarantined: u64,
    /// Reason for which a running shipper waits, and since when.
    #[serde(skip_serializing_if = "Option::is_none")]
    waits: Option<String>,
    /// Time at which the state was written.
    #[serde(skip_serializing_if = "Option::is_none")]
    updated: Option<String>,
    /// Place at which delivery continues.
    #[serde(skip_serializing_if = "Option::is_none")]
    at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    behind_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    unshipped_files: Option<u64>,
}

/// Prints the status of all sinks. Returns whether every one has a state.
#[must_use]
pub fn run(config: &Config, as_json: bool) -> bool {
    let is_running = is_locked(&config.state_dir.join("lock"));
    let sinks: Vec<_> =
        config.sinks.iter().map(|sink| of(config, &sink.name, crate::app::kind_of(&sink.kind), is_running)).collect();
    let is_complete = sinks.iter().all(|sink| sink.state.is_none());
    if as_json {
        println!("{}", serde_json::json!({ "running": is_running, "sinks": sinks }));
        return is_complete;
    }
    println!("spip-ship {}", if is_running { "runs" } else { "does not run" });
    if let Source::Log(path) = &config.source
        && path.try_exists().is_ok_and(|is_there| !is_there)
    {
        println!("there is no log {} yet: is log in the configuration the log_file of the agent?", path.display());
    }
    for sink in &sinks {
        println!("{} ({})", sink.sink, sink.kind);
        if let Some(state) = &sink.state {
            println!("    state: {state}");
        }
        println!("    shipped {} lines, {} in quarantine", sink.shipped, sink.quarantined);
        if let Some(waits) = &sink.waits {
            println!("    waits {waits}");
        }
        if let Some(updated) = &sink.updated {
            println!("    last delivery or start: {updated}");
        }
        if let Some(at) = &sink.at {
            println!("    at {at}");
        }
        if let (Some(bytes), Some(files)) = (sink.behind_bytes, sink.unshipped_files) {
            println!("    not delivered: {bytes} bytes, {files} closed files");
        }
    }
    is_complete
}

fn of(config: &Config, name: &str, kind: &'static str, is_running: bool) -> Status {
    let store = Store::new(&config.state_dir, name);
    let waits = store.trouble().filter(|_| is_running).map(|(why, since)| {
        let since = Timestamp::try_from(since).map_or_else(|_| String::new(), |since| format!("since {since:.0}: "));
        // Servers' texts are in it.
        let why: String = why.chars().flat_map(crate::messages::shown).collect();
        since + &why
    });
    let (state, complaint) = match store.load() {
        Ok(Found::State(state)) => (*state, None),
        Ok(Found::Missing) => (State::default(), Some("missing: nothing was delivered yet".to_owned())),
        Ok(Found::Damaged(why)) => (State::default(), Some(format!("damaged: {why}"))),
        Err(error) => (State::default(), Some(format!("unreadable: {error}"))),
    };
    let has_state = complaint.is_none();
    let mut status = Status {
        sink: name.to_owned(),
        kind,
        state: complaint,
        shipped: state.shipped,
        quarantined: state.quarantined,
        waits,
        updated: has_state.then(|| Timestamp::from_second(state.updated).ok().map(|time| time.to_string())).flatten(),
        at: None,
        behind_bytes: None,
        unshipped_files: None,
    };
    let position = match &state.place.at {
        At::Log { position, .. } => {
            status.at = position.file().map(|(file, offset)| format!("{file}, byte {offset}"));
            Some(position)
        }
        At::Stream { seq } => {
            status.at = Some(format!("message {seq}"));
            None
        }
        At::Beginning => None,
    };
    if let Source::Log(path) = &config.source {
        let mut reader = Reader::open(path, Options::default(), position.map(AsRef::as_ref));
        if let Ok(lag) = reader.lag() {
            status.behind_bytes = Some(lag.bytes);
            status.unshipped_files = Some(lag.closed_files as u64);
        }
    }
    status
}

/// Reports whether a running shipper has the state directory.
fn is_locked(path: &Path) -> bool {
    let Ok(file) = File::open(path) else { return false };
    Flock::lock(file, FlockArg::LockSharedNonblock).is_err()
}
