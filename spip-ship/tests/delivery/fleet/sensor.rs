//! A sensor of the fleet: a log that is written, rotated and compressed as the agent does, and its shipper.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::disk::Disk;
use crate::network::{Host, Network};
use crate::support::{
    Clock, Place, Process, append, compress, follow_by, follow_in, once_within, records, rotate, run,
};

/// Records that are logged at a time.
const CHUNK: u64 = 100;

pub(super) struct Sensor {
    pub(super) name: &'static str,
    network: Arc<Network>,
    index: usize,
    pub(super) config: PathBuf,
    pub(super) log: PathBuf,
    pub(super) ledger: PathBuf,
    pub(super) state: PathBuf,
    /// A small disk for the state, seen by this shipper only.
    pub(super) disk: Option<(Disk, PathBuf)>,
    pub(super) next: u64,
    pub(super) rotations: u32,
    pub(super) closed: Vec<PathBuf>,
    pub(super) shipper: Option<Process>,
}

impl Sensor {
    pub(super) fn new(place: &Place, network: Arc<Network>, index: usize, name: &'static str, urls: &[String]) -> Self {
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
            name,
            network,
            index,
            config,
            log,
            ledger,
            state,
            disk: None,
            next: 1,
            rotations: 0,
            closed: Vec::new(),
            shipper: None,
        }
    }

    fn host(&self) -> &Host {
        &self.network.sensors[self.index]
    }

    pub(super) fn write(&mut self) {
        let text = records(self.name, "r", self.next..self.next + CHUNK);
        self.next += CHUNK;
        append(&self.ledger, &text);
        append(&self.log, &text);
    }

    pub(super) fn start(&mut self, clock: Option<&Clock>) {
        self.shipper = Some(self.host().enter(|| match &self.disk {
            Some((_, program)) => follow_in(program, &self.config, clock),
            None => follow_by(&self.config, clock),
        }));
    }

    /// Delivers the rest, and verifies. Returns whether everything is there, once, and what `verify` printed.
    pub(super) fn finish(&mut self) -> (bool, String) {
        self.shipper = None;
        self.host().enter(|| {
            once_within(&self.config, 120);
            run(&self.config, &["verify"])
        })
    }

    pub(super) fn kill(&mut self) {
        self.shipper.as_mut().expect("it runs").kill();
    }

    pub(super) fn lose_state(&self) {
        let state = self.state.join("nats.state");
        match &self.disk {
            Some((disk, _)) => disk.shell(&format!("rm -f {state:?}")),
            None => drop(fs::remove_file(state)),
        }
    }

    pub(super) fn rotate(&mut self) {
        self.rotations += 1;
        self.closed.push(rotate(&self.log, self.rotations));
    }

    /// Compresses a closed log, and begins the next log with its inode, as a file system may.
    pub(super) fn reuse_inode(&mut self, closed: &Path) {
        let spare = self.state.with_file_name("spare");
        fs::hard_link(closed, &spare).expect("a closed log");
        compress(closed);
        let inode = fs::metadata(&spare).expect("a link").ino();
        fs::File::options().write(true).truncate(true).open(&spare).expect("a link");
        self.rotate();
        fs::rename(&spare, &self.log).expect("the same file system");
        assert_eq!(fs::metadata(&self.log).expect("a log").ino(), inode);
    }
}
