//! Builds what sessions work with from a configuration. The start and a reload build it here alike; they differ in the
//! [`Lasting`] parts, which the start makes and a reload takes from the engine before.

use std::sync::Arc;

use anyhow::Result;

use crate::config::Config;
use crate::kernel::ebpf::Origins;
use crate::log::payload_files::PayloadStore;
use crate::log::sensor::Sensor;
use crate::log::writer::Log;
use crate::process::run;
use crate::respond::Responder;
use crate::respond::persona::Written;
use crate::scans;
use crate::session::Engine;
use crate::session::budget::Budget;
use crate::session::first_sources::FirstSources;
use crate::session::ledger::Ledger;
use crate::session::rejections::Rejections;
use crate::tls::TlsServer;

/// The parts of an engine that outlive a reload: they count, or are connected to the kernel or the disk.
pub struct Lasting {
    /// Observations of the kernel side, where it is attached.
    pub origins: Option<Origins>,
    /// Store of payloads in files of their own, if configured.
    pub payloads: Option<PayloadStore>,
    /// Share of the log that each source may take.
    pub ledger: Ledger,
    /// Connections that summaries stand for.
    pub rejections: Rejections,
    /// Verdict whether a gateway hides the clients.
    pub first_sources: FirstSources,
    /// Memory that all sessions may hold beyond what each is guaranteed.
    pub memory: Budget,
}

impl Lasting {
    /// Returns these parts of the engine that is replaced.
    #[must_use]
    pub fn of(engine: &Engine) -> Self {
        Self {
            origins: engine.origins.clone(),
            payloads: engine.payloads.clone(),
            ledger: engine.ledger.clone(),
            rejections: engine.rejections.clone(),
            first_sources: engine.first_sources.clone(),
            memory: engine.memory.clone(),
        }
    }
}

/// Builds the engine that `config` asks for.
#[must_use]
pub fn engine(
    config: &Config,
    log: &Log,
    tls: Option<Arc<TlsServer>>,
    responder: Option<Arc<Responder>>,
    lasting: Lasting,
) -> Engine {
    let Lasting { origins, payloads, ledger, rejections, first_sources, memory } = lasting;
    Engine {
        sensor: sensor(config),
        log: log.in_format(config.log.format),
        tls,
        origins,
        responder,
        payloads,
        ledger,
        rejections,
        first_sources,
        timeouts: config.timeouts,
        network: Arc::new(config.network.clone()),
        payload_limit: config.limits.payload_bytes,
        memory,
    }
}

/// Returns what scans are recorded with, beside the sessions of `engine`.
#[must_use]
pub fn scans(config: &Config, engine: &Engine) -> scans::Current {
    scans::Current {
        sensor: engine.sensor.clone(),
        log: engine.log.clone(),
        config: config.scans,
        day_bytes: config.log.scan_bytes_a_day(),
        exclude_ports: config.exclude_ports.as_slice().into(),
    }
}

/// Builds the facts that are the same in every record.
fn sensor(config: &Config) -> Sensor {
    Sensor {
        name: config.name.clone(),
        run: run::id(),
        community_id_seed: config.community_id_seed,
        format: config.log.format,
        max_line_bytes: config.log.max_line_bytes,
        public: config.network.public.clone(),
    }
}

/// Builds the responder with the persona that was read; there is none where clients are not answered. The face of `before`,
/// the responder that is replaced, stays where the state directory cannot be used.
///
/// # Errors
/// The persona says what cannot be shown.
pub fn responder(
    config: &Config,
    written: Option<Written>,
    before: Option<&Responder>,
) -> Result<Option<Arc<Responder>>> {
    let Some(written) = written else { return Ok(None) };
    let respond = &config.respond;
    let (persona, not_kept) = written.persona(before.map(|before| &before.persona))?;
    if let (Some(error), None) = (not_kept, before) {
        let (reason, directory) = (error.to_string(), respond.state_dir.display().to_string());
        log::warn!(target: "respond", reason = reason.as_str(), state_dir = directory.as_str();
            "the persona is drawn anew at each start: state_dir cannot be used");
    }
    let ports = respond.ports.clone();
    Ok(Some(Arc::new(Responder { persona, ports, banner_after: respond.banner_after })))
}
