//! Drops all capabilities from all sets.
//!
//! One may be needed further on: kernels before 5.19 let nobody look into a map without `CAP_BPF` where
//! `kernel.unprivileged_bpf_disabled` is set. Whether that is so is tried, not read from a version.

use caps::errors::CapsError;
use caps::{CapSet, Capability, CapsHashSet};

use super::StepResult;

pub(super) fn drop_all(reads_maps: &dyn Fn() -> bool) -> StepResult {
    match try_drop_all(reads_maps) {
        Ok(text) => StepResult::Done(text),
        Err(error) => StepResult::Missing(format!("cannot be dropped: {error}")),
    }
}

fn try_drop_all(reads_maps: &dyn Fn() -> bool) -> Result<String, CapsError> {
    let permitted = caps::read(None, CapSet::Permitted)?;
    let kept = kept(&permitted, reads_maps)?;
    let bounding = if permitted.contains(&Capability::CAP_SETPCAP) {
        caps::raise(None, CapSet::Effective, Capability::CAP_SETPCAP)?;
        caps::clear(None, CapSet::Bounding)?;
        ""
    } else {
        // Without CAP_SETPCAP the bound cannot be lowered; no_new_privs keeps anything from being gained under it.
        " (the bounding set stays: no CAP_SETPCAP)"
    };
    // Kernels before 4.3 have no ambient set.
    let _ = caps::clear(None, CapSet::Ambient);
    caps::set(None, CapSet::Inheritable, &CapsHashSet::new())?;
    caps::set(None, CapSet::Effective, &kept)?;
    caps::set(None, CapSet::Permitted, &kept)?;
    Ok(if kept.is_empty() {
        format!("none{bounding}")
    } else {
        format!("CAP_BPF alone: this kernel lets nobody look into a map without it{bounding}")
    })
}

/// What has to stay.
fn kept(permitted: &CapsHashSet, reads_maps: &dyn Fn() -> bool) -> Result<CapsHashSet, CapsError> {
    let mut kept = CapsHashSet::new();
    if permitted.contains(&Capability::CAP_BPF) && reads_maps() {
        caps::set(None, CapSet::Effective, &CapsHashSet::new())?;
        if !reads_maps() {
            kept.insert(Capability::CAP_BPF);
        }
        caps::set(None, CapSet::Effective, permitted)?;
    }
    Ok(kept)
}
