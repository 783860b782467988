//! Constructs the agent and runs it, in the order that its security rests on: configuration, log, sockets, eBPF, and
//! only then threads. Nothing imports this module but `main`.

use std::io;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use jiff::Timestamp;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::Signal;
use tokio::runtime;
use tokio::sync::watch;

use crate::accept::{self, Door, Faults};
use crate::budget::Budget;
use crate::config::{Config, EbpfMode, MetricsAddress, SteeringMode, SystemLog};
use crate::ebpf::{self, Attached, Origins, PinnedSteering};
use crate::limits::Limits;
use crate::listen::{self, Listeners, Sharing};
use crate::messages;
use crate::metrics;
use crate::notify::Notifier;
use crate::payload_store::{PayloadStore, Prepared};
use crate::pulse::{self, Pulse};
use crate::reload::{self, Reload};
use crate::sandbox;
use crate::scans::{self, Scans};
use crate::session::Engine;
use crate::signals::Signals;
use crate::status;
use crate::steering::{Steering, Watch};
use crate::tls::TlsServer;
use crate::vital;
use crate::worker::Worker;
use crate::writer;

/// Descriptors that sessions may not have: listeners, maps, logs, runtimes, and the certificates of a reload.
const RESERVED_DESCRIPTORS: u64 = 100;

/// How often errors of accept are reported, when there were any.
const REPORT_INTERVAL: Duration = Duration::from_secs(60);

/// Room for the agent's own messages where they have a file of their own: thousands of them.
const MESSAGES_QUEUE_BYTES: usize = 1 << 20;

/// How much longer than the drain the end of the process may take.
const LAST_STEPS: Duration = Duration::from_secs(5);

/// What the command line adds to the configuration.
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
pub fn run(config: &Config, warnings: &[String], options: Options) -> Result<()> {
    vital::describe_panics();
    let (log, writer) = writer::open(&config.log)?;
    let messages = open_messages(config)?;
    messages::start(config.messages.levels.clone());
    let target = match &config.messages.target {
        SystemLog::Stream => Some(log.clone()),
        SystemLog::Stderr => None,
        SystemLog::File(_) => messages.as_ref().map(|(log, _)| log.clone()),
    };
    messages::init(target, &config.log);
    for warning in warnings {
        log::warn!(target: "config", "{warning}");
    }
    let own_log = messages.as_ref().map(|(log, _)| log.clone());
    let started = Agent::prepare(config, &log, own_log, options).and_then(|agent| {
        // What the operator asks of the kernel side must pass; until here it would be the loader's own messages.
        messages::start(reload::levels(config, agent.kernel_level()));
        agent.give_up(config)?;
        Ok(agent)
    });
    // What was said on the way to a failure belongs to the log, too.
    let writer = writer.spawn()?;
    let messages = messages.map(|(_, writer)| writer.spawn()).transpose()?;
    let served = started.and_then(|mut agent| agent.serve(config));
    log::info!(target: "agent", "stopped");
    let deadline = Instant::now() + config.timeouts.drain;
    let summary = writer.finish(deadline);
    if summary.abandoned > 0 {
        messages::emergency(&format!("{} records could not be written before the drain limit", summary.abandoned));
    }
    let _ = messages.map(|messages| messages.finish(deadline));
    if let Some(name) = vital::lost() {
        bail!("it lost its thread {name} to a panic, and cannot go on without");
    }
    if log.failed() {
        bail!("the reader of standard output is gone");
    }
    served
}

/// The log of the agent's own messages, where they have a file of their own.
fn open_messages(config: &Config) -> Result<Option<(writer::Log, writer::Writer)>> {
    let SystemLog::File(path) = &config.messages.target else { return Ok(None) };
    let config = crate::config::Log {
        file: Some(path.clone()),
        queue_bytes: MESSAGES_QUEUE_BYTES.min(config.log.queue_bytes),
        ..config.log.clone()
    };
    writer::open(&config).map(Some).context("system_log cannot be had")
}

/// Everything that has to be had before the first thread.
struct Agent {
    door: Arc<Door>,
    listeners: Listeners,
    /// The kernel side works until this is dropped.
    attached: Option<Arc<Attached>>,
    /// Present where connections are steered.
    steering: Option<(Steering, Option<PinnedSteering>)>,
    /// Where the agent is asked what it does.
    status: Option<status::Server>,
    signals: Option<Signals>,
    notifier: Notifier,
    pulse: Pulse,
    metrics: Option<(metrics::Server, metrics::Sources)>,
    /// The log of the agent's own messages, where they have a file of their own.
    messages: Option<writer::Log>,
    options: Options,
    descriptors: u64,
    payloads: Option<Prepared>,
}

impl Agent {
    fn prepare(config: &Config, log: &writer::Log, messages: Option<writer::Log>, options: Options) -> Result<Self> {
        let notifier = Notifier::from_environment()?;
        let descriptors = raise_descriptor_limit();
        let workers = thread::available_parallelism().map_or(1, NonZeroUsize::get);
        let steered = config.steering.mode == SteeringMode::SkLookup;
        let takes_over = steered && config.steering.pin_links && ebpf::pinned_link(&config.ebpf.pin_path).is_some();
        let listeners = listen::open(config.listen, workers, Sharing { steered, takes_over })?;
        let server = config.metrics.as_ref().map(metrics::Server::bind).transpose()?;
        let mut attached = attach(config, &listeners, takes_over, &options)?;
        let sessions = session_limit(config, descriptors, workers)?;
        let signals = Signals::block().context("cannot block signals")?;
        log::info!(target: "agent",
            version = env!("CARGO_PKG_VERSION"), name = config.name.as_str(), listen = listeners.address.to_string(),
            passed_socket = listeners.passed, workers = workers, max_sessions = sessions, descriptors = descriptors,
            config = config.to_toml().as_str();
            "starting");
        let tls = config.tls.enabled.then(|| TlsServer::new(&config.tls)).transpose()?;
        let payloads = PayloadStore::prepare(&config.payload_store)?;
        let engine = Engine {
            sensor: reload::sensor(config),
            log: log.clone(),
            tls: tls.map(Arc::new),
            origins: attached.as_ref().map(Attached::origins),
            responder: reload::responder(config, None)?,
            payloads: payloads.as_ref().map(Prepared::store),
            timeouts: config.timeouts,
            payload_limit: config.limits.payload_bytes,
            payload_budget: Budget::new(config.limits.payload_memory_bytes),
        };
        // Last: whoever is relieved by this agent must not be relieved by one that then fails.
        let steering = match &mut attached {
            Some(attached) if steered => Some(steer(config, &listeners, attached)?),
            _ => None,
        };
        let door = Arc::new(Door::new(engine, Limits::new(&config.limits, sessions), workers));
        let pulse = Pulse::new(workers);
        let metrics = server.map(|server| (server, metrics::Sources::new(Arc::clone(&door), pulse.clone())));
        let status = config.status_socket.as_ref().and_then(|path| open_status(path, takes_over));
        let attached = attached.map(Arc::new);
        Ok(Self {
            door,
            listeners,
            attached,
            steering,
            status,
            signals: Some(signals),
            notifier,
            pulse,
            metrics,
            messages,
            options,
            descriptors,
            payloads,
        })
    }

    /// Level of the kernel side's own messages.
    fn kernel_level(&self) -> log::LevelFilter {
        self.options.ebpf_log.map_or(log::LevelFilter::Off, |level| level.to_level_filter())
    }

    fn pinned_link(&self) -> Option<PathBuf> {
        let pinned = self.steering.as_ref().and_then(|(_, pinned)| pinned.as_ref());
        pinned.map(|pinned| pinned.path().to_path_buf())
    }

    /// Starts to answer those who ask what the agent does.
    fn answer_status(
        &self,
        config: &Config,
        pinned_link: Option<PathBuf>,
        steering: Option<Arc<Watch>>,
    ) -> io::Result<()> {
        let Some(server) = &self.status else { return Ok(()) };
        server.spawn(status::Sources {
            config: config.clone(),
            path: self.options.path.clone(),
            listen: self.listeners.address,
            workers: self.listeners.sockets.len(),
            passed_socket: self.listeners.passed,
            families: self.listeners.families,
            pinned_link,
            door: Arc::clone(&self.door),
            attached: self.attached.as_ref().map(Arc::downgrade).unwrap_or_default(),
            steering,
            started: (Timestamp::now(), Instant::now()),
        })
    }

    /// Starts to keep steering current. An agent that is relieved stops as if it had been told to.
    fn watch_steering(&mut self, stop: &Arc<watch::Sender<bool>>) -> io::Result<Option<Watch>> {
        let Some((steering, pinned)) = self.steering.take() else { return Ok(None) };
        let stop = Arc::clone(stop);
        let relieved = move || {
            stop.send_replace(true);
        };
        Watch::spawn(steering, pinned, relieved).map(Some)
    }

    /// Gives up what is not needed any more. Threads that are started after this inherit it.
    fn give_up(&self, config: &Config) -> Result<()> {
        let engine = self.door.engine();
        let origins = engine.origins.as_ref();
        let certificates = config.tls.certificate.iter().flat_map(|files| [&files.chain, &files.key]);
        let own_file = std::path::absolute(&self.options.path).ok();
        let respond = &config.respond;
        let persona = respond.persona.iter().chain(respond.enabled.then_some(&respond.state_dir));
        let system_log = match &config.messages.target {
            SystemLog::File(path) => Some(path.as_path()),
            SystemLog::Stream | SystemLog::Stderr => None,
        };
        let logs = || config.log.file.as_deref().into_iter().chain(system_log);
        let payloads = config.payload_store.directory.as_ref();
        let metrics = match &config.metrics {
            Some(MetricsAddress::Unix(path)) => Some(path.clone()),
            _ => None,
        };
        let socket = self.status.as_ref().map(status::Server::path);
        // The socket is taken away at the end where the directory allows it; what stays is replaced at the next start.
        let run = socket.filter(|_| config.sandbox.user.is_none()).map(directory_of);
        let readable = certificates.chain(persona).cloned().chain(own_file).chain([PathBuf::from(ebpf::CPUS)]);
        let needs = sandbox::Needs {
            config: &config.sandbox,
            readable: readable.collect(),
            writable: logs().map(directory_of).chain(run).chain(payloads.cloned()).collect(),
            owned: logs().chain(socket).map(Path::to_owned).chain(payloads.cloned()).chain(metrics).collect(),
            reads_maps: &|| origins.is_some_and(Origins::can_look_up),
        };
        let steps = sandbox::enter(&needs)?;
        let steps: Vec<_> = steps.iter().map(ToString::to_string).collect();
        log::info!(target: "sandbox", steps = steps.join("; ").as_str(); "gave up what is not needed any more");
        Ok(())
    }

    /// Serves until a signal, or until something breaks that cannot be mended.
    fn serve(&mut self, config: &Config) -> Result<()> {
        if let Some(attached) = &self.attached {
            attached.forward_messages().context("cannot start the reader of the kernel side's messages")?;
        }
        let (stop, stopped) = watch::channel(false);
        let stop = Arc::new(stop);
        let on_loss = Arc::clone(&stop);
        vital::on_loss(move || {
            on_loss.send_replace(true);
        });
        let engine = self.door.engine();
        let (sensor, log) = (engine.sensor.clone(), engine.log.clone());
        let (current, for_scans) = watch::channel(scans::Current { sensor, log, config: config.scans });
        let status = format!("listens on {}", self.listeners.address);
        let pinned_link = self.pinned_link();
        let steering = self.watch_steering(&stop).context("cannot start the steering thread")?.map(Arc::new);
        self.answer_status(config, pinned_link, steering.clone()).context("cannot start the status thread")?;
        self.take_signals(config, &stop, current, steering.clone(), &status)
            .context("cannot start the signal thread")?;
        let payloads = self.payloads.take().map(Prepared::spawn).transpose();
        let payloads = payloads.context("cannot start the thread for payloads")?;
        let scans = self.watch_scans(config, for_scans).context("cannot start the thread of the scans")?;
        self.serve_metrics(scans.as_ref(), steering).context("cannot start the thread of the metrics")?;
        let beat = self.notifier.watchdog().map_or(pulse::INTERVAL, |watchdog| pulse::INTERVAL.min(watchdog / 8));
        let mut threads = Vec::new();
        let workers = self.listeners.sockets.drain(..).zip(self.door.registries.clone());
        for (number, (listener, registry)) in workers.enumerate() {
            let (door, pulse, stop) = (Arc::clone(&self.door), self.pulse.clone(), stopped.clone());
            let worker = Worker { number, listener, registry, door, stop, pulse, beat };
            threads.push(worker.spawn().context("cannot start a worker")?);
        }
        let service = self.spawn_service(&stop, stopped).context("cannot start the service thread")?;
        log::info!(target: "agent", listen = self.listeners.address.to_string(); "ready");
        self.notifier.ready(&status);
        let served = join(threads, service, &stop);
        if let Some(scans) = scans {
            // Nothing is accepted any more, so what is half-open now stays so.
            let _ = scans.finish(Instant::now() + self.door.engine().timeouts.drain);
        }
        if let Some(payloads) = payloads {
            let counts = payloads.finish();
            log::info!(target: "payloads", stored = counts.stored, evicted = counts.evicted, lost = counts.lost;
                "payloads are on the disk");
        }
        served
    }

    fn take_signals(
        &mut self,
        config: &Config,
        stop: &Arc<watch::Sender<bool>>,
        scans: watch::Sender<scans::Current>,
        steering: Option<Arc<Watch>>,
        status: &str,
    ) -> io::Result<()> {
        let Some(signals) = self.signals.take() else { return Ok(()) };
        let (descriptors, workers) = (self.descriptors, self.listeners.sockets.len());
        let mut reload = Reload {
            path: self.options.path.clone(),
            started: config.clone(),
            config: config.clone(),
            door: Arc::clone(&self.door),
            scans,
            steering,
            messages: self.messages.clone(),
            kernel_level: self.kernel_level(),
            session_limit: Box::new(move |config| session_limit(config, descriptors, workers)),
            notifier: self.notifier.clone(),
            status: status.to_owned(),
        };
        let stop = Arc::clone(stop);
        let on_stop = move |signal: Signal| {
            log::info!(target: "agent", signal = signal.as_str(); "stopping");
            stop.send_replace(true);
        };
        signals.spawn(on_stop, move || reload.run())
    }

    /// Starts to watch for scans, where the kernel side tells of them.
    fn watch_scans(&self, config: &Config, current: watch::Receiver<scans::Current>) -> io::Result<Option<Scans>> {
        let Some(events) = self.attached.as_ref().and_then(|attached| attached.take_events()) else {
            return Ok(None);
        };
        let capacity = usize::try_from(config.ebpf.syn_entries).unwrap_or(usize::MAX);
        let setting =
            scans::Setting { events, current, capacity: NonZeroUsize::new(capacity).unwrap_or(NonZeroUsize::MIN) };
        Scans::spawn(setting).map(Some)
    }

    /// Starts to answer those who ask what the agent has done.
    fn serve_metrics(&mut self, scans: Option<&Scans>, steering: Option<Arc<Watch>>) -> io::Result<()> {
        let Some((server, mut sources)) = self.metrics.take() else { return Ok(()) };
        sources.messages.clone_from(&self.messages);
        sources.kernel = self.attached.as_ref().map(|attached| attached.kernel_counters());
        sources.steering = steering;
        sources.scans = scans.map(Scans::counts);
        server.spawn(sources)
    }

    /// The thread for what belongs to no connection: summaries of refusals, reports, the end of the log's reader, and
    /// word to the service manager.
    fn spawn_service(
        &self,
        stop: &Arc<watch::Sender<bool>>,
        stopped: watch::Receiver<bool>,
    ) -> io::Result<JoinHandle<()>> {
        let runtime = runtime::Builder::new_current_thread().enable_time().build()?;
        let (door, stop) = (Arc::clone(&self.door), Arc::clone(stop));
        let (notifier, pulse) = (self.notifier.clone(), self.pulse.clone());
        vital::spawn("service", move || {
            runtime.block_on(async {
                let rejections = accept::report_rejections(&door, stopped.clone());
                let faults = report_faults(&door, stopped.clone());
                let alive = say_alive(&notifier, &pulse, stopped.clone());
                let stopping = say_stopping(&notifier, &door, stopped.clone());
                let closed = stop_when_log_closes(&door, &stop, stopped);
                tokio::join!(rejections, faults, alive, stopping, closed);
                // What the workers refused while they drained.
                let drain = door.engine().timeouts.drain;
                let _ = tokio::time::timeout(drain, accept::record_rejections(&door)).await;
            });
        })
    }
}

/// The directory that a file is in, as an absolute path.
fn directory_of(file: &Path) -> PathBuf {
    let file = std::path::absolute(file).unwrap_or_else(|_| file.to_owned());
    file.parent().unwrap_or(Path::new("/")).to_owned()
}

/// Waits until all workers have ended. One that ends takes the others with it: a sensor that is half deaf is worse than
/// one that restarts.
fn join(threads: Vec<JoinHandle<io::Result<()>>>, service: JoinHandle<()>, stop: &watch::Sender<bool>) -> Result<()> {
    let mut broken = None;
    for thread in threads {
        let result = thread.join();
        stop.send_replace(true);
        match result {
            Ok(Ok(())) => {}
            Ok(Err(error)) => broken = Some(anyhow::Error::from(error).context("the listening socket broke")),
            Err(_) => broken = Some(anyhow::anyhow!("a worker panicked")),
        }
    }
    if service.join().is_err() {
        broken = Some(anyhow::anyhow!("the service thread panicked"));
    }
    broken.map_or(Ok(()), Err)
}

/// Says once an interval how many accepts failed, if any did.
async fn report_faults(door: &Door, mut stop: watch::Receiver<bool>) {
    let mut stopping = false;
    let mut before = Faults::default();
    while !stopping {
        stopping = tokio::time::timeout(REPORT_INTERVAL, stop.wait_for(|stop| *stop)).await.is_ok();
        let faults = door.faults();
        let (errors, shortages) = (faults.errors - before.errors, faults.shortages - before.shortages);
        before = faults;
        if errors > 0 || shortages > 0 {
            log::warn!(target: "accept", accept_errors = errors, shortages = shortages, open = door.limits.open();
                "accepts failed; raise the descriptor limit (ulimit -n) if shortages go on");
        }
    }
}

/// Tells the watchdog of the service manager that the agent is alive, for as long as every worker is.
async fn say_alive(notifier: &Notifier, pulse: &Pulse, mut stopped: watch::Receiver<bool>) {
    let Some(watchdog) = notifier.watchdog() else { return };
    while tokio::time::timeout(watchdog / 4, stopped.wait_for(|stop| *stop)).await.is_err() {
        if pulse.oldest() < watchdog / 2 {
            notifier.alive();
        }
    }
}

/// Tells the service manager that the agent stops, and how long that may take.
async fn say_stopping(notifier: &Notifier, door: &Door, mut stopped: watch::Receiver<bool>) {
    let _ = stopped.wait_for(|stop| *stop).await;
    // Sessions, scans and the log have that time one after the other.
    notifier.stopping(door.engine().timeouts.drain * 3 + LAST_STEPS);
}

/// Stops the agent when nobody reads its records any more.
async fn stop_when_log_closes(door: &Door, stop: &watch::Sender<bool>, mut stopped: watch::Receiver<bool>) {
    let log = door.engine().log.clone();
    tokio::select! {
        () = log.closed() => { stop.send_replace(true); }
        _ = stopped.wait_for(|stop| *stop) => {}
    }
}

/// The status socket; without one the agent does its work all the same.
fn open_status(path: &Path, takes_over: bool) -> Option<status::Server> {
    match status::Server::open(path, takes_over) {
        Ok(server) => Some(server),
        Err(error) => {
            let reason = format!("{:#}", anyhow::Error::from(error));
            log::info!(target: "status", reason = reason.as_str(); "spip-agent status cannot ask this agent");
            None
        }
    }
}

/// Begins to steer; what cannot be had then is the end, because nothing would arrive.
fn steer(
    config: &Config,
    listeners: &Listeners,
    attached: &mut Attached,
) -> Result<(Steering, Option<PinnedSteering>)> {
    const REMEDY: &str =
        "steering = \"sk_lookup\" cannot be had; mend that, or set steering = \"redirect\" and use rules";
    let pin = config.steering.pin_links;
    if pin && attached.pins().is_none() && ebpf::pinned_link(&config.ebpf.pin_path).is_none() {
        let reason = attached.description().pins.missing().unwrap_or("there is no directory").to_owned();
        return Err(anyhow::anyhow!(reason).context("pin_links = true needs bpf_pin_path"));
    }
    if !config.steering.interfaces.is_empty() && !attached.knows_link() {
        bail!("steer_interfaces needs Linux 5.17: leave it out, or set steer_prefixes instead");
    }
    let maps = attached.take_steer_maps().context(REMEDY)?;
    let steering = Steering::prepare(config, maps, &listeners.sockets, config.listen).context(REMEDY)?;
    let pinned = attached.steer(&config.ebpf.pin_path, pin).context(REMEDY)?;
    let link = pinned.as_ref().map(|pinned| pinned.path().display().to_string()).unwrap_or_default();
    let (ipv4, ipv6) = listeners.families;
    log::info!(target: "steering", ipv4 = ipv4, ipv6 = ipv6, exclusions = steering.exclusions().as_str(),
        steer_loopback = config.steering.loopback, pinned_link = link.as_str();
        "every port is steered to the agent, except the exclusions");
    if !(ipv4 && ipv6) {
        let family = if ipv4 { "IPv6" } else { "IPv4" };
        log::warn!(target: "steering",
            "{family} is not steered: the listening socket cannot take it; set ip = \"127.0.0.1\", \"0.0.0.0\" or \"::\", \
             or have the service manager pass a socket of both families");
    }
    if let Some((from, to)) = steering.all_outgoing_ports() {
        log::warn!(target: "steering",
            "strangers can hold every port from which this machine connects out ({from}-{to}): if it has to, keep some \
             with exclude_ports, for example \"{}-{to}\"", to.saturating_sub(999).max(from));
    }
    Ok((steering, pinned))
}

/// Attaches the kernel side as the configuration wants it; says what it does, or why it is not there.
fn attach(config: &Config, listeners: &Listeners, takes_over: bool, options: &Options) -> Result<Option<Attached>> {
    if config.ebpf.mode == EbpfMode::Off {
        log::info!(target: "ebpf", reason = "ebpf = \"off\""; "eBPF is off: destinations come from connection tracking");
        return Ok(None);
    }
    let steered = config.steering.mode == SteeringMode::SkLookup;
    let steering = steered.then(|| ebpf::SteerRequest {
        sockets: u32::try_from(listeners.sockets.len()).unwrap_or(u32::MAX),
        seed: uuid::Uuid::new_v4().as_fields().0,
        takes_over: takes_over.then(|| config.ebpf.pin_path.clone()),
    });
    let request = ebpf::Request {
        config: &config.ebpf,
        listener: listeners.address,
        sockets: &listeners.sockets,
        scans: config.scans.enabled,
        log_level: options.ebpf_log,
        steering,
    };
    match ebpf::start(&request) {
        Ok(attached) => {
            attached.announce();
            Ok(Some(attached))
        }
        Err(error) if config.ebpf.mode == EbpfMode::Required => {
            Err(error).context("ebpf = \"required\", and eBPF cannot be used")
        }
        Err(error) if steered => Err(error).context(
            "steering = \"sk_lookup\" cannot be had, and nothing would arrive; mend that, or set steering = \"redirect\" \
             and use rules",
        ),
        Err(error) => {
            log::warn!(target: "ebpf", reason = format!("{:#}", anyhow::Error::from(error));
                "eBPF is not used: destinations come from connection tracking");
            Ok(None)
        }
    }
}

/// Raises the soft descriptor limit to the hard one; what it is then.
fn raise_descriptor_limit() -> u64 {
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return 1_024 };
    if setrlimit(Resource::RLIMIT_NOFILE, hard, hard).is_ok() { hard } else { soft }
}

/// `max_sessions`, or what the descriptors allow.
fn session_limit(config: &Config, descriptors: u64, workers: usize) -> Result<usize> {
    if let Some(sessions) = config.limits.sessions {
        return Ok(sessions);
    }
    let reserved = RESERVED_DESCRIPTORS.min(descriptors / 2) + workers as u64;
    let sessions = descriptors.saturating_sub(reserved);
    if sessions == 0 {
        bail!("{descriptors} descriptors are too few to serve anybody: raise the limit (ulimit -n)");
    }
    Ok(usize::try_from(sessions).unwrap_or(usize::MAX))
}
