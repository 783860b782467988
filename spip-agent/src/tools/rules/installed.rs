//! State of the rules, for `doctor`: installed, out of date, or missing. Reads, and changes nothing.

use std::path::Path;

use super::backend::Backend;
use super::iptables::{Family, Iptables};
use super::nft::{self, Ruleset};
use super::programs::Programs;
use super::saved::{LOCAL, Saved};
use super::{Error, Options, Wanted, filter, plan, wanted};
use crate::config::Config;
use crate::kernel::sockets::Sockets;

/// The rules of one address family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RuleState {
    /// As `rules install` would make them now.
    InPlace,
    /// Ours, and as `rules install --include-listening` would make them: ports of services lead to the agent, because
    /// that was wanted, or because the services came later.
    TakesServices,
    /// Ours, but `rules install` would make others now: services have come or gone since, or the configuration changed.
    Outdated,
    /// Ours, and behind a rule that ends the way of every connection before they are asked.
    Shadowed(String),
    /// Ours, in front of a rule that leads published ports to containers.
    Overtakes(String),
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
    pub families: Vec<(&'static str, RuleState)>,
    /// Set when they take the connections of this machine, too: installed with `--local`.
    pub local: bool,
}

/// Determines the state of the rules of both families.
///
/// # Errors
/// When the listeners cannot be listed, or no rule could reach the listener.
pub fn states(config: &Config) -> Result<Found, Error> {
    let sockets = Sockets::read(Path::new("/proc"))?;
    let ssh_connection = std::env::var("SSH_CONNECTION").ok();
    let iptables = match Backend::choose(Programs::from_environment) {
        Backend::Iptables(iptables) => iptables,
        Backend::Nft(programs) => {
            let listing = nft::listing(&programs);
            let local = listing.as_ref().is_ok_and(|listing| listing.as_deref().is_some_and(nft::has_local));
            let variants = variants(config, local, &sockets, ssh_connection.as_deref())?;
            return Ok(Found { families: by_nft(listing, &variants), local });
        }
    };
    let saved = [Family::V4, Family::V6].map(|family| (family, iptables.saved(family)));
    let has_local = saved.iter().any(|(_, saved)| saved.as_ref().is_ok_and(|saved| saved.chains.contains(&LOCAL)));
    let variants = variants(config, has_local, &sockets, ssh_connection.as_deref())?;
    let judged = saved.into_iter().map(|(family, saved)| {
        let chains = variants.iter().map(|wanted| match family {
            Family::V4 => wanted.v4.as_slice(),
            Family::V6 => wanted.v6.as_slice(),
        });
        let is_wanted = |chains: &[plan::Chain]| !chains.is_empty();
        let state = match saved {
            Ok(saved) => judge(chains, &saved),
            Err(error) => RuleState::Unknown { reason: error.to_string(), wanted: chains.clone().any(is_wanted) },
        };
        (family.name(), state)
    });
    Ok(Found { families: judged.collect(), local: has_local })
}

/// Returns the rules that `rules install` would make, without and with `--include-listening`: the options of the
/// installation are not stored, so the variant that fits is the one.
fn variants(config: &Config, local: bool, sockets: &Sockets, ssh: Option<&str>) -> Result<[Wanted; 2], Error> {
    let wanted = |include_listening| {
        let options = Options { local, include_listening, yes: false };
        Ok::<_, Error>(wanted(config, options, sockets, ssh)?.0)
    };
    Ok([wanted(false)?, wanted(true)?])
}

/// Determines the state of the table of nftables, for both families.
fn by_nft(listing: Result<Option<String>, Error>, variants: &[Wanted; 2]) -> Vec<(&'static str, RuleState)> {
    let families = [(Family::V4, !variants[0].v4.is_empty()), (Family::V6, !variants[0].v6.is_empty())];
    let judged = families.into_iter().map(|(family, is_wanted)| {
        let state = match &listing {
            Err(error) => RuleState::Unknown { reason: error.to_string(), wanted: is_wanted },
            // The table of both families has rules for those that are wanted alone.
            _ if !is_wanted => RuleState::Unwanted,
            Ok(None) => RuleState::Absent,
            Ok(Some(listing)) => {
                match variants.iter().position(|Wanted { nft, .. }: &Wanted| Ruleset::is_in(nft, listing)) {
                    Some(0) => RuleState::InPlace,
                    Some(_) => RuleState::TakesServices,
                    None => RuleState::Outdated,
                }
            }
        };
        (family.name(), state)
    });
    judged.collect()
}

/// Returns what a packet filter keeps from the listener although rules lead it there, for the operator, and the remedy.
#[must_use]
pub fn filtered(config: &Config) -> Option<(String, String)> {
    let port = config.listen.port();
    let iptables = Iptables::from_environment();
    let wanted = [
        (Family::V4, !config.listen.is_ipv6() || config.listen.ip().is_unspecified()),
        (Family::V6, config.listen.is_ipv6()),
    ];
    let families = wanted.into_iter().filter(|(_, wanted)| *wanted).map(|(family, _)| (family, iptables.all(family)));
    let dropping: Vec<_> = families.filter(|(_, saved)| filter::drops(saved, port)).collect();
    let names: Vec<_> = dropping.iter().map(|(family, _)| family.name()).collect();
    let remedy = if dropping.iter().any(|(_, saved)| filter::is_by_ufw(saved)) {
        format!("ufw allow {port}/tcp")
    } else {
        format!("iptables -I INPUT -p tcp --dport {port} -j ACCEPT (ip6tables for IPv6)")
    };
    let found = format!(
        "the packet filter drops {} connections to TCP port {port}, the agent's own, to which rules lead all others",
        names.join(" and ")
    );
    (!dropping.is_empty()).then_some((found, remedy))
}

/// Reports whether there are rules of ours at all, whatever the configuration says; those that cannot be read count as
/// none.
#[must_use]
pub fn any_installed() -> bool {
    let iptables = Iptables::from_environment();
    let by_nft = || nft::listing(iptables.programs()).is_ok_and(|listing| listing.is_some());
    let by_iptables = |family| iptables.saved(family).is_ok_and(|saved| !saved.chains.is_empty());
    [Family::V4, Family::V6].into_iter().any(by_iptables) || by_nft()
}

/// `variants` are the rules as install makes them, and with `--include-listening`.
fn judge<'a>(mut variants: impl Iterator<Item = &'a [plan::Chain]> + Clone, saved: &Saved) -> RuleState {
    let is_wanted = variants.clone().any(|chains| !chains.is_empty());
    let is_there = !saved.chains.is_empty();
    match (is_wanted, is_there) {
        (false, false) => RuleState::Unwanted,
        (false, true) => RuleState::LeftOver,
        (true, false) => RuleState::Absent,
        (true, true) if !saved.before.is_empty() => RuleState::Shadowed(saved.before.join("; ")),
        (true, true) if !saved.overtaken.is_empty() => {
            RuleState::Overtakes(saved.overtaken.iter().map(|(_, rule)| rule.as_str()).collect::<Vec<_>>().join("; "))
        }
        (true, true) => match variants.position(|chains| plan::is_in_place(chains, saved)) {
            Some(0) => RuleState::InPlace,
            Some(_) => RuleState::TakesServices,
            None => RuleState::Outdated,
        },
    }
}
