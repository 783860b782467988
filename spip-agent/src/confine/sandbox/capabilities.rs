//! Drops all capabilities from all sets.
//!
//! One may be needed further on: kernels before 5.19 require `CAP_BPF` to read a map where
//! `kernel.unprivileged_bpf_disabled` is set. Whether that is so is tried, not read from a version.

use caps::errors::CapsError;
use caps::{CapSet, Capability, CapsHashSet};

use super::StepResult;

pub(super) fn drop_all(reads_maps: &dyn Fn() -> bool) -> StepResult {
    let permitted = match caps::read(None, CapSet::Permitted) {
        Ok(permitted) => permitted,
        Err(error) => return StepResult::Missing(format!("cannot be read: {error}")),
    };
    let (kept, unknown) = match kept(&permitted, reads_maps) {
        Ok(kept) => (kept, None),
        Err(error) => (CapsHashSet::new(), Some(format!("whether one is needed cannot be tried: {error}"))),
    };
    // Each set on its own: one that stays is no reason for the others to stay.
    let bounding = drop_bounding(&permitted);
    // Kernels before 4.3 have no ambient set.
    let _ = caps::clear(None, CapSet::Ambient);
    let sets = [
        ("inheritable", caps::set(None, CapSet::Inheritable, &CapsHashSet::new())),
        ("effective", caps::set(None, CapSet::Effective, &kept)),
        ("permitted", caps::set(None, CapSet::Permitted, &kept)),
    ];
    let failed = sets.into_iter().filter_map(|(set, result)| Some(format!("the {set} set stays: {}", result.err()?)));
    let bounding = match bounding {
        Ok(dropped) => Ok(dropped),
        Err(error) => Err(format!("the bounding set stays: {error}")),
    };
    let missing: Vec<_> = unknown.into_iter().chain(bounding.as_ref().err().cloned()).chain(failed).collect();
    let what = match kept.is_empty() {
        true => "none".to_owned(),
        false => "CAP_BPF alone: this kernel requires it to read a map".to_owned(),
    };
    if !missing.is_empty() {
        StepResult::Missing(format!("{}; all others are dropped", missing.join("; ")))
    } else if bounding == Ok(true) {
        StepResult::Done(what)
    } else {
        // no_new_privs keeps anything from being gained under it.
        StepResult::Done(format!("{what} (the bounding set stays: no CAP_SETPCAP)"))
    }
}

/// Lowers the bound where that is allowed; whether it was.
fn drop_bounding(permitted: &CapsHashSet) -> Result<bool, CapsError> {
    if !permitted.contains(&Capability::CAP_SETPCAP) {
        return Ok(false);
    }
    caps::raise(None, CapSet::Effective, Capability::CAP_SETPCAP)?;
    caps::clear(None, CapSet::Bounding)?;
    Ok(true)
}

/// Returns the capabilities that have to stay. Tries with every permitted one in effect, which a change of the user has
/// turned off, and then with none.
fn kept(permitted: &CapsHashSet, reads_maps: &dyn Fn() -> bool) -> Result<CapsHashSet, CapsError> {
    let mut kept = CapsHashSet::new();
    if permitted.contains(&Capability::CAP_BPF) {
        caps::set(None, CapSet::Effective, permitted)?;
        if reads_maps() {
            caps::set(None, CapSet::Effective, &CapsHashSet::new())?;
            if !reads_maps() {
                kept.insert(Capability::CAP_BPF);
            }
            caps::set(None, CapSet::Effective, permitted)?;
        }
    }
    Ok(kept)
}
