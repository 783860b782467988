//! From sensors through a stream to the hub's files.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use crate::support::{Nats, Place, append, assert_each_once, count, follow, once, peer, records};

fn hub(place: &Place, port: u16) -> PathBuf {
    let path = place.path("hub.toml");
    let text = format!(
        "state_dir = {:?}\n[source]\nkind = \"nats\"\nurl = \"nats://127.0.0.1:{port}\"\nstream = \"SPIP\"\n\
         [[sink]]\nkind = \"files\"\npath = {:?}\nrotate_bytes = 65536\nkeep_files = 1000\nbatch_milliseconds = 100\n",
        place.path("hub-state"),
        place.path("hub"),
    );
    fs::write(&path, text).expect("a writable directory");
    path
}

/// Counts the records in the logs of one sensor.
fn stored(directory: &Path) -> BTreeMap<(String, String, u64), u32> {
    let mut counts = BTreeMap::new();
    for entry in fs::read_dir(directory).expect("a directory") {
        let text = fs::read_to_string(entry.expect("an entry").path()).expect("a log");
        count(&text, &mut counts);
    }
    counts
}

#[test]
fn a_hub_that_is_killed_at_any_moment_writes_each_line_of_each_sensor_once() {
    let Some(program) = peer("SPIP_NATS_SERVER") else { return };
    let (place, other) = (Place::new(), Place::new());
    let mut server = Nats::start(&program, &place, "");
    let config = hub(&place, server.port);
    let (one, two) = (place.configure(&server.sink()), other.configure(&server.sink()));
    for round in 0..12_u64 {
        append(&place.log(), &records("one", "r", 1 + round * 100..101 + round * 100));
        append(&other.log(), &records("two.b", "r", 1 + round * 50..51 + round * 50));
        once(&one);
        let mut running = follow(&config);
        once(&two);
        thread::sleep(Duration::from_millis(30 + 47 * (round % 6)));
        if round % 5 == 3 {
            server.kill();
            server.run();
        }
        running.kill();
        if round % 4 == 2 {
            // What was written and not acknowledged comes again, and is found in the files.
            fs::remove_dir_all(place.path("hub-state")).expect("a state");
        }
    }
    once(&config);
    assert_each_once(&stored(&place.path("hub/one")), "r", 1..1201);
    assert_each_once(&stored(&place.path("hub/two%2Eb")), "r", 1..601);
}

#[test]
fn a_stolen_sensor_cannot_speak_for_another_one() {
    let Some(program) = peer("SPIP_NATS_SERVER") else { return };
    let place = Place::new();
    let server = Nats::start(&program, &place, "");
    let sensor = format!("name = \"thief\"\n{}", server.sink());
    append(&place.log(), &records("victim", "r", 1..4));
    append(&place.log(), &records("thief", "r", 1..3));
    once(&place.configure(&sensor));
    once(&hub(&place, server.port));
    assert!(!place.path("hub/victim").exists());
    assert_eq!(stored(&place.path("hub/thief")).len(), 2);
    let quarantine = fs::read_to_string(place.path("hub-state/files.quarantine.jsonl")).expect("a quarantine");
    assert_eq!(quarantine.lines().count(), 3);
    assert!(quarantine.contains("its name is \\\"victim\\\""), "{quarantine}");
}
