//! SIGHUP: takes up what changed on disk, without losing a connection.
//!
//! The log is opened again in any case, for logrotate counts on it. Then the configuration file is read. What is wrong
//! with it, or with a certificate that it names, leaves everything as it was, and is said with file, line and reason:
//! whatever can fail is prepared before anything changes.
//! Sessions that are open keep the settings that they began with; the next one has the new ones.
//!
//! What can change is what the table of keys calls live ([`Effect`]). Every other key needs a restart, and is named
//! when it was changed.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use log::LevelFilter;
use tokio::sync::watch;

use crate::config::keys::{self, Effect};
use crate::config::{Config, Loaded, SteeringMode};
use crate::kernel::steering::Watch;
use crate::log::messages;
use crate::log::writer::Log;
use crate::scans;
use crate::session::Engine;
use crate::session::accept::Intake;
use crate::start::config_check;
use crate::start::engine::{self, Lasting};
use crate::start::readiness::Notifier;
use crate::start::resources::Resources;
use crate::tls::{Identity, Renewal, TlsServer};

/// Time for the log to be opened again: signals wait for it.
const REOPENING: Duration = Duration::from_secs(1);

/// Parts of the thread of the signals.
pub struct Reload {
    /// The configuration file.
    pub path: PathBuf,
    /// Configuration of the start, for the keys that cannot change.
    pub started: Config,
    /// Configuration as last read.
    pub config: Config,
    /// The place where sessions begin.
    pub intake: Arc<Intake>,
    /// Settings of the scan records.
    pub scans: watch::Sender<scans::Current>,
    /// Thread that keeps steering current, where connections are steered.
    pub steering: Option<Arc<Watch>>,
    /// The log of the agent's own messages, where that has a file of its own.
    pub messages: Option<Log>,
    /// Level of the kernel side's own messages.
    pub kernel_level: LevelFilter,
    /// Descriptors, memory and workers that sessions are made of.
    pub resources: Resources,
    /// Notifier of the service manager.
    pub notifier: Notifier,
}

impl Reload {
    /// Does it.
    pub fn run(&mut self) {
        const REFUSED: &str = "the last reload was rejected; the log has the reason";
        self.notifier.reloading();
        // First, so that a rotation by renaming does not wait for the configuration to be fixed.
        let reopened = self.reopen();
        let taken_up = self.take_up();
        self.notifier.configuration(taken_up.is_err().then_some(REFUSED));
        match taken_up {
            Ok((changed, refused)) => {
                let reopened = if reopened { "reopened the log and " } else { "" };
                log::info!(target: "agent", changed = list(&changed).as_str();
                    "{reopened}reloaded configuration and certificate");
                if changed.iter().any(|key| key == "exclude_ports")
                    && self.config.steering.mode == SteeringMode::Redirect
                {
                    log::warn!(target: "config", keys = "exclude_ports";
                        "exclude_ports changed: the installed rules keep the old list until `spip-agent rules install`");
                }
                if !refused.is_empty() {
                    log::warn!(target: "config", keys = list(&refused).as_str();
                        "changes of {} take effect when the agent restarts", list(&refused));
                }
            }
            Err(error) => {
                let reason = format!("{error:#}");
                log::error!(target: "config", reason = reason.as_str();
                    "configuration rejected, the previous one stays in effect: {reason}");
            }
        }
        self.notifier.ready();
    }

    /// Opens the logs again, and says which cannot be; whether all are.
    fn reopen(&self) -> bool {
        let log = self.intake.engine().log.reopen();
        let messages = self.messages.as_ref().map(Log::reopen);
        let mut reopened = true;
        for opening in [log].into_iter().chain(messages) {
            if let Err(reason) = opening.wait(REOPENING) {
                reopened = false;
                log::error!(target: "log", reason = reason.as_str(); "cannot reopen the log: {reason}");
            }
        }
        reopened
    }

    /// Reads the file and takes up what can be: the keys that changed, and those that would need a restart.
    fn take_up(&mut self) -> Result<(Vec<String>, Vec<String>)> {
        let Loaded { config: mut new, warnings, spans } = Config::load(&self.path)?;
        // Users are not read again, and cannot be looked up inside the sandbox.
        let files = config_check::check_files(&new, &spans)?;
        let changes = |key: &String| self.can_change(key, &new);
        let changed: Vec<_> = self.config.differences(&new).into_iter().filter(changes).collect();
        let refused: Vec<_> = self.started.differences(&new).into_iter().filter(|key| !changes(key)).collect();
        if refused.iter().any(|key| key == "log_file") {
            new.log.file.clone_from(&self.config.log.file);
        }
        hold(&mut new, &self.started);
        if new.log.file.as_ref().is_some_and(|file| self.started.messages.target.is_file(file)) {
            let why = "log_file: is the system_log until the agent is restarted; choose another file";
            spans.refuse([("log_file", why.to_owned())])?;
        }
        // Whatever can fail comes before whatever cannot.
        let bound = self.resources.session_limit(&new)?;
        let before = self.intake.engine();
        let tls = self.tls(&before, &new, files.certificate)?;
        let responder = engine::responder(&new, files.persona, before.responder.as_deref())?;
        let messages = self.messages.as_ref().zip(self.started.messages.own_log(&new.log));
        if new.log != self.config.log {
            if let Some((messages, config)) = &messages {
                messages.can_change(config)?;
            }
            before.log.change(&new.log)?;
            if let Some((messages, config)) = &messages {
                messages.change(config)?;
            }
        }
        let tls = tls.map(Renewal::take_up);
        for warning in warnings {
            log::warn!(target: "config", "{warning}");
        }
        if changed.iter().any(|key| key == "max_sessions") {
            self.resources.warn_of_shortage(&new);
        }
        let engine = engine::engine(&new, &before.log, tls, responder, Lasting::of(&before));
        self.scans.send_replace(engine::scans(&new, &engine));
        messages::start(new.messages.levels_with(self.kernel_level));
        messages::shape(&new.log, &new.name);
        if let Some(steering) = &self.steering {
            steering.reload(new.clone());
        }
        self.intake.limits.change(&new.limits, bound);
        engine.ledger.change(&new.log);
        engine.memory.resize(self.resources.payload_memory(&new));
        self.intake.change(engine);
        self.config = new;
        Ok((changed, refused))
    }

    /// Prepares the TLS server to come: the one that is there while nothing of it changed but the certificate that was read.
    fn tls(&self, engine: &Engine, new: &Config, certificate: Option<Identity>) -> Result<Option<Renewal>> {
        if !new.tls.enabled {
            return Ok(None);
        }
        match &engine.tls {
            Some(server) if new.tls == self.config.tls => Ok(Some(server.renew(certificate))),
            _ => Ok(Some(TlsServer::new(certificate, new.tls.ask_client_certificate)?.into())),
        }
    }

    /// Standard output is opened by the agent's starter, so the log cannot go there or come from there.
    fn can_change(&self, key: &str, new: &Config) -> bool {
        let streams = key == "log_file" && (self.config.log.file.is_none() || new.log.file.is_none());
        is_live(key) && !streams
    }
}

/// Reports whether a change of a key takes effect while the agent runs.
fn is_live(key: &str) -> bool {
    keys::of(key).is_some_and(|key| key.effect == Effect::Live)
}

/// Puts back what takes a restart, whatever the file says by now: each key whose [`Effect`] is a restart.
fn hold(new: &mut Config, started: &Config) {
    let Config { listen, log, ebpf, steering, status_socket, respond, payload_store, scans, .. } = started.clone();
    (new.listen, new.ebpf, new.status_socket, new.payload_store) = (listen, ebpf, status_socket, payload_store);
    (new.sandbox, new.metrics) = (started.sandbox.clone(), started.metrics.clone());
    new.log.queue_bytes = log.queue_bytes;
    new.messages.target = started.messages.target.clone();
    (new.steering.mode, new.steering.pin_links) = (steering.mode, steering.pin_links);
    new.steering.exempt_services_of = steering.exempt_services_of;
    new.respond.state_dir = respond.state_dir;
    new.scans.enabled = scans.enabled;
}

fn list(keys: &[String]) -> String {
    keys.join(", ")
}

#[cfg(test)]
mod key_by_key;
#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// As `text` says it, beside what is required.
    fn config(text: &str) -> Config {
        Config::from_str(text, Path::new("/x")).unwrap_or_else(|error| panic!("{error}")).config
    }

    #[test]
    fn each_key_that_takes_a_restart_keeps_its_value_until_then() {
        let started = config("ip = \"::\"\nport = 1\n");
        let text = r#"
            ip = "127.0.0.1"
            port = 2
            log_queue_bytes = 65536
            system_log = "stderr"
            ebpf = "required"
            cgroup_path = "/cgroup"
            bpf_pin_path = "/pins"
            ebpf_syn_entries = 64
            ebpf_origin_entries = 64
            steering = "sk_lookup"
            exempt_services_of = ["root"]
            pin_links = true
            status_socket = "off"
            metrics = "127.0.0.1:9464"
            sandbox = "off"
            user = "root"
            group = "root"
            scans = false
            state_dir = "/state"
            payload_dir = "/payloads"
            payload_store_min_bytes = 1
            payload_store_max_bytes = 4096
            payload_preview_bytes = 1
        "#;
        let mut new = config(&format!("name = \"new\"\nfsync = \"always\"\n{text}"));
        let different = started.differences(&new);
        let page = started.to_toml();
        let keys = page.lines().filter_map(|line| {
            let line = line.trim_start_matches("# ");
            line.split_once(" = ").or_else(|| line.split_once(": ")).map(|(key, _)| key)
        });
        for key in keys.filter(|key| !is_live(key)) {
            assert!(different.iter().any(|other| other == key), "this test says nothing of {key}");
        }
        hold(&mut new, &started);
        assert_eq!(started.differences(&new), ["fsync", "name"]);
    }
}
