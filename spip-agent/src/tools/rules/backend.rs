//! Which programs the rules are made with: those that the machine really uses.
//!
//! Where rules of ours are, they are kept where they are. Else `iptables`, whichever of its variants has rules; and `nft` where there
//! is no `iptables`, or where its tables are the only ones in use. One machine, one place: a rule that is looked for in the wrong
//! place is not found.

use super::iptables::{Family, Iptables, Variant};
use super::nft;
use super::programs::Programs;

/// With what rules are made.
pub(super) enum Backend {
    /// `iptables-restore`, of either variant.
    Iptables(Iptables),
    /// `nft`.
    Nft(Programs),
}

impl Backend {
    /// Chooses.
    pub(super) fn choose(find: impl Fn() -> Programs) -> Self {
        let programs = find();
        let usual = Iptables::new(find(), Variant::Usual);
        if !programs.has(Family::V4.restore(Variant::Usual)) {
            return Self::Nft(programs);
        }
        let is_ours = |iptables: &Iptables| {
            [Family::V4, Family::V6]
                .iter()
                .any(|family| iptables.saved(*family).is_ok_and(|saved| !saved.chains.is_empty()))
        };
        if is_ours(&usual) {
            return Self::Iptables(usual);
        }
        if programs.has(nft::PROGRAM) && nft::listing(&programs).is_ok_and(|listing| listing.is_some()) {
            return Self::Nft(programs);
        }
        let has_rules = usual.has_rules();
        // Asking the older tables brings their modules in: they are asked only where some are in.
        let legacy_tables =
            std::fs::read_to_string("/proc/thread-self/net/ip_tables_names").is_ok_and(|names| !names.is_empty());
        let legacy = Iptables::new(find(), Variant::Legacy);
        if !has_rules && legacy_tables && legacy.has_rules() {
            return Self::Iptables(legacy);
        }
        if !has_rules && nft::is_in_use(&programs) { Self::Nft(programs) } else { Self::Iptables(usual) }
    }

    /// Returns its name with its version.
    pub(super) fn name(&self) -> String {
        match self {
            Self::Iptables(iptables) => iptables.version(),
            Self::Nft(programs) => match programs.version(nft::PROGRAM) {
                version if version.is_empty() => "nft, which is not installed: install the package nftables".to_owned(),
                version => format!("{version}, table {}", nft::TABLE),
            },
        }
    }
}
