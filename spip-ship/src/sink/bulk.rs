//! A batch in requests: whole at first, in halves where the server wants less or refuses something in it, until the one
//! line that it refuses is found.
//!
//! What was accepted is remembered until the batch is done, so that an attempt that failed half-way sends only the rest.
//! The halves are the same each time, and with them the token by which a server recognises a request that it has had.

use std::ops::Range;

use super::Failure;
use crate::batch::{At, Batch, Reject};
use crate::line;
use crate::state::State;

/// Attempts in which a server refused everything that it was given before lines go to quarantine: until then the
/// configuration is more likely to be wrong than each record.
const DOUBTS: u32 = 5;

/// Lines of a batch that may all be refused; more than that is never the records' fault.
const ALL_REFUSED: usize = 16;

/// Answer of a server to one request.
#[derive(Debug)]
pub(super) enum Said {
    /// It has all of it, but for these lines: their index within the request, and why.
    Accepted {
        /// Number of lines that it had already.
        duplicates: u64,
        /// Lines that have no form in this engine, and were not sent.
        unfit: Vec<(usize, String)>,
        /// Refused for good.
        refused: Vec<(usize, String)>,
        /// Refused for now.
        again: Vec<usize>,
    },
    /// It wants less at a time.
    TooLarge(String),
    /// Something in it is refused for good.
    Refused(String),
}

/// One line of a batch.
#[derive(Clone, Copy, Debug)]
pub(super) struct Item<'a> {
    pub(super) sensor: &'a str,
    pub(super) line: &'a [u8],
}

/// Returns the lines of a batch.
pub(super) fn items(batch: &Batch) -> Vec<Item<'_>> {
    let of_part = |part| {
        let part: &crate::batch::Part = part;
        line::lines(&part.bytes).map(|line| Item { sensor: &part.sensor, line })
    };
    batch.parts.iter().flat_map(of_part).collect()
}

/// The rest of the batch that is being delivered.
#[derive(Debug, Default)]
pub(super) struct Work {
    /// Lines before and behind the batch, by which it is recognised.
    batch: (u64, u64),
    pending: Vec<Range<usize>>,
    accepted: usize,
    duplicates: u64,
    rejects: Vec<Reject>,
    /// Attempts in a row in which nothing was accepted and something refused.
    doubts: u32,
    /// Set once the server has accepted anything.
    is_proven: bool,
}

/// Sends lines with the token of their request.
type Send<'a> = dyn FnMut(&[Item<'_>], &str) -> Result<Said, Failure> + 'a;

/// The result of a batch.
pub(super) struct Outcome {
    pub(super) duplicates: u64,
    pub(super) rejects: Vec<Reject>,
}

impl Work {
    /// Takes up `batch`, new or again.
    fn take_up(&mut self, batch: &Batch, count: usize) {
        let key = (batch.start.total, batch.end.total);
        if self.batch != key || (self.pending.is_empty() && self.rejects.is_empty()) {
            self.batch = key;
            self.pending.clear();
            self.pending.push(0..count);
            self.accepted = 0;
            self.duplicates = 0;
            self.rejects.clear();
        }
    }

    /// Sends what is left of `batch` with `send`, which gets the lines and a token of the request.
    ///
    /// # Errors
    /// Something is left; called again with the same batch, only that is sent.
    pub(super) fn send(&mut self, batch: &Batch, state: &State, send: &mut Send<'_>) -> Result<Outcome, Failure> {
        let items = items(batch);
        let is_stream = matches!(batch.end.at, At::Stream { .. });
        self.take_up(batch, items.len());
        let mut refused: Option<String> = None;
        while let Some(range) = self.pending.pop() {
            let Some(lines) = items.get(range.clone()).filter(|lines| !lines.is_empty()) else { continue };
            let (start, end) = self.batch;
            let token = format!("{}-{start}-{end}-{}-{}", state.shipper, range.start, range.end);
            let said = match send(lines, &token) {
                Ok(said) => said,
                Err(failure) => {
                    self.pending.push(range);
                    return Err(failure);
                }
            };
            match said {
                Said::Accepted { duplicates, unfit, refused: bad, again } => {
                    self.accepted += lines.len().saturating_sub(unfit.len() + bad.len() + again.len());
                    self.duplicates += duplicates;
                    for (index, reason) in unfit {
                        let Some(item) = lines.get(index) else { continue };
                        // A log in another format is a mistake of its operator. A sensor of a stream may have been stolen.
                        if !is_stream {
                            refused = Some(reason.clone());
                        }
                        self.reject(item, reason);
                    }
                    for (index, reason) in bad {
                        let Some(item) = lines.get(index) else { continue };
                        refused = Some(reason.clone());
                        self.reject(item, reason);
                    }
                    if !again.is_empty() {
                        self.pending
                            .extend(again.iter().rev().map(|index| range.start + index..range.start + index + 1));
                        return Err(Failure::new(format!(
                            "{} of {} lines are to be sent again",
                            again.len(),
                            lines.len()
                        )));
                    }
                }
                Said::TooLarge(reason) | Said::Refused(reason) if lines.len() == 1 => {
                    if let Some(item) = lines.first() {
                        self.reject(item, reason.clone());
                    }
                    refused = Some(reason);
                }
                Said::TooLarge(_) | Said::Refused(_) => {
                    let middle = range.start + lines.len() / 2;
                    // The first half is on top.
                    self.pending.push(middle..range.end);
                    self.pending.push(range.start..middle);
                }
            }
        }
        self.judge(items.len(), refused)
    }

    fn reject(&mut self, item: &Item<'_>, reason: String) {
        self.rejects.push(Reject { sensor: item.sensor.to_owned(), reason, line: item.line.to_vec() });
    }

    /// Decides whether refusals are the records' fault.
    fn judge(&mut self, count: usize, refused: Option<String>) -> Result<Outcome, Failure> {
        self.is_proven |= self.accepted > 0;
        if let (Some(reason), 0) = (refused, self.accepted) {
            self.doubts += 1;
            if count > ALL_REFUSED || (!self.is_proven && self.doubts < DOUBTS) {
                self.rejects.clear();
                self.pending.clear();
                return Err(Failure::new(format!(
                    "the server refuses every line, such as: {reason}; is the sink right?"
                )));
            }
        }
        self.doubts = 0;
        Ok(Outcome { duplicates: self.duplicates, rejects: std::mem::take(&mut self.rejects) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::{Part, Place};

    fn batch(lines: usize) -> Batch {
        let bytes = (0..lines).flat_map(|index| format!("{{\"seq\":{index}}}\n").into_bytes()).collect();
        let part = Part { sensor: "s".into(), count: lines as u64, bytes, ..Part::default() };
        let end = Place { total: lines as u64, ..Place::default() };
        Batch { parts: vec![part], end, ..Batch::default() }
    }

    fn accepted() -> Said {
        Said::Accepted { duplicates: 0, unfit: Vec::new(), refused: Vec::new(), again: Vec::new() }
    }

    #[test]
    fn the_one_line_that_is_refused_is_found_and_every_other_one_is_sent_once() {
        let (mut work, state) = (Work::default(), State::new());
        let mut stored = Vec::new();
        let done = work.send(&batch(100), &state, &mut |lines, _| {
            if lines.iter().any(|item| item.line == b"{\"seq\":41}") {
                return Ok(Said::Refused("no".into()));
            }
            stored.extend(lines.iter().map(|item| item.line.to_vec()));
            Ok(accepted())
        });
        let rejects = done.expect("done").rejects;
        assert_eq!(rejects.iter().map(|reject| reject.line.as_slice()).collect::<Vec<_>>(), [b"{\"seq\":41}"]);
        let all = batch(100);
        let expected: Vec<_> = items(&all).iter().map(|item| item.line.to_vec()).collect();
        stored.push(b"{\"seq\":41}".to_vec());
        let sort = |mut lines: Vec<Vec<u8>>| {
            lines.sort();
            lines
        };
        assert_eq!(sort(stored), sort(expected));
    }

    #[test]
    fn an_attempt_that_fails_half_way_sends_only_the_rest_with_the_same_tokens() {
        let (mut work, state) = (Work::default(), State::new());
        let mut tokens = Vec::new();
        let mut sent = 0;
        let mut send = |lines: &[Item<'_>], token: &str| {
            tokens.push(token.to_owned());
            if lines.len() > 25 {
                return Ok(Said::TooLarge("413".into()));
            }
            if tokens.len() == 6 {
                return Err(Failure::new("cut"));
            }
            sent += lines.len();
            Ok(accepted())
        };
        assert!(work.send(&batch(100), &state, &mut send).is_err());
        assert!(work.send(&batch(100), &state, &mut send).is_ok());
        assert_eq!(sent, 100);
        assert_eq!(tokens[5], tokens[6], "what failed is sent again as it was");
    }

    #[test]
    fn a_server_that_refuses_everything_is_doubted_and_not_the_records() {
        let (mut work, state) = (Work::default(), State::new());
        for _ in 0..20 {
            assert!(work.send(&batch(100), &state, &mut |_, _| Ok(Said::Refused("404".into()))).is_err());
        }
        let one = batch(1);
        let mut attempts = 0;
        while work.send(&one, &state, &mut |_, _| Ok(Said::Refused("bad".into()))).is_err() {
            attempts += 1;
            assert!(attempts < DOUBTS, "a single line does not block for ever");
        }
    }

    #[test]
    fn each_line_is_doubted_as_often_while_nothing_was_accepted() {
        let (mut work, state) = (Work::default(), State::new());
        for number in 0..3 {
            let mut one = batch(1);
            (one.start.total, one.end.total) = (number, number + 1);
            for _ in 1..DOUBTS {
                assert!(work.send(&one, &state, &mut |_, _| Ok(Said::Refused("bad".into()))).is_err(), "line {number}");
            }
            let done = work.send(&one, &state, &mut |_, _| Ok(Said::Refused("bad".into()))).expect("enough doubts");
            assert_eq!(done.rejects.len(), 1);
        }
    }

    #[test]
    fn lines_without_a_form_block_a_log_and_no_stream() {
        let mut unfit = |lines: &[Item<'_>], _: &str| {
            let unfit = (0..lines.len()).map(|index| (index, "no port".to_owned())).collect();
            Ok(Said::Accepted { duplicates: 0, unfit, refused: Vec::new(), again: Vec::new() })
        };
        let state = State::new();
        let of_log = batch(100);
        assert!((0..20).all(|_| Work::default().send(&of_log, &state, &mut unfit).is_err()));
        let mut of_stream = batch(100);
        of_stream.end.at = At::Stream { seq: 9 };
        let done = Work::default().send(&of_stream, &state, &mut unfit).expect("nothing waits for a stolen sensor");
        assert_eq!(done.rejects.len(), 100);
    }

    #[test]
    fn lines_that_the_server_was_too_busy_for_are_sent_again_one_by_one() {
        let (mut work, state) = (Work::default(), State::new());
        let mut sizes = Vec::new();
        let mut send = |lines: &[Item<'_>], _: &str| {
            sizes.push(lines.len());
            let again = if sizes.len() == 1 { vec![2, 5] } else { Vec::new() };
            Ok(Said::Accepted { duplicates: 0, unfit: Vec::new(), refused: Vec::new(), again })
        };
        assert!(work.send(&batch(10), &state, &mut send).is_err());
        assert!(work.send(&batch(10), &state, &mut send).is_ok());
        assert_eq!(sizes, [10, 1, 1]);
    }
}
