//! `cargo xtask test`: unit tests, then end-to-end tests with real clients in network namespaces.
//!
//! The end-to-end tests drive the release agent: what is shipped is what is tested, and the demo has built
//! it already. Those of TLS run once more against an agent with the feature `legacy-tls`, a debug build in a folder of
//! its own. They are compiled as the caller and only run as root. Without a way to become root they are
//! skipped, and the summary says so; with `CI=true` that is a failure.
//!
//! They share the machine with each other and with whatever else runs on it, and none is run again when it fails: a test
//! waits for what it needs, however long that takes. The summary names those that took longest.

use std::cmp::Reverse;
use std::env;
use std::ffi::OsString;
use std::fmt;
use std::io::{BufRead, BufReader, Write, stdout};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Args;
use serde_json::Value;

use crate::build;
use crate::privilege::{self, Root};
use crate::process;
use crate::project::Project;
use crate::report;
use crate::setup::{self, Need, Peer};

/// The package of the end-to-end tests.
const END_TO_END: &str = "spip-tests";

/// Upper bound of the slowest end-to-end tests, and of their programs, that the summary names.
const SLOWEST: usize = 8;

/// Has the test programs print how long each test took, which the library for tests keeps for nightly compilers. The
/// variable reaches these programs only, and no compiler.
const TIMED: (&str, &str) = ("RUSTC_BOOTSTRAP", "1");

/// The feature that is built and tested beside the ordinary agent, for both packages that have it.
pub(crate) const LEGACY: &str = "spip-agent/legacy-tls,spip-tests/legacy-tls";

#[derive(Args)]
pub(crate) struct Options {
    /// Only tests whose name contains this
    filter: Option<String>,
    /// Only unit tests: needs no compiler for the kernel and no rights
    #[arg(long, conflicts_with = "end_to_end")]
    unit: bool,
    /// Only end-to-end tests
    #[arg(long)]
    end_to_end: bool,
    /// Arguments of the test programs, such as `--nocapture`
    #[arg(last = true)]
    arguments: Vec<String>,
}

/// Sets up, builds and tests.
pub(crate) fn run(project: &Project, options: &Options) -> Result<()> {
    // Rights are looked at first: a caller in CI should not wait for a build to hear that they are missing.
    let root = Root::detect();
    let strict = env::var("CI").is_ok_and(|ci| ci == "true" || ci == "1");
    if strict && !options.unit && !root.is_unattended() {
        bail!("the end-to-end tests need root and CI is set: {}", privilege::REMEDY);
    }
    let mut peers = Vec::new();
    let mut summary = Summary::default();
    if !options.unit {
        let toolchain = setup::toolchain(project, Need::Test)?;
        for Peer { variable, program } in setup::peers(project, true) {
            match program {
                Ok(program) => peers.push((variable, program.into_os_string())),
                Err(reason) if strict => bail!("{variable} is missing and CI is set: {reason}"),
                Err(reason) => summary.add(variable, Outcome::Skipped(format!("tests that need it: {reason}"))),
            }
        }
        build::build(project, &toolchain)?;
    }
    if !options.end_to_end {
        let counts = unit(project, options, &peers)?;
        summary.add("unit tests", Outcome::Ran(counts));
    }
    if !options.unit {
        let programs = end_to_end_programs(project.cargo("test"), &[])?;
        let outcome = end_to_end(project, options, root, &programs, &project.agent(), &peers)?;
        summary.add("end-to-end tests", outcome);
    }
    let outcome = legacy(project, options, root, &peers)?;
    summary.add("with legacy-tls", outcome);
    eprint!("\n{summary}");
    summary.verdict(strict)
}

/// Environment variables by which tests find what they start beside the agent.
type Peers = [(&'static str, OsString)];

fn unit(project: &Project, options: &Options, peers: &Peers) -> Result<Counts> {
    let mut cargo = project.cargo("test");
    cargo
        .envs(peers.iter().map(|(variable, program)| (variable, program)))
        .args(["--workspace", "--exclude", END_TO_END, "--locked"])
        .arg("--no-fail-fast")
        .args(&options.filter)
        .arg("--")
        .args(&options.arguments);
    counted(&mut cargo)
}

/// The agent's unit tests, and the end-to-end tests of TLS, with the feature.
fn legacy(project: &Project, options: &Options, root: Root, peers: &Peers) -> Result<Outcome> {
    if !process::succeeds(Command::new("pkg-config").args(setup::HAS_OPENSSL)) {
        return Ok(Outcome::Skipped(
            "the feature needs pkg-config and OpenSSL's headers (Debian: pkg-config libssl-dev)".to_owned(),
        ));
    }
    let mut counts = Counts::default();
    if !options.end_to_end {
        let mut cargo = project.cargo("test");
        cargo.args(["--package", "spip-agent", "--lib", "--locked", "--features", "legacy-tls"]);
        cargo.args(&options.filter).arg("--").args(&options.arguments);
        counts.merge(&counted(&mut cargo)?);
    }
    if !options.unit {
        // Beside the ordinary agent, so that neither replaces the other.
        let target = project.target.join("legacy-tls");
        let mut build = project.cargo("build");
        build.args(["--package", "spip-agent", "--locked", "--features", "legacy-tls", "--target-dir"]).arg(&target);
        process::run(&mut build)?;
        let programs = end_to_end_programs(project.cargo("test"), &["--test", "tls", "--features", "legacy-tls"])?;
        match end_to_end(project, options, root, &programs, &target.join("debug/spip-agent"), peers)? {
            Outcome::Ran(ran) => counts.merge(&ran),
            skipped => return Ok(skipped),
        }
    }
    Ok(Outcome::Ran(counts))
}

fn end_to_end(
    project: &Project,
    options: &Options,
    root: Root,
    programs: &[PathBuf],
    agent: &Path,
    peers: &Peers,
) -> Result<Outcome> {
    let folder = project.root.join("tests");
    let mut environment: Vec<(&str, OsString)> = vec![
        ("SPIP_AGENT_BIN", agent.into()),
        ("PATH", process::full_path()),
        ("CARGO_MANIFEST_DIR", folder.clone().into()),
        ("RUST_BACKTRACE", "1".into()),
        (TIMED.0, TIMED.1.into()),
    ];
    environment.extend_from_slice(peers);
    if let Some(ci) = env::var_os("CI") {
        environment.push(("CI", ci));
    }
    let mut counts = Counts::default();
    for program in programs {
        let Some(mut command) = root.command(program, &environment) else {
            return Ok(Outcome::Skipped(format!("they need root: {}", privilege::REMEDY)));
        };
        command.args(["-Z", "unstable-options", "--report-time"]).args(&options.arguments).args(&options.filter);
        let began = Instant::now();
        let mut ran = counted(command.current_dir(&folder))?;
        ran.note_program(program, began.elapsed());
        counts.merge(&ran);
    }
    Ok(Outcome::Ran(counts))
}

/// Compiles the end-to-end tests, those that `which` names, and returns their programs.
pub(crate) fn end_to_end_programs(mut cargo: Command, which: &[&str]) -> Result<Vec<PathBuf>> {
    cargo
        .args(["--package", END_TO_END, "--locked", "--no-run"])
        .args(which)
        .args(["--message-format", "json-render-diagnostics"]);
    report::step("Running", process::shown(&cargo));
    let built = cargo.stdout(Stdio::piped()).stderr(Stdio::inherit()).output().context("cannot start cargo")?;
    if !built.status.success() {
        bail!("the end-to-end tests do not compile");
    }
    Ok(test_programs(&String::from_utf8_lossy(&built.stdout)))
}

/// The test programs among cargo's messages.
fn test_programs(messages: &str) -> Vec<PathBuf> {
    messages
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|message| message["profile"]["test"] == true)
        .filter_map(|message| message["executable"].as_str().map(PathBuf::from))
        .collect()
}

/// Runs test programs with their output on the terminal, and counts along.
fn counted(command: &mut Command) -> Result<Counts> {
    report::step("Running", process::shown(command));
    let mut child = command
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {}", command.get_program().display()))?;
    let mut counts = Counts::default();
    let pipe = child.stdout.take().context("the child has no stdout")?;
    for line in BufReader::new(pipe).split(b'\n') {
        let line = line?;
        let mut out = stdout().lock();
        out.write_all(&line)?;
        out.write_all(b"\n")?;
        counts.read(&String::from_utf8_lossy(&line));
    }
    // A program that does not compile or is killed counts nothing but must not pass.
    counts.broken = u64::from(!child.wait()?.success() && counts.failed == 0);
    Ok(counts)
}

/// Numbers of tests by result.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
    pub(crate) ignored: u64,
    /// Programs that ended badly without naming a failed test.
    broken: u64,
    /// Of tests that failed.
    names: Vec<String>,
    /// Durations of tests by name, where their program reports them.
    tests: Vec<(Duration, String)>,
    /// Durations of programs by name.
    programs: Vec<(Duration, String)>,
}

impl Counts {
    /// Reads a line of a test program: the result of one test, or of all.
    pub(crate) fn read(&mut self, line: &str) {
        if let Some((name, outcome)) = line.strip_prefix("test ").and_then(|test| test.split_once(" ... ")) {
            // `ok <1.234s>`, with the time where it was asked for.
            let (outcome, time) = outcome.split_once(" <").unwrap_or((outcome, ""));
            if outcome == "FAILED" {
                self.names.push(name.to_owned());
            }
            let seconds = time.strip_suffix("s>").and_then(|seconds| seconds.parse().ok());
            if let Some(time) = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()) {
                self.tests.push((time, name.to_owned()));
            }
        }
        let Some(result) = line.strip_prefix("test result: ") else {
            return;
        };
        let count = |what: &str| {
            result
                .split(['.', ';'])
                .find_map(|part| part.trim().strip_suffix(what)?.trim().parse::<u64>().ok())
                .unwrap_or(0)
        };
        self.passed += count("passed");
        self.failed += count("failed");
        self.ignored += count("ignored");
    }

    /// Of the tests that failed.
    pub(crate) fn names(&self) -> &[String] {
        &self.names
    }

    /// Notes how long `program` took; its tests are named after it from now on.
    fn note_program(&mut self, program: &Path, time: Duration) {
        let file = program.file_name().unwrap_or_default().to_string_lossy();
        // Without the hash that cargo adds.
        let name = file.rsplit_once('-').map_or(&*file, |(name, _)| name).to_owned();
        self.tests.iter_mut().for_each(|(_, test)| *test = format!("{name} {test}"));
        self.programs.push((time, name));
    }

    fn merge(&mut self, other: &Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.ignored += other.ignored;
        self.broken += other.broken;
        self.names.extend_from_slice(&other.names);
        self.tests.extend_from_slice(&other.tests);
        self.programs.extend_from_slice(&other.programs);
    }
}

enum Outcome {
    Ran(Counts),
    /// With the reason and the remedy.
    Skipped(String),
}

/// Summary at the end.
#[derive(Default)]
struct Summary {
    parts: Vec<(&'static str, Outcome)>,
}

impl Summary {
    fn add(&mut self, name: &'static str, outcome: Outcome) {
        self.parts.push((name, outcome));
    }

    fn verdict(&self, strict: bool) -> Result<()> {
        for (name, outcome) in &self.parts {
            match outcome {
                Outcome::Ran(counts) if counts.failed + counts.broken > 0 => {
                    bail!("{name}: {} failed", counts.failed + counts.broken);
                }
                Outcome::Skipped(why) if strict => {
                    bail!("{name} were skipped and CI is set: {why}")
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// Returns the slowest of some, beginning with the slowest.
fn slowest(times: &[(Duration, String)]) -> Vec<&(Duration, String)> {
    let mut times: Vec<_> = times.iter().collect();
    times.sort_by_key(|(time, _)| Reverse(*time));
    times.truncate(SLOWEST);
    times
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, outcome) in &self.parts {
            match outcome {
                Outcome::Ran(counts) => {
                    write!(f, "{name:>18}: {} passed, {} failed", counts.passed, counts.failed)?;
                    if counts.ignored > 0 {
                        write!(f, ", {} ignored", counts.ignored)?;
                    }
                    if counts.broken > 0 {
                        write!(f, ", {} ended badly", counts.broken)?;
                    }
                    writeln!(f)?;
                    for test in &counts.names {
                        writeln!(f, "{:>18}  failed: {test}", "")?;
                    }
                    for (what, times) in [("program", &counts.programs), ("test", &counts.tests)] {
                        for (time, name) in slowest(times) {
                            writeln!(f, "{:>18}  slow {what}: {:>5.1} s  {name}", "", time.as_secs_f64())?;
                        }
                    }
                }
                Outcome::Skipped(why) => writeln!(f, "{name:>18}: skipped, {why}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RESULT: &str =
        "test result: FAILED. 12 passed; 3 failed; 1 ignored; 0 measured; 2 filtered out; finished in 0.01s";

    #[test]
    fn results_of_several_programs_add_up() {
        let mut counts = Counts::default();
        counts.read("test a::name ... FAILED");
        counts.read("test result: ok. 5 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out");
        counts.read(RESULT);
        assert_eq!((counts.passed, counts.failed, counts.ignored), (17, 3, 1));
        assert_eq!(counts.names, ["a::name"]);
    }

    #[test]
    fn the_slowest_programs_and_tests_are_named_with_their_seconds() {
        let mut counts = Counts::default();
        for number in 0..20 {
            counts.read(&format!("test a::number_{number} ... ok <{number}.500s>"));
        }
        counts.read("test a::slow ... FAILED <61.000s>");
        counts.read("test a::other has been running for over 60 seconds");
        counts.read("test a::untimed ... ok");
        counts.read("test a::ignored ... ignored, run by another");
        counts.read(RESULT);
        counts.note_program(Path::new("/t/deps/log_file-0123abcd"), Duration::from_secs(70));
        assert_eq!(counts.names, ["a::slow"]);
        let mut summary = Summary::default();
        summary.add("end-to-end tests", Outcome::Ran(counts));
        let shown = summary.to_string();
        let slow: Vec<&str> = shown.lines().filter_map(|line| line.trim().strip_prefix("slow ")).collect();
        assert_eq!(slow.len(), 1 + SLOWEST, "{shown}");
        assert_eq!(slow[0], "program:  70.0 s  log_file");
        assert_eq!(slow[1], "test:  61.0 s  log_file a::slow");
        assert_eq!(slow[2], "test:  19.5 s  log_file a::number_19");
    }

    #[test]
    fn a_failed_test_fails_the_command() {
        let mut counts = Counts::default();
        counts.read(RESULT);
        let mut summary = Summary::default();
        summary.add("unit tests", Outcome::Ran(counts));
        assert!(summary.verdict(false).is_err());
    }

    #[test]
    fn a_program_that_ends_badly_fails_the_command() {
        let counts = counted(&mut Command::new("false")).expect("false starts");
        let mut summary = Summary::default();
        summary.add("unit tests", Outcome::Ran(counts));
        assert!(summary.verdict(false).is_err());
    }

    #[test]
    fn skipped_tests_fail_in_ci_only() {
        let mut summary = Summary::default();
        summary.add("end-to-end tests", Outcome::Skipped("no root".to_owned()));
        summary.verdict(false).expect("a person may skip them");
        assert!(summary.verdict(true).is_err());
        assert!(summary.to_string().contains("skipped, no root"));
    }

    #[test]
    fn only_test_programs_are_taken_from_cargos_messages() {
        let messages = concat!(
            r#"{"reason":"compiler-artifact","profile":{"test":true},"executable":"/t/deps/e2e-1"}"#,
            "\n",
            r#"{"reason":"compiler-artifact","profile":{"test":false},"executable":"/t/floor"}"#,
            "\n",
            r#"{"reason":"build-finished","success":true}"#,
            "\nnot json\n"
        );
        assert_eq!(test_programs(messages), [PathBuf::from("/t/deps/e2e-1")]);
    }
}
