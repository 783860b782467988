//! Every sample with one byte changed, left out or put in, and what its protocol makes of it: a table in
//! `fixtures/damaged.tsv` that changes with every rule of a recogniser or reader near real bytes, by one as well.
//!
//! A column each for how many are accepted, declined and undecided, and a digest of all answers with their facts. After a
//! change that is meant, `SPIP_WRITE_DAMAGED=1 cargo test -p spip-protocol damaged` writes the table anew; its diff
//! shows which protocols the change has reached.

use std::fmt::Write as _;
use std::path::Path;

use sha2::{Digest as _, Sha256};

use super::*;

/// Bytes of a sample that are changed. Behind them stands what many bytes before have decided, or a text of the client's.
const CHANGED_BYTES: usize = 160;

/// Answers to the damaged samples of one protocol.
#[derive(Default)]
struct Answers {
    accepted: u32,
    declined: u32,
    undecided: u32,
    digest: Sha256,
}

impl Answers {
    fn ask(&mut self, protocol: &Protocol, bytes: &[u8]) {
        let recognised = (protocol.recognise)(&mut Reader::new(bytes));
        match recognised {
            Ok(true) => self.accepted += 1,
            Ok(false) => self.declined += 1,
            Err(End) => self.undecided += 1,
        }
        let understanding = understand_as(protocol, bytes, false);
        let Understanding { http, ssh, details, credentials, .. } = &understanding;
        let details = serde_json::to_string(details).expect("facts are JSON");
        self.digest.update(format!("{recognised:?} {details} {http:?} {ssh:?} {credentials:?}\n"));
    }
}

/// Calls `ask` with a sample, each of its beginnings, and each damage of one byte.
fn each_damage(sample: &[u8], mut ask: impl FnMut(&[u8])) {
    let end = sample.len().min(CHANGED_BYTES);
    (0..end).chain([sample.len()]).for_each(|length| ask(&sample[..length]));
    let mut bytes = sample.to_vec();
    for at in 0..end {
        let own = sample[at];
        for other in [own ^ 0x01, own ^ 0x20, own ^ 0x80, own.wrapping_add(1), own.wrapping_sub(1), 0, 0xff] {
            if other != own {
                bytes[at] = other;
                ask(&bytes);
            }
        }
        bytes[at] = own;
        bytes.remove(at);
        ask(&bytes);
        bytes.insert(at, own);
        bytes.insert(at, own);
        ask(&bytes);
        bytes.remove(at);
    }
}

#[test]
fn a_damaged_sample_is_judged_and_understood_as_the_table_says() {
    let mut table = String::from("# protocol\taccepted\tdeclined\tundecided\tdigest\n");
    for protocol in PROTOCOLS {
        let mut answers = Answers::default();
        for sample in protocol.samples {
            each_damage(sample, |bytes| answers.ask(protocol, bytes));
        }
        let Answers { accepted, declined, undecided, digest } = answers;
        let digest = &hex::encode(digest.finalize())[..16];
        writeln!(table, "{}\t{accepted}\t{declined}\t{undecided}\t{digest}", protocol.name()).expect("a string");
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/damaged.tsv");
    if std::env::var_os("SPIP_WRITE_DAMAGED").is_some() {
        std::fs::write(&path, &table).expect("a writable checkout");
    }
    let known = std::fs::read_to_string(&path).unwrap_or_default();
    let changed: Vec<_> = table.lines().filter(|line| !known.lines().any(|other| other == *line)).collect();
    assert!(
        changed.is_empty() && known.lines().count() == table.lines().count(),
        "other answers than before; if they are meant: SPIP_WRITE_DAMAGED=1 cargo test -p spip-protocol damaged\n{}",
        changed.join("\n")
    );
}
