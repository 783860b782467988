//! One network namespace: made, entered and removed.
//!
//! A thread enters by `setns`, so sockets of the test itself and the commands that it starts live inside, while
//! `/sys/fs/cgroup` and the file system stay those of the machine (`ip netns exec` would hide them).

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Once;

use nix::sched::{CloneFlags, setns};

const PREFIX: &str = "spip-";
const NAMES: &str = "/run/netns";

/// A named network namespace with a running loopback interface, removed when dropped.
#[derive(Debug)]
pub struct Namespace {
    name: String,
    file: File,
    /// Removes the name with this value; otherwise another value owns it.
    owner: bool,
}

impl Namespace {
    /// Makes `spip-<pid>-<number>-<role>`.
    pub(crate) fn create(number: u32, role: &str) -> Self {
        static STALE: Once = Once::new();
        STALE.call_once(remove_stale);
        let name = format!("{PREFIX}{}-{number}-{role}", std::process::id());
        host(&format!("ip netns add {name} && ip -n {name} link set lo up"));
        let file = File::open(Path::new(NAMES).join(&name)).expect("the namespace was made");
        Self { name, file, owner: true }
    }

    /// Another handle to the same namespace, for as long as its owner lives.
    ///
    /// # Panics
    /// When no descriptor is left.
    #[must_use]
    pub fn handle(&self) -> Self {
        let file = self.file.try_clone().expect("a descriptor is left");
        Self { name: self.name.clone(), file, owner: false }
    }

    /// Its name, as `ip netns` shows it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs `act` in a thread inside the namespace. Sockets that it returns stay there.
    ///
    /// # Panics
    /// With the panic of `act`.
    pub fn enter<T: Send>(&self, act: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            scope
                .spawn(|| {
                    setns(&self.file, CloneFlags::CLONE_NEWNET).expect("root may enter a namespace");
                    act()
                })
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Runs a shell command line inside and returns what it printed.
    ///
    /// # Panics
    /// When it fails, with what it wrote to stderr.
    pub fn shell(&self, line: &str) -> String {
        self.enter(|| host(line))
    }

    /// Writes a setting below `/proc/sys/net`, such as `ipv4/ip_nonlocal_bind`.
    ///
    /// # Panics
    /// When the kernel refuses it.
    pub fn sysctl(&self, key: &str, value: &str) {
        self.enter(|| {
            fs::write(Path::new("/proc/sys/net").join(key), value)
                .unwrap_or_else(|error| panic!("cannot set {key} to {value}: {error}"));
        });
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        if self.owner {
            let _ = Command::new("ip").args(["netns", "del", &self.name]).stderr(Stdio::null()).status();
        }
    }
}

/// Runs a shell command line where the calling thread is.
pub(crate) fn host(line: &str) -> String {
    let output = Command::new("sh").args(["-c", line]).output().expect("sh starts");
    assert!(output.status.success(), "{line}: {}\n{}", output.status, String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The directory of one test's files.
pub(crate) fn directory(number: u32) -> PathBuf {
    std::env::temp_dir().join(format!("{PREFIX}tests-{}-{number}", std::process::id()))
}

/// Unmounts what a test mounted in its directory and removes it.
pub(crate) fn remove_directory(path: &Path) {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    for mount in mounts.lines().filter_map(|line| line.split(' ').nth(1)) {
        if Path::new(mount).starts_with(path) {
            let _ = nix::mount::umount2(mount, nix::mount::MntFlags::MNT_DETACH);
        }
    }
    let _ = fs::remove_dir_all(path);
}

/// Removes what test processes that are gone left behind: their namespaces with the agents inside, their files.
fn remove_stale() {
    for name in entries(Path::new(NAMES)) {
        let mut parts = name.strip_prefix(PREFIX).unwrap_or_default().split('-');
        if !parts.next().is_some_and(left_behind) || parts.count() != 2 {
            continue;
        }
        // Only processes inside a namespace that these tests made.
        let pids = Command::new("ip").args(["netns", "pids", &name]).output();
        for pid in pids.iter().flat_map(|output| output.stdout.split(u8::is_ascii_whitespace)) {
            if let Some(pid) = std::str::from_utf8(pid).ok().and_then(|pid| pid.parse().ok()) {
                let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::SIGKILL);
            }
        }
        let _ = Command::new("ip").args(["netns", "del", &name]).status();
    }
    for name in entries(&std::env::temp_dir()) {
        let rest = name.strip_prefix(&format!("{PREFIX}tests-"));
        if rest.and_then(|rest| rest.split('-').next()).is_some_and(left_behind) {
            remove_directory(&std::env::temp_dir().join(name));
        }
    }
}

fn entries(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

/// Reports whether `pid` is the number of a process that is gone.
fn left_behind(pid: &str) -> bool {
    pid.parse::<u32>().is_ok() && !Path::new("/proc").join(pid).exists()
}
