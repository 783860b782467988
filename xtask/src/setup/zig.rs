//! Zig as C compiler and linker: programs that start with a C library older than this machine's, or on another
//! architecture.
//!
//! It brings the symbols of each glibc, and headers and start files of each architecture, so that neither a root of an old
//! distribution nor a cross compiler is needed. Both come from PyPI, pinned, into the target folder: only packages are made
//! with them. cargo-zigbuild is what passes cargo's and the C crates' command lines on to it.

use std::path::PathBuf;
use std::process::Command;

use super::Missing;
use super::python::Environment;
use super::system::{Machine, System};
use crate::process;
use crate::project::Project;

/// Versions and hashes, as pip reads them.
pub(super) const REQUIREMENTS: &str = include_str!("zig.txt");

/// Zig and what has cargo use it.
pub(crate) struct Zig {
    environment: Environment,
    cache: PathBuf,
}

/// Finds Zig; with `install`, installs it where it is missing. The error is the reason why there is none.
pub(crate) fn ready(project: &Project, install: bool) -> Result<Zig, String> {
    let environment = Environment {
        folder: project.tools().join("zig"),
        requirements: REQUIREMENTS,
        about: "a linker for older C libraries and other architectures (90 MB, 440 MB on disk)",
        checks: &[&["cargo-zigbuild", "--version"], &["python", "-m", "ziglang", "version"]],
    };
    environment.ready(install, "cargo xtask setup --for package")?;
    Ok(Zig { environment, cache: project.tools().join("zig-cache") })
}

impl Zig {
    /// Returns a cargo command whose target is `triple` and whose C library is no newer than `glibc`.
    pub(crate) fn cargo(&self, project: &Project, command: &str, triple: &str, glibc: &str) -> Command {
        let mut cargo = Command::new(self.environment.program("cargo-zigbuild"));
        cargo
            .current_dir(&project.root)
            .args([command, "--target", &format!("{triple}.{glibc}")])
            .env("CARGO", project.cargo_program())
            .env("CARGO_ZIGBUILD_PYTHON_PATH", self.environment.program("python"))
            .env("CARGO_ZIGBUILD_CACHE_DIR", &self.cache)
            .env("ZIG_GLOBAL_CACHE_DIR", &self.cache)
            .env("ZIG_LOCAL_CACHE_DIR", &self.cache);
        // `cargo run` sets the first for this program; the others would be for one machine what is for all.
        for variable in ["CARGO_MANIFEST_DIR", "CARGO_BUILD_TARGET", "RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "CFLAGS"] {
            cargo.env_remove(variable);
        }
        cargo
    }
}

/// Makes sure that the toolchain has the standard library of a target.
pub(super) fn standard_library(project: &Project, triple: &str, install: bool) -> Result<(), Missing> {
    let library = || {
        let sysroot = process::output(Command::new("rustc").args(["--print", "sysroot"]).current_dir(&project.root));
        sysroot.is_ok_and(|root| PathBuf::from(root.trim()).join("lib/rustlib").join(triple).join("lib").is_dir())
    };
    if library() {
        return Ok(());
    }
    let machine = Machine::new(project);
    let remedy = format!("rustup target add {triple}");
    let mut why = "the toolchain was installed without".to_owned();
    if install && machine.has("rustup") {
        if let Err(reason) = machine.change(&["rustup", "target", "add", triple]) {
            why = format!("`{remedy}`: {reason}");
        } else if library() {
            return Ok(());
        }
    }
    Err(Missing { what: format!("Rust's standard library for {triple}"), why, remedy })
}
