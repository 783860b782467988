//! `cargo xtask mutants [PATH]...`: small faults put in by cargo-mutants, one at a time, to see whether a test notices.
//!
//! Mutated are the crates that are pure functions, with all their tests, and those modules of the agent that need no
//! kernel, with its unit tests. A mutant that compiles and that no test notices is a survivor. The command fails when
//! fewer than [`CAUGHT_LEAST_PERCENT`] percent are caught, and on each survivor that `mutants/accepted.txt` does not
//! name with a reason. All of it takes many hours on two cores: paths restrict it, `--sample N` tries N of each group, drawn
//! from a seed that is printed, and `-- --shard 0/8` takes a part.

use std::ffi::OsString;
use std::fs;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::project::Project;
use crate::report;
use crate::setup;

/// Below this, tests have gaps that a list of reasons does not excuse.
const CAUGHT_LEAST_PERCENT: usize = 90;

/// Crates of pure functions.
const CRATES: [&str; 3] = ["spip-common", "spip-protocol", "spip-record"];

/// Modules of the agent that decide without the kernel, as paths below `spip-agent/src` without their ending.
const AGENT: [&str; 12] = [
    "log/writer/rotation",
    "respond",
    "scans/addresses",
    "scans/pending",
    "scans/sources",
    "session/budget",
    "session/deadline",
    "session/exchange",
    "session/limits",
    "session/open_sessions",
    "session/payload",
    "tools/rules/plan",
];

/// Survivors that are no gap, each with its reason.
const ACCEPTED: &str = include_str!("mutants/accepted.txt");

/// Upper bound of the tests of one mutant, in seconds: several times their usual time on a busy machine. A mutant that
/// has not ended by then is caught, because it has stopped its tests.
const TIMEOUT_SECONDS: &str = "300";

#[derive(Args)]
pub(crate) struct Options {
    /// Only these files, or files below these folders, as paths from the project's root
    paths: Vec<String>,
    /// Only so many mutants of each group, drawn at random
    #[arg(long, value_name = "N")]
    sample: Option<usize>,
    /// Draw the sample from this seed, as an earlier run printed it
    #[arg(long, requires = "sample", value_name = "S")]
    seed: Option<u64>,
    /// Arguments of cargo-mutants, such as `--shard 0/8`
    #[arg(last = true)]
    arguments: Vec<String>,
}

/// Packages that are mutated together: their mutants run the same tests.
struct Group {
    name: &'static str,
    packages: Vec<&'static str>,
    /// Patterns of files.
    files: Vec<String>,
    /// Arguments of `cargo test`.
    test: &'static [&'static str],
    /// Level of optimisation. A crate whose tests run far longer than its compiler does is tried faster with some: those of
    /// `spip-protocol` take 3 s instead of 20 on a busy machine. The agent takes longer to compile than to test.
    optimisation: &'static str,
}

/// Mutates, tests, and judges.
pub(crate) fn run(project: &Project, options: &Options) -> Result<()> {
    let groups = groups(&project.root, &options.paths)?;
    let program = setup::for_mutants(project)?;
    let mut found = Found::default();
    for group in &groups {
        found.add(&mutate(project, &program, group, options)?);
    }
    let accepted = accepted(ACCEPTED)?;
    report::step("Mutants", found.summary());
    verdict(&found, &accepted)
}

/// Returns what is mutated where `paths` restrict it.
fn groups(root: &Path, paths: &[String]) -> Result<Vec<Group>> {
    let crates: Vec<String> = CRATES.iter().map(|name| format!("{name}/src")).collect();
    let modules: Vec<String> = AGENT.iter().map(|module| format!("spip-agent/src/{module}")).collect();
    let mut groups = vec![
        Group {
            name: "pure",
            packages: CRATES.to_vec(),
            files: patterns(root, &crates, paths),
            test: &[],
            optimisation: "1",
        },
        Group {
            name: "agent",
            packages: vec!["spip-agent"],
            files: patterns(root, &modules, paths),
            test: &["--lib"],
            optimisation: "0",
        },
    ];
    groups.retain(|group| !group.files.is_empty());
    if groups.is_empty() {
        let known: Vec<String> = crates.into_iter().chain(modules).collect();
        bail!("nothing of {} is mutated: there are\n  {}", paths.join(", "), known.join("\n  "));
    }
    Ok(groups)
}

/// Returns patterns for the files of `known` (files or folders, without the ending `.rs`) that are in one of `paths`, or
/// that have one of them in it.
fn patterns(root: &Path, known: &[String], paths: &[String]) -> Vec<String> {
    let pattern = |path: &str| if root.join(path).is_dir() { format!("{path}/**") } else { path.to_owned() };
    let mut patterns = Vec::new();
    for known in known {
        let is_in = |path: &str, folder: &str| {
            let (path, folder) = (path.trim_end_matches('/'), folder.trim_end_matches('/'));
            let rest = path.trim_end_matches(".rs").strip_prefix(folder.trim_end_matches(".rs"));
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        let inside = paths.iter().filter(|path| is_in(path, known)).map(|path| pattern(path.trim_end_matches('/')));
        patterns.extend(inside);
        if paths.is_empty() || paths.iter().any(|path| is_in(known, path) && !is_in(path, known)) {
            let both = [format!("{known}.rs"), format!("{known}/**")];
            let is_there = |pattern: &String| root.join(pattern.trim_end_matches("/**")).exists();
            patterns.extend(both.into_iter().filter(is_there));
        }
    }
    patterns
}

/// Draws `count` names, the same ones for the same seed.
fn sample(names: &str, count: usize, seed: u64) -> Vec<&str> {
    let key = |name: &&str| {
        let mut hasher = DefaultHasher::new();
        (seed, name).hash(&mut hasher);
        hasher.finish()
    };
    let mut names: Vec<&str> = names.lines().collect();
    names.sort_by_cached_key(key);
    names.truncate(count);
    names
}

/// Returns a regular expression that matches `name` alone.
fn exactly(name: &str) -> String {
    let is_special = |c: char| r"\.+*?()|[]{}^$".contains(c);
    let escaped = name.chars().flat_map(|c| is_special(c).then_some('\\').into_iter().chain([c]));
    format!("^{}$", escaped.collect::<String>())
}

/// Runs cargo-mutants over one group, with its progress on the terminal.
fn mutate(project: &Project, program: &Path, group: &Group, options: &Options) -> Result<Found> {
    let folder = project.target.join("mutants");
    let output = folder.join(group.name);
    fs::create_dir_all(&output).with_context(|| format!("cannot make {}", output.display()))?;
    let mut words: Vec<OsString> =
        ["mutants", "--jobs", "1", "--no-shuffle", "--colors", "never"].map(Into::into).into();
    words.extend(["--timeout", TIMEOUT_SECONDS, "--build-timeout", "1200"].map(Into::into));
    words.extend(["--dir".into(), project.root.clone().into(), "--output".into(), output.clone().into()]);
    words.extend(group.packages.iter().flat_map(|package| ["--package".into(), package.into()]));
    words.extend(group.files.iter().flat_map(|pattern| ["--file".into(), pattern.into()]));
    words.extend(options.arguments.iter().map(Into::into));
    if let Some(count) = options.sample {
        let now = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let seed = options.seed.unwrap_or_else(now);
        let output = Command::new(program).args(&words).arg("--list").output().context("cannot start cargo-mutants")?;
        if !output.status.success() {
            bail!("cargo-mutants --list failed: {}", String::from_utf8_lossy(&output.stderr));
        }
        let names = String::from_utf8(output.stdout).context("cargo-mutants --list")?;
        let drawn = sample(&names, count, seed);
        report::note(format!("{} of {} mutants: --sample {count} --seed {seed}", drawn.len(), names.lines().count()));
        // Those that delete a field are tried besides: 27.1 filters none of them by `--re`.
        words.extend(drawn.into_iter().flat_map(|name| ["--re".to_owned(), exactly(name)]).map(Into::into));
    }
    words.extend(group.test.iter().flat_map(|word| [OsString::from("--cargo-test-arg"), word.into()]));
    let mut command = Command::new(program);
    // Libraries are compiled once, for all mutants and all runs.
    command.args(words).env("CARGO_TARGET_DIR", folder.join("build"));
    command.env("CARGO_PROFILE_DEV_OPT_LEVEL", group.optimisation);
    report::step("Mutating", format!("{}: {}", group.name, group.files.join(", ")));
    let status = command.status().with_context(|| format!("cannot start {}", program.display()))?;
    // 2: some were missed; 3: some timed out (cargo-mutants, "Exit codes"). Both are judged here.
    if !matches!(status.code(), Some(0 | 2 | 3)) {
        bail!("cargo-mutants ended with {status}: what it says is in {}", output.join("mutants.out/log").display());
    }
    Found::read(&output.join("mutants.out"))
}

/// Results of mutants, by their names without line and column.
#[derive(Debug, Default, PartialEq, Eq)]
struct Found {
    caught: usize,
    timed_out: usize,
    /// Did not compile: they say nothing.
    unviable: usize,
    missed: Vec<String>,
}

impl Found {
    fn read(folder: &Path) -> Result<Self> {
        let lines = |name: &str| -> Result<Vec<String>> {
            let path: PathBuf = folder.join(name);
            let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
            Ok(text.lines().map(without_place).collect())
        };
        Ok(Self {
            caught: lines("caught.txt")?.len(),
            timed_out: lines("timeout.txt")?.len(),
            unviable: lines("unviable.txt")?.len(),
            missed: lines("missed.txt")?,
        })
    }

    fn add(&mut self, other: &Self) {
        self.caught += other.caught;
        self.timed_out += other.timed_out;
        self.unviable += other.unviable;
        self.missed.extend_from_slice(&other.missed);
    }

    /// The part of those that compiled which was caught, in percent, rounded down.
    fn percent(&self) -> usize {
        let caught = self.caught + self.timed_out;
        let all = caught + self.missed.len();
        (caught * 100).checked_div(all).unwrap_or(100)
    }

    fn summary(&self) -> String {
        let Self { caught, timed_out, unviable, missed } = self;
        let percent = self.percent();
        format!(
            "{caught} caught, {timed_out} timed out, {} missed: {percent} %; {unviable} do not compile",
            missed.len()
        )
    }
}

/// `path:line:column: what` without line and column, which move with every edit.
fn without_place(line: &str) -> String {
    let mut parts = line.splitn(4, ':');
    match (parts.next(), parts.next(), parts.next(), parts.next()) {
        (Some(path), Some(_), Some(_), Some(what)) => format!("{path}:{what}"),
        _ => line.to_owned(),
    }
}

/// Reads the list of accepted survivors: a comment with the reason, then those that it holds for.
fn accepted(text: &str) -> Result<Vec<String>> {
    let (mut names, mut has_reason) = (Vec::new(), false);
    for line in text.lines().map(str::trim) {
        match line.strip_prefix('#') {
            Some(reason) => has_reason = !reason.trim().is_empty(),
            None if line.is_empty() => has_reason = false,
            None if !has_reason => bail!("an accepted survivor has no reason above it: {line}"),
            None => names.push(line.to_owned()),
        }
    }
    Ok(names)
}

fn verdict(found: &Found, accepted: &[String]) -> Result<()> {
    // Each line stands for one survivor: a second one of the same name is another place in the same function.
    let mut accepted = accepted.to_vec();
    let mut new = Vec::new();
    for survivor in &found.missed {
        match accepted.iter().position(|name| name == survivor) {
            Some(at) => drop(accepted.swap_remove(at)),
            None => new.push(survivor.as_str()),
        }
    }
    if !new.is_empty() {
        let remedy = "write a test that notices them, or name them with a reason in xtask/src/mutants/accepted.txt";
        bail!("{} survivors: {remedy}\n  {}", new.len(), new.join("\n  "));
    }
    if found.percent() < CAUGHT_LEAST_PERCENT {
        bail!("{} % are caught: {CAUGHT_LEAST_PERCENT} are the least", found.percent());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(caught: usize, missed: &[&str]) -> Found {
        Found { caught, missed: missed.iter().map(ToString::to_string).collect(), ..Found::default() }
    }

    fn root() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace").to_owned()
    }

    #[test]
    fn everything_that_is_named_here_exists() {
        for module in AGENT {
            let path = root().join("spip-agent/src").join(module);
            assert!(path.with_extension("rs").exists() || path.is_dir(), "{module} was moved");
        }
        let named = accepted(ACCEPTED).expect("each has a reason");
        let missing: Vec<_> = named
            .iter()
            .filter(|name| !name.split_once(':').is_some_and(|(path, _)| root().join(path).is_file()))
            .collect();
        assert!(missing.is_empty(), "{missing:?}");
    }

    #[test]
    fn a_path_restricts_what_is_mutated_and_one_that_is_not_mutated_is_refused() {
        let of = |paths: &[&str]| {
            let paths: Vec<String> = paths.iter().map(ToString::to_string).collect();
            groups(&root(), &paths)
                .map(|groups| groups.into_iter().map(|group| (group.name, group.files)).collect::<Vec<_>>())
        };
        let one = |name, file: &str| vec![(name, vec![file.to_owned()])];
        assert_eq!(of(&["spip-common/src/packet.rs"]).expect("known"), one("pure", "spip-common/src/packet.rs"));
        assert_eq!(of(&["spip-record"]).expect("known"), one("pure", "spip-record/src/**"));
        assert_eq!(
            of(&["spip-agent/src/session/deadline.rs"]).expect("known"),
            one("agent", "spip-agent/src/session/deadline.rs")
        );
        assert_eq!(of(&[]).expect("all").len(), 2);
        let error = of(&["spip-agent/src/main.rs"]).expect_err("it is not mutated").to_string();
        assert!(error.contains("spip-agent/src/session/limits"), "{error}");
    }

    #[test]
    fn a_survivor_without_a_reason_fails_and_one_line_excuses_one_survivor() {
        let list = accepted("# it is the same\na.rs: replace < with <= in f\n").expect("it has a reason");
        verdict(&found(20, &["a.rs: replace < with <= in f"]), &list).expect("accepted");
        let twice = ["a.rs: replace < with <= in f"; 2];
        assert!(verdict(&found(20, &twice), &list).is_err());
        let error = verdict(&found(20, &["b.rs: replace f with ()"]), &list).expect_err("new").to_string();
        assert!(error.contains("b.rs: replace f with ()"), "{error}");
        assert!(accepted("a.rs: replace f with ()\n").is_err());
        assert!(accepted("# reason\na.rs: x\n\nb.rs: x\n").is_err(), "a reason ends with its paragraph");
    }

    #[test]
    fn too_few_that_are_caught_fail_whatever_is_accepted() {
        let list = vec!["a.rs: x".to_owned(); 3];
        verdict(&found(27, &["a.rs: x"; 3]), &list).expect("90 %");
        assert!(verdict(&found(26, &["a.rs: x"; 3]), &list).is_err());
        let timed_out = Found { timed_out: 1, ..found(26, &["a.rs: x"; 3]) };
        verdict(&timed_out, &list).expect("a hung test is noticed");
    }

    #[test]
    fn a_sample_is_the_same_for_its_seed_and_names_what_it_draws() {
        let names = (0..100).map(|number| format!("a.rs:{number}:1: replace + with -\n")).collect::<String>();
        let drawn = sample(&names, 10, 7);
        assert_eq!(drawn.len(), 10);
        assert_eq!(drawn, sample(&names, 10, 7));
        assert_ne!(drawn, sample(&names, 10, 8));
        assert_eq!(sample(&names, 1_000, 7).len(), 100);
        assert_eq!(exactly("a/b.rs:1:2: replace f(u8) -> u8 with 0"), r"^a/b\.rs:1:2: replace f\(u8\) -> u8 with 0$");
    }

    #[test]
    fn names_have_no_line_and_no_column() {
        assert_eq!(without_place("a/b.rs:12:5: replace f -> u8 with 0"), "a/b.rs: replace f -> u8 with 0");
        assert_eq!(without_place("a/b.rs:1:2: replace :: with x"), "a/b.rs: replace :: with x");
    }
}
