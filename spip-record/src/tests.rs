//! What holds for every record that the corpus has.

use crate::read::{self, Line};
use crate::{Entry, Format, Tail};

const FLAT: &str = include_str!("../fixtures/corpus/flat.jsonl");
const ECS: &str = include_str!("../fixtures/corpus/ecs.jsonl");
const EVE: &str = include_str!("../fixtures/corpus/eve.jsonl");

/// The sessions of the corpus.
pub(crate) fn sessions() -> impl Iterator<Item = Entry<'static>> {
    FLAT.lines().filter_map(|line| match read::line(line.as_bytes()) {
        Ok(Line::Session(entry)) => Some(*entry),
        Ok(Line::Scan(_)) => None,
        other => panic!("{other:?} of {line}"),
    })
}

#[test]
fn a_line_that_is_read_is_written_in_every_format_as_it_was_logged() {
    for (format, expected) in [(Format::Flat, FLAT), (Format::Ecs, ECS), (Format::Eve, EVE)] {
        assert_eq!(FLAT.lines().count(), expected.lines().count());
        for (flat, expected) in FLAT.lines().zip(expected.lines()) {
            let mut written = Vec::new();
            let seq = match read::line(flat.as_bytes()).expect("a line") {
                Line::Session(entry) => {
                    format.encode(&entry, &mut written);
                    entry.seq
                }
                Line::Scan(entry) => {
                    entry.encode(format, &mut written);
                    entry.seq
                }
                Line::Other(kind) => panic!("{kind} in the corpus"),
            };
            let end = format.tail().write(&mut [0; Tail::BYTES], seq.expect("a number")).to_vec();
            written.extend(end);
            assert_eq!(String::from_utf8_lossy(&written).trim_end(), expected);
        }
    }
}
