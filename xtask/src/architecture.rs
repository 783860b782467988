//! The architectures that packages are made for, and what each is called by cargo, by Debian and in an ELF header.

use std::env;
use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::ValueEnum;
use object::elf::{EM_AARCH64, EM_X86_64};

use crate::project::Project;

/// An architecture. On the command line it has the name of cargo's target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Architecture {
    #[value(name = "x86_64-unknown-linux-gnu")]
    X86_64,
    #[value(name = "aarch64-unknown-linux-gnu")]
    Aarch64,
}

impl Architecture {
    /// Returns the architecture of this machine.
    pub(crate) fn own() -> Result<Self> {
        let own = Self::value_variants().iter().find(|candidate| candidate.name() == env::consts::ARCH);
        own.copied().with_context(|| format!("no package is known for {}", env::consts::ARCH))
    }

    pub(crate) fn is_own(self) -> bool {
        self.name() == env::consts::ARCH
    }

    /// Returns the name of the target that cargo builds for.
    pub(crate) fn triple(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64-unknown-linux-gnu",
            Self::Aarch64 => "aarch64-unknown-linux-gnu",
        }
    }

    /// Returns the name that Linux and Rust use.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64",
            Self::Aarch64 => "aarch64",
        }
    }

    /// Returns the name that Debian uses.
    pub(crate) fn debian(self) -> &'static str {
        match self {
            Self::X86_64 => "amd64",
            Self::Aarch64 => "arm64",
        }
    }

    /// Returns `e_machine` of a program.
    pub(crate) fn elf_machine(self) -> u16 {
        match self {
            Self::X86_64 => EM_X86_64,
            Self::Aarch64 => EM_AARCH64,
        }
    }
}

/// Release programs in one folder.
#[derive(Clone, Debug)]
pub(crate) struct Programs {
    pub(crate) folder: PathBuf,
    pub(crate) architecture: Architecture,
}

impl Programs {
    /// Returns the programs of `cargo xtask build`, which need the C library of this machine.
    pub(crate) fn native(project: &Project) -> Result<Self> {
        Ok(Self { folder: project.target.join("release"), architecture: Architecture::own()? })
    }

    /// Returns the programs that start with an older C library than this machine's, or on another architecture.
    pub(crate) fn portable(project: &Project, architecture: Architecture) -> Self {
        Self { folder: project.target.join(architecture.triple()).join("release"), architecture }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_takes_the_names_that_cargo_takes() {
        for architecture in Architecture::value_variants() {
            let named = architecture.to_possible_value().expect("each has a name");
            assert_eq!(named.get_name(), architecture.triple());
            assert!(architecture.triple().starts_with(architecture.name()));
        }
    }
}
