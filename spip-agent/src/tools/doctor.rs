//! `spip-agent doctor`: does this machine offer what the configuration asks for, and does the sensor work?
//!
//! Each check says what it found, what that means for the records, and the command that fixes it. Checks look and try;
//! they change nothing, and a check that cannot be made says why instead of guessing. What the configuration does not
//! ask for is never held against the machine. `--probe` alone goes further: it sends a connection through the steering
//! and waits for its record ([`probe`] says what that can prove, and what not).
//!
//! Status for scripts, as monitoring plug-ins have it: 0 all is well, 1 something to look at, 2 something the sensor
//! cannot work without; also 2 for a mistake on the command line or in the configuration.

mod access;
mod clock;
mod descriptors;
mod disk;
mod kernel;
mod network;
mod page;
mod paths;
mod privileges;
mod probe;
mod process;
mod running;
mod start;
mod steering;

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde::Serialize;

use crate::config::{Config, Loaded, Spans};
use crate::observe::status;
use crate::start::config_check;
use process::Running;

/// Path of a package's configuration: examined when none is named.
pub const USUAL_CONFIG: &str = "/etc/spip/spip.toml";

/// Options of the examination.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::Args)]
pub struct Options {
    /// One JSON document instead of a page.
    #[arg(long)]
    pub json: bool,

    /// Also send one connection through the steering and wait for its record. Needs root and the program ip.
    #[arg(long)]
    pub probe: bool,
}

/// Results of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// As it should be.
    Ok,
    /// Not looked at, with the reason.
    Skipped,
    /// The sensor works, and could work better.
    Warning,
    /// The sensor does not work, or not as it is configured.
    Failure,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Name of the check, `area.thing`; stays the same.
    pub check: &'static str,
    /// Result.
    pub state: State,
    /// Finding of the check.
    pub found: String,
    /// Consequence for the sensor.
    pub meaning: String,
    /// Command that fixes it, or the change in the configuration.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

/// A check before its outcome is known.
#[derive(Clone, Debug)]
struct Topic {
    check: &'static str,
    meaning: String,
}

impl Topic {
    fn new(check: &'static str, meaning: impl Into<String>) -> Self {
        Self { check, meaning: meaning.into() }
    }

    fn ok(self, found: impl Into<String>) -> Finding {
        self.ended(State::Ok, found.into(), None)
    }

    fn skipped(self, reason: impl Into<String>) -> Finding {
        self.ended(State::Skipped, reason.into(), None)
    }

    fn warning(self, found: impl Into<String>, remedy: impl Into<String>) -> Finding {
        self.ended(State::Warning, found.into(), Some(remedy.into()))
    }

    fn failure(self, found: impl Into<String>, remedy: impl Into<String>) -> Finding {
        self.ended(State::Failure, found.into(), Some(remedy.into()))
    }

    fn ended(self, state: State, found: String, remedy: Option<String>) -> Finding {
        Finding { check: self.check, state, found, meaning: self.meaning, remedy }
    }
}

/// All that was found.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Version of the program.
    pub version: &'static str,
    /// The configuration that was looked at.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub config: Option<PathBuf>,
    /// The worst state.
    pub state: State,
    /// In the order in which a connection meets these things.
    pub findings: Vec<Finding>,
}

impl Report {
    /// Status of the process: 0, 1 for warnings, 2 for failures.
    #[must_use]
    pub fn exit_status(&self) -> u8 {
        match self.state {
            State::Ok | State::Skipped => 0,
            State::Warning => 1,
            State::Failure => 2,
        }
    }

    /// The report as a document or as a page.
    #[must_use]
    pub fn to_text(&self, json: bool) -> String {
        if json {
            // Serialising strings and enums cannot fail.
            serde_json::to_string(self).unwrap_or_default() + "\n"
        } else {
            page::page(self)
        }
    }
}

/// The subject of the checks.
struct Subject<'a> {
    /// The configuration, where there is one.
    config: Option<&'a Config>,
    /// Its file.
    path: Option<&'a Path>,
    /// Lines of its keys.
    spans: Spans,
    /// The agent that runs in this network namespace, where one does.
    running: Option<Running>,
    /// Status of that agent, or the reason why it does not answer.
    answer: Result<status::Agent, String>,
}

impl<'a> Subject<'a> {
    /// The configuration, or the end of a check that needs it.
    fn config(&self, topic: &Topic) -> Result<&'a Config, Box<Finding>> {
        self.config.ok_or_else(|| Box::new(topic.clone().skipped("needs a valid configuration: --config FILE")))
    }
}

/// Makes all checks. Without `path` the usual place is looked at, and where nothing is there, only the machine.
#[must_use]
pub fn examine(path: Option<&Path>, options: Options) -> Report {
    let usual = Path::new(USUAL_CONFIG);
    let path = path.or_else(|| usual.exists().then_some(usual));
    let topic = Topic::new("config.file", "all other checks depend on the configuration");
    let (loaded, first) = match path.map(|path| (path, Config::load(path))) {
        None => {
            (None, topic.skipped(format!("no --config, and nothing at {USUAL_CONFIG}: only the machine is examined")))
        }
        Some((path, Ok(loaded))) => {
            let finding = file(path, &loaded, topic);
            (Some(loaded), finding)
        }
        Some((path, Err(error))) => {
            let remedy = format!("correct it, then: spip-agent --config {} --check", path.display());
            (None, topic.failure(error.to_string().trim_end().to_owned(), remedy))
        }
    };
    let config = loaded.as_ref().map(|loaded| &loaded.config);
    let spans = loaded.as_ref().map(|loaded| loaded.spans.clone()).unwrap_or_default();
    let (running, answer) = process::find(config.map(|config| config.status_socket.as_deref()));
    let subject = Subject { config, path, spans, running, answer };
    let mut findings = vec![first, files(&subject)];
    findings.extend(kernel::findings(&subject));
    findings.extend(privileges::findings(&subject));
    findings.extend(config.zip(path).map(|(config, path)| access::directories(config, path)));
    findings.extend(paths::findings(&subject));
    findings.extend(running::findings(&subject));
    findings.extend(network::findings(&subject));
    findings.extend(steering::findings(&subject));
    findings.extend(descriptors::findings(&subject));
    findings.push(clock::finding());
    findings.extend(disk::findings(&subject));
    findings.extend(start::findings(&subject));
    if options.probe {
        findings.extend(probe::findings(&subject));
    }
    if let Some(path) = path {
        // Remedies are commands to be pasted.
        let named = format!("--config {}", path.display());
        for remedy in findings.iter_mut().filter_map(|finding| finding.remedy.as_mut()) {
            *remedy = remedy.replace("--config FILE", &named);
        }
    }
    let state = findings.iter().map(|finding| finding.state).max().unwrap_or(State::Ok);
    Report { version: env!("CARGO_PKG_VERSION"), config: path.map(Path::to_owned), state, findings }
}

fn file(path: &Path, loaded: &Loaded, topic: Topic) -> Finding {
    if loaded.warnings.is_empty() {
        topic.ok(path.display().to_string())
    } else {
        topic.warning(loaded.warnings.join("; "), "remove these keys from the file")
    }
}

/// Checks that the files named by the configuration can be used. Users other than root may not be able to read all of
/// them.
fn files(subject: &Subject<'_>) -> Finding {
    let topic =
        Topic::new("config.files", "the agent does not start with a certificate or persona that cannot be used");
    let config = match subject.config(&topic) {
        Ok(config) => config,
        Err(finding) => return *finding,
    };
    match config_check::check_files(config, &subject.spans) {
        Ok(_) => topic.ok("certificate and persona can be used, or none are named"),
        Err(error) if !is_root() => topic.skipped(format!("{error}; run as root")),
        Err(error) => topic.failure(error.to_string(), "correct it, then: spip-agent --config FILE --check"),
    }
}

/// Examines and reports on standard output; the verdict is in the status.
#[must_use]
pub fn run(path: Option<&Path>, options: Options) -> ExitCode {
    let report = examine(path, options);
    match io::stdout().write_all(report.to_text(options.json).as_bytes()) {
        Ok(()) => ExitCode::from(report.exit_status()),
        Err(_) => ExitCode::FAILURE,
    }
}

/// A value below `/proc/sys`, of the network namespace that this thread is in.
fn sysctl(key: &str) -> Option<String> {
    let text = std::fs::read_to_string(Path::new("/proc/sys").join(key)).ok()?;
    Some(text.trim().to_owned())
}

/// The same as a number.
fn sysctl_number(key: &str) -> Option<u64> {
    sysctl(key)?.parse().ok()
}

/// Reports whether this process is root.
fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(states: &[State]) -> Report {
        let findings = states.iter().map(|state| Topic::new("a.b", "c").ended(*state, "d".into(), None)).collect();
        let state = states.iter().copied().max().expect("one");
        Report { version: "0", config: None, state, findings }
    }

    #[test]
    fn the_worst_finding_is_the_status() {
        assert_eq!(report(&[State::Ok, State::Skipped]).exit_status(), 0);
        assert_eq!(report(&[State::Warning, State::Skipped, State::Ok]).exit_status(), 1);
        assert_eq!(report(&[State::Failure, State::Warning]).exit_status(), 2);
    }

    #[test]
    fn a_document_has_every_finding_with_its_state_by_name() {
        let text = report(&[State::Warning]).to_text(true);
        let value: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(value["state"], "warning");
        assert_eq!(value["findings"][0]["check"], "a.b");
        assert_eq!(value["findings"][0]["meaning"], "c");
    }

    #[test]
    fn a_file_that_is_wrong_is_a_failure_and_the_machine_is_examined_all_the_same() {
        let path = std::env::temp_dir().join(format!("spip-doctor-{}.toml", std::process::id()));
        std::fs::write(&path, "port = 0\n").expect("file");
        let report = examine(Some(&path), Options::default());
        std::fs::remove_file(&path).expect("ours");
        assert_eq!(report.exit_status(), 2);
        assert_eq!(report.findings[0].state, State::Failure);
        assert!(report.findings[0].found.contains("port = 0"), "{}", report.findings[0].found);
        assert!(report.findings.len() > 10);
    }
}
