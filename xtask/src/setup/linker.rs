//! bpf-linker: the one that fits the LLVM of the chosen compiler.
//!
//! The linker reads the compiler's bitcode, so its LLVM must be at least as new. Version 0.10.4 brings no
//! LLVM: it loads the shared one of a rustc, which is why it is pinned and built into the target folder.
//! It takes the first `libLLVM*` of the first folder that has one, and system folders hold several;
//! therefore it is shown a folder that holds exactly one link. From 0.11 on the linker needs LLVM's
//! development files to be built, so for newer compilers only one that is there already is used.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use anyhow::{Context, Result};

use super::compiler::{Compiler, Version};
use super::system::System;
use super::{Missing, cargo_tool};
use crate::project::Project;
use crate::report;

const TOOL: &str = "bpf-linker";

/// Pinned: the last version that loads the LLVM of a rustc.
const PINNED: Version = Version(0, 10, 4);

/// The LLVM that [`PINNED`] speaks to.
const PINNED_LLVM: u32 = 22;

/// The oldest LLVM whose BPF bitcode it is trusted with here.
const OLDEST_LLVM: u32 = 20;

/// From this version on a bpf-linker carries its own LLVM.
const SELF_CONTAINED: Version = Version(0, 11, 0);

/// The LLVM of versions from [`SELF_CONTAINED`] on, as released.
const SELF_CONTAINED_LLVM: u32 = 23;

/// A linker with what it must be shown to work.
#[derive(Debug)]
pub(crate) struct Linker {
    pub(crate) program: PathBuf,
    pub(crate) version: Version,
    /// The LLVM to load; `None` for a linker that carries its own.
    pub(crate) library: Option<PathBuf>,
}

/// Options for a compiler's linker.
#[derive(Debug)]
pub(super) enum Found {
    Ready(Linker),
    /// None is there, but [`install`] can build one that loads this library.
    Installable(PathBuf),
    /// The reason and remedy.
    Impossible(String),
}

/// Looks for a linker that reads this compiler's bitcode: in the target folder, then on PATH. `others` are
/// compilers whose LLVM library may be borrowed.
pub(super) fn find(system: &dyn System, compiler: &Compiler, others: &[Compiler]) -> Found {
    let library = library(compiler, others);
    let built = cargo_tool::built(system, TOOL);
    for (version, program) in cargo_tool::all(system, TOOL) {
        // An outdated one in the target folder is ours to replace.
        if program == built && version != PINNED {
            continue;
        }
        let brings_llvm = version >= SELF_CONTAINED;
        let is_loader = version.0 == PINNED.0 && version.1 == PINNED.1 && library.is_some();
        if brings_llvm && compiler.llvm.0 <= SELF_CONTAINED_LLVM || is_loader {
            let library = library.clone().filter(|_| !brings_llvm);
            return Found::Ready(Linker { program, version, library });
        }
    }
    match library {
        Some(library) => Found::Installable(library),
        None => Found::Impossible(no_linker_for(compiler)),
    }
}

/// Builds the pinned linker for a compiler, or returns why there is none.
pub(super) fn install(system: &dyn System, compiler: &Compiler, library: PathBuf) -> Result<Linker, Missing> {
    let what = format!("bpf-linker for {} (LLVM {}); takes a minute, once", compiler.candidate, compiler.llvm);
    report::step("Building", what);
    let program = cargo_tool::install(system, TOOL, PINNED)?;
    Ok(Linker { program, version: PINNED, library: Some(library) })
}

/// Reports the linker as missing.
pub(super) fn missing(system: &dyn System) -> Missing {
    cargo_tool::missing(system, TOOL, PINNED)
}

impl Linker {
    /// A folder in which the linker finds the one LLVM that it is to load; made where it is missing.
    pub(crate) fn library_folder(&self, project: &Project) -> Result<Option<PathBuf>> {
        let Some(library) = &self.library else {
            return Ok(None);
        };
        let folder = project.tools().join("llvm");
        let link = folder.join("libLLVM.so");
        if fs::read_link(&link).ok().as_ref() != Some(library) {
            match fs::remove_dir_all(&folder) {
                Err(error) if error.kind() != ErrorKind::NotFound => {
                    return Err(error).with_context(|| format!("cannot remove {}", folder.display()));
                }
                _ => {}
            }
            fs::create_dir_all(&folder)
                .and_then(|()| symlink(library, &link))
                .with_context(|| format!("cannot link {}", link.display()))?;
        }
        Ok(Some(folder))
    }
}

/// A shared LLVM that the pinned linker can load and that is at least as new as the compiler's: its own, or
/// that of another compiler on this system.
fn library(compiler: &Compiler, others: &[Compiler]) -> Option<PathBuf> {
    if !(OLDEST_LLVM..=PINNED_LLVM).contains(&compiler.llvm.0) {
        return None;
    }
    let loadable: Vec<&Compiler> = std::iter::once(compiler)
        .chain(others)
        .filter(|candidate| candidate.llvm.0 == PINNED_LLVM && candidate.llvm_library.is_some())
        .collect();
    loadable
        .iter()
        .find(|candidate| candidate.llvm >= compiler.llvm)
        // Patch releases of one LLVM read each other's bitcode.
        .or(loadable.first())
        .and_then(|candidate| candidate.llvm_library.clone())
}

fn no_linker_for(compiler: &Compiler) -> String {
    format!(
        "no bpf-linker for its LLVM {}: {PINNED} needs the shared LLVM {PINNED_LLVM} of a rustc and reads {OLDEST_LLVM} to \
         {PINNED_LLVM}; one by `cargo binstall bpf-linker` reads up to {SELF_CONTAINED_LLVM}",
        compiler.llvm
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::setup::fake;

    fn compiler(llvm: Version, library: Option<&str>) -> Compiler {
        let llvm_library = library.map(Into::into);
        Compiler { llvm, llvm_library, ..fake::compiler("", Version(1, 95, 0), 22, true) }
    }

    #[test]
    fn the_compilers_own_library_is_preferred() {
        let own = compiler(Version(22, 1, 2), Some("/own"));
        let other = compiler(Version(22, 1, 8), Some("/other"));
        assert_eq!(library(&own, &[other]), Some("/own".into()));
    }

    #[test]
    fn an_older_compiler_borrows_a_newer_library() {
        let own = compiler(Version(20, 1, 0), Some("/own"));
        let other = compiler(Version(22, 1, 8), Some("/other"));
        assert_eq!(library(&own, &[other]), Some("/other".into()));
        assert_eq!(library(&own, &[]), None);
    }

    #[test]
    fn a_compiler_newer_than_the_linker_gets_no_library() {
        let own = compiler(Version(23, 1, 0), Some("/own"));
        let other = compiler(Version(22, 1, 8), Some("/other"));
        assert_eq!(library(&own, &[other]), None);
        assert!(no_linker_for(&own).contains("binstall"));
    }
}
