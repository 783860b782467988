//! Three sensors, a cluster of three servers and a hub under load, while everything fails at random.
//!
//! `SPIP_FLEET_LINES` says how many records (`cargo xtask fleet-test`: a million), `SPIP_FLEET_SEED` which faults. At the end
//! the set that the hub stored is the set that was logged, none double: by `verify`, and by a count in Python that shares no
//! code with the programs.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use crate::nats::Cutter;
use crate::support::{
    Clock, Cluster, Place, Process, append, compress, follow_by, once_within, peer, records, rotate, run,
};

/// Records of a run without `SPIP_FLEET_LINES`.
const LINES: u64 = 60_000;

/// Records that are logged at a time.
const CHUNK: u64 = 100;

/// Numbers that look random and are the same for the same seed.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

struct Sensor {
    name: String,
    config: PathBuf,
    log: PathBuf,
    ledger: PathBuf,
    state: PathBuf,
    next: u64,
    rotations: u32,
    closed: Vec<PathBuf>,
    shipper: Option<Process>,
}

impl Sensor {
    fn new(place: &Place, name: &str, urls: &[String]) -> Self {
        let directory = place.path(name);
        fs::create_dir_all(directory.join("log")).expect("a directory");
        let (log, state, config) =
            (directory.join("log/spip.jsonl"), directory.join("state"), directory.join("ship.toml"));
        let text = format!(
            "log = {log:?}\nstate_dir = {state:?}\n[[sink]]\nkind = \"nats\"\nurl = {urls:?}\nreplicas = 3\n\
             batch_bytes = 65536\nbatch_milliseconds = 100\nack_timeout_seconds = 2\n"
        );
        fs::write(&config, text).expect("a file");
        let ledger = place.path(&format!("{name}.ledger"));
        Self {
            name: name.to_owned(),
            config,
            log,
            ledger,
            state,
            next: 1,
            rotations: 0,
            closed: Vec::new(),
            shipper: None,
        }
    }

    fn write(&mut self) {
        let text = records(&self.name, "r", self.next..self.next + CHUNK);
        self.next += CHUNK;
        append(&self.ledger, &text);
        append(&self.log, &text);
    }

    fn start(&mut self, clock: Option<&Clock>) {
        self.shipper = Some(follow_by(&self.config, clock));
    }
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

#[test]
fn fleet_under_faults_stores_what_was_logged_once() {
    let (Some(program), Some(python)) = (peer("SPIP_NATS_SERVER"), peer("SPIP_CHDB_PYTHON")) else { return };
    let place = Place::new();
    let lines = number("SPIP_FLEET_LINES", LINES);
    let seed = number("SPIP_FLEET_SEED", 7);
    let mut random = Random(seed);
    let mut cluster = Cluster::start(&program, &place);
    let urls = cluster.urls();
    let cutter = Cutter::start(cluster.port(0));
    let mut sensors: Vec<_> = ["one", "two", "three"].iter().map(|name| Sensor::new(&place, name, &urls)).collect();
    // One of them reaches the cluster through a proxy that swallows answers and cuts.
    let text = fs::read_to_string(&sensors[0].config).expect("a file");
    let proxied = format!("url = [\"nats://127.0.0.1:{}\"]", cutter.port);
    fs::write(&sensors[0].config, text.replace(&format!("url = {urls:?}"), &proxied)).expect("a file");
    let hub = hub(&place, &urls);
    let clock = Clock::new(&place);
    let clock = clock.as_ref();
    sensors.iter_mut().for_each(|sensor| sensor.start(clock));
    let mut hub_process = Some(follow_by(&hub, clock));
    let mut faults: BTreeMap<&str, u32> = BTreeMap::new();
    let mut lost: Option<(usize, Instant)> = None;
    let (mut swallowing, mut blocked): (Option<Instant>, Option<(usize, Instant)>) = (None, None);
    let started = Instant::now();
    while sensors.iter().map(|sensor| sensor.next - 1).sum::<u64>() < lines {
        sensors.iter_mut().for_each(Sensor::write);
        thread::sleep(Duration::from_millis(25));
        if let Some((member, since)) = lost
            && since.elapsed() > Duration::from_millis(1_500)
        {
            cluster.run(member);
            lost = None;
        }
        if swallowing.is_some_and(|since| since.elapsed() > Duration::from_millis(400)) {
            cutter.release();
            swallowing = None;
        }
        if let Some((index, since)) = blocked
            && since.elapsed() > Duration::from_millis(700)
        {
            let _ = fs::remove_dir(sensors[index].state.join("nats.state.new"));
            blocked = None;
        }
        let index = usize::try_from(random.below(3)).expect("small");
        let sensor = &mut sensors[index];
        let fault = match random.below(24) {
            0 | 1 => {
                sensor.shipper.as_mut().expect("it runs").kill();
                sensor.start(clock);
                "shipper killed"
            }
            2 if lost.is_none() => {
                cluster.kill(index);
                lost = Some((index, Instant::now()));
                "cluster member lost and back"
            }
            3 if swallowing.is_none() => {
                cutter.hold();
                swallowing = Some(Instant::now());
                "connection cut behind the stored message"
            }
            4 | 5 if sensor.rotations < 50 => {
                sensor.rotations += 1;
                sensor.closed.push(rotate(&sensor.log, sensor.rotations));
                "log rotated"
            }
            6 | 7 => match sensor.closed.pop() {
                // Its inode is free then, and the next file of the log may get it.
                Some(closed) => {
                    compress(&closed);
                    "closed log compressed, inode free"
                }
                None => continue,
            },
            8 => {
                sensor.shipper.as_mut().expect("it runs").kill();
                let _ = fs::remove_file(sensor.state.join("nats.state"));
                sensor.start(clock);
                "state lost"
            }
            9 if blocked.is_none() => {
                // As on a full disk: the state cannot be written aside.
                let _ = fs::create_dir(sensor.state.join("nats.state.new"));
                blocked = Some((index, Instant::now()));
                "state cannot be written"
            }
            10 => {
                hub_process.as_mut().expect("it runs").kill();
                hub_process = Some(follow_by(&hub, clock));
                "hub killed"
            }
            11 => {
                hub_process.as_mut().expect("it runs").kill();
                let _ = fs::remove_file(place.path("hub-state/files.state"));
                hub_process = Some(follow_by(&hub, clock));
                "state of the hub lost"
            }
            12 if clock.is_some() => {
                // Up to a day forth or back, for all programs at once.
                let seconds = i64::try_from(random.below(172_800)).expect("small") - 86_400;
                clock.iter().for_each(|clock| clock.step(seconds));
                "clock stepped"
            }
            _ => continue,
        };
        println!("{} {}: {fault}", jiff::Timestamp::now(), sensor.name);
        *faults.entry(fault).or_default() += 1;
    }
    let loaded = started.elapsed();
    if let Some((member, _)) = lost {
        cluster.run(member);
    }
    cutter.release();
    if let Some((index, _)) = blocked {
        let _ = fs::remove_dir(sensors[index].state.join("nats.state.new"));
    }
    for sensor in &mut sensors {
        sensor.shipper = None;
        once_within(&sensor.config, 120);
        let (is_whole, text) = run(&sensor.config, &["verify"]);
        assert!(is_whole, "seed {seed}: {}: {text}\n{}", sensor.name, cluster.repeated(&sensor.name));
    }
    drop(hub_process);
    once_within(&hub, 120);
    println!("{lines} records in {loaded:?}, seed {seed}");
    for (fault, count) in &faults {
        println!("{fault:<44} {count:>5}");
    }
    count(&python, &place, seed);
}

fn hub(place: &Place, urls: &[String]) -> PathBuf {
    let path = place.path("hub.toml");
    let text = format!(
        "state_dir = {:?}\n[source]\nkind = \"nats\"\nurl = {urls:?}\nstream = \"SPIP\"\nreplicas = 3\n\
         [[sink]]\nkind = \"files\"\npath = {:?}\nrotate_bytes = 1073741824\nbatch_milliseconds = 100\n",
        place.path("hub-state"),
        place.path("hub"),
    );
    fs::write(&path, text).expect("a file");
    path
}

fn count(python: &Path, place: &Place, seed: u64) {
    let output = Command::new(python)
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/delivery/count.py"))
        .args([place.path(""), place.path("hub")])
        .output()
        .expect("Python starts");
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    println!("counted in Python: {text}");
    assert!(output.status.success(), "seed {seed}: {text}");
}
