//! `cargo xtask fuzz [TARGET] [SECONDS]`: strangers' bytes, mutated, against everything that reads them.
//!
//! Where a nightly compiler is installed, libFuzzer searches by coverage, with the address sanitizer, and what it has
//! learnt stays in the target folder. Elsewhere, and with `--stable`, the project's own engine mutates the committed
//! corpus without looking at coverage. Nothing is installed for this command.

use std::env;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::process;
use crate::project::Project;
use crate::report;

/// What libFuzzer needs to see of a program; see "SanitizerCoverage" in the documentation of LLVM.
const INSTRUMENTED: &str = "-Cpasses=sancov-module \
    -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
    -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares \
    -Zsanitizer=address -Ccodegen-units=1 --cfg fuzzing";

/// Inputs beyond this only repeat themselves; the same bound as in the project's own engine.
const MAX_INPUT_BYTES: u32 = 40 * 1024;

#[derive(Args)]
pub(crate) struct Options {
    /// One target; all of them, one after the other, without it
    target: Option<String>,
    /// Seconds, shared by all targets
    #[arg(default_value_t = 60)]
    seconds: u64,
    /// Use the engine without coverage although a nightly compiler is there
    #[arg(long)]
    stable: bool,
    /// Where the engine without coverage begins; equal seeds give equal inputs
    #[arg(long, default_value_t = 0)]
    seed: u64,
}

/// Builds the engine that is possible here and runs it.
pub(crate) fn run(project: &Project, options: &Options) -> Result<()> {
    let all = names(project)?;
    let chosen = match options.target.as_deref() {
        None | Some("all") => all,
        Some(name) if all.iter().any(|known| known == name) => vec![name.to_owned()],
        Some(name) => bail!("no fuzz target is called {name}: there are {}", all.join(", ")),
    };
    let nightly = Command::new("rustup").args(["run", "nightly", "rustc", "--version"]).output();
    match nightly {
        Ok(output) if output.status.success() && !options.stable => coverage(project, options, &chosen),
        _ => {
            if !options.stable {
                report::note("no nightly compiler: going without coverage (rustup toolchain install nightly)");
            }
            plain(project, options)
        }
    }
}

/// The targets, as their list names them.
fn names(project: &Project) -> Result<Vec<String>> {
    process::run(project.cargo("build").args(["--package", "spip-fuzz", "--locked", "--quiet"]))?;
    let list = process::output(Command::new(project.target.join("debug/spip-fuzz")).arg("list"))?;
    Ok(list.lines().map(str::to_owned).collect())
}

fn plain(project: &Project, options: &Options) -> Result<()> {
    process::run(project.cargo("build").args(["--package", "spip-fuzz", "--locked", "--profile", "fuzz"]))?;
    process::run(
        Command::new(project.target.join("fuzz/spip-fuzz"))
            .arg(options.target.as_deref().unwrap_or("all"))
            .args([options.seconds.to_string(), options.seed.to_string()]),
    )
}

fn coverage(project: &Project, options: &Options, targets: &[String]) -> Result<()> {
    let program = build_instrumented(project)?;
    let each = (options.seconds / targets.len().max(1) as u64).max(1);
    for target in targets {
        let kept = project.target.join("fuzz-corpus").join(target);
        let found = project.target.join("fuzz-found").join(target);
        for folder in [&kept, &found] {
            fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        }
        let own =
            project.root.join("fuzz/corpus").join(if target == "tls_handshake" { "client_hello" } else { target });
        let mut command = Command::new(&program);
        command
            .env("SPIP_FUZZ_TARGET", target)
            .arg(format!("-max_total_time={each}"))
            .arg(format!("-max_len={MAX_INPUT_BYTES}"))
            .args(["-timeout=10", "-rss_limit_mb=2048", "-print_final_stats=0", "-verbosity=0"])
            .arg(format!("-artifact_prefix={}/", found.display()))
            .arg(&kept);
        if own.is_dir() {
            command.arg(own);
        }
        process::run(&mut command).with_context(|| {
            format!(
                "{target} has a finding: the input is in {}; once mended, put it into fuzz/corpus/{target}",
                found.display()
            )
        })?;
    }
    report::step("Clean", format!("{} targets, {each} s each, by coverage", targets.len()));
    Ok(())
}

fn build_instrumented(project: &Project) -> Result<PathBuf> {
    let folder = project.target.join("libfuzzer");
    let own = project.root.join("fuzz/libfuzzer");
    // The agent's dependencies in the versions in which it is shipped; what is not in there is added.
    fs::copy(project.root.join("Cargo.lock"), own.join("Cargo.lock")).context("cannot copy Cargo.lock")?;
    // A target of its own name keeps the flags away from build scripts and macros, which run inside the compiler.
    let triple = format!("{}-unknown-linux-gnu", env::consts::ARCH);
    let mut build = Command::new("rustup");
    build
        .args(["run", "nightly", "cargo", "build", "--release", "--manifest-path"])
        .arg(own.join("Cargo.toml"))
        .args(["--target", &triple, "--target-dir"])
        .arg(&folder)
        .env("RUSTFLAGS", INSTRUMENTED)
        // Set by the cargo that runs this program, for its own toolchain.
        .env_remove("RUSTC")
        .env_remove("CARGO")
        .env_remove("RUSTUP_TOOLCHAIN")
        .env_remove("CARGO_MANIFEST_DIR");
    process::run(&mut build)?;
    Ok(folder.join(triple).join("release/spip-libfuzzer"))
}
