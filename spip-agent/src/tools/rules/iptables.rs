//! Runs `iptables-save` and `iptables-restore`.
//!
//! The tools, not netlink: they know whether this machine's rules are those of nftables or of the older tables, and what
//! they do is what `show` prints.

use std::fmt;
use std::process::Stdio;

use super::Error;
use super::programs::{Programs, checked};
use super::saved::Saved;

/// Seconds to wait for another program that changes rules.
const WAIT: &str = "--wait=5";

/// An address family: each has tools and tables of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    V4,
    V6,
}

impl Family {
    pub(super) fn save(self, variant: Variant) -> &'static str {
        match (self, variant) {
            (Self::V4, Variant::Usual) => "iptables-save",
            (Self::V6, Variant::Usual) => "ip6tables-save",
            (Self::V4, Variant::Legacy) => "iptables-legacy-save",
            (Self::V6, Variant::Legacy) => "ip6tables-legacy-save",
        }
    }

    pub(super) fn restore(self, variant: Variant) -> &'static str {
        match (self, variant) {
            (Self::V4, Variant::Usual) => "iptables-restore",
            (Self::V6, Variant::Usual) => "ip6tables-restore",
            (Self::V4, Variant::Legacy) => "iptables-legacy-restore",
            (Self::V6, Variant::Legacy) => "ip6tables-legacy-restore",
        }
    }

    /// As people call it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The variant of a program, where a machine has both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Variant {
    /// The one that the machine has chosen.
    Usual,
    /// The variant for the older tables, where rules are in these alone.
    Legacy,
}

/// The programs of one variant.
pub(super) struct Iptables {
    programs: Programs,
    variant: Variant,
}

impl Iptables {
    /// The usual programs, looked for where [`Programs`] does.
    pub(super) fn from_environment() -> Self {
        Self::new(Programs::from_environment(), Variant::Usual)
    }

    /// The programs of a variant.
    pub(super) fn new(programs: Programs, variant: Variant) -> Self {
        Self { programs, variant }
    }

    /// Returns the paths of the programs.
    pub(super) fn programs(&self) -> &Programs {
        &self.programs
    }

    /// The command that reads a plan, as a person would type it.
    pub(super) fn restore_command(&self, family: Family) -> String {
        format!("{} --noflush {WAIT}", family.restore(self.variant))
    }

    /// Our part of the present rules.
    pub(super) fn saved(&self, family: Family) -> Result<Saved, Error> {
        let program = family.save(self.variant);
        let mut command = self.programs.command(program)?;
        let output = command.args(["-t", "nat"]).stdin(Stdio::null()).output();
        let output = checked(program, family.name(), output)?;
        Ok(Saved::parse(&String::from_utf8_lossy(&output.stdout)))
    }

    /// Applies a plan in one transaction.
    pub(super) fn restore(&self, family: Family, input: &str) -> Result<(), Error> {
        let program = family.restore(self.variant);
        checked(program, family.name(), self.programs.feed(program, &["--noflush", WAIT], input)?).map(drop)
    }

    /// Returns the program's name with its version: `iptables-restore v1.8.9 (nf_tables)`.
    pub(super) fn version(&self) -> String {
        self.programs.version(Family::V4.restore(self.variant))
    }

    /// Reports whether there is a rule of anybody.
    pub(super) fn has_rules(&self) -> bool {
        [Family::V4, Family::V6].into_iter().any(|family| self.all(family).lines().any(|line| line.starts_with("-A ")))
    }

    /// Returns the rules of all tables that there are; nothing where they cannot be read.
    pub(super) fn all(&self, family: Family) -> String {
        let command = self.programs.command(family.save(self.variant)).ok();
        let output = command.and_then(|mut command| command.stdin(Stdio::null()).output().ok());
        output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default()
    }
}
