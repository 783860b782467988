//! One target under libFuzzer: the one that `SPIP_FUZZ_TARGET` names. One program for all, so that a round over the
//! targets builds once.

#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use spip_fuzz::{Target, drive, memory, targets};

#[global_allocator]
static ALLOCATOR: memory::Counting = memory::Counting;

static TARGET: LazyLock<Target> = LazyLock::new(|| {
    let name = std::env::var("SPIP_FUZZ_TARGET").expect("SPIP_FUZZ_TARGET names a target");
    targets().into_iter().find(|target| target.name == name).expect("SPIP_FUZZ_TARGET names a target")
});

fuzz_target!(
    init: drive::warm_up(&TARGET),
    |bytes: &[u8]| {
        if let Err(too_much) = drive::run_within_memory(&TARGET, bytes) {
            panic!("{too_much}");
        }
    }
);
