//! Admission of sessions: a bound on all sessions, a bound and a token bucket for each source.
//!
//! A source is an IPv4 address or an IPv6 /64, the smallest block that one host is usually given. The table of
//! sources is bounded: the one that was seen longest ago is forgotten, which at worst gives a returning source a
//! fresh bucket. Refusals are not decided twice: the first limit that is exceeded names the refusal.

use std::hash::RandomState;
use std::net::IpAddr;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use lru::LruCache;

use spip_record::Limit;

use crate::config;
use crate::process::rate::{Bucket, Rate};

/// Sessions that may be let in beyond the bound on all of them, for others that are about to end.
const AHEAD_MAX: usize = 48;

/// A block of addresses that counts as one source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Source {
    /// One IPv4 address.
    V4([u8; 4]),
    /// The upper 64 bits of an IPv6 address.
    V6([u8; 8]),
}

impl From<IpAddr> for Source {
    fn from(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(v4) => Self::V4(v4.octets()),
            IpAddr::V6(v6) => {
                let [a, b, c, d, e, f, g, h, ..] = v6.octets();
                Self::V6([a, b, c, d, e, f, g, h])
            }
        }
    }
}

/// The bound on all sessions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bound {
    /// Upper bound of sessions.
    pub sessions: usize,
    /// Origin of the bound.
    pub from: BoundFrom,
}

/// Origins of the bound on all sessions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BoundFrom {
    /// `max_sessions`.
    Configuration,
    /// The descriptors of the process.
    Descriptors,
    /// The memory of the machine, or of the process's cgroup.
    Memory,
}

impl BoundFrom {
    /// The name in messages.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Configuration => "configuration",
            Self::Descriptors => "descriptors",
            Self::Memory => "memory",
        }
    }

    /// Returns the limit recorded for a session that was ended to make room. An operator who sets the number wants new
    /// connections refused.
    fn makes_room(self) -> Option<Limit> {
        match self {
            Self::Configuration => None,
            Self::Descriptors => Some(Limit::Descriptors),
            Self::Memory => Some(Limit::Sessions),
        }
    }
}

/// The limits and the state that they are held against; clones share it.
#[derive(Clone)]
pub struct Limits(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
}

struct State {
    /// Configured limits.
    config: config::Limits,
    bound: Bound,
    open: usize,
    sources: LruCache<Source, Tally, RandomState>,
}

struct Tally {
    open: u32,
    bucket: Bucket,
}

impl Tally {
    /// Fills the bucket up to `now`, and names the limit that one session more would exceed.
    fn check(&mut self, limits: &config::Limits, now: Instant) -> Result<(), Limit> {
        if self.open as usize >= limits.sessions_per_source {
            return Err(Limit::SessionsPerSource);
        }
        if limits.rate_per_second > 0.0 && !self.bucket.fill(rate(limits), now) {
            return Err(Limit::Rate);
        }
        Ok(())
    }
}

/// Returns how often one source may begin sessions.
fn rate(limits: &config::Limits) -> Rate {
    Rate { per_second: limits.rate_per_second, burst: limits.rate_burst }
}

/// The right to one session; dropping it gives the place back.
pub struct Permit {
    limits: Limits,
    source: Source,
    /// Set when it counts at its source: not at a load balancer's.
    counts: bool,
}

impl Limits {
    /// Limits from the configuration, and the bound on all sessions.
    #[must_use]
    pub fn new(config: &config::Limits, bound: Bound) -> Self {
        let limits = Self(Arc::new(Shared {
            state: Mutex::new(State {
                config: *config,
                bound,
                open: 0,
                // Grows with the sources that come, up to the capacity: an idle sensor pays nothing for it.
                sources: LruCache::unbounded_with_hasher(RandomState::new()),
            }),
        }));
        limits.change(config, bound);
        limits
    }

    /// Changes the limits. Sessions that are open stay so, and count.
    pub fn change(&self, config: &config::Limits, bound: Bound) {
        let mut state = self.state();
        state.sources.resize(NonZeroUsize::new(config.sources).unwrap_or(NonZeroUsize::MIN));
        state.config = *config;
        state.bound = bound;
    }

    /// Returns the configured limits.
    #[must_use]
    pub fn config(&self) -> config::Limits {
        self.state().config
    }

    /// The bound on all sessions.
    #[must_use]
    pub fn sessions(&self) -> usize {
        self.state().bound.sessions
    }

    /// Admits a connection from `address` at `now`, or names the limit that it would exceed. When all places are taken
    /// `make_room` is asked whether so many sessions were told to end, by which limit, and are about to.
    ///
    /// # Errors
    /// The limit that is exceeded; a refused connection costs its source no token.
    pub fn admit(
        &self,
        address: IpAddr,
        now: Instant,
        make_room: impl FnOnce(usize, Limit) -> bool,
    ) -> Result<Permit, Limit> {
        self.admit_by(address, now, true, make_room)
    }

    /// As [`Limits::admit`], for a load balancer: the clients behind it count, and not the balancer itself.
    ///
    /// # Errors
    /// All places are taken.
    pub fn admit_balancer(
        &self,
        address: IpAddr,
        now: Instant,
        make_room: impl FnOnce(usize, Limit) -> bool,
    ) -> Result<Permit, Limit> {
        self.admit_by(address, now, false, make_room)
    }

    fn admit_by(
        &self,
        address: IpAddr,
        now: Instant,
        counts: bool,
        make_room: impl FnOnce(usize, Limit) -> bool,
    ) -> Result<Permit, Limit> {
        let source = Source::from(address);
        let mut state = self.state();
        let State { config: limits, bound, open, sources } = &mut *state;
        let is_full = *open >= bound.sessions;
        let fresh = || Tally { open: 0, bucket: Bucket::full(rate(limits), now) };
        let tally = sources.get_or_insert_mut(source, fresh);
        if counts {
            tally.check(limits, now)?;
        }
        // Last, so that no session loses its place for a connection that another limit refuses.
        // Those who were let in for others that have not ended yet: more of them than descriptors are kept back for,
        // and the log itself would have none. While it takes nothing, sessions that were told to end do not.
        let ahead = *open - (*open).min(bound.sessions);
        let makes_room = |by| ahead < AHEAD_MAX && make_room(ahead + 1, by);
        if is_full && !bound.from.makes_room().is_some_and(makes_room) {
            return Err(Limit::Sessions);
        }
        // A balancer may have any number of sessions, and spends nothing.
        if counts {
            tally.bucket.spend();
            tally.open += 1;
        }
        *open += 1;
        drop(state);
        Ok(Permit { limits: self.clone(), source, counts })
    }

    /// Sessions that are open now.
    #[must_use]
    pub fn open(&self) -> usize {
        self.state().open
    }

    /// Sources that are remembered now.
    #[must_use]
    pub fn sources(&self) -> usize {
        self.state().sources.len()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing in here panics between two writes that belong together: the state behind a poisoned lock is whole.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Permit {
    /// Returns the source that has it.
    #[must_use]
    pub fn source(&self) -> Source {
        self.source
    }

    /// Makes it that of the client at `address`, behind the load balancer that has it.
    ///
    /// # Errors
    /// A limit that the client exceeds; then the balancer keeps it.
    pub fn move_to(&mut self, address: IpAddr, now: Instant) -> Result<(), Limit> {
        let source = Source::from(address);
        let limits = self.limits.clone();
        let mut state = limits.state();
        let State { config: limits, sources, .. } = &mut *state;
        let fresh = || Tally { open: 0, bucket: Bucket::full(rate(limits), now) };
        let tally = sources.get_or_insert_mut(source, fresh);
        tally.check(limits, now)?;
        tally.bucket.spend();
        tally.open += 1;
        self.give_back(&mut state);
        (self.source, self.counts) = (source, true);
        Ok(())
    }

    /// Gives the place at its source back.
    fn give_back(&self, state: &mut State) {
        // A source that was forgotten and came back counts from nothing: never below it.
        if self.counts
            && let Some(tally) = state.sources.peek_mut(&self.source)
        {
            tally.open = tally.open.saturating_sub(1);
        }
    }
}

impl std::fmt::Debug for Permit {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Permit").field("source", &self.source).finish_non_exhaustive()
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut state = self.limits.state();
        state.open = state.open.saturating_sub(1);
        self.give_back(&mut state);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn by_descriptors(sessions: usize) -> Bound {
        Bound { sessions, from: BoundFrom::Descriptors }
    }

    fn limits(sessions: usize, per_source: usize, rate: f64, burst: f64, sources: usize) -> Limits {
        let config = config::Limits {
            payload_bytes: 1,
            payload_memory_bytes: None,
            sessions: None,
            sessions_per_source: per_source,
            rate_per_second: rate,
            rate_burst: burst,
            sources,
            rejected_interval: Duration::from_secs(1),
        };
        Limits::new(&config, by_descriptors(sessions))
    }

    fn admit(limits: &Limits, address: IpAddr, now: Instant) -> Result<Permit, Limit> {
        limits.admit(address, now, |_, _| false)
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("address")
    }

    #[test]
    fn the_bound_on_all_sessions_is_held_and_given_back() {
        let limits = limits(2, 10, 0.0, 0.0, 10);
        let now = Instant::now();
        let first = admit(&limits, ip("192.0.2.1"), now).ok();
        let _second = admit(&limits, ip("192.0.2.2"), now).ok();
        assert_eq!(admit(&limits, ip("192.0.2.3"), now).err(), Some(Limit::Sessions));
        drop(first);
        assert!(admit(&limits, ip("192.0.2.3"), now).is_ok());
    }

    #[test]
    fn the_clients_behind_a_balancer_count_and_not_the_balancer() {
        let limits = limits(10, 1, 0.0, 0.0, 10);
        let now = Instant::now();
        let admit = || limits.admit_balancer(ip("10.0.0.1"), now, |_, _| false).expect("a place");
        let (mut first, mut second, mut third) = (admit(), admit(), admit());
        assert_eq!(first.move_to(ip("192.0.2.1"), now), Ok(()));
        assert_eq!(second.move_to(ip("192.0.2.2"), now), Ok(()));
        assert_eq!(third.move_to(ip("192.0.2.1"), now), Err(Limit::SessionsPerSource));
        assert_eq!(third.source(), Source::from(ip("10.0.0.1")));
        drop(first);
        assert_eq!(third.move_to(ip("192.0.2.1"), now), Ok(()));
        drop((second, third));
        assert_eq!(limits.open(), 0);
        assert!(limits.admit(ip("10.0.0.1"), now, |_, _| false).is_ok(), "nothing is left of them");
    }

    #[test]
    fn a_place_that_moves_to_another_source_costs_a_token_there_and_is_given_back_where_it_was() {
        let limits = limits(10, 1, 1.0, 1.0, 10);
        let now = Instant::now();
        let mut held = admit(&limits, ip("192.0.2.1"), now).expect("a place");
        assert_eq!(held.move_to(ip("192.0.2.2"), now), Ok(()));
        drop(held);
        assert_eq!(admit(&limits, ip("192.0.2.2"), now).err(), Some(Limit::Rate), "its token is spent");
        // A second later both have a token again, and no session.
        let later = now + Duration::from_secs(1);
        for address in ["192.0.2.1", "192.0.2.2"] {
            assert!(admit(&limits, ip(address), later).is_ok(), "{address}");
        }
    }

    #[test]
    fn a_session_that_was_told_to_end_makes_room_for_another() {
        let limits = limits(1, 1, 0.0, 0.0, 10);
        let now = Instant::now();
        let held = limits.admit(ip("192.0.2.1"), now, |_, _| true).ok();
        for (from, by) in [(BoundFrom::Descriptors, Limit::Descriptors), (BoundFrom::Memory, Limit::Sessions)] {
            limits.change(&limits.config(), Bound { sessions: 1, from });
            assert!(limits.admit(ip("192.0.2.2"), now, |places, limit| (places, limit) == (1, by)).is_ok());
        }
        let refused = limits.admit(ip("192.0.2.1"), now, |_, _| panic!("nobody goes for a source at its own limit"));
        assert_eq!(refused.err(), Some(Limit::SessionsPerSource));
        limits.change(&limits.config(), Bound { sessions: 1, from: BoundFrom::Configuration });
        let refused =
            limits.admit(ip("192.0.2.2"), now, |_, _| panic!("nobody goes where the operator set the number"));
        assert_eq!(refused.err(), Some(Limit::Sessions));
        drop(held);
    }

    #[test]
    fn no_more_are_let_in_for_others_than_descriptors_are_kept_back_for() {
        let limits = limits(3, 1_000, 0.0, 0.0, 10);
        let now = Instant::now();
        let admit = || limits.admit(ip("192.0.2.1"), now, |_, _| true);
        let held: Vec<_> = (0..3 + AHEAD_MAX).map(|_| admit().ok()).collect();
        assert!(held.iter().all(Option::is_some));
        assert_eq!(admit().err(), Some(Limit::Sessions), "nobody has ended yet");
        drop(held);
        assert!(admit().is_ok());
    }

    #[test]
    fn addresses_of_one_ipv6_block_share_their_bound() {
        let limits = limits(10, 1, 0.0, 0.0, 10);
        let now = Instant::now();
        let _held = admit(&limits, ip("2001:db8::1"), now).ok();
        assert_eq!(admit(&limits, ip("2001:db8::2"), now).err(), Some(Limit::SessionsPerSource));
        assert!(admit(&limits, ip("2001:db8:0:1::1"), now).is_ok());
    }

    #[test]
    fn a_mapped_address_is_the_ipv4_source() {
        assert_eq!(Source::from(ip("::ffff:192.0.2.1")), Source::from(ip("192.0.2.1")));
    }

    #[test]
    fn a_bucket_empties_and_refills_with_time() {
        let limits = limits(100, 100, 2.0, 3.0, 10);
        let start = Instant::now();
        for _ in 0..3 {
            assert!(admit(&limits, ip("192.0.2.1"), start).is_ok());
        }
        assert_eq!(admit(&limits, ip("192.0.2.1"), start).err(), Some(Limit::Rate));
        assert!(admit(&limits, ip("192.0.2.2"), start).is_ok(), "another source has its own bucket");
        let later = start + Duration::from_millis(500);
        assert!(admit(&limits, ip("192.0.2.1"), later).is_ok());
        assert_eq!(admit(&limits, ip("192.0.2.1"), later).err(), Some(Limit::Rate));
    }

    #[test]
    fn limits_that_change_hold_for_newcomers_and_count_those_who_are_there() {
        let limits = limits(10, 10, 0.0, 0.0, 10);
        let now = Instant::now();
        let held: Vec<_> = (0..3).map(|_| admit(&limits, ip("192.0.2.1"), now).ok()).collect();
        let mut config = limits.config();
        config.sessions_per_source = 3;
        limits.change(&config, by_descriptors(4));
        assert_eq!(admit(&limits, ip("192.0.2.1"), now).err(), Some(Limit::SessionsPerSource));
        let _other = admit(&limits, ip("192.0.2.2"), now).ok();
        assert_eq!(admit(&limits, ip("192.0.2.3"), now).err(), Some(Limit::Sessions));
        drop(held);
        assert!(admit(&limits, ip("192.0.2.1"), now).is_ok());
    }

    #[test]
    fn the_table_of_sources_is_bounded() {
        let limits = limits(100_000, 10, 0.0, 0.0, 50);
        let now = Instant::now();
        let mut held = Vec::new();
        for n in 0..5_000_u32 {
            let address = IpAddr::from(n.to_be_bytes());
            held.push(admit(&limits, address, now).ok());
        }
        assert_eq!(limits.sources(), 50);
        drop(held);
        assert_eq!(limits.open(), 0);
    }
}
