//! `cargo xtask build-ebpf`: the kernel side, compiled to the object that the agent embeds.
//!
//! The object is put at `ebpf/spip` in the target folder, where the agent's build script looks. It is
//! replaced only when its bytes change, so that the agent is not compiled again for nothing.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::process;
use crate::project::Project;
use crate::report;
use crate::setup::{self, Need, Toolchain};

const TARGET: &str = "bpfel-unknown-none";

/// The binary of the spip-ebpf crate.
const BINARY: &str = "spip";

/// `e_machine` of an eBPF object (Linux, include/uapi/linux/elf-em.h).
const EM_BPF: u16 = 247;

/// Sets up and builds.
pub(crate) fn run(project: &Project) -> Result<()> {
    let toolchain = setup::toolchain(project, Need::Build)?;
    build(project, &toolchain)
}

/// Builds with a toolchain that is known to be there.
pub(crate) fn build(project: &Project, toolchain: &Toolchain) -> Result<()> {
    let folder = project.ebpf_folder().join("build");
    report::step("Building", format!("the kernel side with {}", toolchain.compiler.candidate));
    let mut cargo = cargo(project, toolchain)?;
    cargo
        .args(["build", "--release", "--target", TARGET])
        .args(["-Z", "build-std=core"])
        .arg("--manifest-path")
        .arg(project.ebpf_manifest())
        .arg("--target-dir")
        .arg(&folder);
    process::run(&mut cargo)?;
    let built = folder.join(TARGET).join("release").join(BINARY);
    let object = fs::read(&built).with_context(|| format!("cannot read {}", built.display()))?;
    check(&object).with_context(|| format!("{} is no usable object", built.display()))?;
    let destination = project.ebpf_object();
    if place(&object, &destination)? {
        report::step("Built", format!("{} ({} bytes)", project.relative(&destination), object.len()));
    } else {
        report::step("Unchanged", project.relative(&destination));
    }
    Ok(())
}

/// cargo of the kernel's toolchain, without what the caller's environment says about another one.
fn cargo(project: &Project, toolchain: &Toolchain) -> Result<Command> {
    let Toolchain { compiler, linker } = toolchain;
    let mut cargo = Command::new(&compiler.cargo);
    for (key, _) in std::env::vars_os() {
        if is_for_userspace(&key.to_string_lossy()) {
            cargo.env_remove(&key);
        }
    }
    if !compiler.nightly {
        cargo.env("RUSTC_BOOTSTRAP", "1");
    }
    if let Some(folder) = linker.library_folder(project)? {
        cargo.env("LD_LIBRARY_PATH", folder);
    }
    cargo
        .env("RUSTC", &compiler.candidate.rustc)
        .env("CARGO_TARGET_BPFEL_UNKNOWN_NONE_LINKER", &linker.program)
        .env("CARGO_TARGET_BPFEL_UNKNOWN_NONE_RUSTFLAGS", "-Cdebuginfo=2 -Clink-arg=--btf")
        .current_dir(project.root.join("spip-ebpf"));
    Ok(cargo)
}

/// Reports whether a variable concerns the userspace compiler or the package that `cargo run` started. Those on how
/// crates are fetched stay.
fn is_for_userspace(variable: &str) -> bool {
    let prefixes = ["RUSTC", "CARGO_BUILD_", "CARGO_PKG_", "CARGO_PROFILE_"];
    prefixes.iter().any(|prefix| variable.starts_with(prefix))
        || variable.ends_with("RUSTFLAGS")
        || [
            "CARGO",
            "CARGO_MANIFEST_DIR",
            "CARGO_MANIFEST_PATH",
            "CARGO_TARGET_DIR",
            "LD_LIBRARY_PATH",
            "RUSTUP_TOOLCHAIN",
        ]
        .contains(&variable)
}

/// Checks for the parts that a wrong linker or flag would have left out: the machine of the ELF header and the BTF
/// section.
fn check(object: &[u8]) -> Result<()> {
    let machine = object.get(18..20).map(|bytes| u16::from_le_bytes([bytes[0], bytes[1]]));
    if !object.starts_with(b"\x7fELF") || machine != Some(EM_BPF) {
        bail!("not an ELF file for eBPF");
    }
    // Section names end with 0 and share their ends: this one may be stored as the end of `.rel.BTF`.
    if !object.windows(5).any(|window| window == b".BTF\0") {
        bail!("it has no BTF, without which its maps cannot be created");
    }
    Ok(())
}

/// Puts the object in place unless it is there already; `true` when it was written.
fn place(object: &[u8], destination: &Path) -> Result<bool> {
    if fs::read(destination).is_ok_and(|existing| existing == object) {
        return Ok(false);
    }
    // Renamed into place: a build of the agent that runs meanwhile never embeds half an object.
    let partial = destination.with_extension("partial");
    fs::write(&partial, object)
        .and_then(|()| fs::rename(&partial, destination))
        .with_context(|| format!("cannot write {}", destination.display()))?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(machine: u16, names: &[u8]) -> Vec<u8> {
        let mut bytes = b"\x7fELF".to_vec();
        bytes.resize(18, 0);
        bytes.extend(machine.to_le_bytes());
        bytes.extend(names);
        bytes
    }

    #[test]
    fn an_object_needs_the_machine_and_btf() {
        check(&object(EM_BPF, b"\0.text\0.BTF\0")).expect("both are there");
        check(&object(EM_BPF, b"\0.rel.BTF\0")).expect("the name is shared");
        assert!(check(&object(EM_BPF, b"\0.text\0.BTF.ext\0")).is_err());
        assert!(check(&object(62, b"\0.BTF\0")).is_err());
        assert!(check(b"\x7fELF").is_err());
        assert!(check(b"").is_err());
    }

    #[test]
    fn the_callers_flags_go_and_its_network_settings_stay() {
        for gone in ["RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "RUSTC_WRAPPER", "RUSTUP_TOOLCHAIN"] {
            assert!(is_for_userspace(gone), "{gone}");
        }
        for kept in ["CARGO_HOME", "CARGO_HTTP_PROXY", "CARGO_NET_OFFLINE", "PATH"] {
            assert!(!is_for_userspace(kept), "{kept}");
        }
    }

    #[test]
    fn an_unchanged_object_is_not_touched() {
        let path = std::env::temp_dir().join(format!("spip-xtask-object-{}", std::process::id()));
        assert!(place(b"one", &path).expect("write"));
        let written = fs::metadata(&path).and_then(|file| file.modified());
        assert!(!place(b"one", &path).expect("compare"));
        let later = fs::metadata(&path).and_then(|file| file.modified());
        assert_eq!(written.expect("time"), later.expect("time"));
        assert!(place(b"two", &path).expect("replace"));
        fs::remove_file(&path).expect("remove");
    }
}
