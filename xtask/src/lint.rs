//! `cargo xtask lint`: formatting, clippy for both sides, dependencies, the order of crates and wings, and links of the documentation.
//!
//! All checks run even when an early one fails: one round shows all that is to be done. The kernel side is
//! checked for the host, by the userspace toolchain, so that linting needs no compiler for the kernel.
//! Advisories are looked at where their database can be fetched; without network that is said and is no
//! failure, since the result would depend on the day and the place.

mod links;
mod wings;

pub(crate) use wings::{ORDER as WINGS, without_tests};

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, bail};

use crate::process;
use crate::project::Project;
use crate::report;
use crate::setup;
use crate::test;

/// Fetching the advisories takes seconds; longer means that nothing comes.
const FETCH_LIMIT: Duration = Duration::from_secs(60);

/// Sets up and checks.
pub(crate) fn run(project: &Project) -> Result<()> {
    let deny = setup::for_lint(project)?;
    let mut failed = Vec::new();
    for (name, mut command) in checks(project, &deny) {
        if let Err(error) = process::run(&mut command) {
            report::note(format!("{error:#}"));
            failed.push(name);
        }
    }
    if let Err(error) = wings::check(project) {
        report::note(format!("{error:#}"));
        failed.push("order of crates and wings");
    }
    if let Err(error) = check_links(project) {
        report::note(format!("{error:#}"));
        failed.push("links of the documentation");
    }
    match advisories(project, &deny) {
        Ok(Advisories::Clear) => {}
        Ok(Advisories::Found) => failed.push("advisories"),
        Err(error) => {
            report::note(format!("advisories were not checked, their database cannot be fetched here: {error:#}"))
        }
    }
    if !failed.is_empty() {
        bail!("lint: {}", failed.join(", "));
    }
    report::step("Clean", "formatting, clippy, dependencies, order of crates and wings, links of the documentation");
    Ok(())
}

/// Checks that every link of the documentation leads somewhere.
pub(crate) fn check_links(project: &Project) -> Result<()> {
    links::check(&project.root)
}

fn checks(project: &Project, deny: &Path) -> Vec<(&'static str, Command)> {
    let ebpf = project.ebpf_manifest();
    let mut format = project.cargo("fmt");
    format.args(["--all", "--check"]);
    let mut format_ebpf = project.cargo("fmt");
    format_ebpf.args(["--all", "--check", "--manifest-path"]).arg(&ebpf);
    let mut clippy = project.cargo("clippy");
    clippy.args(["--workspace", "--all-targets", "--locked"]).args(["--", "-D", "warnings"]);
    let fuzzer = project.root.join("fuzz/libfuzzer/Cargo.toml");
    let mut format_fuzzer = project.cargo("fmt");
    format_fuzzer.args(["--check", "--manifest-path"]).arg(&fuzzer);
    let mut clippy_legacy = project.cargo("clippy");
    clippy_legacy.args(["--package", "spip-agent", "--package", "spip-tests", "--all-targets", "--locked"]);
    clippy_legacy.args(["--features", test::LEGACY, "--", "-D", "warnings"]);
    let mut clippy_ebpf = project.cargo("clippy");
    clippy_ebpf
        .args(["--locked", "--manifest-path"])
        .arg(&ebpf)
        .arg("--target-dir")
        .arg(project.ebpf_folder().join("lint"))
        .args(["--", "-D", "warnings"]);
    let mut checks = vec![
        ("formatting", format),
        ("formatting of the kernel side", format_ebpf),
        ("formatting of the fuzzer", format_fuzzer),
        ("clippy", clippy),
        ("clippy with legacy-tls", clippy_legacy),
        ("clippy of the kernel side", clippy_ebpf),
    ];
    for (name, manifest) in
        [("dependencies", project.root.join("Cargo.toml")), ("dependencies of the kernel side", ebpf)]
    {
        let mut command = deny_command(project, deny, &manifest);
        command.args(["--locked", "check", "--hide-inclusion-graph"]);
        command.args(["bans", "licenses", "sources"]);
        checks.push((name, command));
    }
    checks
}

fn deny_command(project: &Project, deny: &Path, manifest: &Path) -> Command {
    let mut command = Command::new(deny);
    command
        .arg("--manifest-path")
        .arg(manifest)
        .arg("--config")
        .arg(project.root.join("deny.toml"))
        .current_dir(&project.root);
    command
}

enum Advisories {
    Clear,
    Found,
}

/// The error is that the database could not be had.
fn advisories(project: &Project, deny: &Path) -> Result<Advisories> {
    let manifest = project.root.join("Cargo.toml");
    let mut fetch = deny_command(project, deny, &manifest);
    fetch.args(["fetch", "db"]);
    process::run_within(&mut fetch, FETCH_LIMIT)?;
    let mut check = deny_command(project, deny, &manifest);
    check.args(["--locked", "--offline", "check", "advisories"]);
    Ok(match process::run(&mut check) {
        Ok(()) => Advisories::Clear,
        Err(_) => Advisories::Found,
    })
}
