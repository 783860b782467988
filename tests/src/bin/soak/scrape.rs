//! Prometheus and a health check beside the load: monitoring asks the agent every few seconds for years, so what
//! answers has to last as long as everything else. What the page says at the end is compared with what was recorded.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use spip_tests::Net;

/// Address at which the agent serves its metrics.
pub(crate) const ADDRESS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 9464);
const INTERVAL: Duration = Duration::from_secs(2);
/// Longer than the server gives a request.
const PATIENCE: Duration = Duration::from_secs(10);

/// Connections that were made for it: their SYNs are seen on the loopback interface, and stay there.
static REQUESTS: AtomicU64 = AtomicU64::new(0);

/// Returns the number of requests so far.
pub(crate) fn requests() -> u64 {
    REQUESTS.load(Ordering::Relaxed)
}

/// A thread that asks until it is stopped.
pub(crate) struct Scraper {
    stop: Arc<AtomicBool>,
    /// Set while the agent has reason to be degraded.
    may_degrade: Arc<AtomicBool>,
    asked: Arc<Mutex<Asked>>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Clone, Debug, Default)]
struct Asked {
    answered: u64,
    failed: u64,
    why: Option<String>,
}

/// The values of one page by series.
#[derive(Clone, Debug, Default)]
pub(crate) struct Page(BTreeMap<String, f64>);

impl Scraper {
    pub(crate) fn start(net: &Net) -> Self {
        let (stop, asked) = (Arc::<AtomicBool>::default(), Arc::<Mutex<Asked>>::default());
        let may_degrade = Arc::<AtomicBool>::default();
        let (sensor, stopped, account) = (net.sensor.handle(), Arc::clone(&stop), Arc::clone(&asked));
        let excused = Arc::clone(&may_degrade);
        let thread = std::thread::spawn(move || {
            sensor.enter(|| {
                while !stopped.load(Ordering::Relaxed) {
                    let before = excused.load(Ordering::Relaxed);
                    let health = healthz();
                    let is_excused = before || excused.load(Ordering::Relaxed);
                    let health = if is_excused { health.or_else(degraded) } else { health };
                    let answer = health.and_then(|()| page().map(drop));
                    {
                        let mut asked = account.lock().unwrap_or_else(PoisonError::into_inner);
                        match answer {
                            Ok(()) => asked.answered += 1,
                            Err(error) => {
                                asked.failed += 1;
                                asked.why.get_or_insert(error);
                            }
                        }
                    }
                    let end = Instant::now() + INTERVAL;
                    while Instant::now() < end && !stopped.load(Ordering::Relaxed) {
                        std::thread::sleep(Duration::from_millis(50));
                    }
                }
            });
        });
        Self { stop, may_degrade, asked, thread: Some(thread) }
    }

    /// Has `/healthz` say that the agent is degraded, from now on or no longer.
    pub(crate) fn may_degrade(&self, may: bool) {
        self.may_degrade.store(may, Ordering::Relaxed);
    }

    /// Ends it: whether the agent answered each time, and was well.
    pub(crate) fn verdict(mut self) -> (bool, String) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the scraper does not panic");
        }
        let Asked { answered, failed, why } = self.asked.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let why = why.map(|why| format!(": {why}")).unwrap_or_default();
        (answered > 0 && failed == 0, format!("/healthz and /metrics answered {answered} times, failed {failed}{why}"))
    }
}

impl Page {
    /// The page now.
    pub(crate) fn read(net: &Net) -> Result<Self, String> {
        net.sensor.enter(page)
    }

    /// Returns the number of series.
    pub(crate) fn series(&self) -> usize {
        self.0.len()
    }

    /// The sum of all series of a metric.
    pub(crate) fn sum(&self, name: &str) -> u64 {
        let of = |series: &str| series.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('{'));
        whole(self.0.iter().filter(|(series, _)| of(series)).map(|(_, value)| value).sum())
    }

    /// Returns a counter of the programs in the kernel.
    pub(crate) fn kernel(&self, event: &str) -> Option<u64> {
        self.0.get(&format!("spip_kernel_events_total{{event=\"{event}\"}}")).copied().map(whole)
    }
}

/// Counters are whole numbers below 2^53.
fn whole(value: f64) -> u64 {
    value as u64
}

fn healthz() -> Result<(), String> {
    let answer = get("/healthz")?;
    if answer.starts_with("HTTP/1.1 200 ") { Ok(()) } else { Err(answer) }
}

/// Takes the answer of an agent that is deaf.
fn degraded(answer: String) -> Result<(), String> {
    if answer.starts_with("HTTP/1.1 503 ") && answer.contains("deaf") { Ok(()) } else { Err(answer) }
}

fn page() -> Result<Page, String> {
    let answer = get("/metrics")?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or("an answer without an end of its head")?;
    if !head.starts_with("HTTP/1.1 200 ") || !body.ends_with("# EOF\n") {
        return Err(format!("no page: {head}"));
    }
    parse(body)
}

fn parse(body: &str) -> Result<Page, String> {
    let lines = body.lines().filter(|line| !line.starts_with('#'));
    let values = lines.map(|line| {
        let (series, value) = line.rsplit_once(' ').ok_or_else(|| format!("no value: {line}"))?;
        Ok((series.to_owned(), value.parse().map_err(|_| format!("no number: {line}"))?))
    });
    values.collect::<Result<_, String>>().map(Page)
}

fn get(target: &str) -> Result<String, String> {
    REQUESTS.fetch_add(1, Ordering::Relaxed);
    let ask = || {
        let mut stream = TcpStream::connect_timeout(&ADDRESS, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(format!("GET {target} HTTP/1.1\r\nHost: soak\r\n\r\n").as_bytes())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).map(|_| answer)
    };
    ask().map_err(|error: std::io::Error| format!("{target}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn series_of_a_metric_are_added_up_and_those_of_longer_names_are_not() {
        let page = parse(
            "# TYPE a counter\na{x=\"1\"} 2\na{x=\"2\"} 3\na_b 7\nspip_kernel_events_total{event=\"joined\"} 9\n",
        );
        let page = page.expect("a page");
        assert_eq!((page.sum("a"), page.sum("a_b"), page.series()), (5, 7, 4));
        assert_eq!((page.kernel("joined"), page.kernel("lost")), (Some(9), None));
        assert!(parse("a b\n").is_err());
    }
}
