//! Questions of setup to a machine, and changes to it.
//!
//! The decisions of setup see a machine only through [`System`], so that tests can put them before machines that differ
//! from this one. [`Machine`] is the real one.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use super::compiler::{self, Survey};
use crate::privilege::Root;
use crate::process;
use crate::project::Project;

/// A toolchain is some hundred megabytes: a download that takes longer than this does not arrive.
pub(super) const DOWNLOAD_LIMIT: Duration = Duration::from_secs(300);

/// Seconds without a byte after which a download is given up.
const STALLED_SECONDS: &str = "15";

/// Directories of apt's package lists. Both change with every update, the second also with one that brings nothing.
const LISTS: [&str; 2] = ["/var/lib/apt/lists", "/var/lib/apt/lists/partial"];

/// A machine, as far as setup is concerned.
pub(super) trait System {
    /// Returns how commands can be run as root.
    fn rights(&self) -> Root;
    /// Returns every executable of this name.
    fn find(&self, program: &str) -> Vec<PathBuf>;
    /// Runs a query quietly and returns its stdout, or why it failed.
    fn ask(&self, command: &[&str]) -> Result<String, String>;
    /// Runs a command that changes the machine, `apt-get` as root, or returns its reason for failing.
    fn change(&self, command: &[&str]) -> Result<(), String>;
    /// Returns the age of the package lists, `None` where there are none.
    fn lists_age(&self) -> Option<Duration>;
    /// Examines every compiler.
    fn compilers(&self) -> Survey;
    /// Returns the folder of tools that belong to this checkout.
    fn tools(&self) -> &Path;
    /// Reports whether there is an executable of this name.
    fn has(&self, program: &str) -> bool {
        !self.find(program).is_empty()
    }
}

/// This machine.
pub(super) struct Machine<'a> {
    project: &'a Project,
    tools: PathBuf,
    root: Root,
}

impl<'a> Machine<'a> {
    pub(super) fn new(project: &'a Project) -> Self {
        Self { project, tools: project.tools(), root: Root::detect() }
    }
}

impl System for Machine<'_> {
    fn rights(&self) -> Root {
        self.root
    }

    fn find(&self, program: &str) -> Vec<PathBuf> {
        process::find_all(program)
    }

    fn ask(&self, command: &[&str]) -> Result<String, String> {
        let mut query = match command {
            ["cargo", task, arguments @ ..] => with(self.project.cargo(task), arguments),
            _ => with(Command::new(command[0]), &command[1..]),
        };
        query.env("LC_ALL", "C");
        process::output(&mut query).map_err(|error| format!("{error:#}"))
    }

    fn change(&self, command: &[&str]) -> Result<(), String> {
        let (mut change, limit) = match command {
            ["apt-get", arguments @ ..] => (with(apt(self.root), arguments), None),
            ["cargo", task, arguments @ ..] => (with(self.project.cargo(task), arguments), None),
            _ => (with(Command::new(command[0]), &command[1..]), Some(DOWNLOAD_LIMIT)),
        };
        // Flags and targets of the caller are meant for the project, not for its tools.
        change.env_remove("RUSTFLAGS").env_remove("CARGO_BUILD_TARGET");
        change.env("RUSTUP_DOWNLOAD_TIMEOUT", STALLED_SECONDS).env("RUSTUP_MAX_RETRIES", "1");
        process::run_for_reason(&mut change, limit).map_err(|error| format!("{error:#}"))
    }

    fn lists_age(&self) -> Option<Duration> {
        // An index among them: an image may come with the folders alone.
        let has_index = fs::read_dir(LISTS[0])
            .is_ok_and(|lists| lists.flatten().any(|list| list.file_name().to_string_lossy().contains("_Packages")));
        let changed =
            LISTS.iter().filter_map(|folder| fs::metadata(folder).and_then(|list| list.modified()).ok()).max();
        // A clock that was set back counts as fresh.
        changed.filter(|_| has_index).map(|changed| SystemTime::now().duration_since(changed).unwrap_or_default())
    }

    fn compilers(&self) -> Survey {
        compiler::survey()
    }

    fn tools(&self) -> &Path {
        &self.tools
    }
}

fn with(mut command: Command, arguments: &[&str]) -> Command {
    command.args(arguments);
    command
}

/// Returns apt-get as root, without questions, which waits for another apt and gives up on a silent server.
fn apt(root: Root) -> Command {
    let environment = [("DEBIAN_FRONTEND", "noninteractive".into()), ("PATH", process::full_path())];
    // The callers look at the rights first; without them apt itself reports what it lacks.
    let mut command = root.command("apt-get", &environment).unwrap_or_else(|| Command::new("apt-get"));
    command.args(["--quiet", "-o", "Dpkg::Use-Pty=0", "-o", "DPkg::Lock::Timeout=120", "-o", "Acquire::Retries=1"]);
    for method in ["http", "https"] {
        command.args(["-o", &format!("Acquire::{method}::Timeout={STALLED_SECONDS}")]);
    }
    command
}
