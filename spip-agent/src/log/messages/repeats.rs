//! Limits how often one place in the code writes messages.
//!
//! Ten messages of one place and second pass; the others are counted. The table has a fixed number of slots: places
//! that share one push each other out, which at worst lets more through, never less for good.

use std::hash::{BuildHasher, RandomState};

use log::{Level, Record};

use crate::process::rate::Window;

/// Places that are remembered.
const SLOTS: usize = 64;

/// Length of the example in a summary, in bytes.
const EXAMPLE_BYTES: usize = 200;

/// Recent messages, with their counts.
#[derive(Debug)]
pub(super) struct Repeats {
    slots: Vec<Slot>,
    hasher: RandomState,
    /// Summaries of places that were pushed out of their slots.
    pushed_out: Vec<LeftOut>,
    /// Slots in which something is left out.
    waiting: usize,
}

#[derive(Debug, Default)]
struct Slot {
    place: u64,
    window: Window,
    left_out: Option<LeftOut>,
}

/// Messages that were not written.
#[derive(Debug)]
pub(super) struct LeftOut {
    pub(super) level: Level,
    pub(super) target: String,
    pub(super) example: String,
    pub(super) count: u64,
}

impl Repeats {
    pub(super) fn new() -> Self {
        Repeats {
            slots: (0..SLOTS).map(|_| Slot::default()).collect(),
            hasher: RandomState::new(),
            pushed_out: Vec::new(),
            waiting: 0,
        }
    }

    /// Reports whether this message is to be written.
    pub(super) fn admits(&mut self, record: &Record<'_>, now_ms: u64) -> bool {
        let place =
            self.hasher.hash_one((record.level(), record.target(), record.module_path(), record.file(), record.line()));
        let slot = &mut self.slots[place as usize % SLOTS];
        if slot.place != place || slot.window.is_over(now_ms) {
            if let Some(left_out) = slot.left_out.take() {
                self.waiting -= 1;
                self.pushed_out.push(left_out);
            }
            slot.place = place;
            slot.window = Window::beginning(now_ms);
        }
        if slot.window.admits(now_ms) {
            return true;
        }
        match &mut slot.left_out {
            Some(left_out) => left_out.count += 1,
            None => {
                self.waiting += 1;
                slot.left_out = Some(LeftOut {
                    level: record.level(),
                    target: cut(record.target()),
                    example: cut(&record.args().to_string()),
                    count: 1,
                });
            }
        }
        false
    }

    /// The summaries whose time has come.
    pub(super) fn due(&mut self, now_ms: u64) -> Vec<LeftOut> {
        let mut due = std::mem::take(&mut self.pushed_out);
        if self.waiting > 0 {
            for slot in &mut self.slots {
                if slot.window.is_over(now_ms)
                    && let Some(left_out) = slot.left_out.take()
                {
                    self.waiting -= 1;
                    due.push(left_out);
                }
            }
        }
        due
    }
}

fn cut(text: &str) -> String {
    text[..text.floor_char_boundary(EXAMPLE_BYTES)].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn say(repeats: &mut Repeats, line: u32, now_ms: u64) -> bool {
        repeats.admits(
            &Record::builder()
                .level(Level::Warn)
                .target("accept")
                .file(Some("accept.rs"))
                .line(Some(line))
                .args(format_args!("no descriptor is free at {now_ms}"))
                .build(),
            now_ms,
        )
    }

    #[test]
    fn ten_pass_in_a_second_and_the_rest_is_summed_up_once() {
        let mut repeats = Repeats::new();
        let passed = (0..100).filter(|&ms| say(&mut repeats, 1, ms)).count();
        assert_eq!(passed, 10);
        assert!(repeats.due(999).is_empty());
        let due = repeats.due(1000);
        assert_eq!(due.len(), 1);
        assert_eq!(due[0].count, 90);
        assert_eq!(due[0].example, "no descriptor is free at 10");
        assert!(repeats.due(5000).is_empty());
        assert_eq!(repeats.waiting, 0, "nothing is looked for any more");
        assert!(say(&mut repeats, 1, 1000));
    }

    #[test]
    fn another_place_is_not_silenced() {
        let mut repeats = Repeats::new();
        assert_eq!((0..100).filter(|&ms| say(&mut repeats, 1, ms)).count(), 10);
        assert!(say(&mut repeats, 2, 100));
    }

    #[test]
    fn the_next_second_brings_the_summary_with_the_next_message() {
        let mut repeats = Repeats::new();
        assert_eq!((0..20).filter(|&ms| say(&mut repeats, 1, ms)).count(), 10);
        assert!(say(&mut repeats, 1, 1500));
        assert_eq!(repeats.due(1500).iter().map(|left_out| left_out.count).sum::<u64>(), 10);
    }

    #[test]
    fn no_message_is_lost_from_the_count_with_more_places_than_slots() {
        let mut repeats = Repeats::new();
        let (mut passed, mut summed) = (0, 0);
        for round in 0..50 {
            for line in 0..1000 {
                passed += u64::from(say(&mut repeats, line, round));
                summed += repeats.due(round).iter().map(|left_out| left_out.count).sum::<u64>();
            }
        }
        summed += repeats.due(10_000).iter().map(|left_out| left_out.count).sum::<u64>();
        assert_eq!(passed + summed, 50_000);
    }
}
