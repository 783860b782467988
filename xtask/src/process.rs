//! Starting other programs: shown before they run, and an error names what failed.
//!
//! Output of long commands goes straight to the terminal, never into a buffer: a silent minute looks like
//! a hang.

use std::env;
use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::report;

/// Directories of administration tools, which the PATH of an ordinary user often leaves out.
const SYSTEM_FOLDERS: [&str; 3] = ["/usr/local/sbin", "/usr/sbin", "/sbin"];

/// Shows and runs a command, its output on the terminal.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    report::step("Running", shown(command));
    let status = command.status().with_context(|| format!("cannot start {}", name(command)))?;
    if !status.success() {
        bail!("{} ended with {status}", name(command));
    }
    Ok(())
}

/// Shows and starts a program that goes on beside this process, and ends when this process is killed.
pub(crate) fn start(command: &mut Command) -> Result<Child> {
    // SAFETY: prctl is async-signal-safe, and nothing is allocated between fork and exec.
    unsafe {
        command.pre_exec(|| Ok(set_pdeathsig(Signal::SIGTERM)?));
    }
    report::step("Starting", shown(command));
    command.spawn().with_context(|| format!("cannot start {}", name(command)))
}

/// A program that goes on beside this process. Dropped, it is asked to end, and waited for.
pub(crate) struct Running(pub(crate) Child);

impl Drop for Running {
    fn drop(&mut self) {
        if let Ok(id) = i32::try_from(self.0.id()) {
            // Fails when it has ended.
            let _ = kill(Pid::from_raw(id), Signal::SIGTERM);
        }
        let _ = self.0.wait();
    }
}

/// As [`run`], but ends the command when it takes longer than `limit`: for downloads, which may hang.
pub(crate) fn run_within(command: &mut Command, limit: Duration) -> Result<()> {
    report::step("Running", shown(command));
    let mut child = command.stdin(Stdio::null()).spawn().with_context(|| format!("cannot start {}", name(command)))?;
    let end = Instant::now() + limit;
    loop {
        if let Some(status) = child.try_wait()? {
            if status.success() {
                return Ok(());
            }
            bail!("{} ended with {status}", name(command));
        }
        if Instant::now() >= end {
            child.kill()?;
            child.wait()?;
            bail!("{} took longer than {} s", name(command), limit.as_secs());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Shows and runs a command, and names in its error the first line of stderr that begins with `error` or `E:`, and the
/// last one, which has the cause. Its output is on the terminal, too. It ends when it takes longer than `limit`.
pub(crate) fn run_for_reason(command: &mut Command, limit: Option<Duration>) -> Result<()> {
    report::step("Running", shown(command));
    let mut child = command
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {}", name(command)))?;
    let pipe = child.stderr.take().context("the child has no stderr")?;
    let reader = std::thread::spawn(move || reason(BufReader::new(pipe)));
    let end = limit.map(|limit| Instant::now() + limit);
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if end.is_some_and(|end| Instant::now() >= end) {
            child.kill()?;
            child.wait()?;
            bail!("it took longer than {} s", limit.unwrap_or_default().as_secs());
        }
        std::thread::sleep(Duration::from_millis(50));
    };
    match reader.join() {
        _ if status.success() => Ok(()),
        Ok(reason) if !reason.is_empty() => bail!("{reason}"),
        _ => bail!("it ended with {status}"),
    }
}

/// Shows lines of stderr and returns the one that names the error, with the last one.
fn reason(lines: impl BufRead) -> String {
    let (mut error, mut last) = (None, String::new());
    for line in lines.split(b'\n').map_while(Result::ok) {
        let line = String::from_utf8_lossy(&line).into_owned();
        eprintln!("{line}");
        if error.is_none() && (line.starts_with("error") || line.starts_with("E: ")) {
            error = Some(line);
            // What comes before is progress.
            last.clear();
        } else if !line.trim().is_empty() {
            line.trim().clone_into(&mut last);
        }
    }
    match error {
        Some(error) if last.is_empty() || error.contains(&last) => error,
        Some(error) => format!("{error}: {last}"),
        None => last,
    }
}

/// Runs a command quietly and returns its stdout; its stderr becomes part of the error.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("cannot start {}", name(command)))?;
    if !output.status.success() {
        bail!("{} ended with {}: {}", shown(command), output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    String::from_utf8(output.stdout).with_context(|| format!("{} wrote no text", name(command)))
}

/// Reports whether a command can be started and succeeds; shows nothing.
pub(crate) fn succeeds(command: &mut Command) -> bool {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// All executables of this name on PATH and in the system folders, in that order, each once.
pub(crate) fn find_all(program: &str) -> Vec<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let mut found: Vec<PathBuf> = Vec::new();
    for folder in env::split_paths(&path).chain(SYSTEM_FOLDERS.map(PathBuf::from)) {
        let candidate = folder.join(program);
        if folder.is_absolute() && is_executable(&candidate) && !found.contains(&candidate) {
            found.push(candidate);
        }
    }
    found
}

/// The first executable of this name on PATH or in the system folders.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    find_all(program).into_iter().next()
}

/// PATH with the system folders behind it, for programs that call `ip` or `iptables` by name.
pub(crate) fn full_path() -> std::ffi::OsString {
    let path = env::var_os("PATH").unwrap_or_default();
    let mut folders: Vec<PathBuf> = env::split_paths(&path).collect();
    for folder in SYSTEM_FOLDERS.map(PathBuf::from) {
        if !folders.contains(&folder) {
            folders.push(folder);
        }
    }
    // Folders that came out of a PATH hold no separator, so joining cannot fail.
    env::join_paths(folders).unwrap_or(path)
}

fn is_executable(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
}

fn name(command: &Command) -> String {
    command.get_program().to_string_lossy().into_owned()
}

/// The command as a shell would take it, without its environment.
pub(crate) fn shown(command: &Command) -> String {
    std::iter::once(command.get_program()).chain(command.get_args()).map(quoted).collect::<Vec<_>>().join(" ")
}

fn quoted(word: &OsStr) -> String {
    let word = word.to_string_lossy();
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,+@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.into_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shown_command_can_be_pasted_into_a_shell() {
        let mut command = Command::new("curl");
        command.args(["-w", "%{local_port} it's", "", "http://[2001:db8::1]/"]);
        assert_eq!(shown(&command), r"curl -w '%{local_port} it'\''s' '' 'http://[2001:db8::1]/'");
    }

    #[test]
    fn a_program_that_is_nowhere_is_not_found() {
        assert_eq!(find("no-such-program-as-this"), None);
    }

    #[test]
    fn the_shell_is_found_once_per_folder() {
        let found = find_all("sh");
        assert!(!found.is_empty());
        let mut unique = found.clone();
        unique.sort();
        unique.dedup();
        assert_eq!(unique.len(), found.len());
    }

    #[test]
    fn the_reason_of_a_failure_is_the_line_that_names_the_error() {
        let failing = |script: &str| {
            let error = run_for_reason(Command::new("sh").args(["-c", script]), None).expect_err("it fails");
            error.to_string()
        };
        assert_eq!(
            failing("echo info >&2; echo error: no network >&2; echo cause >&2; exit 1"),
            "error: no network: cause"
        );
        assert_eq!(failing("echo info >&2; echo error: alone >&2; exit 1"), "error: alone");
        assert_eq!(failing("echo 'E: no such package' >&2; exit 100"), "E: no such package");
        assert_eq!(failing("echo first >&2; echo last >&2; exit 1"), "last");
        assert!(failing("exit 3").contains("exit status: 3"));
        run_for_reason(&mut Command::new("true"), None).expect("nothing fails");
    }

    #[test]
    fn a_command_that_hangs_is_ended() {
        let began = Instant::now();
        let error = run_within(Command::new("sleep").arg("60"), Duration::from_millis(200)).expect_err("must be ended");
        assert!(error.to_string().contains("took longer"), "{error}");
        assert!(began.elapsed() < Duration::from_secs(10));
    }
}
