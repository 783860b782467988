//! Says that a sensor is deaf, and when that is over: judges [`Hearing`] once a second, asks the kernel first which ports belong
//! to services, and keeps the answer for `status`, metrics and `/healthz`.

use std::collections::HashSet;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::hearing::{Change, Deaf, Family, Hearing};
use super::sources::Clock;
use super::steady_ns;
use crate::config::{Config, SteeringMode, is_among};
use crate::kernel::accept_queue::Overflows;
use crate::kernel::addr::mapped;
use crate::kernel::interfaces;
use crate::kernel::listening::Source;

/// Interval of the judgement.
const INTERVAL: Duration = Duration::from_secs(1);

/// Files and sockets to open before the sandbox closes the way.
#[derive(Debug)]
pub struct Surroundings {
    listener_port: u16,
    own: HashSet<[u8; 16]>,
    /// Absent where the kernel does not say who listens.
    listening: Option<Source>,
    /// Absent where the kernel does not count them.
    pub(super) overflows: Option<Overflows>,
    mode: SteeringMode,
}

impl Surroundings {
    /// Of an agent that listens on `listener_port`.
    #[must_use]
    pub fn open(config: &Config, listener_port: u16) -> Self {
        let listening = Source::open().inspect_err(|error| {
            log::info!(target: "scans", reason = error.to_string().as_str();
                "services are not told from ports of the sensor when it is looked whether it is deaf");
        });
        let overflows = Overflows::open().inspect_err(|error| {
            log::info!(target: "scans", reason = error.to_string().as_str();
                "connections for which the accept queue has no room are not told from half-open SYNs");
        });
        Self {
            listener_port,
            own: interfaces::outside().map(mapped).collect(),
            listening: listening.ok(),
            overflows: overflows.ok(),
            mode: config.steering.mode,
        }
    }

    /// Begins to listen.
    pub(super) fn hearing(&self) -> Hearing {
        Hearing::new(self.listener_port, self.own.clone(), steady_ns())
    }
}

/// An address family that is deaf.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Missed {
    /// `IPv4` or `IPv6`.
    pub family: String,
    /// Time of the first SYN that did not reach the listener, RFC 3339.
    pub since: String,
    /// Consequence, and what to check.
    pub reason: String,
}

/// Families that are deaf now: written by the thread of the scans, read by metrics and status.
#[derive(Debug, Default)]
pub struct Deafness(Mutex<Vec<(Family, Missed)>>);

impl Deafness {
    /// Reports whether a family is deaf.
    #[must_use]
    pub fn is_deaf(&self, family: Family) -> bool {
        self.missed().iter().any(|(deaf, _)| *deaf == family)
    }

    /// The families that are deaf.
    #[must_use]
    pub fn all(&self) -> Vec<Missed> {
        self.missed().iter().map(|(_, missed)| missed.clone()).collect()
    }

    fn missed(&self) -> std::sync::MutexGuard<'_, Vec<(Family, Missed)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The thread's own.
#[derive(Debug)]
pub(super) struct Judge {
    surroundings: Surroundings,
    judged_ns: u64,
    published: Arc<Deafness>,
}

/// Settings that can change while it runs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted<'a> {
    /// `deaf_after_seconds`.
    pub(super) after: Option<Duration>,
    /// `exclude_ports`.
    pub(super) excluded: &'a [(u16, u16)],
}

impl Judge {
    pub(super) fn new(surroundings: Surroundings, published: Arc<Deafness>) -> Self {
        Self { surroundings, judged_ns: 0, published }
    }

    /// Judges, where it is time to.
    pub(super) fn judge(&mut self, hearing: &mut Hearing, wanted: Wanted<'_>, now_ns: u64) {
        let interval_ns = nanoseconds(INTERVAL);
        if now_ns.saturating_sub(self.judged_ns) < interval_ns {
            return;
        }
        self.judged_ns = now_ns;
        let after_ns = wanted.after.map(nanoseconds);
        let changes = match after_ns {
            Some(after_ns) if hearing.is_in_doubt(after_ns) => {
                let services = self.services();
                hearing.judge(after_ns, |port| is_among(wanted.excluded, port) || services.contains(&port))
            }
            Some(_) => return,
            // Turned off: what was said of it is over.
            None => hearing.judge(u64::MAX, |_| true),
        };
        if changes.is_empty() {
            return;
        }
        let clock = Clock::new(SystemTime::now(), now_ns);
        for change in changes {
            self.take_up(change, &clock, now_ns);
        }
    }

    /// Returns the ports that other programs listen on; those of loopback are out of reach and do not matter.
    fn services(&mut self) -> HashSet<u16> {
        let own = self.surroundings.listener_port;
        let found =
            self.surroundings.listening.as_mut().map_or_else(|| Err(io::ErrorKind::Unsupported.into()), Source::all);
        let others = found.into_iter().flatten().filter(|found| found.port != own && !found.ip.is_loopback());
        others.map(|found| found.port).collect()
    }

    fn take_up(&self, change: Change, clock: &Clock, now_ns: u64) {
        let mut missed = self.published.missed();
        match change {
            Change::Deaf(family, deaf) => {
                let since = clock.time(deaf.since_ns);
                let reason = reason(family, &deaf, self.surroundings.mode);
                log::error!(target: "deaf",
                    family = family.name(), syns = deaf.syns, sources = deaf.sources, ports = list(&deaf.ports).as_str(),
                    seconds = seconds(now_ns, deaf.since_ns);
                    "the sensor is deaf: {reason}");
                missed.retain(|(other, _)| *other != family);
                missed.push((family, Missed { family: family.name().to_owned(), since: rfc3339(since), reason }));
            }
            Change::Hears(family, since_ns) => {
                log::info!(target: "deaf", family = family.name(), seconds = seconds(now_ns, since_ns);
                    "the sensor hears again: {} SYNs reach the listener, or their ports are no longer its own",
                    family.name());
                missed.retain(|(other, _)| *other != family);
            }
        }
    }
}

/// Describes the consequence, and what to check.
fn reason(family: Family, deaf: &Deaf, mode: SteeringMode) -> String {
    let name = family.name();
    let since = if deaf.heard_before { "any more" } else { "since the start" };
    let look = match mode {
        SteeringMode::Redirect => {
            "firewall rules that lead to it are missing, others come before them, or a packet filter drops what they lead to it \
             (spip-agent doctor; spip-agent rules install)"
        }
        SteeringMode::SkLookup => {
            "its program is detached, another sk_lookup program comes before it, or a firewall drops packets (spip-agent doctor; \
             bpftool net; nft list ruleset)"
        }
    };
    format!(
        "no {name} SYN reaches the listener {since}, and at least {} from {} sources to ports such as {} should have: {look}",
        deaf.syns,
        deaf.sources,
        list(&deaf.ports)
    )
}

fn list(ports: &[u16]) -> String {
    ports.iter().map(u16::to_string).collect::<Vec<_>>().join(", ")
}

fn rfc3339(time: SystemTime) -> String {
    Timestamp::try_from(time).unwrap_or_default().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

fn seconds(now_ns: u64, since_ns: u64) -> u64 {
    Duration::from_nanos(now_ns.saturating_sub(since_ns)).as_secs()
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use spip_common::packet::mapped;

    use super::*;
    use crate::scans::hearing::Arrival;

    const SECOND: u64 = 1_000_000_000;

    fn judge(listening: Option<Source>) -> (Judge, Hearing) {
        let own: HashSet<_> = [mapped([198, 51, 100, 1])].into();
        let surroundings = Surroundings {
            listener_port: 9,
            own: own.clone(),
            listening,
            overflows: None,
            mode: SteeringMode::Redirect,
        };
        (Judge::new(surroundings, Arc::default()), Hearing::new(9, own, 0))
    }

    /// A port is heard, then missed for 80 seconds.
    fn miss(hearing: &mut Hearing, port: u16) {
        let arrival = |source| Arrival {
            source: mapped([192, 0, 2, source]),
            destination: mapped([198, 51, 100, 1]),
            port,
            interface: 2,
        };
        hearing.at(SECOND);
        hearing.reached(&arrival(1));
        for second in 2..82_u8 {
            hearing.unanswered(&arrival(second), u64::from(second) * SECOND);
        }
        hearing.at(90 * SECOND);
    }

    const WANTED: Wanted<'static> = Wanted { after: Some(Duration::from_secs(60)), excluded: &[] };

    #[test]
    fn a_deaf_family_is_published_until_it_is_over() {
        let (mut judge, mut hearing) = judge(None);
        miss(&mut hearing, 23);
        judge.judge(&mut hearing, WANTED, 90 * SECOND);
        let [missed] = judge.published.all().try_into().expect("one family");
        assert_eq!(missed.family, "IPv4");
        assert!(missed.since.ends_with('Z') && missed.reason.contains("such as 23 should have"), "{missed:?}");
        assert!(judge.published.is_deaf(Family::V4) && !judge.published.is_deaf(Family::V6));
        // Turned off.
        judge.judge(&mut hearing, Wanted { after: None, ..WANTED }, 92 * SECOND);
        assert_eq!(judge.published.all(), []);
    }

    #[test]
    fn excluded_ports_and_services_of_the_machine_make_nothing_deaf() {
        let (mut judge, mut hearing) = judge(None);
        miss(&mut hearing, 23);
        judge.judge(&mut hearing, Wanted { excluded: &[(20, 30)], ..WANTED }, 90 * SECOND);
        assert_eq!(judge.published.all(), []);

        // A service on loopback takes nothing that comes from outside.
        for (address, deaf) in [("0.0.0.0:0", false), ("127.0.0.1:0", true)] {
            let service = std::net::TcpListener::bind(address).expect("a port");
            let (mut judge, mut hearing) =
                super::tests::judge(Some(Source::open().expect("the kernel says who listens")));
            miss(&mut hearing, service.local_addr().expect("an address").port());
            judge.judge(&mut hearing, WANTED, 90 * SECOND);
            assert_eq!(judge.published.is_deaf(Family::V4), deaf, "{address}");
        }
    }
}
