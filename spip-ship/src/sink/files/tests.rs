//! Whatever of a batch was written before a crash, the file ends up with each line once.

use std::fs;
use std::path::PathBuf;

use super::*;
use crate::batch::Part;

struct Hub(PathBuf);

impl Hub {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("spip-ship-files-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        Self(path)
    }

    fn sink(&self, max_sensors: usize) -> Files {
        Files::new(Config { path: self.0.clone(), rotate_bytes: 100, keep_files: 2, max_sensors })
    }

    fn text(&self, sensor: &str) -> String {
        fs::read_to_string(self.0.join(sensor).join("spip.jsonl")).unwrap_or_default()
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn batch(start: u64, sensor: &str, text: &str) -> Batch {
    let count = text.lines().count() as u64;
    let part = Part { sensor: sensor.to_owned(), count, bytes: text.as_bytes().to_vec(), ..Part::default() };
    let place = |total| Place { total, ..Place::default() };
    Batch { parts: vec![part], start: place(start), end: place(start + count), ..Batch::default() }
}

#[test]
fn after_a_crash_at_any_byte_each_line_stands_once() {
    let hub = Hub::new("crash");
    let text = "{\"seq\":1}\n{\"seq\":2}\n";
    for end in 0..=text.len() {
        let _ = fs::remove_dir_all(&hub.0);
        let mut state = State::new();
        let mut sink = hub.sink(10);
        sink.open(&state).expect("a directory");
        let first = batch(0, "a", "{\"seq\":0}\n");
        sink.prepare(&first).expect("prepared");
        sink.deliver(&first, &state).expect("written");
        let second = batch(1, "a", text);
        sink.prepare(&second).expect("prepared");
        state.own = sink.own_state();
        // The process dies here, with a part of the batch in the file.
        let path = hub.0.join("a/spip.jsonl");
        fs::write(&path, format!("{{\"seq\":0}}\n{}", &text[..end])).expect("a file");
        let mut sink = hub.sink(10);
        sink.open(&state).expect("a directory");
        sink.prepare(&second).expect("prepared");
        sink.deliver(&second, &state).expect("written");
        assert_eq!(hub.text("a"), format!("{{\"seq\":0}}\n{text}"), "crash after {end} bytes");
    }
}

#[test]
fn without_a_state_what_the_file_has_already_is_passed_over_batch_by_batch() {
    let hub = Hub::new("lost");
    let (state, mut sink) = (State::new(), hub.sink(10));
    sink.open(&state).expect("a directory");
    let batches =
        [batch(0, "a", "{\"seq\":0}\n{\"seq\":1}\n"), batch(2, "a", "{\"seq\":2}\n"), batch(3, "a", "{\"seq\":3}\n")];
    for one in &batches[..2] {
        sink.prepare(one).expect("prepared");
        sink.deliver(one, &state).expect("written");
    }
    let mut sink = hub.sink(10);
    sink.open(&State::new()).expect("a directory");
    for one in &batches {
        sink.prepare(one).expect("prepared");
        sink.deliver(one, &state).expect("written");
    }
    assert_eq!(hub.text("a"), "{\"seq\":0}\n{\"seq\":1}\n{\"seq\":2}\n{\"seq\":3}\n");
}

#[test]
fn bytes_of_somebody_else_stay_and_end_with_a_line_feed() {
    let hub = Hub::new("other");
    let mut sink = hub.sink(10);
    let state = State::new();
    sink.open(&state).expect("a directory");
    let one = batch(0, "a", "{\"seq\":0}\n");
    sink.prepare(&one).expect("prepared");
    fs::create_dir_all(hub.0.join("a")).expect("a directory");
    fs::write(hub.0.join("a/spip.jsonl"), "half").expect("a file");
    sink.deliver(&one, &state).expect("written");
    assert_eq!(hub.text("a"), "half\n{\"seq\":0}\n");
}

#[test]
fn names_cannot_leave_the_directory_nor_fill_it() {
    let hub = Hub::new("names");
    let mut sink = hub.sink(2);
    let state = State::new();
    sink.open(&state).expect("a directory");
    let long = "x".repeat(300);
    let mut refused = 0;
    for (index, sensor) in ["../../etc", "/", "third", long.as_str()].iter().enumerate() {
        let one = batch(index as u64, sensor, "{}\n");
        sink.prepare(&one).expect("prepared");
        let Ok(Delivery::Stored { rejects, .. }) = sink.deliver(&one, &state) else { panic!("{sensor}") };
        refused += rejects.len();
    }
    let names: Vec<_> =
        fs::read_dir(&hub.0).expect("a directory").map(|entry| entry.expect("an entry").file_name()).collect();
    assert_eq!((names.len(), refused), (2, 2), "{names:?}");
}

#[test]
fn a_full_log_is_closed_and_the_oldest_ones_go() {
    let hub = Hub::new("rotate");
    let mut sink = hub.sink(10);
    let state = State::new();
    sink.open(&state).expect("a directory");
    for index in 0..8 {
        let one = batch(index, "a", &format!("{{\"seq\":{index},\"x\":\"{}\"}}\n", "y".repeat(100)));
        sink.prepare(&one).expect("prepared");
        sink.deliver(&one, &state).expect("written");
    }
    let mut names: Vec<_> = fs::read_dir(hub.0.join("a"))
        .expect("a directory")
        .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    assert_eq!(names.len(), 3, "{names:?}");
    assert!(hub.text("a").contains("\"seq\":7"));
}

#[test]
fn what_root_makes_belongs_to_the_owner_of_the_directory() {
    use std::os::unix::fs::{MetadataExt as _, chown};
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let hub = Hub::new("owner");
    fs::create_dir_all(&hub.0).expect("a temporary directory");
    chown(&hub.0, Some(60_002), Some(60_003)).expect("root");
    let (mut sink, state, batch) = (hub.sink(10), State::new(), batch(0, "s", "{\"seq\":1}\n"));
    sink.open(&state).expect("writable");
    sink.prepare(&batch).expect("writable");
    sink.deliver(&batch, &state).expect("writable");
    for path in [hub.0.join("s"), hub.0.join("s/spip.jsonl")] {
        let metadata = fs::metadata(&path).expect("it was made");
        assert_eq!((metadata.uid(), metadata.gid()), (60_002, 60_003), "{}", path.display());
    }
}
