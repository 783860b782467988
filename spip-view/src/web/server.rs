//! Serves pages and data. Each question runs on a thread for blocking work with a deadline; a few at once, so that
//! memory is bounded, and none any more when the browser has gone.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use axum::Router;
use axum::body::Body;
use axum::extract::{RawPathParams, RawQuery, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_TYPE, HeaderValue};
use axum::http::{Request, StatusCode};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use spip_enrich::export::Form;
use spip_notify::Manager;
use tokio::sync::Semaphore;

use super::guard::{self, Guard};
use super::listener::Bound;
use super::live::Live;
use super::routes::{self, ROUTES, Route};
use super::signals;
use crate::cli::Scratch;
use crate::config::Config;
use crate::confine;
use crate::data::export;
use crate::data::indicators::{content_type, file_name};
use crate::filter::{Filter, FilterError};
use crate::ingest::follow::{self, Input, Settings};
use crate::moment::Moment;
use crate::pages;
use crate::store::{self, Deadline, Keep, Store};

/// Time that a page may take.
const PAGE_TIME: Duration = Duration::from_secs(10);

/// Time that an export may take.
const EXPORT_TIME: Duration = Duration::from_secs(120);

/// Questions that are answered at once; others wait their turn.
const AT_ONCE: usize = 3;

/// Live streams and exports at once.
const STREAMS: usize = 16;

/// Characters that a token has at least.
const MIN_TOKEN: usize = 16;

struct App {
    store: Store,
    live: Live,
    turns: Arc<Semaphore>,
    streams: Arc<Semaphore>,
    guard: Guard,
    /// Copied logs are looked at from their end: the last day is that before the newest record.
    is_past: bool,
}

/// Reads the logs of the configuration, or `read_once`, and serves the page until a signal ends it.
///
/// # Errors
/// The address or the store cannot be used.
pub fn run(config: &Config, read_once: &[PathBuf]) -> anyhow::Result<()> {
    let blocked = signals::block()?;
    let is_past = !read_once.is_empty();
    let is_own = std::env::args_os().any(|argument| argument.to_string_lossy().starts_with("--state-dir"));
    let scratch = if is_past && !is_own { Some(Scratch::new()?) } else { None };
    let (directory, keep) = match &scratch {
        Some(scratch) => (scratch.0.as_path(), Keep { days: u32::MAX, bytes: u64::MAX }),
        None => (config.state_dir.as_path(), config.keep),
    };
    let store = Store::open_or_renew(directory, keep)?;
    let token = config.token_file.as_deref().map(read_token).transpose()?;
    let input = if is_past { Input::Once(read_once.to_vec()) } else { Input::Follow(config.logs.clone()) };

    let settings = Settings::of(config)?;

    let notifier = Manager::from_environment().unwrap_or_else(|spip_notify::Error { address, source }| {
        eprintln!("spip-view: cannot reach NOTIFY_SOCKET={}: {source}", address.display());
        Manager::default()
    });
    let bound = Bound::new(&config.listen)?;
    if config.is_confined {
        let mut reads = if is_past { read_once.to_vec() } else { config.logs.clone() };
        // New files of these are taken up while the program runs.
        reads.extend([&config.enrich.geo, &config.enrich.scanners].into_iter().flatten().cloned());
        reads.extend(config.enrich.rules.iter().cloned());
        let writes = [directory.to_owned()];
        for missing in confine::confine(&confine::readable(&reads), &writes) {
            eprintln!("spip-view: sandbox incomplete: {missing}");
        }
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(AT_ONCE + STREAMS)
        .enable_all()
        .build()
        .context("cannot start threads")?;
    let ended = signals::watch(blocked)?;
    runtime.block_on(async {
        let live = Live::new();
        let listener = bound.listen()?;
        let stop = Arc::new(AtomicBool::new(false));
        let reading = {
            let (store, live, stop) = (store.clone(), live.clone(), Arc::clone(&stop));
            std::thread::Builder::new()
                .name("ingest".to_owned())
                .spawn(move || follow::run(&store, &input, &settings, &stop, &mut |arrived| live.arrived(arrived)))
        }
        .context("cannot start the thread that reads logs")?;
        println!("spip-view: the page is at {}", listener.address());
        let app = App {
            store,
            live,
            turns: Arc::new(Semaphore::new(AT_ONCE)),
            streams: Arc::new(Semaphore::new(STREAMS)),
            guard: Guard::new(&listener.listen(), &config.hosts, token.as_deref()),
            is_past,
        };
        notifier.tell("READY=1");
        let served = tokio::select! {
            served = listener.serve(router(Arc::new(app)), &ended) => served,
            // Copied files come to an end, logs do not.
            never = watchdog(&notifier, || is_past || !reading.is_finished()) => match never {},
        };
        notifier.tell("STOPPING=1");
        served?;
        stop.store(true, Ordering::Relaxed);
        let outcome = tokio::task::spawn_blocking(move || reading.join()).await?;
        match outcome {
            Ok(outcome) => outcome.map(drop).map_err(anyhow::Error::from),
            Err(_) => anyhow::bail!("the thread that reads logs has panicked"),
        }
    })
}

/// Tells the service manager that the program works, as long as it does: when this thread is late, or the logs are read no
/// longer, the manager starts it again.
async fn watchdog(notifier: &Manager, works: impl Fn() -> bool) -> std::convert::Infallible {
    let Some(interval) = notifier.watchdog() else { return std::future::pending().await };
    loop {
        if works() {
            notifier.tell("WATCHDOG=1");
        }
        tokio::time::sleep(interval / 3).await;
    }
}

fn read_token(path: &Path) -> anyhow::Result<String> {
    let text = std::fs::read_to_string(path).with_context(|| format!("token_file: cannot read {}", path.display()))?;
    let token = text.trim().to_owned();
    anyhow::ensure!(
        token.chars().count() >= MIN_TOKEN,
        "token_file: {} has fewer than {MIN_TOKEN} characters: `openssl rand -hex 16` makes a good one",
        path.display()
    );
    Ok(token)
}

fn router(app: Arc<App>) -> Router {
    let mut router = Router::new()
        .route("/api/v1/live", get(live))
        .route("/api/v1/export", get(exported))
        .route("/api/v1/indicators", get(indicators))
        .route("/api/v1/payloads/{sha256}/download", get(download));
    for (route, path) in ROUTES {
        let route = *route;
        let html = move |State(app): State<Arc<App>>, parts: RawPathParams, query: RawQuery| {
            page(app, route, parts, query, true)
        };
        let json = move |State(app): State<Arc<App>>, parts: RawPathParams, query: RawQuery| {
            page(app, route, parts, query, false)
        };
        router = router.route(path, get(html)).route(&routes::api(path), get(json));
    }
    for (path, kind, bytes) in pages::ASSETS {
        let asset = move || async move { ([(CONTENT_TYPE, *kind), (CACHE_CONTROL, "max-age=3600")], *bytes) };
        router = router.route(path, get(asset));
    }
    router
        .fallback(|| async { (StatusCode::NOT_FOUND, "there is no such page\n") })
        .layer(from_fn_with_state(Arc::clone(&app), check))
        .with_state(app)
}

async fn check(State(app): State<Arc<App>>, request: Request<Body>, next: Next) -> Response {
    let mut answer = match app.guard.check(&request) {
        Ok(()) => next.run(request).await,
        Err(refusal) => *refusal,
    };
    guard::harden(&mut answer);
    // What the log says changes, and must not be in a shared cache.
    answer.headers_mut().entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    answer
}

/// Reasons why there is no page.
pub(crate) enum Failure {
    /// The address is not understood.
    Filter(FilterError),
    /// The store does not answer.
    Store(store::Error),
}

impl Failure {
    fn status(&self) -> StatusCode {
        match self {
            Self::Filter(_) => StatusCode::BAD_REQUEST,
            Self::Store(store::Error::NotFound(_)) => StatusCode::NOT_FOUND,
            Self::Store(store::Error::Deadline) => StatusCode::GATEWAY_TIMEOUT,
            Self::Store(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// Returns what is wrong, for the operator.
    #[must_use]
    pub(crate) fn text(&self) -> String {
        match self {
            Self::Filter(error) => error.to_string(),
            Self::Store(error) => error.to_string(),
        }
    }

    /// Returns where in the query the mistake is, in characters, and how many it covers.
    pub(crate) fn place(&self) -> Option<(usize, usize)> {
        match self {
            Self::Filter(FilterError::Query(error)) => Some((error.at, error.length)),
            _ => None,
        }
    }

    fn json(&self) -> serde_json::Value {
        match self {
            Self::Filter(FilterError::Query(error)) => serde_json::json!({ "error": self.text(), "query": error }),
            _ => serde_json::json!({ "error": self.text() }),
        }
    }
}

/// Makes a deadline that ends when the client has gone.
struct Waiting(Deadline);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

async fn page(app: Arc<App>, route: Route, parts: RawPathParams, RawQuery(query): RawQuery, is_html: bool) -> Response {
    let parts: Vec<String> = parts.iter().map(|(_, value)| value.to_owned()).collect();
    let parameters = routes::parameters(query.as_deref().unwrap_or_default());
    let started = std::time::Instant::now();
    let answer =
        ask(&app, PAGE_TIME, parameters.clone(), move |reader, filter| routes::data(route, &parts, reader, filter))
            .await;
    let took = started.elapsed();
    let mut response = match (&answer, is_html) {
        (Ok((page, _)), false) => json(StatusCode::OK, page),
        (Err(failure), false) => json(failure.status(), &failure.json()),
        (Ok((page, filter)), true) => html(StatusCode::OK, pages::page(route, page, filter).into_string()),
        (Err(failure), true) => html(failure.status(), pages::failure(route, failure, &parameters).into_string()),
    };
    let timing = format!("store;dur={:.1}", took.as_secs_f64() * 1_000.0);
    response.headers_mut().extend(
        HeaderValue::from_str(&timing)
            .ok()
            .map(|timing| (axum::http::HeaderName::from_static("server-timing"), timing)),
    );
    response
}

/// Asks the store on a thread for blocking work.
async fn ask<T: Send + 'static>(
    app: &Arc<App>,
    time: Duration,
    parameters: Vec<(String, String)>,
    question: impl FnOnce(&store::Reader, &Filter) -> store::Result<T> + Send + 'static,
) -> Result<(T, Filter), Failure> {
    let deadline = Deadline::within(time);
    let _waiting = Waiting(deadline.clone());
    let turn = tokio::time::timeout(time, Arc::clone(&app.turns).acquire_owned()).await;
    let Ok(Ok(turn)) = turn else {
        return Err(Failure::Store(store::Error::Deadline));
    };
    let app = Arc::clone(app);
    let asked = tokio::task::spawn_blocking(move || {
        let _turn = turn;
        let reader = app.store.reader(deadline).map_err(Failure::Store)?;
        let filter = Filter::parse(&parameters, app.now(&reader)).map_err(Failure::Filter)?;
        question(&reader, &filter).map(|answer| (answer, filter)).map_err(Failure::Store)
    });
    asked.await.unwrap_or_else(|_| Err(Failure::Store(store::Error::Panicked)))
}

impl App {
    /// Ends spans: now, or in copied logs the moment behind the newest record.
    fn now(&self, reader: &store::Reader) -> Moment {
        if self.is_past {
            crate::data::newest(reader).map_or_else(Moment::now, |newest| Moment(newest.0 + 1))
        } else {
            Moment::now()
        }
    }
}

fn json(status: StatusCode, value: &impl serde::Serialize) -> Response {
    match serde_json::to_vec(value) {
        Ok(bytes) => (status, [(CONTENT_TYPE, "application/json")], bytes).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

fn html(status: StatusCode, text: String) -> Response {
    (status, [(CONTENT_TYPE, "text/html; charset=utf-8")], text).into_response()
}

async fn live(State(app): State<Arc<App>>, RawQuery(query): RawQuery) -> Response {
    let parameters = routes::parameters(query.as_deref().unwrap_or_default());
    match Filter::parse(&parameters, Moment::now()) {
        Ok(filter) => match Arc::clone(&app.streams).try_acquire_owned() {
            Ok(turn) => app.live.stream(filter, turn).into_response(),
            Err(_) => (StatusCode::SERVICE_UNAVAILABLE, "too many live streams are open\n").into_response(),
        },
        Err(error) => {
            let failure = Failure::Filter(error);
            json(failure.status(), &failure.json())
        }
    }
}

/// Sends the sessions of a query as a file, while they are found.
async fn exported(State(app): State<Arc<App>>, RawQuery(query): RawQuery) -> Response {
    let parameters = routes::parameters(query.as_deref().unwrap_or_default());
    let format = match parameters.iter().find(|(key, _)| key == "format").map(|(_, value)| value.as_str()) {
        None | Some("jsonl") => export::Format::Jsonl,
        Some("csv") => export::Format::Csv,
        Some(_) => return json(StatusCode::BAD_REQUEST, &serde_json::json!({ "error": "format: jsonl or csv" })),
    };
    let Ok(turn) = Arc::clone(&app.streams).try_acquire_owned() else {
        return (StatusCode::SERVICE_UNAVAILABLE, "too many exports are running\n").into_response();
    };
    let filter = match Filter::parse(&parameters, Moment::now()) {
        Ok(filter) => filter,
        Err(error) => {
            let failure = Failure::Filter(error);
            return json(failure.status(), &failure.json());
        }
    };
    let (sender, receiver) = tokio::sync::mpsc::channel::<Result<Vec<u8>, std::io::Error>>(4);
    tokio::task::spawn_blocking(move || {
        let _turn = turn;
        let deadline = Deadline::within(EXPORT_TIME);
        let written = app.store.reader(deadline).and_then(|reader| {
            export::write(&reader, &filter, format, &mut |bytes| sender.blocking_send(Ok(bytes)).is_ok())
        });
        if let Err(error) = written {
            // A file that is not whole must not look as if it were.
            let _ = sender.blocking_send(Err(std::io::Error::other(error.to_string())));
        }
    });
    let stream = futures_util::stream::unfold(receiver, |mut receiver| async move {
        receiver.recv().await.map(|bytes| (bytes, receiver))
    });
    attachment(format.content_type(), format.file_name(), Body::from_stream(stream))
}

/// Sends what payloads name and where attacks came from, for other programs.
async fn indicators(State(app): State<Arc<App>>, RawQuery(query): RawQuery) -> Response {
    let parameters = routes::parameters(query.as_deref().unwrap_or_default());
    let name = parameters.iter().find(|(key, _)| key == "format").map_or("stix", |(_, value)| value);
    let Some(form) = Form::of(name) else {
        return json(StatusCode::BAD_REQUEST, &serde_json::json!({ "error": format!("format: {}", Form::NAMES) }));
    };
    let answer = ask(&app, EXPORT_TIME, parameters, move |reader, filter| {
        let found = crate::data::indicators::collect(reader, filter)?;
        Ok(found.written(form))
    });
    match answer.await {
        Ok((bytes, _)) => attachment(content_type(form), file_name(form), Body::from(bytes)),
        Err(failure) => json(failure.status(), &failure.json()),
    }
}

/// Sends the bytes of a payload as a file that nothing opens by itself.
async fn download(State(app): State<Arc<App>>, parts: RawPathParams, RawQuery(query): RawQuery) -> Response {
    let sha256 = parts.iter().next().map(|(_, value)| value.to_owned()).unwrap_or_default();
    let parameters = routes::parameters(query.as_deref().unwrap_or_default());
    let answer = ask(&app, PAGE_TIME, parameters, move |reader, _| crate::data::payloads::bytes(reader, &sha256)).await;
    match answer {
        Ok(((name, bytes), _)) => attachment("application/octet-stream", &format!("{name}.bin"), Body::from(bytes)),
        Err(failure) => json(failure.status(), &failure.json()),
    }
}

/// `name` has letters, digits, dashes and full stops only.
fn attachment(kind: &'static str, name: &str, body: Body) -> Response {
    let disposition = HeaderValue::from_str(&format!("attachment; filename=\"{name}\""));
    let disposition = disposition.unwrap_or(HeaderValue::from_static("attachment"));
    ([(CONTENT_TYPE, HeaderValue::from_static(kind)), (CONTENT_DISPOSITION, disposition)], body).into_response()
}

/// Answers a request as the server would, without a socket.
#[cfg(test)]
pub(super) fn for_test(store: Store) -> Router {
    let listen = crate::config::Listen::Tcp(std::net::SocketAddr::from(([127, 0, 0, 1], 8765)));
    let app = App {
        store,
        live: Live::new(),
        turns: Arc::new(Semaphore::new(AT_ONCE)),
        streams: Arc::new(Semaphore::new(STREAMS)),
        guard: Guard::new(&listen, &[], None),
        is_past: true,
    };
    router(Arc::new(app))
}
