//! A virtual environment of Python packages below the target folder, with versions and hashes pinned.
//!
//! Programs that only PyPI offers as they are needed come this way. `complete` is written last: an environment without it,
//! or with other requirements in it, is made anew.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::system::DOWNLOAD_LIMIT;
use crate::process;
use crate::report;

/// Packages of an environment.
pub(super) struct Environment {
    pub(super) folder: PathBuf,
    /// Versions and hashes, as pip reads them.
    pub(super) requirements: &'static str,
    /// Its contents and size, for the report of its installation.
    pub(super) about: &'static str,
    /// Programs of the environment, with arguments with which they have to succeed: a wheel of another C library
    /// installs and does not start.
    pub(super) checks: &'static [&'static [&'static str]],
}

impl Environment {
    /// Finds the environment; with `install`, makes it where it is missing or outdated.
    pub(super) fn ready(&self, install: bool, remedy: &str) -> Result<(), String> {
        if self.is_complete() {
            Ok(())
        } else if install {
            self.make().map_err(|error| format!("{error:#}"))
        } else {
            Err(format!("not installed: {remedy}"))
        }
    }

    /// Returns where a program of the environment is.
    pub(super) fn program(&self, name: &str) -> PathBuf {
        self.folder.join("bin").join(name)
    }

    /// Reports whether the environment holds exactly these requirements.
    fn is_complete(&self) -> bool {
        fs::read_to_string(self.folder.join("complete")).is_ok_and(|made| made == self.requirements)
    }

    fn make(&self) -> Result<()> {
        let python = process::find("python3").context("python3 is not installed")?;
        report::step("Installing", format!("{}, once, from PyPI", self.about));
        if self.folder.exists() {
            fs::remove_dir_all(&self.folder).with_context(|| format!("cannot remove {}", self.folder.display()))?;
        }
        let installed = self.install(&python);
        if installed.is_err() {
            // Without its mark it would never be used.
            let _ = fs::remove_dir_all(&self.folder);
        }
        installed
    }

    fn install(&self, python: &Path) -> Result<()> {
        process::run_within(Command::new(python).args(["-m", "venv"]).arg(&self.folder), DOWNLOAD_LIMIT)?;
        let requirements = self.folder.join("requirements.txt");
        fs::write(&requirements, self.requirements)?;
        let mut pip = Command::new(self.program("python"));
        pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "--require-hashes"])
            .args(["--only-binary", ":all:", "--timeout", "15", "--retries", "1", "--requirement"])
            .arg(&requirements);
        process::run_within(&mut pip, DOWNLOAD_LIMIT)?;
        for check in self.checks {
            process::output(Command::new(self.program(check[0])).args(&check[1..]))?;
        }
        fs::write(self.folder.join("complete"), self.requirements)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_environment_of_other_requirements_is_made_anew() {
        let folder = std::env::temp_dir().join(format!("spip-xtask-python-{}", std::process::id()));
        let environment =
            Environment { folder: folder.clone(), requirements: "zig==1.0", about: "nothing", checks: &[] };
        fs::create_dir_all(&folder).expect("a folder for the test");
        assert!(!environment.is_complete());
        fs::write(folder.join("complete"), "zig==0.9").expect("write");
        assert!(!environment.is_complete());
        let error = environment.ready(false, "cargo xtask setup").expect_err("it is outdated");
        assert_eq!(error, "not installed: cargo xtask setup");
        fs::write(folder.join("complete"), "zig==1.0").expect("write");
        assert!(environment.is_complete());
        fs::remove_dir_all(&folder).expect("remove the folder");
    }

    #[test]
    fn every_requirement_is_pinned_and_hashed() {
        for requirements in [super::super::peers::REQUIREMENTS, super::super::zig::REQUIREMENTS] {
            let packages: Vec<&str> =
                requirements.lines().filter(|line| line.starts_with(char::is_alphabetic)).collect();
            assert!(packages.len() >= 2, "{packages:?}");
            for package in packages {
                let rest = requirements.split_once(package).map_or("", |(_, rest)| rest);
                assert!(package.contains("=="), "{package}");
                assert!(rest.trim_start().starts_with("--hash=sha256:"), "{package}");
            }
        }
    }
}
