//! `/metrics` for Prometheus and `/healthz`, over HTTP/1.0: one short request at a time, each bounded.

use std::fmt::Write as _;
use std::io::{self, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::Counters;

/// Time for a request and its answer.
const TIME: Duration = Duration::from_secs(2);

/// The longest request.
const MAX_BYTES: usize = 8 * 1024;

/// A sink's thread that is silent for longer than any of its time-outs is stuck.
pub const STUCK: Duration = Duration::from_secs(900);

/// The counters that are shown: others after a reload.
#[derive(Clone, Debug)]
pub struct Shown(Arc<Mutex<Vec<Arc<Counters>>>>);

impl Shown {
    /// Shows `counters`.
    #[must_use]
    pub fn new(counters: Vec<Arc<Counters>>) -> Self {
        Self(Arc::new(Mutex::new(counters)))
    }

    /// Shows other ones.
    pub fn replace(&self, counters: Vec<Arc<Counters>>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = counters;
    }

    /// Returns those that are shown.
    #[must_use]
    pub fn counters(&self) -> Vec<Arc<Counters>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Serves `counters` at `listener` until the process ends.
///
/// # Errors
/// No thread can be started.
pub fn serve(listener: TcpListener, counters: Shown) -> io::Result<()> {
    thread::Builder::new().name("metrics".to_owned()).spawn(move || {
        for client in listener.incoming() {
            match client {
                Ok(client) => {
                    // A client that goes away is its own business.
                    let _ = answer(&client, &counters.counters());
                }
                // Descriptors have run out: that passes, and accepting at once again would be a busy loop.
                Err(_) => thread::sleep(Duration::from_millis(100)),
            }
        }
    })?;
    Ok(())
}

fn answer(mut client: &TcpStream, counters: &[Arc<Counters>]) -> io::Result<()> {
    let deadline = Instant::now() + TIME;
    client.set_write_timeout(Some(TIME))?;
    let mut request = Vec::new();
    let mut bytes = [0; 1024];
    while !request.windows(4).any(|window| window == b"\r\n\r\n") {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() || request.len() > MAX_BYTES {
            return Ok(());
        }
        client.set_read_timeout(Some(left))?;
        let count = client.read(&mut bytes)?;
        if count == 0 {
            return Ok(());
        }
        request.extend_from_slice(bytes.get(..count).unwrap_or_default());
    }
    let line = String::from_utf8_lossy(request.split(|byte| *byte == b'\r').next().unwrap_or_default()).into_owned();
    let mut words = line.split(' ');
    let (status, kind, body) = match (words.next(), words.next()) {
        (Some("GET"), Some("/metrics")) => ("200 OK", "text/plain; version=0.0.4", text(counters)),
        (Some("GET"), Some("/healthz")) => {
            let (is_well, body) = health(counters);
            (if is_well { "200 OK" } else { "503 Service Unavailable" }, "text/plain", body)
        }
        (Some("GET"), _) => ("404 Not Found", "text/plain", "/metrics or /healthz\n".to_owned()),
        _ => ("405 Method Not Allowed", "text/plain", String::new()),
    };
    let head = format!(
        "HTTP/1.0 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nX-Content-Type-Options: nosniff\r\n\r\n",
        body.len()
    );
    client.write_all(head.as_bytes())?;
    client.write_all(body.as_bytes())
}

/// Says whether every sink delivers, and what is wrong where one does not.
fn health(counters: &[Arc<Counters>]) -> (bool, String) {
    let mut is_well = true;
    let mut body = String::new();
    for sink in counters {
        let silent = sink.silent_for();
        let trouble = match sink.trouble() {
            Some(trouble) => Some(trouble),
            None if silent > STUCK => Some(format!("its thread is silent for {} s", silent.as_secs())),
            None => None,
        };
        is_well &= trouble.is_none();
        let trouble = trouble.unwrap_or_else(|| "ok".to_owned());
        let clean: String = trouble.chars().filter(|letter| !letter.is_control()).collect();
        let _ = writeln!(body, "{}: {clean}", sink.name);
    }
    (is_well, body)
}

/// Writes all counters in the text format of Prometheus.
fn text(counters: &[Arc<Counters>]) -> String {
    let mut out = String::new();
    let mut family = |name: &str, kind: &str, help: &str, value: &dyn Fn(&Counters) -> f64| {
        let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
        for sink in counters {
            let _ = writeln!(out, "{name}{{sink=\"{}\",kind=\"{}\"}} {}", sink.name, sink.kind, value(sink));
        }
    };
    let of = |counter: &std::sync::atomic::AtomicU64| counter.load(Relaxed) as f64;
    family("spip_ship_lines_total", "counter", "Lines that the engine acknowledged.", &|sink| of(&sink.shipped));
    family("spip_ship_bytes_total", "counter", "Bytes of these lines.", &|sink| of(&sink.shipped_bytes));
    family("spip_ship_duplicates_total", "counter", "Lines that the engine had already.", &|sink| of(&sink.duplicates));
    family("spip_ship_retries_total", "counter", "Attempts that failed and were repeated.", &|sink| of(&sink.retries));
    family("spip_ship_quarantined_total", "counter", "Lines put into the quarantine.", &|sink| of(&sink.quarantined));
    family("spip_ship_lag_bytes", "gauge", "Bytes of the log that are not delivered.", &|sink| of(&sink.lag_bytes));
    family("spip_ship_lag_messages", "gauge", "Messages of the stream that are not delivered.", &|sink| {
        of(&sink.lag_messages)
    });
    family("spip_ship_lag_seconds", "gauge", "Time since everything was delivered.", &|sink| sink.lag().as_secs_f64());
    family("spip_ship_unshipped_files", "gauge", "Closed files that are not delivered to their end.", &|sink| {
        of(&sink.unshipped_files)
    });
    family("spip_ship_failing", "gauge", "Whether the last attempt failed.", &|sink| {
        f64::from(u8::from(sink.is_failing.load(Relaxed)))
    });
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(address: std::net::SocketAddr, request: &str) -> String {
        let mut client = TcpStream::connect(address).expect("it listens");
        client.write_all(request.as_bytes()).expect("sent");
        let mut answer = String::new();
        client.read_to_string(&mut answer).expect("text");
        answer
    }

    #[test]
    fn health_follows_the_sinks_and_a_slow_client_holds_nobody_up() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("an address");
        let counters = Arc::new(Counters::new("nats", "nats"));
        counters.shipped.store(7, Relaxed);
        serve(listener, Shown::new(vec![Arc::clone(&counters)])).expect("a thread");
        let _silent = TcpStream::connect(address).expect("it listens");
        let metrics = ask(address, "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n");
        assert!(metrics.contains("spip_ship_lines_total{sink=\"nats\",kind=\"nats\"} 7"), "{metrics}");
        assert!(ask(address, "GET /healthz HTTP/1.0\r\n\r\n").starts_with("HTTP/1.0 200"));
        counters.set_trouble(Some("no\nserver".to_owned()));
        let health = ask(address, "GET /healthz HTTP/1.0\r\n\r\n");
        assert!(health.starts_with("HTTP/1.0 503") && health.ends_with("nats: noserver\n"), "{health}");
        assert!(ask(address, "GET / HTTP/1.0\r\n\r\n").starts_with("HTTP/1.0 404"));
        assert!(ask(address, "POST /metrics HTTP/1.0\r\n\r\n").starts_with("HTTP/1.0 405"));
    }
}
