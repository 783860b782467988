//! A pipeline between a scripted source and a scripted engine.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Mutex;

use super::*;
use crate::batch::{At, Part, Place};
use crate::source::Behind;

/// A source of numbered lines, one sensor's.
struct Lines {
    count: u64,
    place: u64,
    /// Lines of a batch that nobody cuts otherwise.
    at_once: u64,
}

fn place(total: u64) -> Place {
    Place { total, at: At::Stream { seq: total } }
}

fn batch(lines: std::ops::Range<u64>) -> Batch {
    let bytes = lines.clone().flat_map(|number| format!("{{\"seq\":{number}}}\n").into_bytes()).collect();
    let part = Part { sensor: "s".to_owned(), count: lines.end - lines.start, bytes, ..Part::default() };
    Batch { parts: vec![part], rejects: Vec::new(), start: place(lines.start), end: place(lines.end) }
}

impl Source for Lines {
    fn next(&mut self, _: Limits, exact: Option<u64>, _: Duration) -> Result<Next, String> {
        if self.place == self.count {
            return Ok(Next::End);
        }
        let end = self.count.min(self.place + exact.unwrap_or(self.at_once));
        let batch = batch(self.place..end);
        self.place = end;
        Ok(Next::Batch(batch))
    }

    fn seek(&mut self, place: &Place) -> Result<(), String> {
        self.place = place.total;
        Ok(())
    }

    fn behind(&mut self) -> Behind {
        Behind { messages: self.count - self.place, ..Behind::default() }
    }

    fn notices(&mut self) -> Vec<String> {
        Vec::new()
    }
}

/// What happened, in order: lines that were offered, and lines that the stored state was behind at that moment.
type Offers = Arc<Mutex<Vec<(std::ops::Range<u64>, Option<u64>)>>>;

/// An engine that answers as its script says, and then takes everything.
struct Engine {
    script: VecDeque<Result<Delivery, Failure>>,
    offers: Offers,
    store: Store,
}

impl Sink for Engine {
    fn open(&mut self, _: &State) -> Result<Option<Place>, Failure> {
        Ok(None)
    }

    fn deliver(&mut self, batch: &Batch, _: &State) -> Result<Delivery, Failure> {
        let Ok(Found::State(stored)) = self.store.load() else { panic!("a state is stored before") };
        self.offers.lock().expect("no panic").push((batch.start.total..batch.end.total, stored.under_way));
        self.script.pop_front().unwrap_or_else(|| Ok(taken()))
    }
}

fn taken() -> Delivery {
    Delivery::Stored { duplicates: 0, rejects: Vec::new() }
}

fn refused() -> Result<Delivery, Failure> {
    Err(Failure::new("busy"))
}

struct Bench {
    directory: PathBuf,
    running: Running,
    offers: Offers,
}

impl Bench {
    /// A pipeline of `count` lines in batches of `at_once`, into an engine with `script`.
    fn new(name: &str, count: u64, at_once: u64, script: Vec<Result<Delivery, Failure>>) -> Self {
        let directory = std::env::temp_dir().join(format!("spip-ship-pipeline-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&directory);
        std::fs::create_dir_all(&directory).expect("a temporary directory");
        let (store, offers) = (Store::new(&directory, "s"), Offers::default());
        let sink = Engine { script: script.into(), offers: Arc::clone(&offers), store: store.clone() };
        let pipeline = Pipeline {
            name: "s".to_owned(),
            limits: Limits { bytes: 1 << 20, time: Duration::from_secs(1) },
            source: Box::new(Lines { count, place: 0, at_once }),
            sink: Box::new(sink),
            quarantine: Quarantine::new(&directory, "s"),
            store,
            counters: Arc::new(Counters::new("s", "test")),
            stop: Stop::default(),
            once: Some(Duration::from_secs(60)),
            hold: None,
            warn_files: 1,
        };
        let running = Running {
            pipeline,
            state: State::new(),
            complaint: Complaint::default(),
            pauses: Pauses::default(),
            progress: Instant::now(),
            measured: None,
            warned_files: 0,
            shipped: 0,
        };
        Self { directory, running, offers }
    }

    fn offers(&self) -> Vec<(std::ops::Range<u64>, Option<u64>)> {
        self.offers.lock().expect("no panic").clone()
    }

    fn stored(&self) -> State {
        let Ok(Found::State(state)) = self.running.pipeline.store.load() else { panic!("a state") };
        *state
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

#[test]
fn each_cut_is_stored_before_it_is_sent_and_the_place_after_it() {
    let mut bench = Bench::new("cuts", 5, 2, Vec::new());
    bench.running.run().expect("everything is there");
    assert_eq!(bench.offers(), [(0..2, Some(2)), (2..4, Some(2)), (4..5, Some(1))]);
    let state = bench.stored();
    assert_eq!((state.place.total, state.under_way, state.shipped), (5, None, 5));
    assert_eq!((bench.running.shipped, state.sensor.as_deref()), (5, Some("s")));
    let counters = &bench.running.pipeline.counters;
    assert_eq!(counters.shipped.load(Relaxed), 5);
    assert_eq!(counters.shipped_bytes.load(Relaxed), 5 * b"{\"seq\":0}\n".len() as u64);
}

#[test]
fn a_success_ends_the_trouble_and_starts_the_pauses_again() {
    let mut bench = Bench::new("trouble", 2, 1, vec![refused(), refused()]);
    let running = &mut bench.running;
    running.store().expect("writable");
    let store = running.pipeline.store.clone();
    running.failed(&Failure::new("busy")).expect("it goes on");
    assert_eq!(store.trouble().expect("noted").0, "busy");
    assert!(running.pipeline.counters.is_failing.load(Relaxed));
    let next = running.pipeline.source.next(running.pipeline.limits, None, WAIT);
    let Ok(Next::Batch(batch)) = next else { panic!("a batch") };
    running.ship(batch).expect("delivered at the third attempt");
    assert!(store.trouble().is_none(), "status has nothing to say any more");
    assert!(!running.pipeline.counters.is_failing.load(Relaxed) && running.pipeline.counters.trouble().is_none());
    assert_eq!(running.pipeline.counters.retries.load(Relaxed), 3);
    // After three failures in a row the next pause would be of more than half a second.
    assert!(running.pauses.next(None) <= Duration::from_millis(100));
}

#[test]
fn a_batch_that_is_too_large_is_halved_until_it_fits_and_no_line_comes_twice() {
    let too_large = || Ok(Delivery::TooLarge("413".to_owned()));
    let mut bench = Bench::new("halves", 8, 8, vec![too_large(), too_large()]);
    bench.running.run().expect("everything is there");
    let sent: Vec<_> = bench.offers().into_iter().map(|(lines, _)| lines).collect();
    assert_eq!(sent, [0..8, 0..4, 0..2, 2..8]);
    assert_eq!(bench.stored().shipped, 8);
}

#[test]
fn a_single_line_that_is_too_large_goes_to_quarantine_and_what_follows_is_delivered() {
    let mut bench = Bench::new("large", 3, 1, vec![Ok(Delivery::TooLarge("413".to_owned()))]);
    bench.running.run().expect("everything is there");
    let state = bench.stored();
    assert_eq!((state.place.total, state.shipped, state.quarantined), (3, 2, 1));
    let kept = std::fs::read_to_string(bench.running.pipeline.quarantine.path()).expect("a quarantine");
    assert_eq!(kept.lines().count(), 1);
    assert!(kept.contains("413") && kept.contains("{\\\"seq\\\":0}\""), "without its line feed: {kept}");
}

#[test]
fn an_engine_that_is_elsewhere_gets_what_is_behind_its_place() {
    let mut bench = Bench::new("elsewhere", 10, 2, vec![Ok(taken()), Ok(Delivery::Elsewhere(place(7)))]);
    bench.running.run().expect("everything is there");
    let sent: Vec<_> = bench.offers().into_iter().map(|(lines, _)| lines).collect();
    assert_eq!(sent, [0..2, 2..4, 7..9, 9..10]);
    assert_eq!(bench.stored().place.total, 10);
}

#[test]
fn a_batch_that_was_under_way_comes_again_with_the_same_lines() {
    let mut bench = Bench::new("again", 10, 4, Vec::new());
    bench.running.state.place = place(3);
    bench.running.state.under_way = Some(5);
    bench.running.run().expect("everything is there");
    let sent: Vec<_> = bench.offers().into_iter().map(|(lines, _)| lines).collect();
    assert_eq!(sent, [3..8, 8..10]);
}

#[test]
fn nothing_is_tried_for_longer_than_the_time_without_progress() {
    let mut bench = Bench::new("once", 1, 1, (0..100).map(|_| refused()).collect());
    bench.running.pipeline.once = Some(Duration::ZERO);
    let Err(End::Failed(message)) = bench.running.run() else { panic!("it gives up") };
    assert_eq!((message.as_str(), bench.offers().len()), ("busy", 1));
}

#[test]
fn closed_files_are_warned_of_from_the_configured_number_on_and_while_they_become_more() {
    assert!(!is_worth_a_warning(2, 3, 0));
    assert!(is_worth_a_warning(3, 3, 0), "the configured number itself");
    assert!(!is_worth_a_warning(3, 3, 3) && !is_worth_a_warning(4, 3, 5), "said already");
    assert!(is_worth_a_warning(4, 3, 3));
}
