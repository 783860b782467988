//! What packaged programs need of the machine that they are installed on: shared libraries, and the C library in a version.
//!
//! It is read from the programs themselves, from what the dynamic loader reads: the libraries that it looks for, and the
//! symbol versions that it refuses to start without.

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use object::Endianness;
use object::elf::{DT_NEEDED, FileHeader64};
use object::read::elf::{Dyn as _, FileHeader as _};

use super::archive;
use crate::architecture::Architecture;

/// The newest C library that packaged programs may need: that of RHEL 8 and its family. Debian 11 has 2.31, Ubuntu 20.04
/// 2.31 too.
pub(crate) const NEWEST_GLIBC: Glibc = Glibc(2, 28);

/// Debian's packages of the libraries that a program may need.
const PACKAGES: [(&str, &str); 9] = [
    ("libc.so.6", "libc6"),
    ("libm.so.6", "libc6"),
    ("libdl.so.2", "libc6"),
    ("librt.so.1", "libc6"),
    ("libpthread.so.0", "libc6"),
    ("libutil.so.1", "libc6"),
    ("ld-linux-x86-64.so.2", "libc6"),
    ("ld-linux-aarch64.so.1", "libc6"),
    ("libgcc_s.so.1", "libgcc-s1"),
];

/// A version of the C library.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Glibc(pub(crate) u32, pub(crate) u32);

impl fmt::Display for Glibc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.0, self.1)
    }
}

/// Needs of all programs of a package together.
#[derive(Debug)]
pub(super) struct Needs {
    libraries: BTreeSet<String>,
    /// The newest symbol version of the C library, and the program that needs it.
    glibc: (Glibc, PathBuf),
}

impl Needs {
    /// Reads every program below a folder.
    pub(super) fn of(root: &Path, architecture: Architecture) -> Result<Self> {
        let mut libraries = BTreeSet::new();
        let mut glibc: Option<(Glibc, PathBuf)> = None;
        for file in archive::all_files(root)? {
            let bytes = fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
            if !bytes.starts_with(b"\x7fELF") {
                continue;
            }
            let program = of_program(&bytes, architecture).with_context(|| file.display().to_string())?;
            libraries.extend(program.libraries);
            if let Some(version) = program.glibc
                && glibc.as_ref().is_none_or(|(newest, _)| version > *newest)
            {
                glibc = Some((version, file));
            }
        }
        let glibc = glibc.with_context(|| format!("no program below {} needs glibc", root.display()))?;
        Ok(Self { libraries, glibc })
    }

    pub(super) fn glibc(&self) -> Glibc {
        self.glibc.0
    }

    /// Fails where a program does not start with the oldest C library that packages are for.
    pub(super) fn check(&self) -> Result<()> {
        let (version, program) = &self.glibc;
        if *version > NEWEST_GLIBC {
            bail!(
                "{} needs glibc {version}, and packages are for machines with {NEWEST_GLIBC}: cargo xtask setup --for \
                 package, then build it again",
                program.display()
            );
        }
        Ok(())
    }

    /// Returns the packages of Debian that bring these libraries, as `Depends` names them.
    pub(super) fn packages(&self) -> Result<String> {
        let mut packages = BTreeSet::new();
        for library in &self.libraries {
            let known = PACKAGES.iter().find(|(name, _)| name == library);
            let (_, package) = known.with_context(|| format!("no package is known that brings {library}"))?;
            packages.insert(match *package {
                "libc6" => format!("libc6 (>= {})", self.glibc.0),
                other => other.to_owned(),
            });
        }
        Ok(packages.into_iter().collect::<Vec<_>>().join(", "))
    }
}

/// Needs of one program.
#[derive(Debug)]
struct Program {
    libraries: Vec<String>,
    glibc: Option<Glibc>,
}

fn of_program(bytes: &[u8], architecture: Architecture) -> Result<Program> {
    let header = FileHeader64::<Endianness>::parse(bytes)?;
    let endian = header.endian()?;
    let machine = header.e_machine.get(endian);
    if machine != architecture.elf_machine() {
        bail!("it is for machine {machine} of ELF, not for {}", architecture.name());
    }
    let sections = header.sections(endian, bytes)?;
    let mut libraries = Vec::new();
    if let Some((entries, link)) = sections.dynamic(endian, bytes)? {
        let strings = sections.strings(endian, bytes, link)?;
        for entry in entries.iter().filter(|entry| entry.tag32(endian) == Some(DT_NEEDED as i32)) {
            libraries.push(String::from_utf8_lossy(entry.string(endian, strings)?).into_owned());
        }
    }
    let mut glibc = None;
    if let Some((needs, link)) = sections.gnu_verneed(endian, bytes)? {
        let strings = sections.strings(endian, bytes, link)?;
        for need in needs {
            let (_, versions) = need?;
            for version in versions {
                let name = version?;
                glibc = glibc.max(glibc_version(&String::from_utf8_lossy(name.name(endian, strings)?))?);
            }
        }
    }
    Ok(Program { libraries, glibc })
}

/// Reads a symbol version; `None` for those of other libraries.
fn glibc_version(name: &str) -> Result<Option<Glibc>> {
    let Some(version) = name.strip_prefix("GLIBC_") else {
        return Ok(None);
    };
    let mut parts = version.split('.').map(str::parse::<u32>);
    match (parts.next(), parts.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => Ok(Some(Glibc(major, minor))),
        // Such as GLIBC_ABI_DT_RELR, which came with 2.36, and GLIBC_PRIVATE, which promises nothing.
        _ => bail!("it needs {name}, which no version of glibc from {NEWEST_GLIBC} on promises"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn needing(glibc: Glibc, libraries: &[&str]) -> Needs {
        let libraries = libraries.iter().map(|&library| library.to_owned()).collect();
        Needs { libraries, glibc: (glibc, "usr/bin/spip-agent".into()) }
    }

    #[test]
    fn a_newer_symbol_than_the_oldest_machine_has_is_refused_with_the_program_and_the_remedy() {
        needing(NEWEST_GLIBC, &[]).check().expect("this is what packages are for");
        needing(Glibc(2, 17), &[]).check().expect("an older one is there, too");
        let error = needing(Glibc(2, 29), &[]).check().expect_err("too new").to_string();
        assert!(error.starts_with("usr/bin/spip-agent needs glibc 2.29"), "{error}");
        assert!(error.contains("cargo xtask setup --for package"), "{error}");
    }

    #[test]
    fn versions_are_numbers_and_those_that_are_none_are_refused() {
        let version = |name| glibc_version(name).expect("a version");
        assert_eq!(version("GLIBC_2.4"), Some(Glibc(2, 4)));
        assert_eq!(version("GLIBC_2.2.5"), Some(Glibc(2, 2)));
        assert_eq!(version("GCC_3.0"), None);
        assert!(version("GLIBC_2.4") < version("GLIBC_2.17"));
        for unknown in ["GLIBC_ABI_DT_RELR", "GLIBC_PRIVATE", "GLIBC_2", "GLIBC_"] {
            assert!(glibc_version(unknown).is_err(), "{unknown}");
        }
    }

    #[test]
    fn libraries_become_the_packages_that_bring_them_each_once() {
        let needs = needing(Glibc(2, 28), &["ld-linux-x86-64.so.2", "libc.so.6", "libgcc_s.so.1", "libm.so.6"]);
        assert_eq!(needs.packages().expect("all are known"), "libc6 (>= 2.28), libgcc-s1");
        assert!(needing(Glibc(2, 28), &["libssl.so.3"]).packages().is_err());
    }

    #[test]
    fn a_program_of_this_machine_is_read_as_the_loader_reads_it() {
        let own = fs::read(std::env::current_exe().expect("this program has a name")).expect("this program");
        let architecture = Architecture::own().expect("tests run where packages are made");
        let program = of_program(&own, architecture).expect("this program was started");
        assert!(program.libraries.iter().any(|library| library == "libc.so.6"), "{program:?}");
        assert!(program.glibc >= Some(Glibc(2, 2)), "{program:?}");
        let other = [Architecture::X86_64, Architecture::Aarch64].into_iter().find(|other| *other != architecture);
        assert!(of_program(&own, other.expect("there are two")).is_err());
        // A file that was cut off is an error, not a program without needs.
        assert!(of_program(&own[..own.len() / 2], architecture).is_err());
    }
}
