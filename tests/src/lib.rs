//! The stage for the end-to-end tests: network namespaces that belong to one test, an agent inside, real sockets
//! around it, and records that are read as they come.
//!
//! What this library decides:
//! * A test owns a [`Net`]: two namespaces joined by a veth pair. Nothing touches the machine's own namespace, and
//!   everything is gone when the `Net` is dropped, also by a panic; what a killed run left behind goes at the next.
//! * Waiting is always for a signal (a message, a record, a queue that is empty, an end of file) with a deadline,
//!   never for a time.
//! * Every record of every agent is held against the published schema when the agent ends.
//! * A failed expectation shows the records that come closest and what the agent wrote to stderr.
//!
//! What it trades: the namespaces need root. Without it a test says that it was skipped, except under CI, where it
//! fails: a suite that tests nothing must not look green.

mod agent;
mod client;
pub mod community_id;
mod follow;
pub mod ghost;
mod namespace;
mod net;
mod raw;
mod records;
pub mod schema;
mod sockets;
pub mod tls;

pub use agent::{Agent, Ended, Launch, program};
pub use client::{half_close, read_to_end, reset, tiny_window};
pub use namespace::Namespace;
pub use net::{
    CLIENT_MAC, CLIENT_V4, CLIENT_V6, CROWD_V4, CROWD_V6, LISTENER, Net, SENSOR_MAC, SENSOR_V4, SENSOR_V6, WIRE,
};
pub use raw::RawSyn;
pub use records::{Line, Log, field_order, payload, read_log};

use std::fmt;
use std::time::{Duration, Instant};

/// Time that a test waits for an event that must happen. Long, because build machines are slow, and emulated ones
/// slower; a passing test never waits for it.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// The version of Landlock with all that the agent asks for: Linux 6.12.
const WHOLE_LANDLOCK: u32 = 6;

/// The value of `sandbox` for a test of what goes on inside: `required`. On a kernel that knows a part of Landlock only it
/// is `auto`, so that what the other steps forbid and allow is tried there too; that `required` refuses to start
/// there is for `cargo xtask vmtest` to show.
#[must_use]
pub fn every_step() -> &'static str {
    let has_all = spip_agent::confine::sandbox::landlock_version().is_some_and(|version| version >= WHOLE_LANDLOCK);
    if has_all { "required" } else { "auto" }
}

/// Reports whether the tests may make namespaces and load eBPF: that is, whether they run as root.
///
/// Without root a line says that the calling test was skipped and why.
///
/// # Panics
/// When `CI` is set and root is missing: there a skipped test is a failed one.
#[must_use]
pub fn require_root() -> bool {
    if nix::unistd::geteuid().is_root() {
        return true;
    }
    let thread = std::thread::current();
    let test = thread.name().unwrap_or("this test");
    assert!(std::env::var_os("CI").is_none(), "{test} needs root for network namespaces, and CI must not skip it");
    // Straight to the terminal: the test runner hides what a passing test prints.
    let line = format!("skipped: {test} needs root for network namespaces\n");
    let _ = std::io::Write::write_all(&mut std::io::stderr(), line.as_bytes());
    false
}

/// Reports whether a program that only some tests need can be started: that is, whether it answers to `--version`.
///
/// Without it a line says that the calling test was skipped and why.
///
/// # Panics
/// When `CI` is set and the program is missing: there a skipped test is a failed one.
#[must_use]
pub fn require_program(program: &str, package: &str) -> bool {
    if std::process::Command::new(program).arg("--version").output().is_ok() {
        return true;
    }
    let thread = std::thread::current();
    let test = thread.name().unwrap_or("this test");
    let why = format!("{test} needs {program} (package {package})");
    assert!(std::env::var_os("CI").is_none(), "{why}, and CI must not skip it");
    let _ = std::io::Write::write_all(&mut std::io::stderr(), format!("skipped: {why}\n").as_bytes());
    false
}

/// Returns the program that `cargo xtask test` names by an environment variable, such as `SPIP_CHROMEDRIVER`.
///
/// Without it a line says that the calling test was skipped and why.
///
/// # Panics
/// When `CI` is set and the variable is not: there a skipped test is a failed one.
#[must_use]
pub fn require_peer(variable: &str) -> Option<std::path::PathBuf> {
    let program = std::env::var_os(variable);
    if program.is_none() {
        let thread = std::thread::current();
        let why = format!("{} needs {variable}, which `cargo xtask test` sets", thread.name().unwrap_or("this test"));
        assert!(std::env::var_os("CI").is_none(), "{why}, and CI must not skip it");
        let _ = std::io::Write::write_all(&mut std::io::stderr(), format!("skipped: {why}\n").as_bytes());
    }
    program.map(Into::into)
}

/// Asks `probe` until it gives an answer.
///
/// For states that nothing announces, such as the kernel's queues; `what` names it when the deadline passes.
///
/// # Panics
/// When there is no answer within [`PATIENCE`].
pub fn eventually<T>(what: impl fmt::Display, mut probe: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = probe() {
            return answer;
        }
        assert!(Instant::now() < deadline, "waited {PATIENCE:?} in vain: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
