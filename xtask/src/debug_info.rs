//! Moves the debug information of a release program into a file beside it.
//!
//! The program of 60 MB becomes one of 12 MB. `PROGRAM.debug` beside it, or in the package of debug information below
//! /usr/lib/debug, is found by debuggers and by the backtrace of a panic through the link that the program keeps
//! (`.gnu_debuglink`). Symbols stay: a backtrace without the file still names functions.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use object::Endianness;
use object::elf::FileHeader64;
use object::read::elf::FileHeader as _;

use crate::architecture::Architecture;
use crate::process;
use crate::report;

/// Returns where the debug information of a program is.
pub(crate) fn beside(program: &Path) -> PathBuf {
    program.with_extension("debug")
}

/// Splits a program in place, unless cargo has not replaced it since it was split.
pub(crate) fn split(program: &Path, architecture: Architecture) -> Result<()> {
    let Some(objcopy) = objcopy(architecture) else {
        report::note("objcopy is not installed (binutils): the program keeps its debug information");
        return Ok(());
    };
    if !has_debug_information(program)? {
        return Ok(());
    }
    let (debug, stripped) = (beside(program), program.with_extension("stripped"));
    process::output(
        command(&objcopy).args(["--only-keep-debug", "--compress-debug-sections=zlib"]).args([program, &debug]),
    )?;
    // A folder has its own copy of the information: the link holds the name of the file and a checksum.
    let mut link = std::ffi::OsString::from("--add-gnu-debuglink=");
    link.push(&debug);
    process::output(command(&objcopy).arg("--strip-debug").arg(link).args([program, &stripped]))?;
    // Renamed, not written: cargo keeps a second link to its file.
    fs::rename(&stripped, program).with_context(|| format!("cannot replace {}", program.display()))?;
    let size = |path: &Path| fs::metadata(path).map_or(0, |file| file.len() / 1_000_000);
    let name = debug.file_name().unwrap_or_default().display();
    report::step("Stripped", format!("{} MB, and {} MB of debug information in {name}", size(program), size(&debug)));
    Ok(())
}

/// Copies a program without its debug information; with it where no tool knows the architecture.
pub(crate) fn leave_out(program: &Path, copy: &Path, architecture: Architecture) -> Result<()> {
    match objcopy(architecture) {
        Some(objcopy) => process::output(command(&objcopy).arg("--strip-debug").args([program, copy])).map(|_| ()),
        None => fs::copy(program, copy).map(|_| ()).with_context(|| format!("cannot copy {}", program.display())),
    }
}

/// Returns an objcopy that knows an architecture: that of binutils knows its own, that of the Rust toolchain all.
fn objcopy(architecture: Architecture) -> Option<PathBuf> {
    if architecture.is_own() {
        return process::find("objcopy");
    }
    let cross = process::find(&format!("{}-linux-gnu-objcopy", architecture.name()));
    cross.or_else(|| {
        let own = Architecture::own().ok()?;
        let sysroot = process::output(Command::new("rustc").args(["--print", "sysroot"])).ok()?;
        let tool = Path::new(sysroot.trim()).join("lib/rustlib").join(own.triple()).join("bin/rust-objcopy");
        tool.exists().then_some(tool)
    })
}

/// Returns a command for an objcopy. That of the toolchain needs the toolchain's libraries, which cargo names to the programs
/// that it runs, and nothing else does.
fn command(objcopy: &Path) -> Command {
    let mut command = Command::new(objcopy);
    if objcopy.ends_with("rust-objcopy")
        && let Some(libraries) = objcopy.ancestors().nth(4)
    {
        command.env("LD_LIBRARY_PATH", libraries);
    }
    command
}

fn has_debug_information(program: &Path) -> Result<bool> {
    let bytes = fs::read(program).with_context(|| format!("cannot read {}", program.display()))?;
    let header = FileHeader64::<Endianness>::parse(bytes.as_slice())?;
    let endian = header.endian()?;
    let sections = header.sections(endian, bytes.as_slice())?;
    Ok(sections.section_by_name(endian, b".debug_line").is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_split_once_and_still_starts() {
        // This very test has debug information.
        let program = std::env::temp_dir().join(format!("spip-xtask-split-{}", std::process::id()));
        let own = std::env::current_exe().expect("this program has a name");
        fs::copy(own, &program).expect("copy");
        let before = fs::metadata(&program).expect("there").len();
        let architecture = Architecture::own().expect("packages are made here");
        split(&program, architecture).expect("split");
        let debug = beside(&program);
        assert!(fs::metadata(&program).expect("there").len() < before);
        assert!(process::succeeds(Command::new(&program).arg("--list")));
        let sections = |path: &Path| process::output(Command::new("objdump").arg("-h").arg(path)).expect("objdump");
        assert!(sections(&program).contains(".gnu_debuglink") && !sections(&program).contains(" .debug_line"));
        assert!(sections(&debug).contains(" .debug_line"));
        let first = fs::read(&debug).expect("there");
        split(&program, architecture).expect("nothing to split");
        assert_eq!(fs::read(&debug).expect("there"), first);
        fs::remove_file(program).and_then(|()| fs::remove_file(debug)).expect("remove");
    }
}
