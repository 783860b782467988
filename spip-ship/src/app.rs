//! Starts a pipeline per sink, and ends them.

use std::fs;
use std::os::unix::fs::DirBuilderExt as _;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use nix::sys::signal::{SigSet, Signal};
use tokio::runtime::{Handle, Runtime};

use crate::config::{Config, Kind, Sink as SinkConfig, Source as SourceConfig};
use crate::metrics::Counters;
use crate::pause::Stop;
use crate::pipeline::{End, Pipeline};
use crate::quarantine::Quarantine;
use crate::sink::Sink;
use crate::sink::clickhouse::Clickhouse;
use crate::sink::elasticsearch::Elasticsearch;
use crate::sink::files::Files;
use crate::sink::http::Http;
use crate::sink::nats::Nats;
use crate::source::stream::StreamSource;
use crate::source::{LogSource, Source};
use crate::state::Store;

/// Why the process ends without having done what it was asked for.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Error(String);

/// Delivers until a signal comes, or, with `once`, until everything is delivered; then `once` is how long to try without
/// progress.
///
/// # Errors
/// Something cannot be set up, or a sink could not deliver.
pub fn run(config: &Config, once: Option<Duration>) -> Result<(), Error> {
    // Before the first thread, so that all of them leave the signals to the one that waits for them.
    let signals = block_signals()?;
    make_state_dir(config)?;
    let _lock = lock(config)?;
    let runtime = runtime()?;
    let stop = Stop::default();
    let counters: Vec<_> =
        config.sinks.iter().map(|sink| Arc::new(Counters::new(&sink.name, kind_of(&sink.kind)))).collect();
    watch_signals(signals, stop.clone())?;
    let mut threads = Vec::new();
    for (sink, counters) in config.sinks.iter().zip(&counters) {
        let pipeline = pipeline(config, sink, counters, &stop, runtime.handle(), once);
        let thread = thread::Builder::new().name(format!("sink {}", sink.name)).spawn(move || pipeline.run());
        threads.push((sink.name.clone(), thread.map_err(|error| Error(format!("cannot start a thread: {error}")))?));
    }
    let mut failed = Vec::new();
    for (name, thread) in threads {
        match thread.join() {
            Ok(End::Done(lines)) => log::info!("{name}: delivered {lines} lines, everything is acknowledged"),
            Ok(End::Stopped) if once.is_some() => {
                failed.push(format!("{name}: stopped before everything was delivered"))
            }
            Ok(End::Stopped) => log::info!("{name}: stopped; goes on there at the next start"),
            Ok(End::Failed(message)) => failed.push(format!("{name}: {message}")),
            Err(_) => failed.push(format!("{name}: ended by a mistake of the program")),
        }
        if once.is_none() {
            // One sink that cannot go on is for the service manager to see.
            stop.now();
        }
    }
    runtime.shutdown_timeout(Duration::from_secs(1));
    if failed.is_empty() { Ok(()) } else { Err(Error(failed.join("; "))) }
}

/// Returns the name of a kind.
#[must_use]
pub fn kind_of(kind: &Kind) -> &'static str {
    match kind {
        Kind::Nats(_) => "nats",
        Kind::Clickhouse(_) => "clickhouse",
        Kind::Elasticsearch(_) => "elasticsearch",
        Kind::Http(_) => "http",
        Kind::Files(_) => "files",
    }
}

/// Makes the runtime of the NATS client.
///
/// # Errors
/// No thread can be started.
pub fn runtime() -> Result<Runtime, Error> {
    // Every TLS connection of the process; a second call changes nothing.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .max_blocking_threads(4)
        .enable_all()
        .build()
        .map_err(|error| Error(format!("cannot start the runtime: {error}")))
}

fn make_state_dir(config: &Config) -> Result<(), Error> {
    let directory = &config.state_dir;
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o750)
        .create(directory)
        .map_err(|error| Error(format!("state_dir: cannot make {}: {error}", directory.display())))
}

/// Takes the state directory for this process: two shippers with one state would send everything twice.
fn lock(config: &Config) -> Result<nix::fcntl::Flock<fs::File>, Error> {
    let path = config.state_dir.join("lock");
    let file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .map_err(|error| Error(format!("state_dir: cannot open {}: {error}", path.display())))?;
    nix::fcntl::Flock::lock(file, nix::fcntl::FlockArg::LockExclusiveNonblock).map_err(|(_, error)| {
        Error(format!("state_dir: {} is in use ({error}): another spip-ship runs with it", config.state_dir.display()))
    })
}

fn block_signals() -> Result<SigSet, Error> {
    let mut signals = SigSet::empty();
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        signals.add(signal);
    }
    signals.thread_block().map_err(|error| Error(format!("cannot block signals: {error}")))?;
    Ok(signals)
}

fn watch_signals(signals: SigSet, stop: Stop) -> Result<(), Error> {
    let watch = move || {
        loop {
            match signals.wait() {
                Ok(Signal::SIGHUP) => {
                    log::info!("SIGHUP: secrets are read at each connection; a changed file takes a restart")
                }
                Ok(_) if stop.is_set() => std::process::exit(1),
                Ok(_) => stop.now(),
                Err(_) => return,
            }
        }
    };
    thread::Builder::new()
        .name("signals".to_owned())
        .spawn(watch)
        .map(|_| ())
        .map_err(|error| Error(format!("cannot start a thread: {error}")))
}

fn pipeline(
    config: &Config,
    sink: &SinkConfig,
    counters: &Arc<Counters>,
    stop: &Stop,
    handle: &Handle,
    once: Option<Duration>,
) -> Pipeline {
    let source: Box<dyn Source> = match &config.source {
        SourceConfig::Log(path) => Box::new(LogSource::open(path, config.name.clone(), once.is_some())),
        SourceConfig::Nats(source) => {
            Box::new(StreamSource::new((**source).clone(), &sink.name, handle.clone(), once.is_some()))
        }
    };
    let destination = destination(config, sink, handle);
    Pipeline {
        name: sink.name.clone(),
        limits: sink.limits,
        source,
        sink: destination,
        store: Store::new(&config.state_dir, &sink.name),
        quarantine: Quarantine::new(&config.state_dir, &sink.name),
        counters: Arc::clone(counters),
        stop: stop.clone(),
        once,
        warn_files: config.warn_unshipped_files,
    }
}

/// Makes a sink.
#[must_use]
pub fn destination(config: &Config, sink: &SinkConfig, handle: &Handle) -> Box<dyn Sink> {
    match &sink.kind {
        Kind::Nats(nats) => Box::new(Nats::new((**nats).clone(), handle.clone(), config.name.as_deref())),
        Kind::Clickhouse(clickhouse) => Box::new(Clickhouse::new(clickhouse.clone())),
        Kind::Http(http) => Box::new(Http::new(http.clone())),
        Kind::Files(files) => Box::new(Files::new(files.clone())),
        Kind::Elasticsearch(elasticsearch) => Box::new(Elasticsearch::new(elasticsearch.clone())),
    }
}
