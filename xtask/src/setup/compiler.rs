//! The rustc that can compile for the kernel, and how to come by one.
//!
//! There is no prebuilt `core` for `bpfel-unknown-none`, so the compiler must bring core's source
//! (`rust-src`) for `-Z build-std`. A nightly allows that by itself; any other rustc does with
//! `RUSTC_BOOTSTRAP=1`. Candidates are tried in a fixed order and each refusal keeps its reason: a
//! newcomer's machine usually has a rustc that is almost right, and should hear what it lacks.

use std::env;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::process;

/// Path of core's source inside a sysroot.
const CORE_SOURCE: &str = "lib/rustlib/src/rust/library/core/Cargo.toml";

/// The oldest rustc that the kernel side's dependencies compile with (`rust-version` of aya-ebpf 0.2.1).
pub(super) const OLDEST: Version = Version(1, 87, 0);

/// The variable that names a compiler.
const NAMED: &str = "SPIP_EBPF_RUSTC";

/// A smaller file of this name is a linker script that points to the library, not the library.
const SMALLEST_LIBRARY_BYTES: u64 = 1 << 20;

/// `major.minor.patch`, of a compiler or a tool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Version(pub(crate) u32, pub(crate) u32, pub(crate) u32);

impl Version {
    /// Reads the leading numbers of `1.97.0-nightly` or `22.1`; absent parts count as 0.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let numbers = text.split(|c: char| c != '.' && !c.is_ascii_digit()).next()?;
        let mut parts = numbers.split('.');
        let major = parts.next()?.parse().ok()?;
        let mut or_zero = || parts.next().and_then(|part| part.parse().ok()).unwrap_or(0);
        Some(Self(major, or_zero(), or_zero()))
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.0, self.1, self.2)
    }
}

/// A rustc that may or may not do, and why it is looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Candidate {
    pub(crate) rustc: PathBuf,
    /// Origin, for people: `SPIP_EBPF_RUSTC`, `rustup toolchain nightly`, `PATH`.
    pub(crate) origin: String,
    /// The rustup toolchain's name, where it is one.
    pub(crate) toolchain: Option<String>,
    /// Set when it is the toolchain that rustup uses by default.
    pub(crate) is_default: bool,
}

impl fmt::Display for Candidate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.rustc.display(), self.origin)
    }
}

/// A rustc's description of itself, before the question whether it is usable.
#[derive(Clone, Debug)]
pub(crate) struct Compiler {
    pub(crate) candidate: Candidate,
    pub(crate) cargo: PathBuf,
    pub(crate) version: Version,
    pub(crate) nightly: bool,
    /// The LLVM inside, whose bitcode the linker must be able to read.
    pub(crate) llvm: Version,
    /// LLVM of that version as a shared library, unless it is linked statically.
    pub(crate) llvm_library: Option<PathBuf>,
    pub(crate) sysroot: PathBuf,
    /// Set when the sources of core are there.
    pub(crate) has_sources: bool,
}

/// Every compiler of a machine.
#[derive(Debug, Default)]
pub(crate) struct Survey {
    /// Set when `SPIP_EBPF_RUSTC` names the only compiler to use.
    pub(crate) is_named: bool,
    pub(crate) compilers: Vec<Compiler>,
    /// Candidates that are not usable, each with the reason.
    pub(crate) refusals: Vec<(Candidate, String)>,
}

/// Examines every candidate of this machine, in the order of preference.
pub(super) fn survey() -> Survey {
    let mut survey = Survey { is_named: env::var_os(NAMED).is_some(), ..Survey::default() };
    for candidate in candidates() {
        match Compiler::examine(candidate.clone()) {
            // A link or a proxy to one that was seen already.
            Ok(compiler) if survey.compilers.iter().any(|seen| seen.candidate.rustc == compiler.candidate.rustc) => {}
            Ok(compiler) => survey.compilers.push(compiler),
            Err(reason) => survey.refusals.push((candidate, reason)),
        }
    }
    survey
}

impl Compiler {
    /// Asks the candidate; the error is the reason why nothing can be done with it.
    pub(crate) fn examine(candidate: Candidate) -> Result<Self, String> {
        let ask = |arguments: &[&str]| {
            let mut rustc = Command::new(&candidate.rustc);
            // A proxy of rustup would answer for the toolchain of the caller.
            rustc.env_remove("RUSTUP_TOOLCHAIN").env_remove("LD_LIBRARY_PATH");
            process::output(rustc.args(arguments)).map_err(|error| format!("{error:#}"))
        };
        let about = ask(&["-vV"])?;
        let field =
            |name: &str| about.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": ")).map(str::to_owned);
        let release = field("release").ok_or("`rustc -vV` names no release")?;
        let version = Version::parse(&release).ok_or("`rustc -vV` names no release")?;
        let llvm = field("LLVM version").and_then(|llvm| Version::parse(&llvm)).ok_or("it is built without LLVM")?;
        let sysroot = PathBuf::from(ask(&["--print", "sysroot"])?.trim());
        // A proxy stands for the toolchain behind it; so do links that distributions make.
        let inside = sysroot.join("bin/rustc");
        let rustc = if inside.exists() { inside } else { candidate.rustc.clone() };
        let cargo = Some(rustc.with_file_name("cargo"))
            .filter(|cargo| cargo.exists())
            .or_else(|| process::find("cargo"))
            .ok_or("there is no cargo beside it or on PATH")?;
        Ok(Self {
            has_sources: sysroot.join(CORE_SOURCE).exists(),
            llvm_library: llvm_library(&sysroot, &rustc, llvm),
            cargo,
            nightly: release.contains("nightly") || release.contains("-dev"),
            version,
            llvm,
            sysroot,
            candidate: Candidate { rustc, ..candidate },
        })
    }

    /// Checks that it can compile core for the kernel; the error is the reason why not.
    pub(crate) fn can_build_core(&self) -> Result<(), String> {
        if self.version < OLDEST {
            return Err(format!("rustc {} is older than {OLDEST}, which the kernel side needs", self.version));
        }
        if !self.has_sources {
            return Err(format!(
                "rustc {} has no rust-src ({} is missing)",
                self.version,
                self.sysroot.join(CORE_SOURCE).display()
            ));
        }
        Ok(())
    }
}

/// Every rustc of this system in the order of preference: the one asked for, rustup's with nightly first,
/// PATH, /usr/bin. With `SPIP_EBPF_RUSTC` only that one: who names a compiler wants no other.
fn candidates() -> Vec<Candidate> {
    if let Some(rustc) = env::var_os(NAMED) {
        return vec![Candidate { rustc: rustc.into(), origin: NAMED.to_owned(), toolchain: None, is_default: false }];
    }
    let mut found = rustup_toolchains();
    let usr_bin = PathBuf::from("/usr/bin/rustc");
    let on_path = process::find_all("rustc");
    for rustc in on_path.into_iter().chain(usr_bin.exists().then_some(usr_bin)) {
        let origin = "PATH".to_owned();
        found.push(Candidate { rustc, origin, toolchain: None, is_default: false });
    }
    found
}

fn rustup_toolchains() -> Vec<Candidate> {
    let Ok(listed) = process::output(Command::new("rustup").args(["toolchain", "list"])) else {
        return Vec::new();
    };
    nightly_first(&listed)
        .into_iter()
        .filter_map(|(toolchain, is_default)| {
            let rustc =
                process::output(Command::new("rustup").args(["which", "--toolchain", toolchain, "rustc"])).ok()?;
            Some(Candidate {
                rustc: rustc.trim().into(),
                origin: format!("rustup toolchain {toolchain}"),
                toolchain: Some(toolchain.to_owned()),
                is_default,
            })
        })
        .collect()
}

/// Returns the toolchains of `rustup toolchain list`, nightly ones first, otherwise in the order given; and whether each
/// is the default.
fn nightly_first(listed: &str) -> Vec<(&str, bool)> {
    let names = listed.lines().filter_map(|line| Some((line.split_whitespace().next()?, line.contains("default"))));
    let mut toolchains: Vec<(&str, bool)> = names.filter(|(name, _)| *name != "no").collect();
    toolchains.sort_by_key(|(name, _)| !name.starts_with("nightly"));
    toolchains
}

/// The shared LLVM of this rustc: in its sysroot (rustup), or what the loader finds (distributions).
fn llvm_library(sysroot: &Path, rustc: &Path, llvm: Version) -> Option<PathBuf> {
    let in_sysroot = fs::read_dir(sysroot.join("lib"))
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| is_llvm_library(path, llvm));
    in_sysroot.or_else(|| {
        let loaded = process::output(Command::new("ldd").arg(rustc)).ok()?;
        loaded
            .lines()
            .filter_map(|line| line.split("=> ").nth(1)?.split(" (").next())
            .map(PathBuf::from)
            .find(|path| is_llvm_library(path, llvm))
    })
}

/// Only a name with the major version in it: /usr/lib often holds the LLVM of other programs, too.
fn is_llvm_library(path: &Path, llvm: Version) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let rest = name.strip_prefix("libLLVM").map(|rest| rest.trim_start_matches(".so").trim_start_matches(['-', '.']));
    rest.and_then(Version::parse).is_some_and(|version| version.0 == llvm.0)
        && fs::metadata(path).is_ok_and(|file| file.len() >= SMALLEST_LIBRARY_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_with_and_without_suffix() {
        assert_eq!(Version::parse("1.97.0-nightly"), Some(Version(1, 97, 0)));
        assert_eq!(Version::parse("22.1"), Some(Version(22, 1, 0)));
        assert_eq!(Version::parse("22"), Some(Version(22, 0, 0)));
        assert_eq!(Version::parse("unknown"), None);
        assert_eq!(Version::parse(""), None);
        assert!(Version(1, 9, 9) < Version(1, 87, 0));
    }

    #[test]
    fn nightly_toolchains_come_first() {
        let listed = "stable-x86_64 (active, default)\nnightly-x86_64\n1.95.0-x86_64\n";
        let expected = [("nightly-x86_64", false), ("stable-x86_64", true), ("1.95.0-x86_64", false)];
        assert_eq!(nightly_first(listed), expected);
    }

    #[test]
    fn no_installed_toolchains_are_no_candidates() {
        assert!(nightly_first("no installed toolchains\n").is_empty());
    }

    #[test]
    fn a_linker_script_is_no_library() {
        let folder = env::temp_dir().join(format!("spip-xtask-llvm-{}", std::process::id()));
        fs::create_dir_all(&folder).expect("a folder for the test");
        let script = folder.join("libLLVM-22-rust-1.95.0-stable.so");
        let library = folder.join("libLLVM.so.22.1-rust-1.95.0-stable");
        fs::write(&script, "INPUT(libLLVM.so.22.1)").expect("write the script");
        fs::File::create(&library).and_then(|file| file.set_len(SMALLEST_LIBRARY_BYTES)).expect("write the library");
        let version = Version(22, 1, 2);
        assert!(!is_llvm_library(&script, version));
        assert!(is_llvm_library(&library, version));
        assert!(!is_llvm_library(&library, Version(21, 1, 0)));
        fs::remove_dir_all(&folder).expect("remove the folder");
    }

    #[test]
    fn what_is_no_compiler_is_refused_with_a_reason() {
        let candidate = |rustc: &str| Candidate {
            rustc: rustc.into(),
            origin: "test".to_owned(),
            toolchain: None,
            is_default: false,
        };
        assert!(Compiler::examine(candidate("/no/such/rustc")).is_err());
        let error = Compiler::examine(candidate("/bin/true")).expect_err("true is no rustc");
        assert!(error.contains("no release"), "{error}");
    }
}
