//! Half-open scans: SYNs that reached the agent's listener and did not become connections in time.
//!
//! One thread reads what the kernel side tells, waits for what becomes of each SYN ([`Pending`]), adds the half-open
//! ones up by source ([`Sources`]), and writes one record for each source and interval. Memory is bounded at every
//! step, and what finds no room is counted, so that the counts of [`Counts`] always add up.
//!
//! What reaches the listener is what counts: a SYN to a port of another service, that no rule leads here, or
//! that is only forwarded by this machine, never does, and is ignored, without a list of ports that would have to be
//! kept. SYNs of this machine's own clients over loopback are not looked at.

mod addresses;
mod allowance;
mod deafness;
mod hearing;
mod pending;
pub mod record;
mod sources;

use std::io;
use std::net::{Ipv6Addr, SocketAddr};
use std::num::NonZeroUsize;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use nix::time::{ClockId, clock_gettime};
use spip_common::Syn;
use tokio::io::unix::AsyncFd;
use tokio::runtime;
use tokio::sync::watch;

pub use crate::process::ports::Ports;
pub use addresses::{Addresses, Store};
use allowance::Allowance;
pub use deafness::{Deafness, Missed, Surroundings};
use deafness::{Judge, Wanted};
pub use hearing::{Family, Hearing};
pub use pending::{GivenUp, HalfOpen, Pending};
pub use sources::{Clock, SOURCES_MAX, Sources};

use crate::config;
use crate::kernel::accept_queue::Overflows;
use crate::kernel::ebpf::{Event, Events, Lost, Origins};
use crate::log::sensor::Sensor;
use crate::log::writer::Log;
use crate::process::critical;
use crate::scans::record as scan;

/// Time that events wait for their reader when they are few.
const PACE: Duration = Duration::from_millis(200);
/// Events that are read before anything else gets its turn.
const BATCH: usize = 65_536;

/// Counts of the SYNs that the kernel side saw from other machines since the start of the agent, by their fate;
/// retransmissions and copies are left out.
///
/// `seen = joined + half_open + refused + evicted + ignored + contradicted + pending`, always.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// All.
    pub seen: u64,
    /// Became connections.
    pub joined: u64,
    /// Reached the listener and did not become connections.
    pub half_open: u64,
    /// Reached the listener and were completed by the client, when the accept queue had no room for the connection.
    pub refused: u64,
    /// Given up undecided, because there was no room to wait.
    pub evicted: u64,
    /// Never reached the listener.
    pub ignored: u64,
    /// Another SYN than these reached the listener with their source and sequence number.
    pub contradicted: u64,
    /// Not yet decided.
    pub pending: u64,
    /// Not in `seen`: retransmissions that only the agent could tell.
    pub retransmitted: u64,
    /// Not in `seen`: connections whose SYN was not waiting, because it was decided or given up before, or because they
    /// are of this machine's own clients. One that was decided is in a record of a scan, and a session.
    pub unmatched: u64,
}

impl Counts {
    /// Each count with its name.
    #[must_use]
    pub fn named(&self) -> [(&'static str, u64); 10] {
        let Self {
            seen,
            joined,
            half_open,
            refused,
            evicted,
            ignored,
            contradicted,
            pending,
            retransmitted,
            unmatched,
        } = *self;
        [
            ("seen", seen),
            ("joined", joined),
            ("half_open", half_open),
            ("refused", refused),
            ("evicted", evicted),
            ("ignored", ignored),
            ("contradicted", contradicted),
            ("pending", pending),
            ("retransmitted", retransmitted),
            ("unmatched", unmatched),
        ]
    }
}

/// Fill level of a table, for tests of the memory bounds.
#[derive(Clone, Copy, Debug)]
pub struct Fill {
    /// Contents of the table.
    pub table: &'static str,
    /// Number of entries.
    pub entries: usize,
    /// Upper bound of entries.
    pub most: usize,
}

/// A completed handshake for whose connection the accept queue had no room.
#[derive(Clone, Debug)]
pub struct Refused {
    /// The client, with the port that it used itself.
    pub client: SocketAddr,
    /// Destination that the client asked for.
    pub destination: SocketAddr,
    /// The SYN.
    pub syn: Syn,
    /// The first bytes of the data that came with it, where they are known.
    pub data: Option<Box<[u8]>>,
    /// Time of the SYN on the wall clock and on the monotonic one.
    pub at: (SystemTime, Instant),
}

/// Tells refused connections from half-open SYNs, and passes them on.
pub struct Refusals {
    /// What the kernel side knows of SYNs.
    pub origins: Origins,
    /// Takes each one.
    pub note: Box<dyn Fn(&Refused) + Send>,
}

/// Settings of the thread.
pub struct Setting {
    /// Events of the kernel side.
    pub events: Events,
    /// Settings that can change while the thread runs.
    pub current: watch::Receiver<Current>,
    /// SYNs that may wait for their decision at once.
    pub capacity: NonZeroUsize,
    /// Facts about the machine.
    pub surroundings: Surroundings,
    /// Where refused connections go.
    pub refusals: Refusals,
}

/// Settings that can change while the thread runs.
#[derive(Clone, Debug)]
pub struct Current {
    /// Names the sensor.
    pub sensor: Sensor,
    /// Log of the records, in the format of the sensor.
    pub log: Log,
    /// Times.
    pub config: config::Scans,
    /// Bytes of their records in a day.
    pub day_bytes: u64,
    /// `exclude_ports`.
    pub exclude_ports: Arc<[(u16, u16)]>,
}

/// The running thread. Dropped without [`Scans::finish`], it ends without the last records.
pub struct Scans {
    counts: Arc<Mutex<Counts>>,
    deafness: Arc<Deafness>,
    stop: watch::Sender<Option<Instant>>,
    thread: JoinHandle<()>,
}

impl Scans {
    /// Starts the thread.
    ///
    /// # Errors
    /// The system refuses a thread, or what its runtime needs.
    pub fn spawn(setting: Setting) -> io::Result<Self> {
        let runtime = runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
        let counts = Arc::new(Mutex::new(Counts::default()));
        let (stop, stopped) = watch::channel(None);
        let ready = setting.events.as_fd().try_clone_to_owned()?;
        let deafness = Arc::new(Deafness::default());
        let (published, published_deafness) = (Arc::clone(&counts), Arc::clone(&deafness));
        let thread = critical::spawn("scans", move || {
            let watcher = Watcher::new(setting, published, published_deafness);
            runtime.block_on(watcher.run(ready, stopped));
        })?;
        Ok(Self { counts, deafness, stop, thread })
    }

    /// Returns the counts of SYNs, as of a moment ago.
    #[must_use]
    pub fn counts(&self) -> Arc<Mutex<Counts>> {
        Arc::clone(&self.counts)
    }

    /// Returns the state of the deaf address families.
    #[must_use]
    pub fn deafness(&self) -> Arc<Deafness> {
        Arc::clone(&self.deafness)
    }

    /// Ends the thread when nothing is accepted any more: what is waiting then will never be completed. Its records are
    /// written, as long as the log takes them before `deadline`.
    #[must_use]
    pub fn finish(self, deadline: Instant) -> Counts {
        self.stop.send_replace(Some(deadline));
        if self.thread.join().is_err() {
            log::error!(target: "scans", "the thread of the scans panicked");
        }
        *self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The thread's own.
struct Watcher {
    events: Events,
    current: watch::Receiver<Current>,
    pending: Pending,
    sources: Sources,
    lost: Lost,
    interval_began: Instant,
    evicted_before: u64,
    refused_before: u64,
    contradicted_before: u64,
    /// Made with the first interval that ends.
    allowance: Option<Allowance>,
    judge: Judge,
    /// Absent where the kernel does not count them.
    overflows: Option<Overflows>,
    refusals: Refusals,
    published: Arc<Mutex<Counts>>,
}

/// Result of reading the events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Read {
    /// All of them.
    All,
    /// More are waiting; the last SYN that was read is of this time.
    Until(u64),
}

impl Read {
    /// Returns the time up to which it is known what became of SYNs: what has not been read yet may tell of later ones.
    fn known_ns(self, now_ns: u64) -> u64 {
        match self {
            Self::All => now_ns,
            Self::Until(seen_ns) => seen_ns.min(now_ns),
        }
    }
}

impl Watcher {
    fn new(setting: Setting, published: Arc<Mutex<Counts>>, deafness: Arc<Deafness>) -> Self {
        let Setting { events, current, capacity, mut surroundings, refusals } = setting;
        Self {
            pending: Pending::new(capacity, surroundings.hearing()),
            sources: Sources::default(),
            lost: Lost::default(),
            interval_began: Instant::now(),
            evicted_before: 0,
            refused_before: 0,
            contradicted_before: 0,
            allowance: None,
            overflows: surroundings.overflows.take(),
            judge: Judge::new(surroundings, deafness),
            refusals,
            published,
            events,
            current,
        }
    }

    async fn run(mut self, ready: OwnedFd, mut stopped: watch::Receiver<Option<Instant>>) {
        // SAFETY: an owned descriptor stays open and the same until the AsyncFd, which keeps it, is dropped.
        let ready = unsafe { AsyncFd::register(ready) }.ok();
        let mut more = false;
        let deadline = loop {
            let deadline = *stopped.borrow_and_update();
            if deadline.is_some() || stopped.has_changed().is_err() {
                break deadline;
            }
            if !more {
                tokio::select! {
                    _ = stopped.changed() => continue,
                    () = tokio::time::sleep(PACE) => {}
                    () = until_much(ready.as_ref()) => {}
                }
            }
            more = self.turn(steady_ns()) != Read::All;
            if self.interval_began.elapsed() >= self.config().interval {
                self.end_interval(&stopped).await;
            }
            tokio::task::yield_now().await;
        };
        if let Some(deadline) = deadline {
            self.end(deadline, &stopped).await;
        }
    }

    /// Reads what has happened and decides what is old enough; how far it has read.
    fn turn(&mut self, now_ns: u64) -> Read {
        self.pending.hearing().at(now_ns);
        let read = self.read();
        if let (Some(overflows), 1..) = (&mut self.overflows, self.pending.counts().pending) {
            overflows.look(now_ns);
        }
        self.note_losses(now_ns);
        let timeout = u64::try_from(self.config().timeout.as_nanos()).unwrap_or(u64::MAX);
        let known_ns = read.known_ns(now_ns);
        self.decide(known_ns.saturating_sub(timeout));
        if read == Read::All {
            let Current { config, exclude_ports, .. } = &*self.current.borrow();
            let wanted = Wanted { after: config.deaf_after, excluded: exclude_ports };
            self.judge.judge(self.pending.hearing(), wanted, now_ns);
        }
        read
    }

    fn config(&self) -> config::Scans {
        self.current.borrow().config
    }

    fn decide(&mut self, until_ns: u64) {
        let (sources, mut refused) = (&mut self.sources, 0);
        self.pending.decide(until_ns, |half_open| {
            let overflowed = self.overflows.as_ref().is_some_and(|one| one.happened_after(half_open.seen_ns));
            if overflowed && self.refusals.claim(half_open) {
                refused += 1;
            } else {
                sources.add(half_open);
                if half_open.data_length > 0 {
                    sources.add_data(half_open, || self.refusals.origins.syn_data(half_open.source, half_open.syn));
                }
            }
        });
        self.pending.refuse(refused);
        *self.published.lock().unwrap_or_else(PoisonError::into_inner) = self.pending.counts();
    }

    fn read(&mut self) -> Read {
        let mut seen_ns = 0;
        let pending = &mut self.pending;
        for _ in 0..BATCH {
            let any = self.events.take_next(|event| match event {
                Event::Syn(event) => {
                    seen_ns = event.syn.seen_ns;
                    pending.seen(&event);
                }
                Event::Reached(step) => pending.reached(&step),
                Event::Joined(step) => pending.joined(&step),
            });
            if !any {
                return Read::All;
            }
        }
        Read::Until(seen_ns)
    }

    fn note_losses(&mut self, now_ns: u64) {
        let lost = self.events.lost();
        let syns = lost.syns.saturating_sub(self.lost.syns);
        if syns > 0 {
            self.pending.untold(syns, now_ns);
        }
        if lost.steps > self.lost.steps {
            self.pending.doubt(now_ns);
        }
        self.lost = lost;
    }

    /// Writes the records of the interval; what the log does not take in time when the agent stops is counted there.
    async fn end_interval(&mut self, stopped: &watch::Receiver<Option<Instant>>) {
        self.interval_began = Instant::now();
        let counts = self.pending.counts();
        let evicted = counts.evicted - self.evicted_before;
        self.evicted_before = counts.evicted;
        if evicted > 0 {
            log::warn!(target: "scans", evicted = evicted, seen = counts.seen;
                "more SYNs than could be followed: they are counted without a source; raise ebpf_syn_entries");
        }
        let refused = counts.refused - self.refused_before;
        self.refused_before = counts.refused;
        if refused > 0 {
            log::warn!(target: "scans", refused = refused;
                "the kernel discarded connections because the accept queue was full: raise net.core.somaxconn, then restart");
        }
        let contradicted = counts.contradicted - self.contradicted_before;
        self.contradicted_before = counts.contradicted;
        if contradicted > 0 {
            log::warn!(target: "scans", contradicted = contradicted, seen = counts.seen;
                "SYNs reached the listener that are not those that the packet filter saw with their source and sequence \
                 number: no scan is recorded of these");
        }
        let clock = Clock::new(SystemTime::now(), steady_ns());
        let given_up = self.pending.take_given_up();
        let Current { sensor, log, config: _, day_bytes, exclude_ports: _ } = self.current.borrow().clone();
        let mut line = Vec::new();
        let now = Instant::now();
        let allowance = self.allowance.get_or_insert_with(|| Allowance::new(day_bytes, now));
        self.sources.keep(allowance.sources(day_bytes, now));
        for scan in self.sources.end(&clock, given_up) {
            line.clear();
            scan::encode(&scan, &sensor, &mut line);
            allowance.spend(line.len());
            log.record_until(&line, until_deadline(stopped.clone())).await;
        }
    }

    async fn end(mut self, deadline: Instant, stopped: &watch::Receiver<Option<Instant>>) {
        let asked_ns = steady_ns();
        if read_until(asked_ns, deadline, || self.turn(steady_ns())) != Read::All {
            self.decide(asked_ns);
            // What came after that may be completed in what is left unread.
            self.pending.doubt(u64::MAX);
        }
        self.decide(u64::MAX);
        self.end_interval(stopped).await;
        let Counts { seen, joined, half_open, refused, evicted, ignored, contradicted, unmatched, .. } =
            self.pending.counts();
        log::info!(target: "scans",
            seen = seen, joined = joined, half_open = half_open, refused = refused, evicted = evicted, ignored = ignored,
            contradicted = contradicted, unmatched = unmatched;
            "what has become of SYNs");
    }
}

impl Refusals {
    /// Passes a half-open SYN on as a refused connection, if its client completed the handshake; reports whether it did.
    fn claim(&self, half_open: &HalfOpen<'_>) -> bool {
        if !self.origins.is_acknowledged(half_open.source, half_open.syn.sequence) {
            return false;
        }
        let address = |ip: [u8; 16], port| SocketAddr::new(Ipv6Addr::from(ip).to_canonical(), port);
        let past = Duration::from_nanos(steady_ns().saturating_sub(half_open.seen_ns));
        let (wall, steady) = (SystemTime::now(), Instant::now());
        (self.note)(&Refused {
            client: address(half_open.source, half_open.source_port),
            destination: address(half_open.destination, half_open.destination_port),
            syn: *half_open.syn,
            data: self.origins.syn_data(half_open.source, half_open.syn),
            at: (wall.checked_sub(past).unwrap_or(wall), steady.checked_sub(past).unwrap_or(steady)),
        });
        true
    }
}

/// Takes turns until all is read that had happened by `asked_ns`: SYNs that go on coming as fast as they are read would
/// hold the stop. Where none comes to tell the time, until `deadline`.
fn read_until(asked_ns: u64, deadline: Instant, mut turn: impl FnMut() -> Read) -> Read {
    loop {
        match turn() {
            Read::Until(seen_ns) if seen_ns < asked_ns && Instant::now() < deadline => {}
            read => return read,
        }
    }
}

/// Returns at the deadline that a stop has set, or when no sender is left.
async fn until_deadline(mut stopped: watch::Receiver<Option<Instant>>) {
    let deadline = stopped.wait_for(Option::is_some).await.ok().and_then(|deadline| *deadline);
    if let Some(deadline) = deadline {
        tokio::time::sleep_until(deadline.into()).await;
    }
}

/// Returns when the kernel side has much to tell; where it cannot be waited for, never.
async fn until_much(ready: Option<&AsyncFd<OwnedFd>>) {
    if let Some(ready) = ready
        && let Ok(mut ready) = ready.readable().await
    {
        return ready.clear_ready();
    }
    std::future::pending().await
}

/// The kernel side's clock, `CLOCK_MONOTONIC`, in nanoseconds.
fn steady_ns() -> u64 {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).map(Duration::from);
    now.map_or(0, |now| u64::try_from(now.as_nanos()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_on_coming_holds_the_stop_until_what_came_before_it_is_read() {
        let far = Instant::now() + Duration::from_secs(3600);
        let mut times = [100, 200, 300, 400].into_iter().map(Read::Until);
        assert_eq!(read_until(250, far, || times.next().expect("it stops")), Read::Until(300));
        let mut times = [Read::Until(100), Read::All].into_iter();
        assert_eq!(read_until(250, far, || times.next().expect("it stops")), Read::All);
    }

    #[test]
    fn a_scan_is_decided_after_the_events_that_were_unread() {
        assert_eq!(Read::All.known_ns(900), 900);
        assert_eq!(Read::Until(300).known_ns(900), 300, "what comes later may complete it");
        assert_eq!(Read::Until(901).known_ns(900), 900);
    }

    #[test]
    fn what_goes_on_coming_and_tells_no_time_holds_the_stop_until_its_deadline() {
        assert_eq!(read_until(250, Instant::now() + Duration::from_millis(20), || Read::Until(0)), Read::Until(0));
    }
}
