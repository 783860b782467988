//! Two sensors, a hub and its page: the demo of a fleet.
//!
//! Each sensor has a pair of namespaces of its own, as in the plain demo. `spip-ship hub init` and `join` set the rest up as an
//! operator would: a NATS server with TLS and a key per sensor on loopback of this machine, a shipper per log, the hub's
//! shipper that writes a log per sensor, and spip-view on these. The demo fails unless the hub has each record of both
//! sensors once.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::sensor::{Files, Sensor};
use super::view::{self, View};
use super::{PURPOSE, RECORD_LIMIT, clients, is_to};
use crate::interrupt;
use crate::network::{self, Link};
use crate::process::{self, Running};
use crate::project::Project;
use crate::report;
use crate::setup;

/// The sensors.
pub(super) const NAMES: [&str; 2] = ["one", "two"];

/// From a start to an answer, and from a record in a log to the same in the hub's, on a slow machine.
const LIMIT: Duration = Duration::from_secs(60);

/// The programs beside the agent and the page.
#[derive(Clone)]
pub(super) struct Programs {
    pub(super) ship: PathBuf,
    pub(super) nats: PathBuf,
}

impl Programs {
    /// Builds the shipper, and installs the server where it is missing.
    pub(super) fn ready(project: &Project) -> Result<Self> {
        let server = setup::peers(project, true).into_iter().find(|peer| peer.variable == "SPIP_NATS_SERVER");
        let nats = match server.context("setup knows no NATS server")?.program {
            Ok(program) => program,
            Err(reason) => bail!("the hub needs a NATS server: {reason}"),
        };
        let mut cargo = project.cargo("build");
        process::run(cargo.args(["--locked", "--package", "spip-ship"]).env_remove("CARGO_BUILD_TARGET"))?;
        Ok(Self { ship: project.target.join("debug/spip-ship"), nats })
    }
}

/// A program of the fleet.
struct Watched {
    program: Running,
    name: String,
}

impl Watched {
    fn start(mut command: Command, name: &str, folder: &Path) -> Result<Self> {
        let messages = fs::File::create(folder.join(format!("{name}.messages")))?;
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(messages);
        Ok(Self { program: Running(process::start(&mut command)?), name: name.to_owned() })
    }

    /// Fails when the program has ended, with what it said last.
    fn check(&mut self, folder: &Path) -> Result<()> {
        if let Some(status) = self.program.0.try_wait()? {
            let messages = fs::read_to_string(folder.join(format!("{}.messages", self.name))).unwrap_or_default();
            bail!("{} ended with {status}: {}", self.name, messages.lines().next_back().unwrap_or_default());
        }
        Ok(())
    }
}

/// A sensor with its hosts.
struct Member {
    name: &'static str,
    // Dropped in this order: the agent before its files and its hosts.
    sensor: Sensor,
    files: Files,
    link: Link,
}

/// Shows the fleet, with the page where `page` is its program, until Ctrl-C.
pub(super) fn show(agent: &Path, page: &Path, programs: &Programs) -> Result<()> {
    let purpose = |name: &str| format!("{PURPOSE}-{name}");
    for name in NAMES {
        network::remove_stale(&purpose(name))?;
    }
    // Dropped last: the hub's files, and what the programs said.
    let place = Files::create("hub", false)?;
    let mut members = Vec::new();
    for name in NAMES {
        let link = Link::create(&purpose(name))?;
        let files = Files::create(name, link.has_ipv6)?;
        let sensor = Sensor::start(agent, &link.sensor, &files)?;
        members.push(Member { name, sensor, files, link });
    }
    let logs = members.iter().map(|member| (member.name, member.files.log())).collect::<Vec<_>>();
    let mut fleet = Fleet::start(programs, &place.folder, &logs)?;
    for member in &mut members {
        for visit in clients::visits(member.link.has_ipv6) {
            interrupt::check()?;
            visit.make(&member.link)?;
            let end = Instant::now() + RECORD_LIMIT;
            if member.sensor.record(end, |record| is_to(record, visit.destination))?.is_none() {
                bail!("{}: a visit left no record: {}", member.name, visit.name);
            }
        }
    }
    let mut sessions = 0;
    for Member { name, sensor, files, link } in members {
        sensor.stop()?;
        let logged = view::session_records(&read(&files.log())?);
        fleet.wait_for(name, logged)?;
        report::step("Hub", format!("has the {logged} session records of {name}, each once"));
        sessions += logged;
        drop((files, link));
    }
    let logs: Vec<_> = NAMES.iter().map(|name| fleet.log(name)).collect();
    View::start(page, &logs, &place.folder.join("view"), sessions)?.show()
}

/// The hub's server and shipper, and the sensors' shippers.
struct Fleet {
    programs: Vec<Watched>,
    folder: PathBuf,
}

impl Fleet {
    fn start(programs: &Programs, folder: &Path, logs: &[(&str, PathBuf)]) -> Result<Self> {
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let (hub, data) = (folder.join("hub"), folder.join("data"));
        let mut init = Command::new(&programs.ship);
        init.args(["hub", "init", "--host", "127.0.0.1", "--disk", "1", "--port", &port.to_string()]);
        init.arg("--directory").arg(&hub).arg("--data").arg(&data);
        for (name, _) in logs {
            init.args(["--sensor", name]);
        }
        report::step("Running", process::shown(&init));
        process::output(&mut init)?;
        // The port of its metrics may be a real hub's.
        let configuration = hub.join("hub.toml");
        let text = read(&configuration)?;
        let without: Vec<_> = text.lines().filter(|line| !line.starts_with("metrics = ")).collect();
        fs::write(&configuration, without.join("\n"))?;
        let mut fleet = Self { programs: Vec::new(), folder: folder.to_owned() };
        let mut server = Command::new(&programs.nats);
        server.arg("-c").arg(hub.join("nats.conf"));
        fleet.programs.push(Watched::start(server, "nats-server", folder)?);
        fleet.wait(|_| Ok(TcpStream::connect(("127.0.0.1", port)).is_ok()), "the server does not listen")?;
        fleet.follow(programs, &configuration, "hub")?;
        for (name, log) in logs {
            let etc = folder.join(name);
            let mut join = Command::new(&programs.ship);
            join.arg("join").arg(hub.join("join").join(format!("{name}.join"))).arg("--directory").arg(&etc);
            join.arg("--log").arg(log).arg("--state-dir").arg(etc.join("state"));
            report::step("Running", process::shown(&join));
            process::output(&mut join)?;
            fleet.follow(programs, &etc.join("ship.toml"), name)?;
        }
        Ok(fleet)
    }

    fn follow(&mut self, programs: &Programs, configuration: &Path, name: &str) -> Result<()> {
        let mut command = Command::new(&programs.ship);
        command.arg("--config").arg(configuration);
        self.programs.push(Watched::start(command, &format!("spip-ship-{name}"), &self.folder)?);
        Ok(())
    }

    /// Returns the log that the hub writes of a sensor.
    fn log(&self, name: &str) -> PathBuf {
        self.folder.join("data/logs").join(name).join("spip.jsonl")
    }

    /// Waits until the hub has as many session records of a sensor as that logged.
    fn wait_for(&mut self, name: &str, logged: usize) -> Result<()> {
        let log = self.log(name);
        self.wait(
            |_| {
                let stored = fs::read_to_string(&log).map_or(0, |text| view::session_records(&text));
                if stored > logged {
                    bail!("the hub has {stored} session records of {name}, which logged {logged}");
                }
                Ok(stored == logged)
            },
            "the hub does not have every record",
        )
    }

    fn wait(&mut self, mut is_done: impl FnMut(&Self) -> Result<bool>, otherwise: &str) -> Result<()> {
        let end = Instant::now() + LIMIT;
        while !is_done(self)? {
            interrupt::check()?;
            let folder = self.folder.clone();
            self.programs.iter_mut().try_for_each(|program| program.check(&folder))?;
            if Instant::now() >= end {
                bail!("{otherwise} after {} s", LIMIT.as_secs());
            }
            thread::sleep(interrupt::TICK);
        }
        Ok(())
    }
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}
