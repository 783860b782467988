//! Full disks: of the server that stores, and of the shipper's own state.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::support::{Nats, Place, Process, append, assert_each_once, follow, once, peer, records, run, wait_for};

/// A small file system, visible to those who run inside, that ends with the test.
pub(crate) struct Disk {
    holder: Process,
    directory: PathBuf,
}

impl Disk {
    /// Mounts one over `directory`; `None` without the rights to mount.
    pub(crate) fn mount(directory: &Path, megabytes: u32) -> Option<Self> {
        if !nix::unistd::geteuid().is_root() {
            println!("skipped: only root mounts a file system");
            return None;
        }
        fs::create_dir_all(directory).expect("a writable directory");
        let script = format!("mount -t tmpfs -o size={megabytes}m tmpfs \"$0\" && echo mounted && exec sleep infinity");
        let mut holder = Command::new("unshare")
            .args(["--mount", "--propagation", "private", "sh", "-c", &script])
            .arg(directory)
            .stdout(Stdio::piped())
            .spawn()
            .expect("unshare starts");
        let mut said = String::new();
        BufReader::new(holder.stdout.take().expect("a pipe")).read_line(&mut said).expect("a line");
        let disk = Self { holder: Process(holder), directory: directory.to_owned() };
        assert_eq!(said, "mounted\n");
        Some(disk)
    }

    /// Writes a program that runs `program` inside.
    pub(crate) fn inside(&self, program: &Path, place: &Place) -> PathBuf {
        let path = place.path(&format!("inside-{}", program.file_name().expect("a name").display()));
        let text = format!("#!/bin/sh\nexec nsenter --mount=/proc/{}/ns/mnt {program:?} \"$@\"\n", self.holder.0.id());
        fs::write(&path, text).expect("a writable directory");
        fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("ours");
        path
    }

    /// Runs a script inside. Its `$0` is the file that fills the disk.
    pub(crate) fn shell(&self, script: &str) {
        let status = Command::new("nsenter")
            .arg(format!("--mount=/proc/{}/ns/mnt", self.holder.0.id()))
            .args(["sh", "-c", script])
            .arg(self.directory.join("filler"))
            .stderr(Stdio::null())
            .status()
            .expect("nsenter starts");
        assert!(status.success(), "{script}");
    }

    /// Leaves nothing free.
    pub(crate) fn fill(&self) {
        self.shell("dd if=/dev/zero of=\"$0\" bs=4k || true");
    }

    /// Makes room again.
    pub(crate) fn free(&self) {
        self.shell("rm -f \"$0\"");
    }
}

#[test]
fn a_server_whose_disk_is_full_blocks_and_loses_nothing() {
    let Some(program) = peer("SPIP_NATS_SERVER") else { return };
    let place = Place::new();
    let Some(disk) = Disk::mount(&place.path("nats/jetstream"), 16) else { return };
    let mut server = Nats::start(&disk.inside(&program, &place), &place, "");
    let config = place.configure(&server.sink());
    append(&place.log(), &records("s", "r", 1..101));
    once(&config);
    disk.fill();
    append(&place.log(), &records("s", "r", 101..2_001));
    let shipper = follow(&config);
    let messages = || fs::read_to_string(config.with_extension("log")).unwrap_or_default();
    wait_for("the shipper says that it cannot deliver", || messages().contains("trying again").then_some(()));
    disk.free();
    // A server that has found its disk full stores nothing any more until it is started again.
    server.kill();
    server.run();
    let has = |seq| server.stored_or_nothing().contains_key(&("s".to_owned(), "r".to_owned(), seq)).then_some(());
    wait_for("the shipper goes on by itself", || has(2_000));
    drop(shipper);
    once(&config);
    assert_each_once(&server.stored(), "r", 1..2_001);
}

#[test]
fn a_state_whose_disk_is_full_holds_nothing_up_and_repeats_nothing() {
    let Some(program) = peer("SPIP_NATS_SERVER") else { return };
    let place = Place::new();
    let Some(disk) = Disk::mount(&place.path("state"), 1) else { return };
    let server = Nats::start(&program, &place, "");
    let config = place.configure(&server.sink());
    let ship = disk.inside(Path::new(env!("CARGO_BIN_EXE_spip-ship")), &place);
    let start = || {
        let output = fs::File::create(place.path("messages")).expect("a writable directory");
        let mut command = Command::new(&ship);
        command.arg("--config").arg(&config).stderr(output);
        Process(command.spawn().expect("the program starts"))
    };
    let has = |seq| server.stored_or_nothing().contains_key(&("s".to_owned(), "r".to_owned(), seq)).then_some(());
    append(&place.log(), &records("s", "r", 1..101));
    let mut shipper = start();
    wait_for("the beginning", || has(100));
    disk.fill();
    append(&place.log(), &records("s", "r", 101..401));
    wait_for("what is logged on a full disk", || has(400));
    let messages = fs::read_to_string(place.path("messages")).expect("a file");
    assert!(messages.contains("cannot write the state") && messages.contains("free space"), "{messages}");
    shipper.kill();
    let mut shipper = start();
    append(&place.log(), &records("s", "r", 401..501));
    wait_for("what is logged after a restart", || has(500));
    disk.free();
    append(&place.log(), &records("s", "r", 501..601));
    wait_for("what is logged when there is room again", || has(600));
    assert!(shipper.terminate().success());
    let (succeeded, text) = run(&config, &["verify"]);
    assert!(succeeded, "{text}");
    assert_each_once(&server.stored(), "r", 1..601);
}
