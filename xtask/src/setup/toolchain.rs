//! The compiler and the linker for the kernel side, as a pair, and the routes by which setup comes by them.
//!
//! They are chosen together, since a compiler is of no use when no linker reads its bitcode: the first candidate in
//! order whose linker is there, or can be built here, is taken. Where none will do, the routes are gone one after the
//! other. Each is looked at before it is gone, no failure ends the search, and after each the machine is examined
//! again. rustup comes before the system's packages: it installs into the user's own folder, without rights.

use super::compiler::{Compiler, OLDEST, Survey};
use super::linker::{self, Found, Linker};
use super::packages::Packages;
use super::system::System;
use super::{Missing, Obstacle};
use crate::report;

/// The toolchain that rustup fetches: pinned, because the LLVM of a moving `nightly` outgrows the pinned linker.
const RUSTUP_TOOLCHAIN: &str = "1.95.0";

/// Debian's packages of a current rustc with its sources. It builds browsers and follows their needs; the sources come
/// last.
const DEBIAN: [&str; 3] = ["rustc-web", "cargo-web", "rust-web-src"];

/// Names of these packages for the other package managers, in their order.
const ELSEWHERE: [&str; 4] = ["rust cargo rust-src", "rust rust-src", "rust cargo rust-src", "rust cargo rust-src"];

/// A compiler and a linker that fit each other.
#[derive(Debug)]
pub(crate) struct Toolchain {
    pub(crate) compiler: Compiler,
    pub(crate) linker: Linker,
}

/// A way to come by a compiler, by one command. rustup's come first: they install into the user's own folder.
#[derive(Clone, Copy)]
enum Route {
    Sources,
    Toolchain,
    Packages,
}

/// Parameters of the routes.
struct Look<'a> {
    system: &'a dyn System,
    packages: &'a Packages<'a>,
    install: bool,
}

/// Returns the pair, after installing what can be installed; or what is missing.
pub(super) fn ready(system: &dyn System, packages: &Packages<'_>, install: bool) -> Result<Toolchain, Missing> {
    let look = Look { system, packages, install };
    let mut survey = system.compilers();
    let mut pair = choose(system, &mut survey);
    let mut obstacles = Vec::new();
    for route in [Route::Sources, Route::Toolchain, Route::Packages] {
        // A compiler that was named is the only one that is wanted.
        if pair.is_some() || survey.is_named {
            break;
        }
        let outcome = route.go(&look, &survey);
        if outcome.is_ok() {
            survey = system.compilers();
            pair = choose(system, &mut survey);
        }
        if pair.is_none() {
            let useless = "it was installed, and there is still no compiler that will do";
            let obstacle = outcome.err().unwrap_or_else(|| Obstacle::new(useless));
            if install {
                report::note(format!("{}: {}", route.name(), obstacle.reason));
            }
            obstacles.push((route, obstacle));
        }
    }
    let Some((compiler, found)) = pair else {
        return Err(no_compiler(&look, &survey, &obstacles));
    };
    let linker = match found {
        Found::Installable(library) if install => linker::install(system, &compiler, library)?,
        Found::Ready(linker) => linker,
        _ => return Err(linker::missing(system)),
    };
    Ok(Toolchain { compiler, linker })
}

/// Chooses the first compiler whose linker is there, or else the first whose linker can be built. Adds why the others
/// will not do to the survey's refusals.
fn choose(system: &dyn System, survey: &mut Survey) -> Option<(Compiler, Found)> {
    let mut installable = None;
    for compiler in &survey.compilers {
        let found = match compiler.can_build_core() {
            Ok(()) => linker::find(system, compiler, &survey.compilers),
            Err(reason) => Found::Impossible(reason),
        };
        match found {
            Found::Ready(_) => return Some((compiler.clone(), found)),
            Found::Installable(_) => {
                installable.get_or_insert((compiler.clone(), found));
            }
            Found::Impossible(reason) => survey.refusals.push((compiler.candidate.clone(), reason)),
        }
    }
    installable
}

impl Route {
    fn name(self) -> &'static str {
        match self {
            Self::Sources => "rust-src for an installed toolchain",
            Self::Toolchain => "a toolchain by rustup",
            Self::Packages => "a compiler by the system's packages",
        }
    }

    /// Goes the route, or returns why that is not possible here.
    fn go(self, look: &Look<'_>, survey: &Survey) -> Result<(), Obstacle> {
        let command = self.command(look, survey)?;
        let shown = command.join(" ");
        if !look.install {
            return Err(Obstacle { reason: "not installed".to_owned(), remedy: Some(shown) });
        }
        report::step("Installing", self.name());
        let words: Vec<&str> = command.iter().map(String::as_str).collect();
        // A command that has just failed is no remedy.
        look.system.change(&words).map_err(|reason| Obstacle::new(format!("`{shown}`: {reason}")))
    }

    /// Returns the command that this route needs.
    fn command(self, look: &Look<'_>, survey: &Survey) -> Result<Vec<String>, Obstacle> {
        let has_rustup = look.system.has("rustup");
        let command = match self {
            Self::Packages => {
                return look.packages.offer(&DEBIAN.map(|name| format!("{name}>={OLDEST}")), look.install, ELSEWHERE);
            }
            _ if !has_rustup => return Err(Obstacle::new("rustup is not installed")),
            Self::Sources => {
                let toolchain = without_sources(look.system, survey)
                    .ok_or_else(|| Obstacle::new("rustup has no toolchain that lacks nothing else"))?;
                format!("rustup component add rust-src --toolchain {toolchain}")
            }
            Self::Toolchain => {
                format!("rustup toolchain install {RUSTUP_TOOLCHAIN} --profile minimal --component rust-src")
            }
        };
        Ok(command.split(' ').map(str::to_owned).collect())
    }
}

/// Returns rustup's toolchain that lacks nothing but the sources of core; the default one, if it is among them.
fn without_sources<'a>(system: &dyn System, survey: &'a Survey) -> Option<&'a str> {
    let fits = |compiler: &&Compiler| {
        let found = linker::find(system, compiler, &survey.compilers);
        !compiler.has_sources && compiler.version >= OLDEST && !matches!(found, Found::Impossible(_))
    };
    let fitting = survey.compilers.iter().filter(fits).map(|compiler| &compiler.candidate);
    let named = fitting.filter(|candidate| candidate.toolchain.is_some());
    named.min_by_key(|candidate| !candidate.is_default)?.toolchain.as_deref()
}

fn no_compiler(look: &Look<'_>, survey: &Survey, obstacles: &[(Route, Obstacle)]) -> Missing {
    let refusals = survey.refusals.iter().map(|(candidate, reason)| format!("\n    {candidate}: {reason}"));
    let routes = obstacles.iter().map(|(route, obstacle)| format!("\n    {}: {}", route.name(), obstacle.reason));
    let why = format!("none was found that will do{}", refusals.chain(routes).collect::<String>());
    let remedy = if survey.is_named {
        "env --unset=SPIP_EBPF_RUSTC cargo xtask setup".to_owned()
    } else {
        let by_route = obstacles.iter().find_map(|(_, obstacle)| obstacle.remedy.clone());
        // A rustup that is there has failed already.
        let rustup = || look.packages.remedy("rustup").filter(|_| !look.system.has("rustup"));
        by_route.or_else(rustup).unwrap_or_else(|| {
            format!("SPIP_EBPF_RUSTC=/path/to/rustc cargo xtask setup    (rustc {OLDEST} or later, with rust-src)")
        })
    };
    Missing { what: "a rustc that can compile for the kernel".to_owned(), why, remedy }
}

#[cfg(test)]
mod tests;
