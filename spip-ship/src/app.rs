//! Starts a pipeline per sink, begins anew at SIGHUP, and ends at SIGTERM.

mod setup;
mod signals;

use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use spip_notify::Manager;
use tokio::runtime::{Handle, Runtime};

use self::signals::{Ask, Signals};
use crate::config::{Config, Kind, Sink as SinkConfig, Source as SourceConfig};
use crate::confine;
use crate::hold::{self, Hold};
use crate::metrics::{Counters, server};
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

/// Reason why the process failed.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Error(pub(crate) String);

/// Delivers until a signal comes, or, with `once`, until everything is delivered; then `once` is how long to try without
/// progress. `file` is where the configuration was read from.
///
/// # Errors
/// Something cannot be set up, or a sink could not deliver.
pub fn run(config: Config, file: &Path, once: Option<Duration>) -> Result<(), Error> {
    // Before the first thread, so that all of them leave the signals to the one that waits for them.
    let signals = Signals::block()?;
    setup::make_directories(&config)?;
    let _lock = setup::lock(&config)?;
    let notifier = Manager::from_environment().unwrap_or_else(|spip_notify::Error { address, source }| {
        log::warn!("cannot reach NOTIFY_SOCKET={}: {source}", address.display());
        Manager::default()
    });
    let listener = setup::listen(&config)?;
    for step in confine::enter(&config, file).map_err(Error)? {
        log::info!("confined: {step}");
    }
    let runtime = runtime()?;
    let ask = Ask::default();
    let mut counters = counters(&config);
    let shown = server::Shown::new(counters.clone());
    if let Some(listener) = listener {
        server::serve(listener, shown.clone()).map_err(|error| no_thread(&error))?;
    }
    signals.watch(ask.clone())?;
    setup::keep_notifying(notifier, shown.clone(), ask.ended())?;
    let start = config.clone();
    let mut config = config;
    loop {
        let ended = round(&config, &counters, &ask.begin(), runtime.handle(), once);
        if ended.is_err() || once.is_some() || !ask.take_reload() {
            ask.end();
            runtime.shutdown_timeout(Duration::from_secs(1));
            return ended;
        }
        config = reload(config, file);
        let closed = confine::closed(&start, &config, file);
        if !closed.is_empty() {
            log::warn!("the new configuration needs a restart: this process cannot reach {}", closed.join(", "));
        }
        counters = self::counters(&config);
        shown.replace(counters.clone());
    }
}

/// Reads the configuration again. With a mistake in it, the one before holds.
fn reload(before: Config, file: &Path) -> Config {
    match Config::load(file) {
        Ok(config) => {
            if config.state_dir != before.state_dir || config.metrics != before.metrics {
                log::warn!("changes of state_dir, metrics, ports and directories take effect at a restart");
            }
            log::info!("reloaded the configuration");
            Config { state_dir: before.state_dir, metrics: before.metrics, ..config }
        }
        Err(error) => {
            log::error!("{error}; the previous configuration stays in effect");
            before
        }
    }
}

fn counters(config: &Config) -> Vec<Arc<Counters>> {
    config.sinks.iter().map(|sink| Arc::new(Counters::new(&sink.name, kind_of(&sink.kind)))).collect()
}

/// Runs all pipelines until they have ended.
fn round(
    config: &Config,
    counters: &[Arc<Counters>],
    stop: &Stop,
    handle: &Handle,
    once: Option<Duration>,
) -> Result<(), Error> {
    if let SourceConfig::Log(log) = &config.source {
        let sinks: Vec<_> = config.sinks.iter().map(|sink| sink.name.as_str()).collect();
        let held = if config.hold_files { sinks.as_slice() } else { &[] };
        if let Err(error) = hold::remove_others(log, &config.state_dir, held) {
            log::warn!("cannot remove the hold files of former sinks of {}: {error}", log.display());
        }
    }
    let mut threads = Vec::new();
    for (sink, counters) in config.sinks.iter().zip(counters) {
        let pipeline = pipeline(config, sink, counters, stop, handle, once);
        let thread = thread::Builder::new().name(format!("sink {}", sink.name)).spawn(move || {
            let stop = pipeline.stop.clone();
            let end = pipeline.run();
            if once.is_none() && !matches!(end, End::Stopped) {
                // One sink that cannot go on is for the service manager to see.
                stop.now();
            }
            end
        });
        threads.push((sink.name.clone(), thread.map_err(|error| no_thread(&error))?));
    }
    let mut failed = Vec::new();
    for (name, thread) in threads {
        match thread.join() {
            Ok(End::Done(lines)) => log::info!("{name}: delivered {lines} lines, everything is acknowledged"),
            Ok(End::Stopped) if once.is_some() => {
                failed.push(format!("{name}: stopped before everything was delivered"))
            }
            Ok(End::Stopped) => log::info!("{name}: stopped; the next start resumes here"),
            Ok(End::Failed(message)) => failed.push(format!("{name}: {message}")),
            Err(_) => failed.push(format!("{name}: its thread panicked; please report it")),
        }
    }
    if failed.is_empty() { Ok(()) } else { Err(Error(failed.join("; "))) }
}

fn no_thread(error: &std::io::Error) -> Error {
    Error(format!("cannot start a thread: {error}"))
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
    Pipeline {
        name: sink.name.clone(),
        limits: sink.limits,
        source,
        sink: destination(config, sink, handle),
        store: Store::new(&config.state_dir, &sink.name),
        quarantine: Quarantine::new(&config.state_dir, &sink.name),
        counters: Arc::clone(counters),
        stop: stop.clone(),
        once,
        hold: match &config.source {
            SourceConfig::Log(log) if config.hold_files => Hold::new(log, &sink.name, &config.state_dir),
            _ => None,
        },
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
