//! Files, directories and addresses that the start opens or makes: each is asked for by the function of the start that
//! knows whether it could, in a child that acts as the user that starts the agent. Nothing is made.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{Finding, Subject, Topic, access};
use crate::config::{Config, SystemLog};
use crate::confine::sandbox::{self, Starter};
use crate::log::payload_files::PayloadStore;
use crate::log::writer::{self, Log};
use crate::observe::metrics;
use crate::respond::persona::Persona;
use crate::tools::shell;

/// Something that the start could not open or make.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Unusable {
    found: String,
    remedy: String,
}

/// What became of each attempt; none where the configuration does not ask for it.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Tried {
    log: Option<Result<(), Unusable>>,
    payloads: Option<Result<(), Unusable>>,
    /// Reports whether there is a persona already.
    persona: Option<Result<bool, Unusable>>,
    metrics: Option<Result<(), Unusable>>,
}

impl Tried {
    /// Asks for all of it, as the user of this process.
    fn all(config: &Config) -> Self {
        Self {
            log: log(config),
            payloads: config.payload_store.directory.as_deref().map(payloads),
            persona: config.respond.enabled.then(|| persona(&config.respond.state_dir)),
            metrics: config.metrics.as_ref().map(|address| {
                metrics::Server::look(address).map_err(|error| Unusable {
                    found: format!("metrics cannot be served on {address}: {}", causes(&error)),
                    remedy: error.remedy().to_owned(),
                })
            }),
        }
    }
}

pub(super) fn findings(subject: &Subject<'_>) -> Vec<Finding> {
    let Some(config) = subject.config else { return Vec::new() };
    let starter = access::user_of_unit().map(Starter::from);
    let tried = sandbox::in_child(|| {
        starter.as_ref().map_or(Ok(()), Starter::assume)?;
        Ok::<_, String>(Tried::all(config))
    });
    let tried = match tried.map_err(|error| error.to_string()).and_then(|tried| tried) {
        Ok(tried) => tried,
        Err(reason) => {
            let topic = Topic::new("log.file", "the agent does not start with a log that it cannot open");
            return vec![topic.skipped(format!("what the start opens cannot be tried: {reason}; run as root"))];
        }
    };
    let directory = |directory: Option<&Path>| directory.map(|path| path.display().to_string()).unwrap_or_default();
    let log = tried.log.map(|tried| {
        let topic = Topic::new("log.file", "the agent does not start with a log that it cannot open");
        fails(topic, tried.map(|()| "can be opened".to_owned()))
    });
    let payloads = tried.payloads.map(|tried| {
        let topic = Topic::new("payloads.directory", "the agent does not start with a payload_dir that it cannot use");
        fails(topic, tried.map(|()| directory(config.payload_store.directory.as_deref())))
    });
    let persona = tried.persona.map(|tried| self::kept(tried, &config.respond.state_dir));
    let metrics = tried.metrics.map(|tried| self::served(tried, subject, config));
    [log, payloads, persona, metrics].into_iter().flatten().collect()
}

/// The start ends with what is unusable.
fn fails(topic: Topic, tried: Result<String, Unusable>) -> Finding {
    match tried {
        Ok(found) => topic.ok(found),
        Err(Unusable { found, .. }) if !super::is_root() => topic.skipped(format!("{found}; run as root")),
        Err(Unusable { found, remedy }) => topic.failure(found, remedy),
    }
}

/// The persona of this sensor: kept, or to be kept at the first start.
fn kept(tried: Result<bool, Unusable>, directory: &Path) -> Finding {
    let topic = Topic::new(
        "persona.kept",
        "a persona that cannot be kept is drawn anew at each start: clients see another host each time",
    );
    match tried {
        Ok(true) => topic.ok(Persona::kept_in(directory).display().to_string()),
        Ok(false) => topic.ok(format!("drawn at the first start, and kept in {}", directory.display())),
        Err(Unusable { found, .. }) if !super::is_root() => topic.skipped(format!("{found}; run as root")),
        Err(Unusable { found, remedy }) => topic.warning(found, remedy),
    }
}

fn served(tried: Result<(), Unusable>, subject: &Subject<'_>, config: &Config) -> Finding {
    let topic = Topic::new("metrics.address", "the agent does not start with metrics that it cannot serve");
    if let Some(running) = &subject.running {
        return topic.skipped(format!("an agent runs (process {}): its start is over", running.pid));
    }
    let address = config.metrics.as_ref().map(ToString::to_string);
    fails(topic, tried.map(|()| address.unwrap_or_default()))
}

/// The files of the logs.
fn log(config: &Config) -> Option<Result<(), Unusable>> {
    let system_log = match &config.messages.target {
        SystemLog::File(path) => Some(("system_log", path)),
        SystemLog::Stream | SystemLog::Stderr => None,
    };
    let mut files = config.log.file.iter().map(|file| ("log_file", file)).chain(system_log).peekable();
    files.peek()?;
    Some(files.map(|(key, file)| openable(key, file)).find(Result::is_err).unwrap_or(Ok(())))
}

fn openable(key: &'static str, file: &Path) -> Result<(), Unusable> {
    Log::look(key, file).map_err(|error| {
        let directory = file.parent().filter(|directory| !directory.as_os_str().is_empty() && !directory.exists());
        // Other directories the start makes, and those of logs it does not.
        let remedy = match (&error, directory) {
            (writer::Error::Open { .. }, Some(directory)) => {
                format!("mkdir -p {}", shell::word(&directory.to_string_lossy()))
            }
            _ => format!("set {key} to a file that the agent can make and append to"),
        };
        Unusable { found: error.to_string(), remedy }
    })
}

fn payloads(directory: &Path) -> Result<(), Unusable> {
    PayloadStore::look(directory).map_err(|error| Unusable {
        found: format!("payload_dir cannot be used: {}", causes(&error)),
        remedy: "set payload_dir to a directory that the agent can make and write to".to_owned(),
    })
}

fn persona(directory: &Path) -> Result<bool, Unusable> {
    Persona::look(directory).map_err(|error| Unusable {
        found: format!("state_dir {} cannot be used: {error}", directory.display()),
        remedy: "set state_dir to a directory that the agent can make and write to".to_owned(),
    })
}

/// An error with its causes.
fn causes(error: &dyn std::error::Error) -> String {
    std::iter::successors(Some(error), |error| error.source()).map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn each_log_whose_directory_is_missing_is_said_by_its_key() {
        let directory = std::env::temp_dir().join(format!("spip-doctor-log-{}", std::process::id()));
        fs::create_dir_all(&directory).expect("a directory");
        for key in ["log_file", "system_log"] {
            assert_eq!(openable(key, &directory.join("log")), Ok(()));
            let Unusable { found, remedy } = openable(key, &directory.join("missing/log")).expect_err("no directory");
            assert!(found.starts_with(&format!("cannot open {key} ")), "{found}");
            assert_eq!(remedy, format!("mkdir -p {}", directory.join("missing").display()));
        }
        assert!(!directory.join("log").exists(), "it is tried, and not made");
        fs::remove_dir_all(&directory).expect("ours");
    }
}
