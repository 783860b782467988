//! Gives up, before the first thread exists, everything that the process needs no more: a stranger who takes it over
//! finds no right worth having.
//!
//! [`enter`] is the sequence, from top to bottom. Each step builds on the one before: the user can only be changed
//! while there are capabilities, Landlock and the system call filter need `no_new_privs` where there are none, and the
//! filter comes last because it forbids what the steps before it do. What is open by then stays open: sockets, the
//! log, the maps.
//!
//! `auto` takes every step that the kernel offers and names the others; `required` refuses to start without one of
//! them. No step can be taken back, and threads inherit all of them.

mod capabilities;
mod filter;
mod identity;
mod paths;

use std::fmt;
use std::path::PathBuf;

use crate::config::{self, SandboxMode};

/// What the process goes on to need.
pub struct Needs<'a> {
    /// `sandbox`, `user`, `group`.
    pub config: &'a config::Sandbox,
    /// Files and directories that are read when certificates or the configuration are read again.
    pub readable: Vec<PathBuf>,
    /// Directories in which files are created, renamed and removed.
    pub writable: Vec<PathBuf>,
    /// Files that were made before the user is changed, and belong to the new one.
    pub owned: Vec<PathBuf>,
    /// Whether the maps of the kernel side can be read now.
    pub reads_maps: &'a dyn Fn() -> bool,
}

/// What became of one step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Its name: `user`, `capabilities`, `no_new_privs`, `landlock`, `seccomp`.
    pub name: &'static str,
    /// Its result.
    pub result: StepResult,
}

/// The result of a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StepResult {
    /// Taken; with what it comes to.
    Done(String),
    /// Not asked for.
    Skipped(&'static str),
    /// The kernel or the surroundings do not allow it, or not wholly; with the reason.
    Missing(String),
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.result {
            StepResult::Done(what) => write!(f, "{}: {what}", self.name),
            StepResult::Skipped(why) => write!(f, "{}: skipped, {why}", self.name),
            StepResult::Missing(why) => write!(f, "{}: missing, {why}", self.name),
        }
    }
}

/// Why the agent must not go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// `sandbox = "required"`, and a step could not be taken.
    #[error("sandbox = \"required\": {0}; set sandbox = \"auto\" to go on without")]
    Missing(Step),
    /// A user was asked for and cannot be had: going on as another one would be the opposite of what was wanted.
    #[error("{0}")]
    User(#[from] identity::Error),
}

/// The version of Landlock that this kernel offers; none where it offers none.
#[must_use]
pub fn landlock_version() -> Option<u32> {
    paths::version()
}

/// Takes all steps. Nothing is given up with `sandbox = "off"`, but for the user that was asked for.
///
/// # Errors
/// The user that was asked for cannot be had, or `sandbox = "required"` and a step is missing.
pub fn enter(needs: &Needs<'_>) -> Result<Vec<Step>, Error> {
    let mut steps = Vec::new();
    let is_off = needs.config.mode == SandboxMode::Off;
    let mut note = |name, result| {
        let step = Step { name, result };
        if needs.config.mode == SandboxMode::Required && matches!(step.result, StepResult::Missing(_)) {
            return Err(Error::Missing(step));
        }
        steps.push(step);
        Ok(())
    };
    note("user", identity::change(needs)?)?;
    if is_off {
        note("sandbox", StepResult::Skipped("sandbox = \"off\""))?;
        return Ok(steps);
    }
    note("capabilities", capabilities::drop_all(needs.reads_maps))?;
    note("no_new_privs", filter::no_new_privileges())?;
    note("landlock", paths::restrict(&needs.readable, &needs.writable))?;
    note("seccomp", filter::install())?;
    Ok(steps)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io;
    use std::net::{TcpListener, TcpStream, UdpSocket};
    use std::path::Path;
    use std::process::Command;
    use std::thread;

    use nix::errno::Errno;
    use nix::unistd::Pid;

    use super::*;

    /// Names the directory of the prisoner, in the process that becomes one.
    const VARIABLE: &str = "SPIP_TEST_PRISONER";

    #[test]
    fn inside_nothing_is_left_but_the_work() {
        let directory = std::env::temp_dir().join(format!("spip-sandbox-{}", std::process::id()));
        fs::create_dir(&directory).expect("a directory for the test");
        fs::write(directory.join("certificate"), "readable").expect("a file for the test");
        let prisoner = Command::new(std::env::current_exe().expect("own path"))
            .args(["--ignored", "--exact", "sandbox::tests::prisoner", "--nocapture"])
            .env(VARIABLE, &directory)
            .output()
            .expect("the test starts itself");
        fs::remove_dir_all(&directory).expect("the directory goes");
        let said = String::from_utf8_lossy(&prisoner.stdout) + String::from_utf8_lossy(&prisoner.stderr);
        assert!(prisoner.status.success() && said.contains("1 passed"), "{said}");
    }

    #[track_caller]
    fn assert_refused<T>(result: io::Result<T>) {
        let error = result.err().expect("refused");
        assert_eq!(error.kind(), io::ErrorKind::PermissionDenied, "{error}");
    }

    #[test]
    #[ignore = "run by inside_nothing_is_left_but_the_work, in a process of its own"]
    fn prisoner() {
        let directory = PathBuf::from(std::env::var_os(VARIABLE).expect("run by the other test"));
        let own = directory.join("work");
        fs::create_dir(&own).expect("a directory for the test");
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let config = config::Sandbox { mode: SandboxMode::Required, user: None, group: None };
        let steps = enter(&Needs {
            config: &config,
            readable: vec![directory.join("certificate")],
            writable: vec![own.clone()],
            owned: Vec::new(),
            reads_maps: &|| false,
        });
        let steps = steps.expect("this kernel has everything");
        assert_eq!(steps.len(), 5, "{steps:?}");

        // What the agent goes on to do.
        assert_eq!(fs::read_to_string(directory.join("certificate")).expect("readable"), "readable");
        fs::write(own.join("log"), "line\n").expect("writable");
        fs::rename(own.join("log"), own.join("log.1")).expect("rotated");
        fs::remove_file(own.join("log.1")).expect("removed");
        assert_eq!(thread::spawn(|| 7).join().expect("a thread"), 7);

        // What nobody should.
        assert_refused(TcpStream::connect(address));
        assert_refused(UdpSocket::bind("127.0.0.1:0"));
        assert_refused(TcpListener::bind("127.0.0.1:0"));
        assert_refused(Command::new("/bin/true").status());
        assert_refused(fs::read("/etc/shadow"));
        assert_refused(fs::read("/etc/passwd"));
        assert_refused(fs::write(directory.join("beside"), ""));
        assert_refused(fs::write(Path::new("/dev/shm/spip-sandbox"), ""));
        let parent = Pid::parent();
        // SAFETY: nothing is read or written through the pointers, which an attachment has no use for.
        let traced = unsafe {
            libc::ptrace(libc::PTRACE_ATTACH, parent.as_raw(), std::ptr::null_mut::<u8>(), std::ptr::null_mut::<u8>())
        };
        assert_eq!((traced, Errno::last()), (-1, Errno::EPERM));
        assert_eq!(nix::sys::signal::kill(parent, None), Err(Errno::EPERM));
        // BPF_PROG_LOAD; the kernel is not even asked whether the attributes are right.
        let attributes = [0_u8; 64];
        // SAFETY: the attributes are readable for the length that is given with them.
        let loaded = unsafe { libc::syscall(libc::SYS_bpf, 5, attributes.as_ptr(), attributes.len()) };
        assert_eq!((loaded, Errno::last()), (-1, Errno::EPERM));
        // SAFETY: fork without a new thread is refused before anything happens.
        let forked = unsafe { libc::fork() };
        assert_eq!((forked, Errno::last()), (-1, Errno::EPERM));
        // The listener that was there before still takes connections.
        listener.set_nonblocking(true).expect("non-blocking");
        assert_eq!(listener.accept().expect_err("nobody came").kind(), io::ErrorKind::WouldBlock);
    }
}
