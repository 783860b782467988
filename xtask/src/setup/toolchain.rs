//! The compiler and the linker for the kernel side, as a pair.
//!
//! They are chosen together, since a compiler is of no use when no linker reads its bitcode: the first
//! candidate in order whose linker is there, or can be built here, is taken.

use std::process::Command;
use std::time::Duration;

use anyhow::Result;

use super::compiler::{Candidate, Compiler, Version, candidates};
use super::linker::{self, Found, Linker};
use super::{Missing, packages};
use crate::privilege::Root;
use crate::process;
use crate::project::Project;
use crate::report;

/// What Debian calls a current rustc with its sources; it builds browsers and follows their needs.
const APT_PACKAGES: [&str; 3] = ["rustc-web", "cargo-web", "rust-web-src"];

/// The toolchain to fetch where there is only rustup: pinned, because the LLVM of a moving `nightly` outgrows
/// the pinned linker.
const RUSTUP_TOOLCHAIN: &str = "1.95.0";

/// A component is a few MB, a toolchain some hundred: longer than this means that nothing comes.
pub(crate) const DOWNLOAD_LIMIT: Duration = Duration::from_secs(300);

/// A compiler and a linker that fit each other.
#[derive(Debug)]
pub(crate) struct Toolchain {
    pub(crate) compiler: Compiler,
    pub(crate) linker: Linker,
}

/// What is on this system.
enum Survey {
    Ready(Toolchain),
    /// Only the linker has to be built.
    LinkerMissing(Compiler, std::path::PathBuf),
    /// Each candidate with the reason why it was refused.
    Refused(Vec<(Candidate, String)>, Vec<Compiler>),
}

/// The pair, after installing what can be installed; or what is missing.
pub(crate) fn ready(project: &Project, root: Root, install: bool) -> Result<Result<Toolchain, Missing>> {
    let mut survey = look_around(project);
    if install
        && let Survey::Refused(refusals, compilers) = &survey
        && mend(refusals, compilers, root)
    {
        survey = look_around(project);
    }
    match survey {
        Survey::Ready(toolchain) => Ok(Ok(toolchain)),
        Survey::LinkerMissing(compiler, library) if install => {
            report::step(
                "Building",
                format!("bpf-linker for {} (LLVM {}); takes a minute or two, once", compiler.candidate, compiler.llvm),
            );
            match linker::install(project, library) {
                Ok(linker) => Ok(Ok(Toolchain { compiler, linker })),
                Err(error) => Ok(Err(no_linker(project, &format!("{error:#}")))),
            }
        }
        Survey::LinkerMissing(..) => Ok(Err(no_linker(project, "not found"))),
        Survey::Refused(refusals, compilers) => Ok(Err(no_compiler(&refusals, &compilers))),
    }
}

fn look_around(project: &Project) -> Survey {
    let mut refusals = Vec::new();
    let mut compilers: Vec<Compiler> = Vec::new();
    for candidate in candidates() {
        match Compiler::examine(candidate.clone()) {
            // A link or a proxy to one that was seen already.
            Ok(compiler) if compilers.iter().any(|seen| seen.candidate.rustc == compiler.candidate.rustc) => {}
            Ok(compiler) => compilers.push(compiler),
            Err(reason) => refusals.push((candidate, reason)),
        }
    }
    let mut installable = None;
    for compiler in &compilers {
        if let Err(reason) = compiler.can_build_core() {
            refusals.push((compiler.candidate.clone(), reason));
            continue;
        }
        match linker::find(project, compiler, &compilers) {
            Found::Ready(linker) => {
                let compiler = compiler.clone();
                return Survey::Ready(Toolchain { compiler, linker });
            }
            Found::Installable(library) => {
                installable = installable.or_else(|| Some((compiler.clone(), library)));
            }
            Found::Impossible(reason) => refusals.push((compiler.candidate.clone(), reason)),
        }
    }
    match installable {
        Some((compiler, library)) => Survey::LinkerMissing(compiler, library),
        None => Survey::Refused(refusals, compilers),
    }
}

/// Tries to install a compiler: by apt where that is possible, then by rustup. `true` when one of them ended
/// well. Nothing is tried when the caller named a compiler.
fn mend(refusals: &[(Candidate, String)], compilers: &[Compiler], root: Root) -> bool {
    if std::env::var_os("SPIP_EBPF_RUSTC").is_some() {
        return false;
    }
    report::note("no rustc here can compile for the kernel:");
    for (candidate, reason) in refusals {
        report::note(format!("  {candidate}: {reason}"));
    }
    if process::find("apt-get").is_some() && root.is_unattended() {
        if !packages::apt_knows(APT_PACKAGES[0])
            && let Err(error) = packages::apt_update(root)
        {
            report::note(format!("{error:#}"));
        }
        if packages::apt_knows(APT_PACKAGES[0]) {
            report::step("Installing", "a rustc with sources, by apt");
            match packages::apt_install(&APT_PACKAGES, root) {
                Ok(()) => return true,
                Err(error) => report::note(format!(
                    "{error:#}; {} conflict with packages rustc and rustup, and nothing is removed",
                    APT_PACKAGES.join(", ")
                )),
            }
        }
    }
    if process::find("rustup").is_none() {
        return false;
    }
    report::step("Installing", "the sources of core, by rustup");
    let mut command = rustup_remedy(compilers);
    match process::run_within(&mut command, DOWNLOAD_LIMIT) {
        Ok(()) => true,
        Err(error) => {
            report::note(format!("{error:#}"));
            false
        }
    }
}

/// Sources for a toolchain that would do with them, or else a whole toolchain that is known to do.
fn rustup_remedy(compilers: &[Compiler]) -> Command {
    let mut command = Command::new("rustup");
    let lacking_source = compilers.iter().find_map(|compiler| {
        let fits = compiler.llvm < Version(23, 0, 0) && compiler.llvm_library.is_some();
        let toolchain = compiler.candidate.toolchain.as_deref()?;
        (fits && !compiler.has_core_source()).then_some(toolchain)
    });
    match lacking_source {
        Some(toolchain) => command.args(["component", "add", "rust-src", "--toolchain", toolchain]),
        None => command.args(["toolchain", "install", RUSTUP_TOOLCHAIN]).args([
            "--profile",
            "minimal",
            "--component",
            "rust-src",
        ]),
    };
    command
}

fn no_compiler(refusals: &[(Candidate, String)], compilers: &[Compiler]) -> Missing {
    let mut why = "none of the candidates will do:".to_owned();
    for (candidate, reason) in refusals {
        why.push_str(&format!("\n    {candidate}: {reason}"));
    }
    if refusals.is_empty() {
        why = "no rustc was found by SPIP_EBPF_RUSTC, rustup, PATH or in /usr/bin".to_owned();
    }
    Missing { what: "a rustc that can compile for the kernel".to_owned(), why, remedy: compiler_remedy(compilers) }
}

fn compiler_remedy(compilers: &[Compiler]) -> String {
    if process::find("apt-get").is_some() && packages::apt_knows(APT_PACKAGES[0]) {
        return format!("apt-get install --no-remove {}", APT_PACKAGES.join(" "));
    }
    if process::find("rustup").is_some() {
        return process::shown(&rustup_remedy(compilers));
    }
    let by_distribution = [
        ("dnf", "dnf install rust cargo rust-src"),
        ("pacman", "pacman -S --needed rust rust-src"),
        ("apk", "apk add rust cargo rust-src"),
    ];
    by_distribution
        .iter()
        .find(|(program, _)| process::find(program).is_some())
        .map_or_else(|| "install rustup and run this command again".to_owned(), |(_, command)| (*command).to_owned())
}

fn no_linker(project: &Project, why: &str) -> Missing {
    Missing {
        what: "bpf-linker".to_owned(),
        why: why.to_owned(),
        remedy: process::shown(&linker::install_command(project)),
    }
}
