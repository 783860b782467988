//! From sensors through a stream to the hub's files.

use std::collections::BTreeMap;
use std::fs;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use spip_ship::config::NatsAccess;
use spip_ship::nats::Connection;

use crate::support::{
    Nats, Place, Process, access, append, assert_each_once, count, follow, free_port, once, peer, records, run,
    runtime, wait_for,
};

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
fn what_a_hub_delivered_is_acknowledged_and_a_lost_state_begins_behind_it() {
    let Some(program) = peer("SPIP_NATS_SERVER") else { return };
    let place = Place::new();
    let server = Nats::start(&program, &place, "");
    append(&place.log(), &records("one", "r", 1..401));
    once(&place.configure(&server.sink()));
    let config = hub(&place, server.port);
    once(&config);
    fs::remove_dir_all(place.path("hub-state")).expect("a state");
    let text = once(&config);
    let last = server.messages().len();
    assert!(last > 1 && text.contains(&format!("resumes after message {last}, the last one acknowledged")), "{text}");
    assert_each_once(&stored(&place.path("hub/one")), "r", 1..401);
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

/// Runs `spip-ship` with `arguments`, and asserts that it worked.
fn command(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_spip-ship")).args(arguments).output().expect("the program starts");
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {text}");
    text
}

#[test]
fn a_fleet_is_made_by_three_commands_and_a_credential_ends_with_one() {
    let Some(program) = peer("SPIP_NATS_SERVER") else { return };
    let place = Place::new();
    let path = |name: &str| place.path(name).display().to_string();
    let port = free_port();
    command(&[
        "hub",
        "init",
        "--host",
        "127.0.0.1",
        "--port",
        &port.to_string(),
        "--sensor",
        "one",
        "--sensor",
        "two.b",
        "--directory",
        &path("etc"),
        "--data",
        &path("data"),
    ]);
    let server = Command::new(&program)
        .args(["-c", &path("etc/nats.conf")])
        .stderr(Stdio::null())
        .spawn()
        .map(Process)
        .expect("the server starts");
    wait_for("the server listens", || TcpStream::connect(("127.0.0.1", port)).ok());
    let hub = place.path("etc/hub.toml");
    // The port of the metrics is one for the whole machine.
    let text = fs::read_to_string(&hub).expect("a file").replace("metrics = \"127.0.0.1:9466\"\n", "");
    fs::write(&hub, text).expect("a file");
    let running = follow(&hub);
    for (sensor, file) in [("one", "one.join"), ("two.b", "two%2Eb.join")] {
        let log = path(&format!("{sensor}/log/spip.jsonl"));
        fs::create_dir_all(place.path(&format!("{sensor}/log"))).expect("a directory");
        append(Path::new(&log), &records(sensor, "r", 1..101));
        let (etc, state) = (path(&format!("{sensor}/etc")), path(&format!("{sensor}/state")));
        command(&[
            "join",
            &path(&format!("etc/join/{file}")),
            "--directory",
            &etc,
            "--log",
            &log,
            "--state-dir",
            &state,
        ]);
        once(Path::new(&format!("{etc}/ship.toml")));
    }
    for sensor in ["one", "two%2Eb"] {
        let has_all = || {
            let directory = place.path(&format!("data/logs/{sensor}"));
            (directory.is_dir() && stored(&directory).len() == 100).then_some(())
        };
        wait_for("the hub has everything", has_all);
    }
    // A log that is lost is missed and written again, from the stream, beside the running shipper.
    fs::remove_file(place.path("data/logs/one/spip.jsonl")).expect("a log");
    let (is_whole, text) = run(&hub, &["verify"]);
    assert!(!is_whole && text.contains("missing 1 to 100"), "{text}");
    let (is_sent, text) = run(&hub, &["replay", "--since", "2026-01-01T00:00:00Z"]);
    assert!(is_sent && text.contains("sent 100 records again"), "{text}");
    let (is_whole, text) = run(&hub, &["verify"]);
    assert!(is_whole, "{text}");
    let (is_whole, text) = run(&place.path("one/etc/ship.toml"), &["verify"]);
    assert!(!is_whole && text.contains("may not read the stream") && text.lines().count() == 1, "{text}");
    let (last, of_other) = stream(&place, port, "two%2Eb");
    steal(&place, port);
    assert_eq!(stream(&place, port, "two%2Eb").1, of_other, "a thief wrote to another subject");
    // What it published itself: five times under its own name.
    assert_eq!(stream(&place, port, "two%2Eb").0, last + 5);
    let text = command(&["hub", "revoke", "one", "--directory", &path("etc")]);
    assert!(!text.contains("not running here"), "{text}");
    append(&place.path("one/log/spip.jsonl"), &records("one", "r", 101..103));
    append(&place.path("two.b/log/spip.jsonl"), &records("two.b", "r", 101..103));
    let (succeeded, text) = run(&place.path("one/etc/ship.toml"), &["--once", "--timeout", "1"]);
    assert!(!succeeded && text.contains("authorization violation"), "{text}");
    once(&place.path("two.b/etc/ship.toml"));
    assert!(command(&["hub", "list", "--directory", &path("etc")]).starts_with("two.b\t"));
    // A shipper that runs meanwhile takes the new key.
    let shipper = follow(&place.path("two.b/etc/ship.toml"));
    let messages = || fs::read_to_string(place.path("two.b/etc/ship.log")).unwrap_or_default();
    wait_for("it has a connection", || messages().contains("nats: connected").then_some(()));
    command(&["hub", "revoke", "two.b", "--directory", &path("etc")]);
    append(&place.path("two.b/log/spip.jsonl"), &records("two.b", "r", 103..105));
    let is_said = |line: &str| line.starts_with("error:") && line.contains("authorization violation");
    wait_for("it is locked out", || messages().lines().any(is_said).then_some(()));
    command(&["hub", "add", "two.b", "--directory", &path("etc")]);
    let (etc, log, state) = (path("two.b/etc"), path("two.b/log/spip.jsonl"), path("two.b/state"));
    let file = path("etc/join/two%2Eb.join");
    command(&["join", &file, "--force", "--directory", &etc, "--log", &log, "--state-dir", &state]);
    let has_all = || (stored(&place.path("data/logs/two%2Eb")).len() == 104).then_some(());
    wait_for("the hub has what was logged meanwhile", has_all);
    drop((shipper, running, server));
}

/// Sets a hub up where the services' users are, under a umask that takes everything from others, and prints which of its files
/// each user can read or write.
const USERS: &str = r#"set -e
directory=$0 program=$1
for file in passwd group; do cp /etc/$file $directory/$file; done
echo 'nats:x:60001:60001::/:/bin/false
spip-ship:x:60002:60002::/:/bin/false' >> $directory/passwd
echo 'nats:x:60001:
spip-ship:x:60002:
spip:x:60003:' >> $directory/group
for file in passwd group; do mount --bind $directory/$file /etc/$file; done
(umask 077; "$program" hub init --host 127.0.0.1 --sensor one --directory $directory/etc --data $directory/data > $directory/said)
as() { user=$1 group=$2; shift 2; setpriv --reuid $user --regid $group --clear-groups "$@"; }
for user in nats:nats spip-ship:spip; do
    for file in nats.conf users.conf server.key server.pem ca.pem ca.key hub.toml hub.nkey join/one.join; do
        if as ${user%:*} ${user#*:} test -r $directory/etc/$file; then echo "${user%:*} reads $file"; fi
        if as ${user%:*} ${user#*:} test -w $directory/etc/$file; then echo "${user%:*} writes $file"; fi
    done
    for file in nats ship logs; do
        if as ${user%:*} ${user#*:} test -w $directory/data/$file; then echo "${user%:*} writes $file"; fi
    done
done
if as 60004 spip ls $directory/data/logs; then echo "the group spip lists logs"; fi
"#;

#[test]
fn each_service_of_a_hub_reads_its_own_files_and_nothing_else() {
    if !nix::unistd::geteuid().is_root() {
        println!("skipped: only root gives files to others");
        return;
    }
    let place = Place::new();
    let output = Command::new("unshare")
        .args(["--mount", "--propagation", "private", "sh", "-c", USERS])
        .args([place.path(""), env!("CARGO_BIN_EXE_spip-ship").into()])
        .output()
        .expect("unshare starts");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    let expected = [
        "nats reads nats.conf",
        "nats reads users.conf",
        "nats reads server.key",
        "nats reads server.pem",
        "nats reads ca.pem",
        "nats reads hub.toml",
        "nats writes nats",
        "spip-ship reads server.pem",
        "spip-ship reads ca.pem",
        "spip-ship reads hub.toml",
        "spip-ship reads hub.nkey",
        "spip-ship writes ship",
        "spip-ship writes logs",
        "the group spip lists logs",
    ];
    assert_eq!(text.lines().collect::<Vec<_>>(), expected);
    let said = fs::read_to_string(place.path("said")).expect("it was said");
    assert!(!said.contains("missing"), "{said}");
}

/// Tries what a thief of the sensor `one` would.
fn steal(place: &Place, port: u16) {
    let runtime = runtime();
    let access = NatsAccess {
        urls: vec![format!("tls://127.0.0.1:{port}")],
        nkey: Some(place.path("one/etc/ship.nkey").display().to_string().into()),
        ca: Some(place.path("one/etc/ship-ca.pem")),
        ..access(port)
    };
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let mut thief = Connection::new(access, runtime.handle().clone(), Some("one".to_owned()));
    let time = Duration::from_millis(500);
    let mut ask = |subject: &str| thief.request(subject, None, bytes::Bytes::from_static(b"{}"), time).is_ok();
    assert!(ask("$JS.API.DIRECT.GET.SPIP.spip.records.one"), "its own last message");
    assert!(ask("spip.records.one"), "its own subject");
    for subject in [
        "spip.records.two%2Eb",
        "spip.records.other",
        "$JS.API.DIRECT.GET.SPIP.spip.records.two%2Eb",
        "$JS.API.DIRECT.GET.SPIP",
        "$JS.API.STREAM.INFO.SPIP",
        "$JS.API.STREAM.MSG.GET.SPIP",
        "$JS.API.STREAM.PURGE.SPIP",
        "$JS.API.STREAM.DELETE.SPIP",
        "$JS.API.CONSUMER.LIST.SPIP",
        "$JS.API.INFO",
    ] {
        assert!(!ask(subject), "{subject} is open to a thief");
    }
    // Where the answer goes, the server does not check: it sends it itself, with the thief's last message as its text.
    let client = thief.client().expect("connected");
    for own in ["$JS.API.DIRECT.GET.SPIP.spip.records.one", "spip.records.one"] {
        for answer in ["spip.records.two%2Eb", "$JS.API.STREAM.PURGE.SPIP", "$JS.API.STREAM.DELETE.SPIP"] {
            let sent = client.publish_with_reply(own, answer, bytes::Bytes::from_static(b"{}"));
            runtime.block_on(sent).expect("sent");
        }
    }
    runtime.block_on(client.flush()).expect("sent");
    // Answered behind them.
    let mut ask = |subject: &str| thief.request(subject, None, bytes::Bytes::from_static(b"{}"), time).is_ok();
    assert!(ask("spip.records.one") && ask("$JS.API.DIRECT.GET.SPIP.spip.records.one"));
}

/// Returns the last sequence of the stream of a hub, and the number of its messages of a sensor.
fn stream(place: &Place, port: u16, sensor: &str) -> (u64, u64) {
    let runtime = runtime();
    let access = NatsAccess {
        urls: vec![format!("tls://127.0.0.1:{port}")],
        nkey: Some(place.path("etc/hub.nkey").display().to_string().into()),
        ca: Some(place.path("etc/ca.pem")),
        ..access(port)
    };
    let mut connection = Connection::new(access, runtime.handle().clone(), None);
    let filter = serde_json::json!({ "subjects_filter": ">" });
    let info: serde_json::Value = connection.api("STREAM.INFO.SPIP", &filter).expect("a stream");
    let of_sensor = &info["state"]["subjects"][format!("spip.records.{sensor}")];
    (info["state"]["last_seq"].as_u64().expect("a number"), of_sensor.as_u64().unwrap_or_default())
}
