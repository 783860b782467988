//! Real directories: once each, within the budget, whole or not at all.

use std::os::unix::fs::PermissionsExt;
use std::time::SystemTime;

use sha2::{Digest, Sha256};

use super::*;

struct Directory(PathBuf);

impl Directory {
    fn new(test: &str) -> Self {
        let path = std::env::temp_dir().join(format!("spip-payloads-{test}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        Self(path)
    }

    /// With room for so many short files.
    fn config(&self, files: u64) -> config::PayloadStore {
        let max_bytes = files * unit();
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

/// What a short file takes on the disk of the tests.
fn unit() -> u64 {
    nix::sys::statvfs::statvfs(&std::env::temp_dir()).expect("a directory").fragment_size()
}

fn hash(payload: &[u8]) -> Hash {
    Sha256::digest(payload).into()
}

/// Hands all payloads over, waits until they are written, and says what became of them.
fn store_all(directory: &Directory, files: u64, payloads: &[Vec<u8>]) -> Counts {
    let prepared = PayloadStore::prepare(&directory.config(files)).expect("directory").expect("on");
    let store = prepared.store();
    let running = prepared.spawn().expect("thread");
    for payload in payloads {
        assert!(store.store(hash(payload), payload));
    }
    running.finish(Instant::now() + Duration::from_secs(60))
}

#[test]
fn each_distinct_payload_is_one_file_of_its_own_bytes() {
    let directory = Directory::new("distinct");
    let payloads = [vec![1; 100], vec![2; 200], vec![1; 100]];
    let counts = store_all(&directory, 10, &payloads);
    assert_eq!(counts, Counts { stored: 2, ..Counts::default() });
    assert_eq!(directory.names().len(), 2);
    for payload in &payloads {
        let path = directory.0.join(hex::encode(hash(payload)));
        assert_eq!(&fs::read(&path).expect("file"), payload);
        assert_eq!(fs::metadata(&path).expect("file").permissions().mode() & 0o777, 0o640);
    }
    assert_eq!(store_all(&directory, 10, &payloads).stored, 0, "they are there from the last run");
}

#[test]
fn the_oldest_files_go_to_keep_the_budget() {
    let directory = Directory::new("budget");
    let payloads: Vec<Vec<u8>> = (0..10_u8).map(|number| vec![number; 100]).collect();
    let counts = store_all(&directory, 3, &payloads);
    assert_eq!(counts, Counts { stored: 10, evicted: 7, ..Counts::default() });
    let mut expected: Vec<String> = payloads[7..].iter().map(|payload| hex::encode(hash(payload))).collect();
    expected.sort();
    assert_eq!(directory.names(), expected);
}

#[test]
fn the_order_in_which_files_go_survives_a_restart() {
    let directory = Directory::new("order");
    let payloads: Vec<Vec<u8>> = (0..6_u8).map(|number| vec![number; 100]).collect();
    let path = |number: usize| directory.0.join(hex::encode(hash(&payloads[number])));
    assert_eq!(store_all(&directory, 6, &payloads[..5]).evicted, 0);
    // Older and younger than their names would have them.
    for (number, age) in [(0, 30), (1, 50), (2, 10), (3, 40), (4, 20)] {
        let file = fs::File::options().write(true).open(path(number)).expect("a file");
        file.set_modified(SystemTime::now() - Duration::from_secs(age)).expect("its time");
    }
    // A smaller budget evicts at the start, and a new payload evicts the next one.
    let left = |evicted| {
        let there = (0..6).filter(|number| path(*number).exists());
        (evicted, there.collect::<Vec<_>>())
    };
    assert_eq!(left(store_all(&directory, 3, &[]).evicted), (2, vec![0, 2, 4]));
    assert_eq!(left(store_all(&directory, 3, &payloads[5..]).evicted), (1, vec![2, 4, 5]));
    assert_eq!(left(store_all(&directory, 1, &[]).evicted), (2, vec![5]));
}

#[test]
fn the_budget_counts_the_blocks_of_the_disk() {
    let directory = Directory::new("blocks");
    let payloads: Vec<Vec<u8>> = (0..20_u8).map(|number| vec![number; 5]).collect();
    assert_eq!(store_all(&directory, 4, &payloads).evicted, 16, "100 bytes in all, and twenty blocks");
    let blocks: u64 = directory
        .names()
        .iter()
        .map(|name| std::os::unix::fs::MetadataExt::blocks(&fs::metadata(directory.0.join(name)).expect("there")))
        .sum();
    assert!(blocks * 512 <= 4 * unit(), "{blocks}");
    // What an earlier run left counts the same.
    assert_eq!(store_all(&directory, 2, &[]).evicted, 2);
    assert_eq!(directory.names().len(), 2);
}

#[test]
fn a_payload_that_was_evicted_is_stored_again_when_it_comes_back() {
    let directory = Directory::new("again");
    let prepared = PayloadStore::prepare(&directory.config(1)).expect("directory").expect("on");
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
    let _ = running.finish(Instant::now() + Duration::from_secs(60));
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
    let counts = store_all(&directory, 1, &[vec![1; 100]]);
    assert_eq!(counts.evicted, 0);
    assert_eq!(directory.names().len(), 4);
    assert!(!directory.0.join(part).exists());
}

/// Hands a payload over, waits until it is written or refused, and says whether its record may rely on it.
fn hand_over(store: &PayloadStore, payload: &[u8]) -> bool {
    let relied = store.store(hash(payload), payload);
    until_written(store);
    relied
}

fn until_written(store: &PayloadStore) {
    while !store.shared.queued().is_empty() {
        std::thread::yield_now();
    }
}

#[test]
fn what_the_disk_refuses_is_counted_and_may_come_again() {
    let directory = Directory::new("refused");
    let prepared = PayloadStore::prepare(&directory.config(10)).expect("directory").expect("on");
    let store = prepared.store();
    let payload = vec![1; 100];
    assert!((0..3).all(|_| store.store(hash(&payload), &payload)), "nothing was refused yet");
    fs::remove_dir(&directory.0).expect("empty");
    let running = prepared.spawn().expect("thread");
    until_written(&store);
    assert_eq!(store.counts(), Counts { lost: 3, ..Counts::default() }, "once for each record");
    for _ in 0..3 {
        assert!(!store.store(hash(&payload), &payload), "the record carries it, also while it is on its way again");
    }
    until_written(&store);
    assert_eq!(store.counts(), Counts { lost: 3, carried: 3, ..Counts::default() });
    fs::create_dir(&directory.0).expect("directory");
    assert!(!hand_over(&store, &payload));
    assert!(hand_over(&store, &payload), "it is there");
    assert!(hand_over(&store, &[2; 100]), "the disk takes them again");
    let counts = running.finish(Instant::now() + Duration::from_secs(60));
    assert_eq!(counts, Counts { stored: 2, lost: 3, carried: 4, ..Counts::default() });
    assert_eq!(directory.names().len(), 2);
}

#[test]
fn a_disk_that_takes_only_short_payloads_is_not_believed() {
    let directory = Directory::new("nearly-full");
    let prepared = PayloadStore::prepare(&directory.config(10)).expect("directory").expect("on");
    let store = prepared.store();
    let running = prepared.spawn().expect("thread");
    fs::remove_dir(&directory.0).expect("empty");
    assert!(hand_over(&store, &[1; 100]));
    fs::create_dir(&directory.0).expect("directory");
    for bytes in [40, 50, 10] {
        assert!(!hand_over(&store, &vec![2; bytes]), "100 bytes were refused, and not as many taken since");
    }
    assert!(hand_over(&store, &[3; 100]));
    assert_eq!(running.finish(Instant::now() + Duration::from_secs(60)).lost, 1);
}

#[test]
fn what_is_not_written_at_the_end_is_lost() {
    let directory = Directory::new("end");
    let prepared = PayloadStore::prepare(&directory.config(10)).expect("directory").expect("on");
    let store = prepared.store();
    let _ = store.sender.try_send(None);
    assert!((0..2).all(|_| store.store(hash(&[1; 100]), &[1; 100])));
    let counts = prepared.spawn().expect("thread").finish(Instant::now() + Duration::from_secs(60));
    assert_eq!(counts, Counts { lost: 2, ..Counts::default() });
}

#[test]
fn a_file_that_was_taken_away_or_cut_short_is_written_again() {
    let directory = Directory::new("taken");
    let prepared = PayloadStore::prepare(&directory.config(2)).expect("directory").expect("on");
    let store = prepared.store();
    let running = prepared.spawn().expect("thread");
    let payloads = [vec![1; 100], vec![2; 100]];
    let write = || {
        for payload in &payloads {
            assert!(store.store(hash(payload), payload));
        }
        until_written(&store);
    };
    let file = directory.0.join(hex::encode(hash(&payloads[0])));
    write();
    fs::remove_file(&file).expect("removed");
    write();
    assert_eq!(fs::read(&file).expect("a file"), payloads[0]);
    fs::write(&file, [1; 40]).expect("cut short");
    write();
    assert_eq!(fs::read(&file).expect("a file"), payloads[0]);
    fs::remove_file(&file).expect("removed");
    std::os::unix::fs::symlink("/etc/passwd", &file).expect("a link");
    write();
    assert_eq!(fs::read(&file).expect("a file"), payloads[0]);
    // Each was counted once: two fit, and of three the one that was written first goes.
    assert_eq!(store.counts(), Counts { stored: 5, ..Counts::default() });
    let _ = store.store(hash(&[3; 100]), &[3; 100]);
    assert_eq!(running.finish(Instant::now() + Duration::from_secs(60)).evicted, 1);
    assert!(file.exists() && !directory.0.join(hex::encode(hash(&payloads[1]))).exists());
}

#[test]
fn a_file_of_another_length_is_not_trusted_at_the_start() {
    let directory = Directory::new("length");
    fs::create_dir_all(&directory.0).expect("directory");
    let payload = vec![1; 100];
    let file = directory.0.join(hex::encode(hash(&payload)));
    for wrong in [0, 99, 101] {
        fs::write(&file, vec![1; wrong]).expect("a file");
        let counts = store_all(&directory, 2, std::slice::from_ref(&payload));
        assert_eq!(counts, Counts { stored: 1, ..Counts::default() }, "{wrong}");
        assert_eq!(fs::read(&file).expect("a file"), payload);
    }
}

#[test]
fn a_directory_that_cannot_be_used_is_known_at_the_start() {
    let directory = Directory::new("file");
    fs::write(&directory.0, "a file").expect("file");
    let error = PayloadStore::prepare(&directory.config(10)).expect_err("a file is no directory");
    assert!(error.to_string().starts_with("cannot use payload_dir"), "{error}");
    let _ = fs::remove_file(&directory.0);
}

#[test]
fn short_payloads_and_the_preview_are_the_records() {
    let directory = Directory::new("preview");
    let store = PayloadStore::prepare(&directory.config(10)).expect("directory").expect("on").store();
    assert!(store.keeps(4) && !store.keeps(3));
    let room = usize::try_from(10 * unit()).expect("small");
    assert!(store.keeps(room) && !store.keeps(room + 1), "no room can be made for it");
    assert_eq!((store.preview(b"abc"), store.preview(b"a")), (&b"ab"[..], &b"a"[..]));
}

#[test]
fn what_the_queue_has_no_room_for_stays_with_the_record() {
    let directory = Directory::new("full");
    let prepared = PayloadStore::prepare(&directory.config(1 << 30)).expect("directory").expect("on");
    let store = prepared.store();
    // Nothing is taken out of the queue.
    let payload = |number: usize| vec![u8::try_from(number).expect("small"); QUEUED_BYTES / 4];
    assert!((0..4).all(|number| store.store(hash(&payload(number)), &payload(number))));
    assert!(!store.store(hash(&payload(4)), &payload(4)));
    assert_eq!(store.counts().carried, 1);
    let counts = prepared.spawn().expect("thread").finish(Instant::now() + Duration::from_secs(60));
    assert_eq!(counts, Counts { stored: 4, carried: 1, ..Counts::default() });
    assert!(!store.store(hash(b"after the end"), b"after the end"));
}

#[test]
fn a_payload_that_found_no_room_in_the_queue_takes_none_from_others() {
    let directory = Directory::new("room");
    let config = config::PayloadStore { max_bytes: 1 << 40, ..directory.config(1) };
    let prepared = PayloadStore::prepare(&config).expect("usable").expect("configured");
    let store = prepared.store();
    // Its thread does not run: what is handed over stays in the queue.
    let payload = |number: u8, bytes: usize| vec![number; bytes];
    let hand_over = |payload: &[u8]| store.store(hash(payload), payload);
    assert!(hand_over(&payload(1, QUEUED_BYTES - 1_000)));
    for number in 2..5 {
        assert!(!hand_over(&payload(number, 1_001)), "a byte too many");
    }
    assert!(hand_over(&payload(5, 1_000)), "to the last byte");
    assert_eq!(store.counts().carried, 3);
}
