//! Embeds the eBPF object that `cargo xtask build-ebpf` made, or nothing.
//!
//! The agent builds without the eBPF toolchain: where there is no object, an empty one is embedded, and the agent says
//! at start that it was built without eBPF. `SPIP_EBPF_OBJECT` names another object; one that is named must be there.

use std::path::{Path, PathBuf};
use std::{env, fs};

/// Path of the object that `cargo xtask build-ebpf` makes, below the target directory.
const OBJECT: &str = "ebpf/spip";
/// The variable that names another object.
const VARIABLE: &str = "SPIP_EBPF_OBJECT";

fn main() {
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed={VARIABLE}");

    let object = match env::var_os(VARIABLE) {
        Some(named) => {
            let named = PathBuf::from(named);
            println!("cargo::rerun-if-changed={}", named.display());
            fs::read(&named).unwrap_or_else(|error| panic!("{VARIABLE}={}: {error}", named.display()))
        }
        None => built(&out),
    };
    fs::write(out.join("spip"), object).expect("the output directory can be written");
}

/// The object below the target directory; empty where it was not built.
fn built(out: &Path) -> Vec<u8> {
    // OUT_DIR is TARGET/PROFILE/build/PACKAGE/out, or one level deeper with `--target`.
    let candidates = || out.ancestors().skip(4).take(2).map(|target| target.join(OBJECT));
    for object in candidates() {
        if let Ok(bytes) = fs::read(&object) {
            println!("cargo::rerun-if-changed={}", object.display());
            return bytes;
        }
    }
    // Cargo takes a path that does not exist for one that has changed, each time anew. A directory that exists is only
    // looked at, and changes when the object appears.
    for directory in candidates().filter_map(|object| object.parent().map(Path::to_path_buf)) {
        if fs::create_dir_all(&directory).is_ok() {
            println!("cargo::rerun-if-changed={}", directory.display());
        }
    }
    Vec::new()
}
