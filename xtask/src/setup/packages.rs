//! The system's packages: which programs each command needs, and how they are installed.
//!
//! Only apt is run by setup: its names are certain, it says beforehand which version it would install, and it can be
//! kept from removing anything. For other package managers the command is printed. Nothing is installed before the
//! candidate version is known and a simulation has succeeded, so a route that cannot work leaves nothing behind.

use std::cell::RefCell;
use std::time::Duration;

use super::compiler::Version;
use super::system::System;
use super::{Missing, Need, Obstacle};
use crate::privilege::{self, Root};
use crate::report;

/// Older lists name packages that have been replaced: apt then offers what is too old, or fetches what is gone.
const LISTS_STALE: Duration = Duration::from_secs(24 * 60 * 60);

/// Programs and the packages that bring them, a line each.
const TOOLS: &str = include_str!("tools.txt");

/// The question whether OpenSSL can be compiled against.
pub(crate) const HAS_OPENSSL: [&str; 2] = ["--atleast-version=1.1.1", "openssl"];

/// Package managers by their program, and the command that installs what follows; in the order of [`Tool::packages`].
const MANAGERS: [(&str, &str); 5] = [
    ("apt-get", "apt-get install --yes --no-remove --no-install-recommends"),
    ("dnf", "dnf install"),
    ("pacman", "pacman -S --needed"),
    ("apk", "apk add"),
    ("zypper", "zypper install"),
];

/// A program and the packages that bring it.
struct Tool {
    program: &'static str,
    needs: &'static [Need],
    packages: [&'static str; 5],
    /// Arguments with which the program succeeds if all that its packages bring is there.
    check: Vec<String>,
    /// Part that is left out without it; `None` when it is required.
    without: Option<&'static str>,
}

/// The packages that setup may install, through a system.
pub(super) struct Packages<'a> {
    system: &'a dyn System,
    /// The outcome of the update that this run made.
    updated: RefCell<Option<Result<(), String>>>,
}

/// Returns the tools of the table.
fn tools() -> impl Iterator<Item = Tool> {
    TOOLS.lines().filter(|line| !line.starts_with('#')).map(|line| {
        let column: Vec<&str> = line.split('|').map(str::trim).collect();
        Tool {
            program: column[0],
            needs: needs(column[1]),
            packages: [column[2], column[3], column[4], column[5], column[6]],
            check: column[7].split_whitespace().map(|word| word.replace("%20", " ")).collect(),
            without: Some(column[8]).filter(|what| !what.is_empty()),
        }
    })
}

/// Returns the commands that a word of the table stands for.
fn needs(word: &str) -> &'static [Need] {
    match word {
        // Crates with C inside are compiled by the userspace build and by its clippy alike.
        "all" => &[Need::Build, Need::Demo, Need::Test, Need::Soak, Need::Lint, Need::Fuzz, Need::Package],
        "namespaces" => &[Need::Demo, Need::Test, Need::Soak],
        "maps" => &[Need::Test, Need::Soak],
        // Both compile the agent with the feature `legacy-tls` too.
        "legacy" => &[Need::Test, Need::Lint],
        "fuzz" => &[Need::Fuzz],
        // What PyPI offers comes into virtual environments.
        "python" => &[Need::Test, Need::Package],
        _ => &[Need::Test],
    }
}

impl Tool {
    fn is_there(&self, system: &dyn System) -> bool {
        let check: Vec<&str> = std::iter::once(self.program).chain(self.check.iter().map(String::as_str)).collect();
        system.has(self.program) && (check.len() == 1 || system.ask(&check).is_ok())
    }
}

impl<'a> Packages<'a> {
    pub(super) fn new(system: &'a dyn System) -> Self {
        Self { system, updated: RefCell::new(None) }
    }

    /// Makes the programs for `need` available, or returns those that are required and still missing.
    pub(super) fn ready(&self, need: Need, install: bool) -> Option<Missing> {
        let absent = || {
            let wanted = tools().filter(|tool| tool.needs.contains(&need));
            wanted.filter(|tool| !tool.is_there(self.system)).collect::<Vec<_>>()
        };
        // Required packages in one step; optional ones by themselves, as a release of the distribution may lack one.
        let (optional, required): (Vec<Tool>, Vec<Tool>) =
            absent().into_iter().partition(|tool| tool.without.is_some());
        let mut missing = None;
        for group in std::iter::once(required).chain(optional.into_iter().map(|tool| vec![tool])) {
            let Some(first) = group.first() else { continue };
            let outcome = self.install(&names(&group, 0), install, [1, 2, 3, 4].map(|manager| names(&group, manager)));
            let is_absent = |tool: &Tool| !tool.is_there(self.system);
            if !group.iter().any(is_absent) {
                continue;
            }
            let what =
                group.iter().filter(|tool| is_absent(tool)).map(|tool| tool.program).collect::<Vec<_>>().join(", ");
            let nothing = || Obstacle::new("its package is installed and does not bring it");
            let Obstacle { reason: why, remedy } = outcome.err().unwrap_or_else(nothing);
            if let Some(without) = first.without {
                let remedy = remedy.map_or_else(String::new, |remedy| format!(" ({remedy})"));
                report::note(format!("{what} is missing, so {without} are left out: {why}{remedy}"));
            } else {
                let by_name = || format!("install what Debian calls {}", names(&group, 0));
                missing = Some(Missing { what, why, remedy: remedy.unwrap_or_else(by_name) });
            }
        }
        missing
    }

    /// Installs packages by their names for each manager, or returns why it cannot.
    fn install(&self, debian: &str, install: bool, elsewhere: [String; 4]) -> Result<(), Obstacle> {
        let debian: Vec<String> = debian.split_whitespace().map(str::to_owned).collect();
        let command = self.offer(&debian, install, elsewhere.each_ref().map(String::as_str))?;
        let shown = command.join(" ");
        if !install {
            return Err(Obstacle { reason: "not installed".to_owned(), remedy: Some(privilege::as_typed(&shown)) });
        }
        let words: Vec<&str> = command.iter().map(String::as_str).collect();
        self.system.change(&words).map_err(|reason| Obstacle::new(format!("`{shown}`: {reason}")))
    }

    /// Installs one package that only Debian is known to have.
    pub(super) fn install_one(&self, package: &str) -> Result<(), Obstacle> {
        self.install(package, true, Default::default())
    }

    /// Returns the command that installs packages here. Debian's may name the oldest version that will do, behind `>=`;
    /// apt has to offer each. Elsewhere the command is a remedy only.
    pub(super) fn offer(&self, debian: &[String], update: bool, elsewhere: [&str; 4]) -> Result<Vec<String>, Obstacle> {
        let manager = MANAGERS.iter().position(|(program, _)| self.system.has(program));
        let manager = manager.ok_or_else(|| Obstacle::new("no package manager that setup knows"))?;
        let (program, prefix) = MANAGERS[manager];
        if manager != 0 {
            let packages = elsewhere[manager - 1];
            let typed = Some(privilege::as_typed(&format!("{prefix} {packages}"))).filter(|_| !packages.is_empty());
            return Err(Obstacle { reason: format!("setup does not run {program}"), remedy: typed });
        }
        let names: Vec<&str> = debian.iter().filter_map(|package| package.split(">=").next()).collect();
        let command: Vec<String> = prefix.split(' ').chain(names.iter().copied()).map(str::to_owned).collect();
        let can_update = update && self.system.rights() != Root::No;
        if can_update && self.system.lists_age().is_none_or(|age| age > LISTS_STALE) {
            self.update();
        }
        let mut refused = self.refuse(debian);
        if refused.is_some() && can_update && self.update() {
            refused = self.refuse(debian);
        }
        if let Some(reason) = refused {
            return Err(Obstacle::new(reason));
        }
        if self.system.rights() == Root::No {
            let reason = "packages are installed by root, and there is no sudo that could be used".to_owned();
            return Err(Obstacle { reason, remedy: Some(privilege::as_typed(&command.join(" "))) });
        }
        let simulated: Vec<&str> =
            ["apt-get", "--simulate"].into_iter().chain(command.iter().skip(1).map(String::as_str)).collect();
        self.system.ask(&simulated).map_err(|error| {
            let reason = error.lines().find_map(|line| line.split("E: ").nth(1)).unwrap_or("it does not say why");
            Obstacle::new(format!("apt would not install {}: {reason}", names.join(" ")))
        })?;
        Ok(command)
    }

    /// Returns the command that installs a package of one name everywhere, if it is not known to be absent.
    pub(super) fn remedy(&self, package: &str) -> Option<String> {
        let (program, prefix) = MANAGERS.iter().find(|(program, _)| self.system.has(program))?;
        let is_offered = *program != MANAGERS[0].0 || self.candidate(package).is_some();
        is_offered.then(|| privilege::as_typed(&format!("{prefix} {package}")))
    }

    /// Updates apt's lists once in a run, and reports whether this call did so. A source that fails is no obstacle:
    /// what counts is which versions are offered afterwards.
    fn update(&self) -> bool {
        if self.updated.borrow().is_some() {
            return false;
        }
        let outcome = self.system.change(&["apt-get", "update"]);
        if let Err(reason) = &outcome {
            report::note(format!("package lists were not updated completely: {reason}"));
        }
        self.updated.replace(Some(outcome));
        true
    }

    /// Returns why apt's candidates will not do, with their versions.
    fn refuse(&self, packages: &[String]) -> Option<String> {
        let refuse = |package: &String| {
            let (name, oldest) =
                package.split_once(">=").map_or((package.as_str(), None), |(name, oldest)| (name, Some(oldest)));
            let Some(candidate) = self.candidate(name) else {
                return Some(format!("apt offers no {name}"));
            };
            let oldest = oldest?;
            let is_older = Version::parse(&candidate) < Version::parse(oldest);
            is_older.then(|| format!("apt offers {name} {candidate}, older than {oldest}"))
        };
        let refusals: Vec<String> = packages.iter().filter_map(refuse).collect();
        let stale = match &*self.updated.borrow() {
            Some(Err(reason)) => format!(" (lists not updated: {reason})"),
            _ => String::new(),
        };
        (!refusals.is_empty()).then(|| format!("{}{stale}", refusals.join(", ")))
    }

    /// Returns the version that apt would install, without its epoch.
    fn candidate(&self, package: &str) -> Option<String> {
        let policy = self.system.ask(&["apt-cache", "policy", package]).ok()?;
        let version = policy.lines().find_map(|line| line.trim().strip_prefix("Candidate: "))?;
        let version = version.split_once(':').map_or(version, |(_, version)| version);
        (version != "(none)").then(|| version.to_owned())
    }
}

/// Returns the packages of some tools, each once, with a blank between them.
fn names(tools: &[Tool], manager: usize) -> String {
    let mut names: Vec<&str> = Vec::new();
    for name in tools.iter().flat_map(|tool| tool.packages[manager].split_whitespace()) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names.join(" ")
}

#[cfg(test)]
mod tests;
