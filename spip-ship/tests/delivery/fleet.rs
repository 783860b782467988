//! Three sensors, a cluster of three servers and a hub under load, while everything fails at random.
//!
//! Each sensor, each server and the hub has a network namespace of its own ([`crate::network`]).
//!
//! `SPIP_FLEET_LINES` says how many records (`cargo xtask fleet-test`: a million), `SPIP_FLEET_SEED` which faults. At the end
//! the set that the hub stored is the set that was logged, none double: by `verify`, and by a count in Python that shares no
//! code with the programs.

mod sensor;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use self::sensor::Sensor;
use crate::disk::Disk;
use crate::nats::Cutter;
use crate::network::{At, Cut, Network};
use crate::support::{Clock, Cluster, Place, Process, compress, follow_by, once_within, peer};

/// Records of a run without `SPIP_FLEET_LINES`.
const LINES: u64 = 60_000;

/// Records of a run in which each fault has to happen.
const LONG: u64 = 1_000_000;

/// Rotations of one log: their names have minutes and seconds.
const ROTATIONS: u32 = 3_600;

/// The sensor whose state is on a disk of its own, and the member of the cluster whose messages are.
const ON_DISK: usize = 2;

/// Numbers that look random and are the same for the same seed.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

fn below(random: &mut Random, bound: usize) -> usize {
    usize::try_from(random.below(bound as u64)).expect("small")
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

const KILLED: &str = "shipper killed";
const HUB_KILLED: &str = "hub killed";
const MEMBER: &str = "server of the cluster killed and back";
const CUT: &str = "connection cut between store and acknowledgement";
const ROTATED: &str = "log rotated";
const COMPRESSED: &str = "closed log compressed";
const INODE: &str = "closed log compressed, its inode the next log's";
const STATE_LOST: &str = "state of a shipper lost";
const HUB_STATE_LOST: &str = "state of the hub lost";
const STATE_FULL: &str = "disk of a shipper's state full";
const SERVER_FULL: &str = "disk of a server full, server restarted";
const STREAM_FULL: &str = "stream full";
const CLOCK: &str = "clock stepped by up to a day";

/// Faults of a sensor's network.
const SENSOR_CUTS: [(&str, Cut); 3] = [
    ("link of a sensor down", Cut::Link),
    ("packets to a sensor dropped", Cut::Answers),
    ("connections of a sensor reset", Cut::Resets),
];

/// What it does to a server of the cluster, which goes on running.
const SERVER_CUTS: [(&str, Cut); 2] =
    [("link of a server down", Cut::Link), ("packets to a server dropped", Cut::Answers)];

/// What it does to the hub's shipper.
const HUB_CUTS: [(&str, Cut); 2] =
    [("packets to the hub dropped", Cut::Answers), ("connections of the hub reset", Cut::Resets)];

/// Faults that end after some time.
#[derive(Default)]
struct Lasting {
    until: BTreeMap<&'static str, (usize, Instant)>,
}

impl Lasting {
    fn begin(&mut self, fault: &'static str, index: usize, milliseconds: u64) {
        self.until.insert(fault, (index, Instant::now() + Duration::from_millis(milliseconds)));
    }

    fn is(&self, fault: &str) -> bool {
        self.until.contains_key(fault)
    }

    /// Ends `fault` if it has lasted long enough, or `at_once`. Returns where it was.
    fn over(&mut self, fault: &str, at_once: bool) -> Option<usize> {
        let (index, until) = *self.until.get(fault)?;
        if !at_once && Instant::now() < until {
            return None;
        }
        self.until.remove(fault);
        Some(index)
    }
}

/// The fleet, and what is wrong with it.
struct Fleet {
    cluster: Cluster,
    cutter: Cutter,
    sensors: Vec<Sensor>,
    hub: PathBuf,
    hub_process: Option<Process>,
    clock: Option<Clock>,
    /// That of the member [`ON_DISK`].
    disk: Option<Disk>,
    lasting: Lasting,
    counts: BTreeMap<&'static str, u32>,
    network: Arc<Network>,
    /// Dropped last: every program writes to it.
    place: Place,
}

impl Fleet {
    fn start(program: &Path) -> Self {
        let place = Place::new();
        let disk = Disk::mount(&place.path(&format!("cluster/{ON_DISK}/jetstream")), 512);
        let mut programs = [(); 3].map(|()| program.to_owned());
        if let Some(disk) = &disk {
            programs[ON_DISK] = disk.inside(program, &place);
        }
        let network = Arc::new(Network::new());
        let cluster = Cluster::start(programs, &place, Arc::clone(&network));
        let urls = cluster.urls();
        let cutter = network.sensors[0].enter(|| Cutter::start(cluster.address(0)));
        let sensor = |(index, name)| Sensor::new(&place, Arc::clone(&network), index, name, &urls);
        let mut sensors: Vec<_> = ["one", "two", "three"].into_iter().enumerate().map(sensor).collect();
        // One of them reaches the cluster through a proxy that swallows answers and cuts.
        let text = fs::read_to_string(&sensors[0].config).expect("a file");
        let proxied = format!("url = [\"nats://127.0.0.1:{}\"]", cutter.port);
        fs::write(&sensors[0].config, text.replace(&format!("url = {urls:?}"), &proxied)).expect("a file");
        let own = Path::new(env!("CARGO_BIN_EXE_spip-ship"));
        sensors[ON_DISK].disk = Disk::mount(&sensors[ON_DISK].state, 1).map(|disk| {
            let program = disk.inside(own, &place);
            (disk, program)
        });
        let (hub, clock) = (hub(&place, &urls), Clock::new(&place));
        sensors.iter_mut().for_each(|sensor| sensor.start(clock.as_ref()));
        let hub_process = Some(network.hub.enter(|| follow_by(&hub, clock.as_ref())));
        let (lasting, counts) = (Lasting::default(), BTreeMap::new());
        Self { cluster, cutter, sensors, hub, hub_process, clock, disk, lasting, counts, network, place }
    }

    fn note(&mut self, fault: &'static str, index: usize) {
        println!("{} {}: {fault}", jiff::Timestamp::now(), self.sensors[index].name);
        *self.counts.entry(fault).or_default() += 1;
    }

    /// Lets one thing go wrong, or none.
    fn fail(&mut self, random: &mut Random) {
        let index = below(random, 3);
        let (sensor, clock) = (&mut self.sensors[index], self.clock.as_ref());
        // Two of three servers are enough, one is not.
        let mut down = [MEMBER, SERVER_FULL].into_iter().chain(SERVER_CUTS.map(|(fault, _)| fault));
        let is_whole = !down.any(|fault| self.lasting.is(fault));
        let fault = match random.below(32) {
            0 | 1 => {
                sensor.kill();
                sensor.start(clock);
                KILLED
            }
            2 if is_whole => {
                self.cluster.kill(index);
                self.lasting.begin(MEMBER, index, 1_500);
                MEMBER
            }
            3 if !self.lasting.is(CUT) => {
                self.cutter.hold();
                self.lasting.begin(CUT, index, 400);
                CUT
            }
            4 | 5 if sensor.rotations < ROTATIONS => {
                sensor.rotate();
                ROTATED
            }
            6 => match sensor.closed.pop() {
                Some(closed) => {
                    compress(&closed);
                    COMPRESSED
                }
                None => return,
            },
            7 if sensor.rotations < ROTATIONS => match sensor.closed.pop() {
                Some(closed) => {
                    sensor.reuse_inode(&closed);
                    INODE
                }
                None => return,
            },
            8 => {
                sensor.kill();
                sensor.lose_state();
                sensor.start(clock);
                STATE_LOST
            }
            9 if !self.lasting.is(STATE_FULL) => match &self.sensors[ON_DISK].disk {
                Some((disk, _)) => {
                    disk.fill();
                    self.lasting.begin(STATE_FULL, ON_DISK, 700);
                    STATE_FULL
                }
                None => return,
            },
            10 => {
                self.hub_process = None;
                self.hub_process = Some(self.network.hub.enter(|| follow_by(&self.hub, clock)));
                HUB_KILLED
            }
            11 => {
                self.hub_process = None;
                let _ = fs::remove_file(self.place.path("hub-state/files.state"));
                self.hub_process = Some(self.network.hub.enter(|| follow_by(&self.hub, clock)));
                HUB_STATE_LOST
            }
            12 => match &self.clock {
                Some(clock) => {
                    // Up to a day forth or back, for all programs at once.
                    clock.step(i64::try_from(random.below(172_800)).expect("small") - 86_400);
                    CLOCK
                }
                None => return,
            },
            13 if is_whole => match &self.disk {
                Some(disk) => {
                    disk.fill();
                    self.lasting.begin(SERVER_FULL, ON_DISK, 1_500);
                    SERVER_FULL
                }
                None => return,
            },
            14 if is_whole && !self.lasting.is(STREAM_FULL) && self.cluster.fill_stream(index, true) => {
                self.lasting.begin(STREAM_FULL, index, 800);
                STREAM_FULL
            }
            15 | 16 => {
                let (fault, cut) = SENSOR_CUTS[below(random, SENSOR_CUTS.len())];
                if !self.cut(At::Sensor(index), fault, cut, 200 + random.below(2_800)) {
                    return;
                }
                fault
            }
            // Longer than an election of the cluster takes, or shorter.
            17 if is_whole => {
                let (fault, cut) = SERVER_CUTS[below(random, SERVER_CUTS.len())];
                if !self.cut(At::Server(index), fault, cut, 500 + random.below(8_000)) {
                    return;
                }
                fault
            }
            18 => {
                let (fault, cut) = HUB_CUTS[below(random, HUB_CUTS.len())];
                if !self.cut(At::Hub, fault, cut, 200 + random.below(2_800)) {
                    return;
                }
                fault
            }
            _ => return,
        };
        self.note(fault, if [STATE_FULL, SERVER_FULL].contains(&fault) { ON_DISK } else { index });
    }

    /// Cuts a host off for a time. Reports whether it was possible.
    fn cut(&mut self, at: At, fault: &'static str, cut: Cut, milliseconds: u64) -> bool {
        let index = match at {
            At::Hub => 0,
            At::Server(index) | At::Sensor(index) => index,
        };
        let begins = !self.lasting.is(fault) && self.network.cut(at, cut);
        if begins {
            self.lasting.begin(fault, index, milliseconds);
        }
        begins
    }

    /// Ends what has lasted long enough; with `at_once` everything.
    fn recover(&mut self, at_once: bool) {
        for (fault, cut) in SENSOR_CUTS {
            if let Some(index) = self.lasting.over(fault, at_once) {
                self.network.join(At::Sensor(index), cut);
            }
        }
        for (fault, cut) in SERVER_CUTS {
            if let Some(index) = self.lasting.over(fault, at_once) {
                self.network.join(At::Server(index), cut);
            }
        }
        for (fault, cut) in HUB_CUTS {
            if self.lasting.over(fault, at_once).is_some() {
                self.network.join(At::Hub, cut);
            }
        }
        if let Some(member) = self.lasting.over(MEMBER, at_once) {
            self.cluster.run(member);
        }
        if self.lasting.over(CUT, at_once).is_some() {
            self.cutter.release();
        }
        if self.lasting.over(STATE_FULL, at_once).is_some()
            && let Some((disk, _)) = &self.sensors[ON_DISK].disk
        {
            disk.free();
        }
        if self.lasting.over(SERVER_FULL, at_once).is_some()
            && let Some(disk) = &self.disk
        {
            disk.free();
            // A server that has found its disk full stores nothing any more until it is started again.
            self.cluster.kill(ON_DISK);
            self.cluster.run(ON_DISK);
        }
        if let Some(member) = self.lasting.over(STREAM_FULL, at_once) {
            let is_freed = self.cluster.fill_stream(member, false) || self.cluster.fill_stream((member + 1) % 3, false);
            if !is_freed {
                // Without a leader there is no change: later.
                self.lasting.begin(STREAM_FULL, (member + 1) % 3, 800);
            }
        }
    }

    /// Lists the faults that can happen here.
    fn possible(&self) -> Vec<&'static str> {
        let mut faults =
            vec![KILLED, HUB_KILLED, MEMBER, CUT, ROTATED, COMPRESSED, INODE, STATE_LOST, HUB_STATE_LOST, STREAM_FULL];
        faults.extend([STATE_FULL, SERVER_FULL].iter().filter(|_| self.disk.is_some()));
        faults.extend([CLOCK].iter().filter(|_| self.clock.is_some()));
        let cuts = SENSOR_CUTS.into_iter().chain(SERVER_CUTS).chain(HUB_CUTS);
        faults.extend(cuts.filter(|(_, cut)| self.network.can(*cut)).map(|(fault, _)| fault));
        faults
    }

    fn is_failing(&self) -> bool {
        !self.lasting.until.is_empty()
    }
}

#[test]
fn fleet_under_faults_stores_what_was_logged_once() {
    let (Some(program), Some(python)) = (peer("SPIP_NATS_SERVER"), peer("SPIP_CHDB_PYTHON")) else { return };
    let lines = number("SPIP_FLEET_LINES", LINES);
    let seed = number("SPIP_FLEET_SEED", 7);
    let mut random = Random(seed);
    let mut fleet = Fleet::start(&program);
    let started = Instant::now();
    while fleet.sensors.iter().map(|sensor| sensor.next - 1).sum::<u64>() < lines {
        fleet.sensors.iter_mut().for_each(Sensor::write);
        thread::sleep(Duration::from_millis(25));
        fleet.recover(false);
        fleet.fail(&mut random);
    }
    let loaded = started.elapsed();
    let deadline = Instant::now() + Duration::from_secs(120);
    while fleet.is_failing() {
        assert!(Instant::now() < deadline, "seed {seed}: the cluster has no leader");
        fleet.recover(true);
        thread::sleep(Duration::from_millis(100));
    }
    for sensor in &mut fleet.sensors {
        let (is_whole, text) = sensor.finish();
        assert!(is_whole, "seed {seed}: {}: {text}\n{}", sensor.name, fleet.cluster.repeated(sensor.name));
    }
    fleet.hub_process = None;
    fleet.network.hub.enter(|| once_within(&fleet.hub, 120));
    println!("{lines} records in {loaded:?}, seed {seed}");
    for (fault, count) in &fleet.counts {
        println!("{fault:<52} {count:>5}");
    }
    count(&python, &fleet.place, seed);
    if lines >= LONG {
        let never: Vec<_> = fleet.possible().into_iter().filter(|fault| !fleet.counts.contains_key(fault)).collect();
        assert!(never.is_empty(), "seed {seed}: never happened: {never:?}");
    }
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
