//! `cargo xtask fuzz [TARGET] [SECONDS]`: mutated hostile bytes against everything that reads them.
//!
//! libFuzzer searches by coverage, and what it has learnt stays in the target folder. It is compiled with the agent by
//! the ordinary compiler, which is all that it needs beside one for C++; where rustup has a nightly compiler, that one
//! is taken and the address sanitizer with it, which watches the libraries' unsafe parts. Without a compiler for C++,
//! and with `--no-coverage`, the project's own engine mutates the committed corpus without looking at coverage.

use std::env;
use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::process;
use crate::project::Project;
use crate::report;
use crate::setup;

/// Flags that instrument a program for libFuzzer; see "SanitizerCoverage" in the documentation of LLVM.
const INSTRUMENTED: &str = "-Cpasses=sancov-module \
    -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
    -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares \
    -Ccodegen-units=1 --cfg fuzzing";

/// Only a nightly compiler takes this.
const SANITIZED: &str = "-Zsanitizer=address";

/// Inputs beyond this only repeat themselves; the same bound as in the project's own engine.
const MAX_INPUT_BYTES: u32 = 40 * 1024;

#[derive(Args)]
pub(crate) struct Options {
    /// One target; all of them, one after the other, without it or with `all`
    target: Option<String>,
    /// Seconds for each target
    #[arg(default_value_t = 10)]
    seconds: u64,
    /// Use the project's own engine, which looks at no coverage and repeats exactly
    #[arg(long)]
    no_coverage: bool,
    /// Seed of that engine; equal seeds give equal inputs
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// The handshakes of TLS 1.0 and 1.1, too; needs OpenSSL's headers
    #[arg(long)]
    legacy_tls: bool,
}

/// A target, and where the committed inputs are that it begins with.
struct Target {
    name: String,
    seeds: Vec<PathBuf>,
}

/// Builds the engine that is possible here and runs it.
pub(crate) fn run(project: &Project, options: &Options) -> Result<()> {
    setup::for_fuzz(project)?;
    let mut targets = targets(project)?;
    if let Some(name) = options.target.as_deref().filter(|name| *name != "all") {
        if !targets.iter().any(|target| target.name == name) {
            let names: Vec<&str> = targets.iter().map(|target| target.name.as_str()).collect();
            bail!("no fuzz target is called {name}: there are {}", names.join(", "));
        }
        targets.retain(|target| target.name == name);
    }
    let (count, seconds) = (targets.len(), options.seconds);
    report::step(
        "Fuzzing",
        format!("{count} targets, {seconds} s each: {} min", (count as u64 * seconds).div_ceil(60)),
    );
    if options.no_coverage || process::find("c++").is_none() {
        plain(project, options)
    } else {
        coverage(project, options, &targets)
    }
}

/// The targets, as their list names them.
fn targets(project: &Project) -> Result<Vec<Target>> {
    process::run(project.cargo("build").args(["--package", "spip-fuzz", "--locked", "--quiet"]))?;
    let list = process::output(Command::new(project.target.join("debug/spip-fuzz")).arg("list"))?;
    let target = |line: &str| {
        let mut columns = line.split('\t').map(str::to_owned);
        Some(Target { name: columns.next()?, seeds: columns.map(PathBuf::from).collect() })
    };
    Ok(list.lines().filter_map(target).collect())
}

fn plain(project: &Project, options: &Options) -> Result<()> {
    let mut build = project.cargo("build");
    build.args(["--package", "spip-fuzz", "--locked", "--profile", "fuzz"]);
    if options.legacy_tls {
        build.args(["--features", "legacy-tls"]);
    }
    process::run(&mut build)?;
    process::run(
        Command::new(project.target.join("fuzz/spip-fuzz"))
            .arg(options.target.as_deref().unwrap_or("all"))
            .args([options.seconds.to_string(), options.seed.to_string()]),
    )
}

fn coverage(project: &Project, options: &Options, targets: &[Target]) -> Result<()> {
    let program = build_instrumented(project, options)?;
    for Target { name, seeds } in targets {
        let kept = project.target.join("fuzz-corpus").join(name);
        let found = project.target.join("fuzz-found").join(name);
        for folder in [&kept, &found] {
            fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        }
        let said = found.with_extension("log");
        let log = File::create(&said).with_context(|| format!("cannot create {}", said.display()))?;
        let mut command = Command::new(&program);
        command
            .env("SPIP_FUZZ_TARGET", name)
            .arg(format!("-max_total_time={}", options.seconds))
            .arg(format!("-max_len={MAX_INPUT_BYTES}"))
            .args(["-timeout=10", "-rss_limit_mb=2048", "-print_final_stats=1"])
            .arg(format!("-artifact_prefix={}/", found.display()))
            .arg(&kept)
            .args(seeds.iter().filter(|folder| folder.is_dir()))
            .stdin(Stdio::null())
            .stderr(log);
        report::step(
            "Fuzzing",
            format!("{name} for {} s; its progress is in {}", options.seconds, project.relative(&said)),
        );
        let status = command.status().with_context(|| format!("cannot start {}", program.display()))?;
        let said = String::from_utf8_lossy(&fs::read(&said).context("cannot read what libFuzzer said")?).into_owned();
        if !status.success() {
            eprintln!("{said}");
            bail!(
                "{name} has a finding: the input is in {}; once mended, put it into {}",
                project.relative(&found),
                seeds.first().map_or("fuzz/corpus/found".into(), |own| project.relative(own).to_string())
            );
        }
        let (inputs, edges) = (after(&said, "stat::number_of_executed_units: "), after(&said, " cov: "));
        report::step("Clean", format!("{name}: {inputs} inputs, {edges} edges"));
    }
    Ok(())
}

/// The word behind the last occurrence of `label`.
fn after<'a>(text: &'a str, label: &str) -> &'a str {
    text.rsplit_once(label).and_then(|(_, rest)| rest.split_whitespace().next()).unwrap_or("?")
}

fn build_instrumented(project: &Project, options: &Options) -> Result<PathBuf> {
    let folder = project.target.join("libfuzzer");
    let own = project.root.join("fuzz/libfuzzer");
    // The agent's dependencies in the versions in which it is shipped; what is not in there is added.
    fs::copy(project.root.join("Cargo.lock"), own.join("Cargo.lock")).context("cannot copy Cargo.lock")?;
    let has_nightly = process::succeeds(Command::new("rustup").args(["run", "nightly", "rustc", "--version"]));
    let mut build = if has_nightly {
        let mut rustup = Command::new("rustup");
        // Set by the cargo that runs this program, for its own toolchain.
        rustup.args(["run", "nightly", "cargo", "build"]).env_remove("RUSTC").env_remove("CARGO");
        rustup.env_remove("RUSTUP_TOOLCHAIN").env_remove("CARGO_MANIFEST_DIR");
        rustup
    } else {
        report::note("no nightly compiler: without the address sanitizer (rustup toolchain install nightly)");
        project.cargo("build")
    };
    let flags = if has_nightly { format!("{INSTRUMENTED} {SANITIZED}") } else { INSTRUMENTED.to_owned() };
    // A target of its own name keeps the flags away from build scripts and macros, which run inside the compiler.
    let triple = format!("{}-unknown-linux-gnu", env::consts::ARCH);
    build
        .args(["--release", "--manifest-path"])
        .arg(own.join("Cargo.toml"))
        .args(["--target", &triple, "--target-dir"])
        .arg(&folder)
        .env("RUSTFLAGS", flags);
    if options.legacy_tls {
        build.args(["--features", "legacy-tls"]);
    }
    process::run(&mut build)?;
    Ok(folder.join(triple).join("release/spip-libfuzzer"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_number_behind_a_label_counts() {
        let said = "#2\tINITED cov: 5 ft: 6\n#9\tDONE   cov: 57 ft: 80\nstat::number_of_executed_units: 9\n";
        assert_eq!((after(said, " cov: "), after(said, "stat::number_of_executed_units: ")), ("57", "9"));
        assert_eq!(after("", " cov: "), "?");
    }
}
