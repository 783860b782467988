//! Metrics and health of the agent, for Prometheus and health checks.
//!
//! Everything is counted elsewhere, where it happens; here it is put together on request. All labels are names
//! that stand in this program: no client's bytes become one, so that the number of series is bounded
//! whatever comes. `docs/metrics.md` names every metric.

mod process;
mod server;

pub use server::{Error, Server, Succession};

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

use crate::kernel::ebpf::KernelCounters;
use crate::kernel::steering::Watch;
use crate::log::writer::{Log, STALLED};
use crate::process::counters::{Named, TALLY, Tally};
use crate::process::heartbeat::Heartbeat;
use crate::scans;
use crate::session::accept::Intake;
use crate::tls::Failure;
use process::Process;
use spip_protocol as protocol;
use spip_record::Limit;
use spip_record::{CloseReason, Conflict};

/// A worker that has not beaten for so long is stuck.
const STUCK: Duration = Duration::from_secs(10);

/// Sources of the numbers.
pub struct Sources {
    /// Sessions.
    pub intake: Arc<Intake>,
    /// Workers.
    pub heartbeat: Heartbeat,
    /// The log of the agent's own messages, where that has a file of its own.
    pub messages: Option<Log>,
    /// The kernel side, where it is attached.
    pub kernel: Option<KernelCounters>,
    /// Thread that keeps steering current, where connections are steered.
    pub steering: Option<Arc<Watch>>,
    /// Half-open scans, where they are recorded.
    pub scans: Option<Arc<Mutex<scans::Counts>>>,
    /// Deaf address families, where they are known.
    pub deafness: Option<Arc<scans::Deafness>>,
    /// This process.
    process: Arc<Process>,
}

impl Sources {
    /// Of an agent. Opens what cannot be opened from within the sandbox.
    #[must_use]
    pub fn new(intake: Arc<Intake>, heartbeat: Heartbeat) -> Self {
        Self {
            intake,
            heartbeat,
            messages: None,
            kernel: None,
            steering: None,
            scans: None,
            deafness: None,
            process: Arc::new(Process::open()),
        }
    }

    /// Everything, in the text format of OpenMetrics.
    fn page(self: &Arc<Self>) -> Result<String, fmt::Error> {
        let mut all = Registry::default();
        all.register_collector(Box::new(Arc::clone(&self.process)));
        let registry = all.sub_registry_with_prefix("spip");
        let (version, kernel) = (env!("CARGO_PKG_VERSION"), if self.kernel.is_some() { "attached" } else { "off" });
        registry.register("build", "The program.", Info::new([("version", version), ("ebpf", kernel)]));
        registry.register_collector(Box::new(Page(Arc::clone(self))));
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &all)?;
        Ok(text)
    }

    /// Returns the reason why the agent is not healthy; `None` when it is.
    fn complaint(&self) -> Option<String> {
        let oldest = self.heartbeat.oldest();
        let log = &self.intake.engine().log;
        if oldest > STUCK {
            Some(format!("a worker has not answered for {} s", oldest.as_secs()))
        } else if log.failed() {
            Some("the reader of the log is gone".to_owned())
        } else {
            let logs = [("the log", Some(log)), ("system_log", self.messages.as_ref())];
            let unwritten = logs.into_iter().find_map(|(name, log)| unwritten(name, log?));
            let deaf = || self.deafness.as_ref()?.all().into_iter().next();
            unwritten.or_else(|| Some(format!("degraded: the sensor is deaf: {}", deaf()?.reason)))
        }
    }
}

/// Returns the reason why a log is not healthy.
fn unwritten(name: &str, log: &Log) -> Option<String> {
    let stats = log.stats();
    let since = if stats.waiting >= STALLED {
        format!(": lines have waited for {} s", stats.waiting.as_secs())
    } else {
        String::new()
    };
    stats.faulty.then(|| format!("{name} cannot be written{since}"))
}

impl fmt::Debug for Sources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sources").finish_non_exhaustive()
    }
}

/// One look at all sources.
#[derive(Debug)]
struct Page(Arc<Sources>);

impl Collector for Page {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let out = &mut encoder;
        let Sources { intake, heartbeat, messages, kernel, steering, scans, deafness, process: _ } = &*self.0;
        let engine = intake.engine();
        sessions(out)?;
        gauge(out, "sessions_open", "Sessions that are open.", None, intake.limits.open() as u64)?;
        gauge(out, "sessions_limit", "Sessions that may be open at once.", None, intake.limits.sessions() as u64)?;
        gauge(out, "sources", "Sources that are remembered for limits.", None, intake.limits.sources() as u64)?;
        let kept = engine.memory.taken() as u64;
        gauge(out, "payload_memory", "Payload in memory, of all sessions.", Some(&Unit::Bytes), kept)?;
        let faults = intake.faults();
        counter(out, "accept_errors", "Accepts that failed because of the connection.", None, faults.errors)?;
        counter(
            out,
            "accept_shortages",
            "Accepts that failed for lack of descriptors or memory.",
            None,
            faults.shortages,
        )?;
        let beat = heartbeat.oldest().as_secs_f64();
        let mut beats = out.encode_descriptor(
            "worker_beat_age",
            "How long ago the worker that was silent for longest was last seen alive.",
            Some(&Unit::Seconds),
            prometheus_client::metrics::MetricType::Gauge,
        )?;
        beats.encode_gauge(&beat)?;
        if let Some(payloads) = &engine.payloads {
            const HELP: &str = "Payloads for files of their own, by what has become of them.";
            family(out, "payloads", HELP, "outcome", &payloads.counts().named())?;
        }
        log(out, "log", "records and messages", &engine.log)?;
        if let Some(messages) = messages {
            log(out, "system_log", "messages", messages)?;
        }
        if let Some(counters) = kernel.as_ref().and_then(KernelCounters::read) {
            const HELP: &str = "What the programs in the kernel counted, since they were loaded.";
            family(out, "kernel_events", HELP, "event", &counters.named())?;
        }
        if let Some(counters) = steering.as_ref().and_then(|steering| steering.describe()?.counters) {
            const HELP: &str = "What the program that steers connections decided, since it was loaded.";
            family(out, "steering_events", HELP, "event", &counters.named())?;
        }
        if let Some(deafness) = deafness {
            const HELP: &str = "1 while no SYN of an address family reaches the listener, though some should.";
            let values = scans::Family::ALL.map(|family| (family.name(), u64::from(deafness.is_deaf(family))));
            labelled(out, ConstGauge::new, "deaf", HELP, "family", &values)?;
        }
        if let Some(counts) = scans {
            let counts = *counts.lock().unwrap_or_else(PoisonError::into_inner);
            const HELP: &str = "SYNs of other machines, by what has become of them.";
            let decided = [
                ("joined", counts.joined),
                ("half_open", counts.half_open),
                ("refused", counts.refused),
                ("evicted", counts.evicted),
                ("ignored", counts.ignored),
                ("contradicted", counts.contradicted),
            ];
            family(out, "syns", HELP, "outcome", &decided)?;
            gauge(out, "syns_pending", "SYNs of which it is not known yet.", None, counts.pending)?;
        }
        Ok(())
    }
}

/// Connections that were refused, by the limit that did it.
#[must_use]
pub fn rejected() -> Vec<(&'static str, u64)> {
    TALLY.sum(|tally| &tally.rejected, &Limit::ALL.map(Limit::name))
}

/// Recorded sessions whose SYN, as the packet filter saw it, was not believed, by the reason.
#[must_use]
pub fn conflicts() -> Vec<(&'static str, u64)> {
    TALLY.sum(|tally| &tally.conflicts, &Conflict::NAMES)
}

fn sessions(out: &mut DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
    let close_reasons = CloseReason::NAMES;
    let protocols: Vec<_> = protocol::all().map(protocol::Protocol::name).chain([protocol::UNKNOWN, "none"]).collect();
    let named = |named: fn(&Tally) -> &Named, known: &[&'static str]| TALLY.sum(named, known);
    let reasons = named(|tally| &tally.close_reasons, &close_reasons);
    family(out, "sessions", "Recorded sessions, by their end.", "close_reason", &reasons)?;
    let protocols = named(|tally| &tally.protocols, &protocols);
    family(out, "session_protocols", "Recorded sessions, by what the client spoke.", "protocol", &protocols)?;
    let sources = named(|tally| &tally.destination_sources, &["ebpf", "conntrack", "socket"]);
    const HELP: &str = "Recorded sessions, by how their destination is known.";
    family(out, "session_destinations", HELP, "destination_source", &sources)?;
    const CONFLICTS: &str =
        "Recorded sessions whose SYN, as the packet filter saw it, was not believed, by the reason.";
    family(out, "session_destination_conflicts", CONFLICTS, "reason", &conflicts())?;
    let outcomes: Vec<_> = ["none", "completed", "off"].into_iter().chain(Failure::KINDS).collect();
    let tls = named(|tally| &tally.tls, &outcomes);
    family(out, "session_tls", "Recorded sessions, by what became of TLS.", "outcome", &tls)?;
    let rejected = rejected();
    family(out, "rejected_connections", "Connections that a limit refused.", "limit", &rejected)?;
    let [received, sent, truncated] = TALLY.totals();
    counter(out, "received", "Payload received.", Some(&Unit::Bytes), received)?;
    counter(out, "sent", "Payload sent.", Some(&Unit::Bytes), sent)?;
    counter(out, "truncated_sessions", "Sessions of which bytes were not kept.", None, truncated)
}

fn log(out: &mut DescriptorEncoder<'_>, name: &str, what: &str, log: &Log) -> Result<(), fmt::Error> {
    let stats = log.stats();
    let named = |part: &str| format!("{name}_{part}");
    let bytes = Some(&Unit::Bytes);
    gauge(out, &named("queue"), &format!("Lines that wait to be written: {what}."), bytes, stats.queued_bytes)?;
    counter(out, &named("lines"), "Lines written.", None, stats.lines)?;
    counter(out, &named("written"), "Bytes written.", bytes, stats.bytes)?;
    counter(out, &named("rotations"), "Files closed by rotation.", None, stats.rotations)?;
    let held = "Closed files kept beyond log_keep_files, because a reader needs them.";
    gauge(out, &named("held_files"), held, None, stats.held_files)?;
    let unread = "Closed files removed although a reader needed them.";
    counter(out, &named("unread_removed"), unread, None, stats.unread_removed)?;
    counter(out, &named("write_failures"), "How often writing began to fail.", None, stats.write_failures)?;
    gauge(out, &named("faulty"), "1 while nothing can be written.", None, u64::from(stats.faulty))?;
    counter(out, &named("abandoned"), "Records that were given up.", None, stats.abandoned)?;
    counter(out, &named("dropped_messages"), "Messages for which there was no room.", None, stats.messages_dropped)
}

fn counter(
    out: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    unit: Option<&Unit>,
    value: u64,
) -> Result<(), fmt::Error> {
    let metric = ConstCounter::new(value);
    metric.encode(out.encode_descriptor(name, help, unit, metric.metric_type())?)
}

fn gauge(
    out: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    unit: Option<&Unit>,
    value: u64,
) -> Result<(), fmt::Error> {
    let metric = ConstGauge::new(value);
    metric.encode(out.encode_descriptor(name, help, unit, metric.metric_type())?)
}

fn family(
    out: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    label: &'static str,
    values: &[(&'static str, u64)],
) -> Result<(), fmt::Error> {
    labelled(out, ConstCounter::new, name, help, label, values)
}

/// Encodes a metric with one value for each value of a label.
fn labelled<M: EncodeMetric>(
    out: &mut DescriptorEncoder<'_>,
    metric: fn(u64) -> M,
    name: &str,
    help: &str,
    label: &'static str,
    values: &[(&'static str, u64)],
) -> Result<(), fmt::Error> {
    let mut family = out.encode_descriptor(name, help, None, metric(0).metric_type())?;
    for (value, number) in values {
        let metric = metric(*number);
        metric.encode(family.encode_family(&[(label, *value)])?)?;
    }
    Ok(())
}
