//! Real directories: once each, within the budget, whole or not at all.

use std::os::unix::fs::PermissionsExt;

use sha2::{Digest, Sha256};

use super::*;

struct Directory(PathBuf);

impl Directory {
    fn new(test: &str) -> Self {
        let path = std::env::temp_dir().join(format!("spip-payloads-{test}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        Self(path)
    }

    fn config(&self, max_bytes: u64) -> config::PayloadStore {
        config::PayloadStore { directory: Some(self.0.clone()), min_bytes: 4, max_bytes, preview_bytes: 2 }
    }

    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.0).expect("directory");
        let mut names: Vec<String> =
            entries.map(|entry| entry.expect("entry").file_name().into_string().expect("text")).collect();
        names.sort();
        names
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn hash(payload: &[u8]) -> Hash {
    Sha256::digest(payload).into()
}

/// Hands all payloads over, waits until they are written, and says what became of them.
fn store_all(directory: &Directory, max_bytes: u64, payloads: &[Vec<u8>]) -> Counts {
    let prepared = PayloadStore::prepare(&directory.config(max_bytes)).expect("directory").expect("on");
    let store = prepared.store();
    let running = prepared.spawn().expect("thread");
    for payload in payloads {
        assert!(store.store(hash(payload), payload));
    }
    running.finish()
}

#[test]
fn each_distinct_payload_is_one_file_of_its_own_bytes() {
    let directory = Directory::new("distinct");
    let payloads = [vec![1; 100], vec![2; 200], vec![1; 100]];
    let counts = store_all(&directory, 1_000, &payloads);
    assert_eq!(counts, Counts { stored: 2, evicted: 0, lost: 0 });
    assert_eq!(directory.names().len(), 2);
    for payload in &payloads {
        let path = directory.0.join(hex::encode(hash(payload)));
        assert_eq!(&fs::read(&path).expect("file"), payload);
        assert_eq!(fs::metadata(&path).expect("file").permissions().mode() & 0o777, 0o640);
    }
    assert_eq!(store_all(&directory, 1_000, &payloads).stored, 0, "they are there from the last run");
}

#[test]
fn the_oldest_files_go_to_keep_the_budget() {
    let directory = Directory::new("budget");
    let payloads: Vec<Vec<u8>> = (0..10_u8).map(|number| vec![number; 100]).collect();
    let counts = store_all(&directory, 350, &payloads);
    assert_eq!(counts, Counts { stored: 10, evicted: 7, lost: 0 });
    let mut expected: Vec<String> = payloads[7..].iter().map(|payload| hex::encode(hash(payload))).collect();
    expected.sort();
    assert_eq!(directory.names(), expected);
}

#[test]
fn a_payload_that_was_evicted_is_stored_again_when_it_comes_back() {
    let directory = Directory::new("again");
    let prepared = PayloadStore::prepare(&directory.config(150)).expect("directory").expect("on");
    let store = prepared.store();
    let running = prepared.spawn().expect("thread");
    for number in [1_u8, 2, 1] {
        let payload = vec![number; 100];
        let before = store.counts().stored;
        assert!(store.store(hash(&payload), &payload));
        while store.counts().stored == before {
            std::thread::yield_now();
        }
    }
    assert_eq!(store.counts().stored, 3);
    let _ = running.finish();
    assert_eq!(directory.names(), [hex::encode(hash(&[1; 100]))]);
}

#[test]
fn foreign_files_stay_and_parts_of_a_killed_run_go() {
    let directory = Directory::new("foreign");
    fs::create_dir_all(&directory.0).expect("directory");
    let part = format!("{}{TEMPORARY}", hex::encode(hash(b"x")));
    for name in ["README", "ABCDEF", "notes.part", part.as_str()] {
        fs::write(directory.0.join(name), [0; 5_000]).expect("file");
    }
    let counts = store_all(&directory, 150, &[vec![1; 100]]);
    assert_eq!(counts.evicted, 0);
    assert_eq!(directory.names().len(), 4);
    assert!(!directory.0.join(part).exists());
}

#[test]
fn what_the_disk_refuses_is_counted_and_may_come_again() {
    let directory = Directory::new("refused");
    let prepared = PayloadStore::prepare(&directory.config(1_000)).expect("directory").expect("on");
    let store = prepared.store();
    fs::remove_dir(&directory.0).expect("empty");
    let running = prepared.spawn().expect("thread");
    let payload = vec![1; 100];
    assert!(store.store(hash(&payload), &payload));
    while store.counts().lost == 0 {
        std::thread::yield_now();
    }
    assert!(!store.store(hash(&[2; 100]), &[2; 100]), "the record carries it");
    while store.counts().lost == 1 {
        std::thread::yield_now();
    }
    fs::create_dir(&directory.0).expect("directory");
    while store.counts().stored == 0 {
        let _ = store.store(hash(&payload), &payload);
        std::thread::yield_now();
    }
    let _ = running.finish();
    assert_eq!(directory.names().len(), 1);
}

#[test]
fn a_directory_that_cannot_be_used_is_known_at_the_start() {
    let directory = Directory::new("file");
    fs::write(&directory.0, "a file").expect("file");
    let error = PayloadStore::prepare(&directory.config(1_000)).expect_err("a file is no directory");
    assert!(error.to_string().starts_with("cannot use payload_dir"), "{error}");
    let _ = fs::remove_file(&directory.0);
}

#[test]
fn short_payloads_and_the_preview_are_the_records() {
    let directory = Directory::new("preview");
    let store = PayloadStore::prepare(&directory.config(1_000)).expect("directory").expect("on").store();
    assert!(store.keeps(4) && !store.keeps(3));
    assert_eq!((store.preview(b"abc"), store.preview(b"a")), (&b"ab"[..], &b"a"[..]));
}

#[test]
fn what_the_queue_has_no_room_for_stays_with_the_record() {
    let directory = Directory::new("full");
    let prepared = PayloadStore::prepare(&directory.config(1 << 40)).expect("directory").expect("on");
    let store = prepared.store();
    // Nobody takes anything out of the queue.
    let payload = |number: usize| vec![u8::try_from(number).expect("small"); QUEUED_BYTES / 4];
    assert!((0..4).all(|number| store.store(hash(&payload(number)), &payload(number))));
    assert!(!store.store(hash(&payload(4)), &payload(4)));
    assert_eq!(store.counts().lost, 1);
    let counts = prepared.spawn().expect("thread").finish();
    assert_eq!(counts, Counts { stored: 4, evicted: 0, lost: 1 });
    assert!(!store.store(hash(b"after the end"), b"after the end"));
}
