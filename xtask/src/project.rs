//! Paths of the project: the checkout, the target folder, the products of the build.

use std::env;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::process;

/// The places of one checkout.
pub(crate) struct Project {
    /// The folder of the workspace's `Cargo.toml`.
    pub(crate) root: PathBuf,
    /// Cargo's target folder, wherever its configuration or `CARGO_TARGET_DIR` put it.
    pub(crate) target: PathBuf,
    /// The cargo that runs this program, so that userspace is built by one toolchain.
    cargo: OsString,
}

impl Project {
    /// Asks cargo, which alone knows every way in which the target folder can be moved.
    pub(crate) fn locate() -> Result<Self> {
        let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        // At run time first: a checkout that was moved together with its target folder still works.
        let manifest =
            env::var_os("CARGO_MANIFEST_DIR").map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
        let root = manifest.parent().context("xtask lies outside of a workspace")?.to_owned();
        let metadata = process::output(
            Command::new(&cargo)
                .args(["metadata", "--no-deps", "--format-version", "1"])
                .arg("--manifest-path")
                .arg(root.join("Cargo.toml")),
        )?;
        let metadata: Value = serde_json::from_str(&metadata).context("cargo metadata")?;
        let target = metadata["target_directory"].as_str().context("cargo metadata names no target_directory")?.into();
        Ok(Self { root, target, cargo })
    }

    /// A cargo command for the userspace workspace.
    pub(crate) fn cargo(&self, command: &str) -> Command {
        let mut cargo = Command::new(&self.cargo);
        // `cargo run` sets these for this program; a nested cargo would take them for the caller's wish.
        cargo.env_remove("CARGO_MANIFEST_DIR");
        cargo.current_dir(&self.root).arg(command);
        cargo
    }

    /// The cargo itself, for programs that call it.
    pub(crate) fn cargo_program(&self) -> &OsStr {
        &self.cargo
    }

    /// The manifest of the kernel side, a workspace of its own.
    pub(crate) fn ebpf_manifest(&self) -> PathBuf {
        self.root.join("spip-ebpf/Cargo.toml")
    }

    /// The kernel object that the agent's build embeds.
    pub(crate) fn ebpf_object(&self) -> PathBuf {
        self.ebpf_folder().join("spip")
    }

    /// All that concerns the kernel side.
    pub(crate) fn ebpf_folder(&self) -> PathBuf {
        self.target.join("ebpf")
    }

    /// Tools that `setup` builds for this checkout only.
    pub(crate) fn tools(&self) -> PathBuf {
        self.target.join("tools")
    }

    /// The release agent.
    pub(crate) fn agent(&self) -> PathBuf {
        self.target.join("release/spip-agent")
    }

    /// A path as a reader at the root of the checkout would write it.
    pub(crate) fn relative<'a>(&self, path: &'a Path) -> std::path::Display<'a> {
        path.strip_prefix(&self.root).unwrap_or(path).display()
    }
}
