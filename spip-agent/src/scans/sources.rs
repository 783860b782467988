//! The half-open scans of the running interval, one account for each source.
//!
//! Bounded: of more than [`SOURCES_MAX`] sources, those that were quiet for longest and sent least are put into one
//! account for the rest. So a flood from invented addresses, each of which sends one SYN, does not push out a scanner
//! that goes on while it lasts.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, SystemTime};

use lru::LruCache;
use spip_common::Syn;

use super::Fill;
use super::addresses::{Addresses, RANGES_MAX, Store};
use super::pending::{GivenUp, HalfOpen};
use crate::process::ports::Ports;
use crate::scans::record::{Scan, ScanData, Shown};
use spip_protocol::syn::{SynOptions, Tool};

/// Sources of one interval. An account takes 600 bytes, and at worst 17 kB: 70 MB when each of so many sources asks for
/// thousands of ports. Besides, all of them share what is kept of thousands of addresses.
pub const SOURCES_MAX: usize = 4_096;
/// Of that many sources that were quiet for longest, the one that sent least makes room.
const CANDIDATES: usize = 4;
/// Variants of the SYN of one source that are counted.
const VARIANTS_MAX: usize = 8;

/// Account of one source.
#[derive(Debug)]
struct Account {
    first_ns: u64,
    last_ns: u64,
    count: u64,
    ports: Ports,
    source_ports: (u16, u16),
    addresses: Addresses,
    tools: [u64; Tool::ALL.len()],
    syn: Syn,
    variants: Vec<u64>,
    data: Option<Box<ScanData>>,
}

impl Account {
    fn new(first: &HalfOpen<'_>) -> Self {
        Self {
            first_ns: first.seen_ns,
            last_ns: first.seen_ns,
            count: 0,
            ports: Ports::default(),
            source_ports: (first.source_port, first.source_port),
            addresses: Addresses::default(),
            tools: [0; Tool::ALL.len()],
            syn: *first.syn,
            variants: Vec::new(),
            data: None,
        }
    }

    fn add(&mut self, one: &HalfOpen<'_>, store: &mut Store) {
        self.first_ns = self.first_ns.min(one.seen_ns);
        self.last_ns = self.last_ns.max(one.seen_ns);
        self.count += 1;
        self.ports.insert(one.destination_port);
        self.source_ports = (self.source_ports.0.min(one.source_port), self.source_ports.1.max(one.source_port));
        self.addresses.insert(one.destination, store);
        for tool in one.tools.iter() {
            self.tools[tool as usize] += 1;
        }
        if self.variants.len() < VARIANTS_MAX {
            let variant = variant(one.syn);
            if !self.variants.contains(&variant) {
                self.variants.push(variant);
            }
        }
    }
}

/// Hashes the fields that are alike in all SYNs of one stack with one setting: those of the fingerprint `muonfp`.
fn variant(syn: &Syn) -> u64 {
    let options = SynOptions::parse(syn.options());
    let mut hasher = DefaultHasher::new();
    (syn.window, options.kinds(), options.mss, options.scale).hash(&mut hasher);
    hasher.finish()
}

/// Sources that have no account of their own.
#[derive(Clone, Copy, Debug, Default)]
struct Rest {
    count: u64,
    first_ns: Option<u64>,
    last_ns: u64,
}

impl Rest {
    fn add(&mut self, count: u64, first_ns: u64, last_ns: u64) {
        self.count += count;
        self.first_ns = Some(self.first_ns.map_or(first_ns, |first| first.min(first_ns)));
        self.last_ns = self.last_ns.max(last_ns);
    }
}

/// The accounts of the running interval.
#[derive(Debug)]
pub struct Sources {
    accounts: LruCache<[u8; 16], Box<Account>>,
    /// Store of the accounts' addresses beyond a few.
    store: Store,
    rest: Rest,
}

impl Default for Sources {
    fn default() -> Self {
        Self { accounts: LruCache::unbounded(), store: Store::default(), rest: Rest::default() }
    }
}

impl Sources {
    /// Adds a half-open SYN to the account of its source.
    pub fn add(&mut self, one: &HalfOpen<'_>) {
        if let Some(account) = self.accounts.get_mut(&one.source) {
            account.add(one, &mut self.store);
            return;
        }
        if self.accounts.len() >= SOURCES_MAX {
            self.make_room();
        }
        let mut account = Box::new(Account::new(one));
        account.add(one, &mut self.store);
        self.accounts.put(one.source, account);
    }

    /// Notes that a SYN which was added came with data; `bytes` is asked for its first bytes as long as none are known of its
    /// source. Those of a source without an account are not kept.
    pub fn add_data(&mut self, one: &HalfOpen<'_>, bytes: impl FnOnce() -> Option<Box<[u8]>>) {
        let Some(account) = self.accounts.peek_mut(&one.source) else { return };
        let data = account.data.get_or_insert_default();
        data.count += 1;
        if data.bytes.is_empty()
            && let Some(bytes) = bytes().filter(|bytes| bytes.len() <= usize::from(one.data_length))
        {
            (data.length, data.bytes) = (one.data_length, bytes);
        } else if data.count == 1 {
            data.length = one.data_length;
        }
    }

    /// Returns the fill level of each table: no traffic may take one beyond its bound.
    #[must_use]
    pub fn fill(&self) -> [Fill; 3] {
        let addresses = || self.accounts.iter().map(|(_, account)| &account.addresses);
        [
            Fill { table: "sources", entries: self.accounts.len(), most: SOURCES_MAX },
            Fill { table: "blocks", entries: addresses().map(Addresses::blocks).sum(), most: self.store.taken() },
            Fill {
                table: "ranges",
                entries: addresses().map(Addresses::kept_ranges).max().unwrap_or(0),
                most: RANGES_MAX,
            },
        ]
    }

    /// Keeps the accounts of the `most` sources that sent most; the others are counted with the rest.
    pub fn keep(&mut self, most: usize) {
        let excess = self.accounts.len().saturating_sub(most);
        if excess == 0 {
            return;
        }
        let mut by_count: Vec<_> =
            self.accounts.iter().rev().map(|(source, account)| (account.count, *source)).collect();
        // Stable: of those that sent as much, the ones that were quiet for longest go.
        by_count.sort_by_key(|(count, _)| *count);
        for (_, source) in by_count.into_iter().take(excess) {
            self.give_to_rest(source);
        }
    }

    fn make_room(&mut self) {
        let oldest = self.accounts.iter().rev().take(CANDIDATES);
        let smallest = oldest.min_by_key(|(_, account)| account.count).map(|(source, _)| *source);
        if let Some(source) = smallest {
            self.give_to_rest(source);
        }
    }

    fn give_to_rest(&mut self, source: [u8; 16]) {
        if let Some(account) = self.accounts.pop(&source) {
            self.rest.add(account.count, account.first_ns, account.last_ns);
            self.store.give_back(&account.addresses);
        }
    }

    /// Ends the interval: its records, in the order in which the sources were last seen. `clock` makes a time of the
    /// wall clock of nanoseconds; `given_up` is what could not be decided.
    pub fn end(&mut self, clock: &Clock, given_up: GivenUp) -> impl Iterator<Item = Scan> + use<> {
        let Self { mut accounts, rest, store: _ } = std::mem::take(self);
        let clock = *clock;
        let first = rest.first_ns.unwrap_or(given_up.last_ns);
        let rest = (rest.count > 0 || given_up.count > 0).then(|| Scan {
            source: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            first: clock.time(first),
            last: clock.time(rest.last_ns.max(given_up.last_ns)),
            count: rest.count,
            undecided: given_up.count,
            shown: None,
        });
        std::iter::from_fn(move || accounts.pop_lru())
            .map(move |(source, account)| account.into_scan(source, &clock))
            .chain(rest)
    }
}

impl Account {
    fn into_scan(self, source: [u8; 16], clock: &Clock) -> Scan {
        Scan {
            source: Ipv6Addr::from(source).to_canonical(),
            first: clock.time(self.first_ns),
            last: clock.time(self.last_ns),
            count: self.count,
            undecided: 0,
            shown: Some(Box::new(Shown {
                ports: self.ports,
                addresses: self.addresses,
                source_ports: self.source_ports,
                tools: self.tools,
                variants: self.variants.len(),
                syn: self.syn,
                data: self.data,
            })),
        }
    }
}

/// The relation between the wall clock and `CLOCK_MONOTONIC`, by which the kernel side tells times.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    wall: SystemTime,
    steady_ns: u64,
}

impl Clock {
    /// Both clocks at one instant.
    #[must_use]
    pub fn new(wall: SystemTime, steady_ns: u64) -> Self {
        Self { wall, steady_ns }
    }

    pub(super) fn time(&self, steady_ns: u64) -> SystemTime {
        let past = Duration::from_nanos(self.steady_ns.saturating_sub(steady_ns));
        self.wall.checked_sub(past).unwrap_or(SystemTime::UNIX_EPOCH)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use spip_protocol::syn::Tools;

    fn half_open(source: u32, port: u16, seen_ns: u64, syn: &Syn) -> HalfOpen<'_> {
        HalfOpen {
            source: spip_common::packet::mapped(source.to_be_bytes()),
            destination: spip_common::packet::mapped([198, 51, 100, 1]),
            destination_port: port,
            source_port: 40_000,
            seen_ns,
            tools: Tools::of(syn),
            data_length: syn.payload_length,
            syn,
        }
    }

    fn ended(sources: &mut Sources) -> Vec<Scan> {
        let clock = Clock::new(SystemTime::UNIX_EPOCH + Duration::from_secs(1_000), 1_000_000_000_000);
        sources.end(&clock, GivenUp::default()).collect()
    }

    #[test]
    fn one_source_is_one_record_with_all_that_it_did() {
        let mut sources = Sources::default();
        for port in 1..=1000 {
            sources.add(&half_open(1, port, u64::from(port) * 1_000_000_000, &Syn::ZERO));
        }
        let records = ended(&mut sources);
        assert_eq!(records.len(), 1);
        let shown = records[0].shown.as_ref().expect("a source");
        assert_eq!(shown.ports.ranges().collect::<Vec<_>>(), [(1, 1000)]);
        assert_eq!((records[0].count, shown.variants, shown.source_ports), (1000, 1, (40_000, 40_000)));
        let seconds = |time: SystemTime| time.duration_since(SystemTime::UNIX_EPOCH).expect("later").as_secs();
        assert_eq!((seconds(records[0].first), seconds(records[0].last)), (1, 1000));
        assert_eq!(ended(&mut sources).len(), 0, "an interval ends once");
    }

    #[test]
    fn a_flood_of_sources_stays_bounded_counted_and_spares_who_goes_on() {
        let mut sources = Sources::default();
        for number in 0..200_000 {
            sources.add(&half_open(number + 10, 80, 1, &Syn::ZERO));
            if number % 1_000 == 0 {
                sources.add(&half_open(1, u16::try_from(number / 1_000).expect("below 200"), 1, &Syn::ZERO));
            }
        }
        let records = ended(&mut sources);
        assert_eq!(records.len(), SOURCES_MAX + 1);
        assert_eq!(records.iter().map(|record| record.count).sum::<u64>(), 200_200);
        let scanner = records.iter().find(|record| record.source == IpAddr::from([0, 0, 0, 1])).expect("its record");
        assert_eq!(scanner.count, 200);
        assert!(records.last().is_some_and(|rest| rest.shown.is_none() && rest.source.is_unspecified()));
    }

    #[test]
    fn the_sources_that_sent_most_keep_their_records_and_the_others_are_counted() {
        let mut sources = Sources::default();
        for number in 0..100 {
            for port in 0..=number % 10 {
                sources.add(&half_open(number + 10, u16::try_from(port).expect("small"), 1, &Syn::ZERO));
            }
        }
        sources.keep(100);
        assert_eq!(sources.accounts.len(), 100);
        sources.keep(20);
        let records = ended(&mut sources);
        let (rest, kept) = records.split_last().expect("the rest");
        assert!(kept.len() == 20 && kept.iter().all(|record| record.count >= 9), "{kept:?}");
        assert_eq!(rest.count + kept.iter().map(|record| record.count).sum::<u64>(), 550);
    }

    #[test]
    fn the_rest_has_the_times_of_all_that_it_stands_for() {
        let mut sources = Sources::default();
        for (number, second) in [(1, 500), (2, 100), (3, 900)] {
            sources.add(&half_open(number, 80, second * 1_000_000_000, &Syn::ZERO));
        }
        sources.keep(0);
        let records = ended(&mut sources);
        let seconds = |time: SystemTime| time.duration_since(SystemTime::UNIX_EPOCH).expect("later").as_secs();
        assert_eq!((records.len(), records[0].count), (1, 3));
        assert_eq!((seconds(records[0].first), seconds(records[0].last)), (100, 900));
    }

    #[test]
    fn of_sources_that_sent_as_much_those_that_were_quiet_for_longest_give_way() {
        let mut sources = Sources::default();
        for number in [10, 11, 12, 10] {
            sources.add(&half_open(number, 80, 1, &Syn::ZERO));
        }
        for number in [11, 12] {
            sources.add(&half_open(number, 80, 1, &Syn::ZERO));
        }
        sources.keep(2);
        let kept: Vec<_> = ended(&mut sources).iter().map(|record| record.source).collect();
        assert_eq!(kept, ["0.0.0.11", "0.0.0.12", "0.0.0.0"].map(|ip| ip.parse::<IpAddr>().expect("an address")));
    }

    #[test]
    fn a_new_source_takes_the_place_of_the_smallest_among_those_that_were_quiet_for_longest() {
        let mut sources = Sources::default();
        let most = u32::try_from(SOURCES_MAX).expect("few");
        for number in 0..most {
            // The third oldest is the smallest of the four, and a younger one is as small.
            for _ in 0..if number == 2 || number == 9 { 1 } else { 2 } {
                sources.add(&half_open(number + 10, 80, 1, &Syn::ZERO));
            }
        }
        sources.add(&half_open(1, 80, 1, &Syn::ZERO));
        let has = |number: u32| sources.accounts.contains(&spip_common::packet::mapped(number.to_be_bytes()));
        assert_eq!([10, 11, 12, 13, 19, 1].map(has), [true, true, false, true, true, true]);
    }

    #[test]
    fn the_first_and_last_time_hold_in_whatever_order_the_syns_are_told() {
        let mut sources = Sources::default();
        for second in [5, 3, 9, 4] {
            sources.add(&half_open(1, 80, second * 1_000_000_000, &Syn::ZERO));
        }
        let records = ended(&mut sources);
        let seconds = |time: SystemTime| time.duration_since(SystemTime::UNIX_EPOCH).expect("later").as_secs();
        assert_eq!((seconds(records[0].first), seconds(records[0].last)), (3, 9));
    }

    #[test]
    fn blocks_of_a_source_that_is_given_up_serve_the_next_ones() {
        let mut sources = Sources::default();
        // Every second address: more ranges than are kept, so that they become blocks.
        let scan = |sources: &mut Sources, source: u32| {
            for number in 0..300_u16 {
                let [high, low] = (2 * number).to_be_bytes();
                let destination = spip_common::packet::mapped([198, 18, high, low]);
                sources.add(&HalfOpen { destination, ..half_open(source, 80, 1, &Syn::ZERO) });
            }
        };
        for source in 1..=3 {
            scan(&mut sources, source);
            assert_eq!(sources.store.taken(), 1, "source {source} has a block, and no other");
            sources.keep(0);
            assert_eq!(sources.store.taken(), 0, "source {source} was given up");
        }
    }

    #[test]
    fn what_could_not_be_decided_has_a_record_too() {
        let mut sources = Sources::default();
        let clock = Clock::new(SystemTime::UNIX_EPOCH, 0);
        let records: Vec<_> = sources.end(&clock, GivenUp { count: 7, last_ns: 5 }).collect();
        assert_eq!((records.len(), records[0].undecided, records[0].count), (1, 7, 0));
    }

    #[test]
    fn the_first_data_that_is_known_of_a_source_is_kept_and_the_others_are_counted() {
        let mut sources = Sources::default();
        let syn = |payload_length| Syn { payload_length, ..Syn::ZERO };
        for (length, bytes) in [(9, None), (600, Some(vec![7; 512])), (3, Some(b"GET".to_vec()))] {
            let syn = syn(length);
            let one = half_open(1, 80, 1, &syn);
            sources.add(&one);
            sources.add_data(&one, || bytes.map(Vec::into_boxed_slice));
        }
        sources.add(&half_open(1, 81, 1, &Syn::ZERO));
        // Without an account there is nothing to add to.
        let syn = syn(3);
        sources.add_data(&half_open(2, 80, 1, &syn), || Some([0; 3].into()));
        let records = ended(&mut sources);
        let data = records[0].shown.as_ref().and_then(|shown| shown.data.as_deref()).expect("data");
        assert_eq!((records.len(), data.count, data.length, data.bytes.len()), (1, 3, 600, 512));
    }

    #[test]
    fn data_that_are_longer_than_the_syn_had_are_those_of_another_one() {
        let mut sources = Sources::default();
        for (length, bytes) in [(2, &b"GET"[..]), (3, b"PUT"), (4, b"POST")] {
            let syn = Syn { payload_length: length, ..Syn::ZERO };
            let one = half_open(1, 80, 1, &syn);
            sources.add(&one);
            sources.add_data(&one, || Some(bytes.into()));
        }
        let records = ended(&mut sources);
        let data = records[0].shown.as_ref().and_then(|shown| shown.data.as_deref()).expect("data");
        assert_eq!((data.count, data.length, &*data.bytes), (3, 3, &b"PUT"[..]));
    }

    #[test]
    fn different_syns_of_one_source_are_counted_as_variants() {
        let mut sources = Sources::default();
        for (different, counted) in [(3, 3), (8, 8), (50, 8)] {
            for window in 0..100 {
                sources.add(&half_open(1, 80, 1, &Syn { window: window % different, ..Syn::ZERO }));
            }
            let records = ended(&mut sources);
            assert_eq!(records[0].shown.as_ref().map(|shown| shown.variants), Some(counted), "{different}");
        }
    }
}
