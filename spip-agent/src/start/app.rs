//! Constructs the agent and runs it, in the order that its security rests on: configuration, log, sockets, eBPF, and
//! only then threads. Nothing imports this module but `main`.

mod kernel_side;
mod monitor;
mod threads;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use tokio::sync::{oneshot, watch};

use crate::config::{Config, Loaded, MetricsAddress, SteeringMode, SystemLog};
use crate::confine::sandbox;
use crate::kernel::early_demux;
use crate::kernel::ebpf::{self, Attached, Origins, Part, PinnedSteering};
use crate::kernel::listen::{self, Listeners, Sharing};
use crate::kernel::steering::Steering;
use crate::log::messages;
use crate::log::payload_files::{PayloadStore, Prepared};
use crate::log::writer;
use crate::observe::metrics;
use crate::observe::status;
use crate::process::critical;
use crate::process::heartbeat::{self, Heartbeat};
use crate::process::shutdown::Deadline;
use crate::process::stderr;
use crate::scans;
use crate::session::accept::Intake;
use crate::session::budget::Budget;
use crate::session::first_sources::FirstSources;
use crate::session::ledger::Ledger;
use crate::session::limits::Limits;
use crate::session::rejections::Rejections;
use crate::start::config_check::{self, NamedFiles};
use crate::start::engine::{self, Lasting};
use crate::start::readiness::Notifier;
use crate::start::resources::Resources;
use crate::start::signals::Signals;
use crate::start::worker::Worker;
use crate::tls::TlsServer;

/// Settings that the command line adds to the configuration.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Level of the kernel side's own messages.
    pub ebpf_log: Option<log::Level>,
    /// The configuration file, which is read again on SIGHUP.
    pub path: PathBuf,
}

/// Runs the agent until it is told to stop.
///
/// # Errors
/// Something that was asked for cannot be had, or the agent lost what it needs to go on.
pub fn run(loaded: &Loaded, options: Options) -> Result<()> {
    let config = &loaded.config;
    critical::describe_panics();
    sandbox::expect_user(&config.sandbox);
    let (log, writer) = writer::open(&config.log)?;
    let messages = open_messages(config)?;
    messages::start(config.messages.levels.clone());
    let target = match &config.messages.target {
        SystemLog::Stream => Some(log.clone()),
        SystemLog::Stderr => None,
        SystemLog::File(_) => messages.as_ref().map(|(log, _)| log.clone()),
    };
    messages::init(target, &config.log, &config.name);
    for warning in &loaded.warnings {
        log::warn!(target: "config", "{warning}");
    }
    let own_log = messages.as_ref().map(|(log, _)| log.clone());
    let checked = config_check::check(config, &loaded.spans).map_err(anyhow::Error::from);
    let started =
        checked.and_then(|files| Agent::prepare(config, files, &log, own_log, options)).and_then(|mut agent| {
            // What the operator asks of the kernel side must pass; until here it would be the loader's own messages.
            messages::start(config.messages.levels_with(agent.kernel_level()));
            agent.take_place(config)?;
            agent.give_up(loaded)?;
            Ok(agent)
        });
    // What was said on the way to a failure belongs to the log, too.
    let writer = writer.spawn()?;
    let messages = messages.map(|(_, writer)| writer.spawn()).transpose()?;
    let mut deadline = None;
    let served = started.and_then(|mut agent| {
        let served = agent.serve(config);
        deadline = Some(agent.intake.stop());
        served
    });
    // Standard error has the reason anyway, from the code that started this.
    if let (Err(error), true) = (&served, config.messages.target != SystemLog::Stderr) {
        log::error!(target: "agent", reason = format!("{error:#}").as_str(); "cannot go on");
    }
    log::info!(target: "agent", "stopped");
    let deadline = deadline.unwrap_or_else(|| Deadline::new(Instant::now(), config.timeouts.drain)).log();
    let summary = writer.finish(deadline);
    if summary.abandoned > 0 {
        stderr::emergency(&format!("{} records could not be written before the drain limit", summary.abandoned));
    }
    let _ = messages.map(|messages| messages.finish(deadline));
    if let Some(name) = critical::lost() {
        bail!("the thread {name} ended unexpectedly");
    }
    if log.failed() {
        bail!("the reader of standard output is gone");
    }
    served
}

/// The log of the agent's own messages, where they have a file of their own.
fn open_messages(config: &Config) -> Result<Option<(writer::Log, writer::Writer)>> {
    let Some(config) = config.messages.own_log(&config.log) else { return Ok(None) };
    Ok(Some(writer::open_as("system_log", &config)?))
}

/// Everything that has to be had before the first thread.
struct Agent {
    intake: Arc<Intake>,
    listeners: Listeners,
    /// The kernel side works until this is dropped.
    attached: Option<Arc<Attached>>,
    /// Reason why there is no kernel side, if so.
    unattached: Option<String>,
    /// Present where connections are steered.
    steering: Option<Steering>,
    /// Present until the thread of the scans has it.
    surroundings: Option<scans::Surroundings>,
    /// Present where the link outlives the process.
    pinned: Option<PinnedSteering>,
    /// Set when another agent may still run and is to be replaced.
    takes_over: bool,
    /// Server of `spip-agent status`.
    status: Option<status::Server>,
    signals: Option<Signals>,
    notifier: Notifier,
    heartbeat: Heartbeat,
    /// Server of the metrics.
    metrics: Option<metrics::Server>,
    /// Sources of the metrics, until the thread that answers has them.
    sources: Option<metrics::Sources>,
    /// The log of the agent's own messages, where they have a file of their own.
    messages: Option<writer::Log>,
    options: Options,
    resources: Resources,
    payloads: Option<Prepared>,
    /// Directories that were made to keep the persona in.
    made_state: Vec<PathBuf>,
    /// Rights that were given up, step by step.
    sandbox: Vec<sandbox::Step>,
}

impl Agent {
    fn prepare(
        config: &Config,
        files: NamedFiles,
        log: &writer::Log,
        messages: Option<writer::Log>,
        options: Options,
    ) -> Result<Self> {
        let notifier = Notifier::from_environment()?;
        let resources = Resources::claim();
        let workers = resources.workers;
        let steered = config.steering.mode == SteeringMode::SkLookup;
        let takes_over = steered && config.steering.pin_links && ebpf::pinned_link(&config.ebpf.pin_path).is_some();
        let listeners = listen::open(config.listen, workers, Sharing { steered, takes_over })?;
        let succession = metrics::Succession { may_follow: steered && config.steering.pin_links, takes_over };
        let metrics = config.metrics.as_ref().map(|address| metrics::Server::bind(address, succession)).transpose()?;
        let (mut attached, unattached) = match kernel_side::attach(config, &listeners, takes_over, &options)? {
            Part::Present(attached) => (Some(attached), None),
            Part::Missing(reason) => (None, Some(reason)),
        };
        let bound = resources.session_limit(config)?;
        let signals = Signals::block().context("cannot block signals")?;
        log::info!(target: "agent",
            version = env!("CARGO_PKG_VERSION"), name = config.name.as_str(), listen = listeners.address.to_string(),
            passed_socket = listeners.passed, workers = workers, max_sessions = bound.sessions,
            max_sessions_from = bound.from.name(), descriptors = resources.descriptors, memory_bytes = resources.memory.unwrap_or_default(),
            config = config.to_toml().as_str();
            "starting");
        if let Some(difference) = listeners.differs(config.listen.ip()) {
            log::warn!(target: "agent", "{difference}");
        }
        resources.warn_of_shortage(config);
        if !steered && early_demux::loses_connections() == Some(true) {
            log::warn!(target: "steering", "{}; fix: {}", early_demux::LOSS, early_demux::REMEDY);
        }
        let tls = config
            .tls
            .enabled
            .then(|| TlsServer::new(files.certificate, config.tls.ask_client_certificate))
            .transpose()?;
        let payloads = PayloadStore::prepare(&config.payload_store)?;
        let state = missing_directories(&config.respond.state_dir);
        let responder = engine::responder(config, files.persona, None)?;
        let made_state = state.into_iter().filter(|directory| directory.exists()).collect();
        let lasting = Lasting {
            origins: attached.as_ref().map(Attached::origins),
            payloads: payloads.as_ref().map(Prepared::store),
            ledger: Ledger::of(&config.log),
            rejections: Rejections::default(),
            first_sources: FirstSources::of_this_machine(),
            memory: Budget::new(resources.payload_memory(config)),
        };
        let engine = engine::engine(config, log, tls.map(Arc::new), responder, lasting);
        let steering = match &mut attached {
            Some(attached) if steered => Some(kernel_side::prepare_steering(config, &listeners, attached)?),
            _ => None,
        };
        let intake = Arc::new(Intake::new(engine, Limits::new(&config.limits, bound), workers));
        let heartbeat = Heartbeat::new(workers);
        let sources = metrics.as_ref().map(|_| metrics::Sources::new(Arc::clone(&intake), heartbeat.clone()));
        let status = config.status_socket.as_ref().and_then(|path| open_status(path, takes_over));
        let attached = attached.map(Arc::new);
        let surroundings = config.scans.enabled.then(|| scans::Surroundings::open(config, listeners.address.port()));
        Ok(Self {
            intake,
            listeners,
            attached,
            unattached,
            steering,
            surroundings,
            pinned: None,
            takes_over,
            status,
            signals: Some(signals),
            notifier,
            heartbeat,
            metrics,
            sources,
            messages,
            options,
            resources,
            payloads,
            made_state,
            sandbox: Vec::new(),
        })
    }

    /// Level of the kernel side's own messages.
    fn kernel_level(&self) -> log::LevelFilter {
        self.options.ebpf_log.map_or(log::LevelFilter::Off, |level| level.to_level_filter())
    }

    fn pinned_link(&self) -> Option<PathBuf> {
        self.pinned.as_ref().map(|pinned| pinned.path().to_path_buf())
    }

    /// Begins to steer, and to be found by those who ask: until here an agent that is to be relieved is at its work as
    /// if there were no other. An agent must not be replaced by one that then fails, so what could fail later
    /// is tried before.
    fn take_place(&mut self, config: &Config) -> Result<()> {
        if self.takes_over {
            self.with_needs(config, sandbox::rehearse).context("cannot take over from the running agent")?;
        }
        if let (Some(steering), Some(attached)) = (&self.steering, &self.attached) {
            self.pinned = kernel_side::steer(config, &self.listeners, attached, steering)?;
        }
        if let Some(server) = &self.metrics {
            server.publish().context("metrics: cannot give the socket its name")?;
        }
        if let Some(Err(error)) = self.status.as_ref().map(status::Server::publish) {
            no_status(error);
            self.status = None;
        }
        Ok(())
    }

    /// Gives up what is not needed any more. Threads that are started after this inherit it.
    fn give_up(&mut self, Loaded { config, spans, .. }: &Loaded) -> Result<()> {
        let entered = self.with_needs(config, sandbox::enter);
        if let Err(sandbox::Error::User(error)) = &entered {
            spans.refuse([("user", error.to_string())])?;
        }
        self.sandbox = entered?;
        let steps: Vec<_> = self.sandbox.iter().map(ToString::to_string).collect();
        let missing = self.sandbox.iter().any(|step| matches!(step.result, sandbox::StepResult::Missing(_)));
        let (level, but) = if missing { (log::Level::Warn, ", some are missing") } else { (log::Level::Info, "") };
        log::log!(target: "sandbox", level, steps = steps.join("; ").as_str(); "sandbox steps taken{but}");
        Ok(())
    }

    /// Collects the needs of the agent after the start, for the sandbox.
    fn with_needs<T>(&self, config: &Config, use_them: impl FnOnce(&sandbox::Needs<'_>) -> T) -> T {
        let engine = self.intake.engine();
        let origins = engine.origins.as_ref();
        let files = sandbox::Files::of(config, &self.options.path);
        let metrics = match &config.metrics {
            Some(MetricsAddress::Unix(path)) => Some(path.clone()),
            _ => None,
        };
        let status = self.status.as_ref();
        let socket = status.map(status::Server::path);
        let made = self.metrics.as_ref().and_then(metrics::Server::made_directory);
        let made = made.into_iter().chain(status.and_then(status::Server::made_directory)).map(Path::to_owned);
        let made = made.chain(self.made_state.iter().cloned());
        let owned = files.owned.iter().cloned().chain(socket.map(Path::to_owned)).chain(made);
        let needs = sandbox::Needs {
            config: &config.sandbox,
            owned: owned.chain(metrics.clone()).collect(),
            files,
            // A socket that stays is replaced at the next start.
            tidied: socket.into_iter().chain(metrics.as_deref()).flat_map(sandbox::directories_of).collect(),
            reads_maps: &|| origins.is_some_and(Origins::can_look_up),
        };
        use_them(&needs)
    }

    /// Serves until a signal, or until something breaks that cannot be fixed.
    fn serve(&mut self, config: &Config) -> Result<()> {
        if let Some(attached) = &self.attached {
            attached.forward_messages().context("cannot start the reader of the kernel side's messages")?;
        }
        let intake = Arc::clone(&self.intake);
        critical::on_loss(move || {
            intake.stop();
        });
        let (current, for_scans) = watch::channel(engine::scans(config, &self.intake.engine()));
        self.notifier.serves(format!("listening on {}", self.listeners.address));
        let pinned_link = self.pinned_link();
        let steering = self.watch_steering().context("cannot start the steering thread")?.map(Arc::new);
        let scans = self.watch_scans(config, for_scans).context("cannot start the thread of the scans")?;
        self.answer_status(config, pinned_link, steering.clone(), scans.as_ref())
            .context("cannot start the status thread")?;
        self.take_signals(config, current, steering.clone()).context("cannot start the signal thread")?;
        let payloads = self.payloads.take().map(Prepared::spawn).transpose();
        let payloads = payloads.context("cannot start the thread for payloads")?;
        self.serve_metrics(scans.as_ref(), steering).context("cannot start the thread of the metrics")?;
        let beat =
            self.notifier.watchdog().map_or(heartbeat::INTERVAL, |watchdog| heartbeat::INTERVAL.min(watchdog / 8));
        let (ended, workers_ended) = mpsc::channel();
        let workers = self.listeners.sockets.drain(..).zip(self.intake.sessions_by_worker.clone());
        for (number, (listener, open)) in workers.enumerate() {
            let (intake, heartbeat, ended) = (Arc::clone(&self.intake), self.heartbeat.clone(), ended.clone());
            let leaves_queue = self.listeners.passed;
            let worker = Worker { number, listener, leaves_queue, open, intake, heartbeat, beat, ended };
            worker.spawn().context("cannot start a worker")?;
        }
        drop(ended);
        let (all_refused, refusals_due) = oneshot::channel();
        let service = self.spawn_service(refusals_due).context("cannot start the service thread")?;
        log::info!(target: "agent", listen = self.listeners.address.to_string(); "ready");
        self.notifier.ready();
        let served = join(&workers_ended, &self.intake);
        let deadline = self.intake.stop();
        if let Some(scans) = scans {
            // Nothing is accepted any more, so what is half-open now stays so.
            let _ = scans.finish(deadline.summaries());
        }
        // No connection is refused any more, neither by the agent nor by the kernel.
        let _ = all_refused.send(());
        if let Some(payloads) = payloads {
            let counts = payloads.finish(deadline.summaries());
            log::info!(target: "payloads", stored = counts.stored, evicted = counts.evicted,
                carried = counts.carried, lost = counts.lost; "payloads are stored");
        }
        // It shares the deadline; if it panicked, the end names it.
        let _ = service.join();
        served
    }
}

/// Directories of a path that are not there yet, the outermost last.
fn missing_directories(path: &Path) -> Vec<PathBuf> {
    path.ancestors().take_while(|directory| !directory.exists()).map(Path::to_owned).collect()
}

/// Waits until all workers have ended. One that ends takes the others with it: a sensor that is half deaf is worse than
/// one that restarts. One that is stuck is not waited for beyond the deadline; one that panics sends nothing, and is
/// named at the end.
fn join(ended: &mpsc::Receiver<io::Result<()>>, intake: &Intake) -> Result<()> {
    let mut broken = None;
    let mut next = ended.recv().map_err(mpsc::RecvTimeoutError::from);
    let deadline = intake.stop();
    loop {
        match next {
            Ok(Ok(())) => {}
            Ok(Err(error)) => broken = Some(anyhow::Error::from(error).context("the listening socket broke")),
            Err(mpsc::RecvTimeoutError::Disconnected) => return broken.map_or(Ok(()), Err),
            Err(mpsc::RecvTimeoutError::Timeout) => bail!("a worker is stuck: its sessions are not recorded"),
        }
        next = ended.recv_timeout(deadline.summaries().saturating_duration_since(Instant::now()));
    }
}

/// The status socket; without one the agent does its work all the same.
fn open_status(path: &Path, takes_over: bool) -> Option<status::Server> {
    match status::Server::open(path, takes_over) {
        Ok(server) => Some(server),
        Err(error) => {
            no_status(error);
            None
        }
    }
}

fn no_status(error: status::Error) {
    let reason = format!("{:#}", anyhow::Error::from(error));
    log::info!(target: "status", reason = reason.as_str(); "status socket unavailable");
}
