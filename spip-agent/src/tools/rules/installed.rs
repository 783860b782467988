//! State of the rules, for `doctor`: installed, out of date, or missing. Reads, and changes nothing.

use std::path::Path;

use super::iptables::{Family, Iptables};
use super::saved::{LOCAL, Saved};
use super::{Error, Options, plan, wanted};
use crate::config::Config;
use crate::kernel::sockets::Sockets;

/// The rules of one address family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// As `rules install` would make them now.
    InPlace,
    /// Ours, and as `rules install --include-listening` would make them: ports of services lead to the agent, because
    /// that was wanted, or because the services came later.
    TakesServices,
    /// Ours, but `rules install` would make others now: services have come or gone since, or the configuration changed.
    Outdated,
    /// None of ours.
    Absent,
    /// The configuration asks for none in this family, and there are none.
    Unwanted,
    /// Ours, though the configuration asks for none.
    LeftOver,
    /// Rules that cannot be read.
    Unknown {
        /// Reason.
        reason: String,
        /// Set when rules are needed on this family.
        wanted: bool,
    },
}

/// State of the rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Each family by its name.
    pub families: Vec<(&'static str, Standing)>,
    /// Set when they take the connections of this machine, too: installed with `--local`.
    pub local: bool,
}

/// Determines the state of the rules of both families.
///
/// # Errors
/// When the listeners cannot be listed, or no rule could reach the listener.
pub fn standing(config: &Config) -> Result<Found, Error> {
    let sockets = Sockets::read(Path::new("/proc"))?;
    let ssh_connection = std::env::var("SSH_CONNECTION").ok();
    let iptables = Iptables::from_environment();
    let saved = [Family::V4, Family::V6].map(|family| (family, iptables.saved(family)));
    let has_local = saved.iter().any(|(_, saved)| saved.as_ref().is_ok_and(|saved| saved.chains.contains(&LOCAL)));
    // Which options the rules were installed with is not written down: whichever fits is the one.
    let mut variants = Vec::new();
    for include_listening in [false, true] {
        let options = Options { local: has_local, include_listening, yes: false };
        variants.push(wanted(config, options, &sockets, ssh_connection.as_deref())?.0);
    }
    let judged = saved.into_iter().map(|(family, saved)| {
        let chains = variants.iter().map(|wanted| match family {
            Family::V4 => wanted.v4.as_slice(),
            Family::V6 => wanted.v6.as_slice(),
        });
        let is_wanted = |chains: &[plan::Chain]| !chains.is_empty();
        let standing = match saved {
            Ok(saved) => judge(chains, &saved),
            Err(error) => Standing::Unknown { reason: error.to_string(), wanted: chains.clone().any(is_wanted) },
        };
        (family.name(), standing)
    });
    Ok(Found { families: judged.collect(), local: has_local })
}

/// Reports whether there are rules of ours at all, whatever the configuration says; those that cannot be read count as
/// none.
#[must_use]
pub fn any_installed() -> bool {
    let iptables = Iptables::from_environment();
    [Family::V4, Family::V6].iter().any(|family| iptables.saved(*family).is_ok_and(|saved| !saved.chains.is_empty()))
}

/// `variants` are the rules as install makes them, and with `--include-listening`.
fn judge<'a>(mut variants: impl Iterator<Item = &'a [plan::Chain]> + Clone, saved: &Saved) -> Standing {
    let is_wanted = variants.clone().any(|chains| !chains.is_empty());
    let is_there = !saved.chains.is_empty();
    match (is_wanted, is_there) {
        (false, false) => Standing::Unwanted,
        (false, true) => Standing::LeftOver,
        (true, false) => Standing::Absent,
        (true, true) => match variants.position(|chains| plan::is_in_place(chains, saved)) {
            Some(0) => Standing::InPlace,
            Some(_) => Standing::TakesServices,
            None => Standing::Outdated,
        },
    }
}
