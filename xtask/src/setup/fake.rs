//! A machine that tests put before the decisions of setup: what it offers is stated, what is done to it is kept.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::compiler::{Candidate, Compiler, Survey, Version};
use super::system::System;
use crate::privilege::Root;

pub(super) const FRESH: Option<Duration> = Some(Duration::from_secs(60));
pub(super) const STALE: Option<Duration> = Some(Duration::from_secs(90 * 24 * 60 * 60));

/// A machine; by default a Debian with root, network, fresh lists that offer nothing, and nothing installed.
pub(super) struct Fake {
    pub(super) rights: Root,
    pub(super) has_network: bool,
    /// Set when rustup's server can be reached; package registries are another matter.
    pub(super) reaches_rustup: bool,
    pub(super) programs: RefCell<Vec<&'static str>>,
    pub(super) compilers: RefCell<Vec<Compiler>>,
    pub(super) is_named: bool,
    pub(super) lists_age: Cell<Option<Duration>>,
    /// Packages with their candidate versions, as the lists have them and as they are after an update.
    pub(super) offered: RefCell<BTreeMap<&'static str, &'static str>>,
    pub(super) after_update: BTreeMap<&'static str, &'static str>,
    /// Output of apt when it simulates an installation.
    pub(super) refusal: Option<&'static str>,
    pub(super) linker: Cell<Option<&'static str>>,
    /// Commands that changed the machine or tried to.
    pub(super) changes: RefCell<Vec<String>>,
    pub(super) tools: PathBuf,
}

impl Default for Fake {
    fn default() -> Self {
        Self {
            rights: Root::Already,
            has_network: true,
            reaches_rustup: true,
            programs: RefCell::new(vec!["apt-get"]),
            compilers: RefCell::default(),
            is_named: false,
            lists_age: Cell::new(FRESH),
            offered: RefCell::default(),
            after_update: BTreeMap::new(),
            refusal: None,
            linker: Cell::new(Some("0.10.4")),
            changes: RefCell::default(),
            tools: "/tools".into(),
        }
    }
}

/// Returns a compiler of rustup where `toolchain` is a name, otherwise the distribution's.
pub(super) fn compiler(toolchain: &str, version: Version, llvm: u32, has_sources: bool) -> Compiler {
    let is_rustup = !toolchain.is_empty();
    let rustc = if is_rustup { format!("/rustup/{toolchain}/rustc") } else { "/usr/bin/rustc".to_owned() };
    Compiler {
        candidate: Candidate {
            rustc: rustc.into(),
            origin: if is_rustup { format!("rustup toolchain {toolchain}") } else { "PATH".to_owned() },
            toolchain: is_rustup.then(|| toolchain.to_owned()),
            is_default: toolchain.starts_with("stable"),
        },
        cargo: "/cargo".into(),
        version,
        nightly: toolchain.starts_with("nightly"),
        llvm: Version(llvm, 1, 0),
        llvm_library: Some(format!("/llvm/{toolchain}").into()),
        sysroot: "/".into(),
        has_sources,
    }
}

impl Fake {
    /// Adds rustup with these toolchains.
    pub(super) fn with_rustup(self, toolchains: Vec<Compiler>) -> Self {
        self.programs.borrow_mut().push("rustup");
        self.compilers.borrow_mut().extend(toolchains);
        self
    }

    /// Returns the commands that changed the machine, by their first words.
    pub(super) fn changed(&self, words: usize) -> Vec<String> {
        let first = |change: &String| change.split(' ').take(words).collect::<Vec<_>>().join(" ");
        self.changes.borrow().iter().map(first).collect()
    }

    fn download(&self) -> Result<(), String> {
        if self.has_network { Ok(()) } else { Err("error: could not download".to_owned()) }
    }

    fn download_by_rustup(&self) -> Result<(), String> {
        if self.reaches_rustup { self.download() } else { Err("error: could not download".to_owned()) }
    }

    fn apt_install(&self, packages: &[&str]) -> Result<(), String> {
        self.download()?;
        for package in packages.iter().filter(|word| !word.starts_with('-')) {
            let offered = self.offered.borrow().get(package).copied().ok_or("E: Unable to locate package")?;
            match *package {
                "rust-web-src" => {
                    let version = Version::parse(offered).ok_or("no version")?;
                    self.compilers.borrow_mut().retain(|compiler| compiler.candidate.toolchain.is_some());
                    self.compilers.borrow_mut().push(compiler("", version, 22, true));
                }
                "g++" => self.programs.borrow_mut().push("c++"),
                "gcc" => self.programs.borrow_mut().push("cc"),
                _ => {}
            }
        }
        Ok(())
    }
}

impl System for Fake {
    fn rights(&self) -> Root {
        self.rights
    }

    fn find(&self, program: &str) -> Vec<PathBuf> {
        let is_there = self.programs.borrow().contains(&program);
        is_there.then(|| Path::new("/usr/bin").join(program)).into_iter().collect()
    }

    fn ask(&self, command: &[&str]) -> Result<String, String> {
        match command {
            ["apt-cache", "policy", package] => {
                let candidate = self.offered.borrow().get(package).copied().unwrap_or("(none)");
                Ok(format!("{package}:\n  Installed: (none)\n  Candidate: {candidate}\n"))
            }
            ["apt-get", "--simulate", ..] => match self.refusal {
                Some(refusal) => Err(format!("apt-get ended with exit status: 100: E: {refusal}")),
                None => Ok(String::new()),
            },
            ["/tools/bin/bpf-linker", "--version"] => {
                self.linker.get().map(|version| format!("bpf-linker {version}\n")).ok_or_else(|| "not found".to_owned())
            }
            _ => Err(format!("nobody answers {command:?}")),
        }
    }

    fn change(&self, command: &[&str]) -> Result<(), String> {
        self.changes.borrow_mut().push(command.join(" "));
        match command {
            ["apt-get", "update"] => {
                self.download()?;
                self.lists_age.set(FRESH);
                self.offered.borrow_mut().extend(self.after_update.clone());
                Ok(())
            }
            ["apt-get", "install", packages @ ..] => self.apt_install(packages),
            ["rustup", "component", "add", "rust-src", "--toolchain", toolchain] => {
                self.download_by_rustup()?;
                let mut compilers = self.compilers.borrow_mut();
                let named =
                    compilers.iter_mut().find(|compiler| compiler.candidate.toolchain.as_deref() == Some(*toolchain));
                named.ok_or("error: no such toolchain")?.has_sources = true;
                Ok(())
            }
            ["rustup", "toolchain", "install", toolchain, ..] => {
                self.download_by_rustup()?;
                let version = Version::parse(toolchain).ok_or("error: no such toolchain")?;
                self.compilers.borrow_mut().push(compiler(toolchain, version, 22, true));
                Ok(())
            }
            ["cargo", "install", "bpf-linker", "--version", version, ..] => {
                self.download()?;
                self.linker.set(Some(if *version == "0.10.4" { "0.10.4" } else { "0.0.0" }));
                Ok(())
            }
            _ => Err(format!("nobody does {command:?}")),
        }
    }

    fn lists_age(&self) -> Option<Duration> {
        self.lists_age.get()
    }

    fn compilers(&self) -> Survey {
        Survey { is_named: self.is_named, compilers: self.compilers.borrow().clone(), refusals: Vec::new() }
    }

    fn tools(&self) -> &Path {
        &self.tools
    }
}
