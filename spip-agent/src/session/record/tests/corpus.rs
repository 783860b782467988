//! Lines that an earlier version wrote, byte for byte: no record changes unnoticed.
//!
//! `SPIP_WRITE_CORPUS=1 cargo test corpus` writes them anew after a change that is meant.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, SystemTime};

use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::schemas::{heading, scan_samples};
use super::*;

/// The start of every session.
const START: Duration = Duration::from_secs(1_700_000_000);

/// Every sample, with an identifier and times that are the same in each run.
fn sessions() -> Vec<Session> {
    let settled = |Sample { name, mut session }: Sample| {
        let hello = session.tls.facts().map_or(&[][..], |facts| &facts.client_hello);
        let bytes = [name.as_bytes(), session.payload.kept(), hello].concat();
        let mut id = [0; 16];
        id.copy_from_slice(&Sha256::digest(&bytes)[..16]);
        session.id = Uuid::from_bytes(id);
        session.accepted.wall = SystemTime::UNIX_EPOCH + START;
        if let Some(at) = session.payload.first_byte() {
            session.accepted.steady = at.checked_sub(Duration::from_micros(4_321)).expect("a time");
        }
        if let Some(repeated) = &mut session.repeated {
            repeated.first = session.accepted.wall;
            repeated.last = session.accepted.wall + Duration::from_millis(900);
        }
        session
    };
    samples().into_iter().map(settled).collect()
}

fn corpus(format: Format) -> String {
    let mut log = Vec::new();
    for session in sessions() {
        log.extend(logged(&session, format));
        log.push(b'\n');
    }
    for scan in scan_samples() {
        log.extend(scan::tests::written(&scan, format));
    }
    String::from_utf8(log).expect("UTF-8")
}

#[test]
fn records_are_written_as_the_corpus_has_them() {
    for format in FORMATS {
        let name = format!("{}.jsonl", heading(format));
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../spip-record/fixtures/corpus").join(name);
        let written = corpus(format);
        if std::env::var_os("SPIP_WRITE_CORPUS").is_some() {
            std::fs::create_dir_all(path.parent().expect("a directory")).expect("a directory");
            std::fs::write(&path, &written).expect("a file");
        }
        let expected = std::fs::read_to_string(&path).expect("the corpus");
        assert!(expected.lines().count() > 100, "{format:?}");
        // A new sample is not in the corpus until that is written anew.
        let written: BTreeSet<&str> = written.lines().collect();
        for line in expected.lines() {
            assert!(written.contains(line), "{format:?} has no longer\n{line}");
        }
    }
}
