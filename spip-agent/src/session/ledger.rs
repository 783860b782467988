//! Accounts of the log: the share that each source may take, in proportion to the log's size.
//!
//! A log that rotates within a bound forgets its oldest records. One client that makes it write as fast as the disk
//! goes would push everybody else's out within minutes. So each source has an account of the bytes that it has caused,
//! which empties with time, and its records shrink before those of others are touched:
//!
//! - A source that took a twentieth of the room within an hour gets short records ([`SHORT_BYTES`]).
//! - One that took twice as much is counted in summaries, as refused connections are (`limit` `log_budget`).
//! - When all sources together took half of the room within six hours, everybody's records are short.
//!
//! Whatever the room is, what a source costs is held to what it spends: when its lines of the last minute were 64 KiB more
//! than three times the bytes on the wire, each further one is cut at three times the bytes of its connection.
//!
//! Records are short, too, for every source beyond its first bytes while the disk has less room than `log_min_free_bytes`. A log
//! without a bound of its own (standard output, rotation off) has no accounts, only that floor.
//!
//! The table of accounts is bounded: the source that wrote longest ago starts anew when it comes back.

use std::hash::RandomState;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use lru::LruCache;
use nix::sys::statvfs::statvfs;

use crate::config;
use crate::session::limits::Source;

/// The longest line of a source that took its part: addresses, times, fingerprints, and the beginning of the payload.
pub const SHORT_BYTES: usize = 4 * 1024;

/// Bytes that every source may write whatever the others did, as long as the disk takes anything.
const FIRST_BYTES: f64 = 64.0 * 1024.0;

/// Bytes of log for a byte on the wire, in either direction and with headers, that a source may cause for long …
const WIRE_TIMES: usize = 3;
/// … and the time in which [`FIRST_BYTES`] more than that are forgotten.
const EXCESS_TIME: Duration = Duration::from_secs(60);

/// The part of the room that one source may take in full …
const SOURCE_PART: f64 = 1.0 / 20.0;
/// … within this time.
const SOURCE_TIME: Duration = Duration::from_secs(3600);

/// The part of the room that all sources may take in full …
const ALL_PART: f64 = 1.0 / 2.0;
/// … within this time.
const ALL_TIME: Duration = Duration::from_secs(6 * 3600);

/// A smaller room counts as this one: its parts would hold few records.
const ROOM_MIN: u64 = 16 << 20;

/// Sources that are remembered: about 5 MB.
const SOURCES_MAX: NonZeroUsize = NonZeroUsize::new(65_536).expect("not zero");

/// Share of the log that a source may have now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Share {
    /// Whole records.
    Whole,
    /// Lines of [`SHORT_BYTES`] at most.
    Short,
    /// A part in the count of a summary.
    Summary,
}

/// The room on the log's disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Disk {
    /// Above `log_min_free_bytes`.
    #[default]
    Roomy,
    /// Below it.
    Low,
    /// Below a quarter of it.
    AlmostFull,
}

impl Disk {
    /// Judges `free` bytes where `least` are to be left.
    fn with(free: u64, least: u64) -> Self {
        match free {
            _ if free >= least => Self::Roomy,
            _ if free >= least / 4 => Self::Low,
            _ => Self::AlmostFull,
        }
    }
}

/// Look-up of the free room on the disk.
#[derive(Clone, Debug)]
struct Floor {
    directory: PathBuf,
    /// `log_min_free_bytes`; derived from the size of the file system when absent.
    bytes: Option<u64>,
}

/// The accounts; clones share them.
#[derive(Clone, Debug)]
pub struct Ledger(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    disk: AtomicU8,
    floor: Mutex<Option<Floor>>,
}

#[derive(Debug)]
struct State {
    /// Bytes that the log may take in all its files; `None` where nothing bounds it.
    room: Option<f64>,
    all: Account,
    sources: LruCache<Source, Account, RandomState>,
}

/// Bytes that were written and have not been forgotten yet.
#[derive(Clone, Copy, Debug)]
struct Account {
    bytes: f64,
    /// What they were more than [`WIRE_TIMES`] the bytes on the wire.
    excess: f64,
    at: Instant,
}

impl Account {
    fn new(now: Instant) -> Self {
        Self { bytes: 0.0, excess: 0.0, at: now }
    }

    /// Returns what has not been forgotten of the excess at `now`.
    fn excess(&self, now: Instant) -> f64 {
        let elapsed = now.saturating_duration_since(self.at).as_secs_f64();
        (self.excess - elapsed * FIRST_BYTES / EXCESS_TIME.as_secs_f64()).max(0.0)
    }

    /// Returns the bytes at `now`, of which `capacity` are forgotten in `time`.
    fn level(&self, now: Instant, capacity: f64, time: Duration) -> f64 {
        let elapsed = now.saturating_duration_since(self.at).as_secs_f64();
        (self.bytes - elapsed * capacity / time.as_secs_f64()).max(0.0)
    }
}

impl Ledger {
    /// Creates the accounts of the log that is configured.
    #[must_use]
    pub fn of(config: &config::Log) -> Self {
        let ledger = Self::new(None);
        ledger.change(config);
        ledger
    }

    /// Takes up another configuration of the log; what was booked stays.
    pub fn change(&self, config: &config::Log) {
        self.resize(config.file.as_ref().and_then(|_| config.most_bytes()));
        let directory = config.file.as_deref().map(|file| match file.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent.to_path_buf(),
            _ => PathBuf::from("."),
        });
        let floor = directory.map(|directory| Floor { directory, bytes: config.min_free_bytes });
        *self.0.floor.lock().unwrap_or_else(PoisonError::into_inner) = floor;
    }

    /// Looks at how much room the disk has, and reports when that is too little, or enough again.
    pub fn look_at_disk(&self) {
        let Some(floor) = self.0.floor.lock().unwrap_or_else(PoisonError::into_inner).clone() else {
            return self.set_disk(Disk::Roomy);
        };
        // A directory that is gone for the moment says nothing about its disk.
        let Ok(found) = statvfs(&floor.directory) else { return };
        let unit = found.fragment_size();
        let [free, size] = [found.blocks_available(), found.blocks()].map(|blocks| unit.saturating_mul(blocks));
        let least = config::least_free(floor.bytes, size);
        let disk = Disk::with(free, least);
        let before = self.0.disk.swap(disk as u8, Ordering::Relaxed);
        if before == disk as u8 {
            return;
        }
        let directory = floor.directory.display().to_string();
        if disk == Disk::Roomy {
            log::info!(target: "log", directory = directory.as_str(), free_bytes = free, log_min_free_bytes = least;
                "the disk of the log has room again: records are whole");
        } else {
            log::warn!(target: "log", directory = directory.as_str(), free_bytes = free, log_min_free_bytes = least;
                "the disk of the log runs full: records of sources that wrote more than 64 KiB are {}; free some room, or \
                 lower log_keep_bytes",
                if disk == Disk::Low { "short" } else { "counted only, all others short" });
        }
    }

    /// Creates the accounts of a log that takes at most `room` bytes.
    fn new(room: Option<u64>) -> Self {
        let sources = LruCache::with_hasher(SOURCES_MAX, RandomState::new());
        let state = State { room: None, all: Account::new(Instant::now()), sources };
        let disk = AtomicU8::new(Disk::Roomy as u8);
        let ledger = Self(Arc::new(Shared { state: Mutex::new(state), disk, floor: Mutex::default() }));
        ledger.resize(room);
        ledger
    }

    /// Makes the room `room` bytes from now on.
    fn resize(&self, room: Option<u64>) {
        // A room of 2^53 bytes and more is the same for what is decided here.
        self.state().room = room.map(|bytes| bytes.max(ROOM_MIN) as f64);
    }

    /// Notes how much room the disk has.
    fn set_disk(&self, disk: Disk) {
        self.0.disk.store(disk as u8, Ordering::Relaxed);
    }

    /// Decides what `source` may have of the log at `now`.
    #[must_use]
    pub fn share(&self, source: Source, now: Instant) -> Share {
        self.share_in(&self.state(), source, now)
    }

    /// Returns how long a line of `source` may be at `now`; `wire` bytes were on the wire for it.
    #[must_use]
    pub fn line_bytes(&self, source: Source, wire: usize, now: Instant) -> usize {
        let state = self.state();
        let most = if self.share_in(&state, source, now) == Share::Whole { usize::MAX } else { SHORT_BYTES };
        let excess = state.sources.peek(&source).map_or(0.0, |account| account.excess(now));
        if excess < FIRST_BYTES { most } else { most.min(wire.saturating_mul(WIRE_TIMES)) }
    }

    fn share_in(&self, state: &State, source: Source, now: Instant) -> Share {
        let disk = self.0.disk.load(Ordering::Relaxed);
        if state.room.is_none() && disk == Disk::Roomy as u8 {
            return Share::Whole;
        }
        // Where only the disk is a bound, an account is forgotten at the rate of its first bytes.
        let room = state.room.unwrap_or(FIRST_BYTES / SOURCE_PART);
        let own = state.sources.peek(&source);
        let own = own.map_or(0.0, |account| account.level(now, room * SOURCE_PART, SOURCE_TIME));
        let all = state.all.level(now, room * ALL_PART, ALL_TIME);
        let is_bound = state.room.is_some();
        if own < FIRST_BYTES.min(room * SOURCE_PART) {
            if disk == Disk::AlmostFull as u8 { Share::Short } else { Share::Whole }
        } else if disk == Disk::AlmostFull as u8 || is_bound && own >= 2.0 * room * SOURCE_PART {
            Share::Summary
        } else if disk == Disk::Low as u8 || is_bound && (own >= room * SOURCE_PART || all >= room * ALL_PART) {
            Share::Short
        } else {
            Share::Whole
        }
    }

    /// Books `bytes` that the log took for `source` at `now`; `wire` bytes were on the wire for them.
    pub fn charge(&self, source: Source, bytes: usize, wire: usize, now: Instant) {
        let mut state = self.state();
        let room = state.room.unwrap_or(FIRST_BYTES / SOURCE_PART);
        let level = state.all.level(now, room * ALL_PART, ALL_TIME);
        state.all = Account { bytes: level + bytes as f64, ..Account::new(now) };
        let account = state.sources.get_or_insert_mut(source, || Account::new(now));
        let level = account.level(now, room * SOURCE_PART, SOURCE_TIME);
        let more = bytes as f64 - wire.saturating_mul(WIRE_TIMES) as f64;
        *account = Account { bytes: level + bytes as f64, excess: (account.excess(now) + more).max(0.0), at: now };
    }

    /// Returns the bytes that are booked for `source` at `now`.
    #[cfg(test)]
    pub fn booked(&self, source: Source, now: Instant) -> f64 {
        let state = self.state();
        let room = state.room.unwrap_or(FIRST_BYTES / SOURCE_PART);
        state.sources.peek(&source).map_or(0.0, |account| account.level(now, room * SOURCE_PART, SOURCE_TIME))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing in here panics between two writes that belong together: the state behind a poisoned lock is whole.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOM: u64 = 100 << 20;
    const PART: usize = (ROOM / 20) as usize;

    fn source(number: u32) -> Source {
        Source::V4(number.to_be_bytes())
    }

    #[test]
    fn a_source_that_took_its_part_gets_short_records_then_summaries_and_others_notice_nothing() {
        let (ledger, now) = (Ledger::new(Some(ROOM)), Instant::now());
        ledger.charge(source(1), PART - 1, usize::MAX, now);
        assert_eq!(ledger.share(source(1), now), Share::Whole);
        ledger.charge(source(1), 1, usize::MAX, now);
        assert_eq!(ledger.share(source(1), now), Share::Short);
        ledger.charge(source(1), PART, usize::MAX, now);
        assert_eq!(ledger.share(source(1), now), Share::Summary);
        assert_eq!(ledger.share(source(2), now), Share::Whole);
    }

    #[test]
    fn a_source_costs_three_times_what_it_spends_in_any_minute_and_64_kib() {
        let (ledger, start) = (Ledger::new(None), Instant::now());
        let (wire, dear) = (1_000, 12_000);
        let mut lines = Vec::new();
        // Ten connections a second for three minutes.
        for tenth in 0..1_800 {
            let now = start + Duration::from_millis(100 * tenth);
            let line = dear.min(ledger.line_bytes(source(1), wire, now));
            ledger.charge(source(1), line, wire, now);
            lines.push(line);
        }
        assert_eq!(lines[..7], [dear; 7], "some are whole");
        for minute in lines.windows(600) {
            // What is forgotten in that minute comes again.
            let bound = 3 * wire * minute.len() + 2 * FIRST_BYTES as usize + dear;
            assert!(minute.iter().sum::<usize>() <= bound, "{} of {bound}", minute.iter().sum::<usize>());
        }
        let end = start + Duration::from_secs(180);
        assert_eq!(ledger.line_bytes(source(2), wire, end), usize::MAX, "others notice nothing");
        assert_eq!(ledger.line_bytes(source(1), wire, end + EXCESS_TIME), usize::MAX, "and it is forgotten");
        let rested = end + 2 * EXCESS_TIME;
        ledger.charge(source(1), dear, wire, rested);
        assert_eq!(
            ledger.line_bytes(source(1), wire, rested),
            usize::MAX,
            "nothing of it comes back with the next line"
        );
        // What is cheap is never cut.
        for _ in 0..10_000 {
            ledger.charge(source(3), 3 * wire, wire, start);
        }
        assert_eq!(ledger.line_bytes(source(3), wire, start), usize::MAX);
    }

    #[test]
    fn what_was_taken_is_forgotten_with_time() {
        let (ledger, now) = (Ledger::new(Some(ROOM)), Instant::now());
        ledger.charge(source(1), 3 * PART, usize::MAX, now);
        assert_eq!(ledger.share(source(1), now + SOURCE_TIME / 2), Share::Summary);
        assert_eq!(ledger.share(source(1), now + SOURCE_TIME + SOURCE_TIME / 2), Share::Short);
        assert_eq!(ledger.share(source(1), now + 3 * SOURCE_TIME), Share::Whole);
    }

    #[test]
    fn all_sources_together_are_shortened_at_half_of_the_room_beyond_their_first_bytes() {
        let (ledger, now) = (Ledger::new(Some(ROOM)), Instant::now());
        for number in 0..600 {
            ledger.charge(source(number), 100 << 10, usize::MAX, now);
        }
        assert_eq!(ledger.share(source(1), now), Share::Short);
        assert_eq!(ledger.share(source(700), now), Share::Whole, "a newcomer");
        assert_eq!(ledger.share(source(1), now + ALL_TIME), Share::Whole);
    }

    #[test]
    fn a_disk_that_runs_full_keeps_the_log_small() {
        for room in [Some(ROOM), None] {
            let (ledger, now) = (Ledger::new(room), Instant::now());
            ledger.charge(source(1), 100 << 10, usize::MAX, now);
            assert_eq!(ledger.share(source(1), now), Share::Whole);
            ledger.set_disk(Disk::Low);
            assert_eq!(ledger.share(source(1), now), Share::Short);
            assert_eq!(ledger.share(source(2), now), Share::Whole);
            ledger.set_disk(Disk::AlmostFull);
            assert_eq!(ledger.share(source(1), now), Share::Summary);
            assert_eq!(ledger.share(source(2), now), Share::Short);
            ledger.set_disk(Disk::Roomy);
            assert_eq!(ledger.share(source(1), now), Share::Whole);
        }
    }

    #[test]
    fn a_disk_is_low_below_its_floor_and_almost_full_below_a_quarter_of_it() {
        let of = |free| Disk::with(free, 400);
        assert_eq!(
            [400, 399, 100, 99, 0].map(of),
            [Disk::Roomy, Disk::Low, Disk::Low, Disk::AlmostFull, Disk::AlmostFull,]
        );
        assert_eq!(Disk::with(0, 0), Disk::Roomy);
    }

    #[test]
    fn a_floor_above_the_size_of_the_disk_is_an_almost_full_disk_and_none_is_a_roomy_one() {
        let text = |floor: &str| format!("ip = \"::\"\nport = 1\nlog_file = \"spip.jsonl\"\n{floor}");
        let config = |floor| {
            let text = text(floor);
            config::Config::from_str(&text, std::path::Path::new("spip.toml")).expect("valid").config.log
        };
        let ledger = Ledger::of(&config("log_min_free_bytes = 9007199254740992"));
        let (now, source) = (Instant::now(), source(1));
        assert_eq!(ledger.share(source, now), Share::Whole);
        ledger.look_at_disk();
        assert_eq!(ledger.share(source, now), Share::Short);
        ledger.charge(source, 100 << 10, usize::MAX, now);
        assert_eq!(ledger.share(source, now), Share::Summary);
        ledger.change(&config("log_min_free_bytes = 0"));
        ledger.look_at_disk();
        assert_eq!(ledger.share(source, now), Share::Whole);
    }

    #[test]
    fn a_log_without_a_bound_takes_everything() {
        let (ledger, now) = (Ledger::new(None), Instant::now());
        ledger.charge(source(1), usize::MAX >> 8, usize::MAX, now);
        assert_eq!(ledger.share(source(1), now), Share::Whole);
    }

    #[test]
    fn the_table_of_accounts_is_bounded() {
        let (ledger, now) = (Ledger::new(Some(ROOM)), Instant::now());
        for number in 0..200_000 {
            ledger.charge(source(number), 1, usize::MAX, now);
        }
        assert_eq!(ledger.state().sources.len(), SOURCES_MAX.get());
    }
}
