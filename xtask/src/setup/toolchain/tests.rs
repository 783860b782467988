//! The decision by which route setup comes by a compiler, on machines that differ.

use super::super::compiler::Version;
use super::super::fake::{Fake, STALE, compiler};
use super::*;
use crate::privilege::Root;

const STABLE: Version = Version(1, 95, 0);
const NIGHTLY: Version = Version(1, 99, 0);
const CURRENT: &str = "1.96.0+dfsg1-1~deb12u2";
const OUTDATED: &str = "1.85.0+dfsg3-1~deb12u3";

fn install(fake: &Fake) -> Result<Toolchain, Missing> {
    ready(fake, &Packages::new(fake), true)
}

fn origin(fake: &Fake) -> String {
    install(fake).expect("a compiler is found").compiler.candidate.origin
}

fn offer(fake: &Fake, version: &'static str) {
    fake.offered.borrow_mut().extend(DEBIAN.map(|package| (package, version)));
}

#[test]
fn a_complete_compiler_is_taken_and_nothing_is_changed() {
    let fake = Fake::default().with_rustup(vec![compiler("stable-x86_64", STABLE, 22, true)]);
    assert_eq!(origin(&fake), "rustup toolchain stable-x86_64");
    assert_eq!(fake.changed(9), [""; 0]);
}

#[test]
fn a_complete_compiler_of_the_distribution_needs_no_rustup() {
    let fake = Fake::default();
    fake.compilers.borrow_mut().push(compiler("", Version(1, 96, 0), 22, true));
    assert_eq!(origin(&fake), "PATH");
    assert_eq!(fake.changed(9), [""; 0]);
}

#[test]
fn rustup_adds_the_sources_to_the_default_toolchain_before_packages_are_looked_at() {
    let toolchains = vec![compiler("1.95.0", STABLE, 22, false), compiler("stable-x86_64", STABLE, 22, false)];
    let mut fake = Fake::default().with_rustup(toolchains);
    fake.lists_age.set(STALE);
    fake.after_update.extend(DEBIAN.map(|package| (package, CURRENT)));
    assert_eq!(origin(&fake), "rustup toolchain stable-x86_64");
    assert_eq!(fake.changed(9), ["rustup component add rust-src --toolchain stable-x86_64"]);
}

#[test]
fn a_nightly_that_no_linker_fits_is_left_alone_and_the_pinned_toolchain_fetched() {
    let fake = Fake::default().with_rustup(vec![compiler("nightly-x86_64", NIGHTLY, 23, false)]);
    assert_eq!(origin(&fake), "rustup toolchain 1.95.0");
    assert_eq!(fake.changed(4), ["rustup toolchain install 1.95.0"]);
}

#[test]
fn a_nightly_that_lacks_only_the_sources_gets_them() {
    let fake = Fake::default().with_rustup(vec![compiler("nightly-x86_64", Version(1, 96, 0), 22, false)]);
    assert_eq!(origin(&fake), "rustup toolchain nightly-x86_64");
}

#[test]
fn stale_lists_are_updated_before_their_candidate_is_believed() {
    let mut fake = Fake::default();
    fake.lists_age.set(STALE);
    offer(&fake, OUTDATED);
    fake.after_update.extend(DEBIAN.map(|package| (package, CURRENT)));
    assert_eq!(origin(&fake), "PATH");
    assert_eq!(fake.changed(2), ["apt-get update", "apt-get install"]);
}

#[test]
fn stale_lists_are_updated_also_when_their_candidate_would_do() {
    let fake = Fake::default();
    fake.lists_age.set(STALE);
    offer(&fake, CURRENT);
    assert_eq!(origin(&fake), "PATH");
    assert_eq!(fake.changed(2), ["apt-get update", "apt-get install"]);
}

#[test]
fn absent_lists_are_fetched() {
    let mut fake = Fake::default();
    fake.lists_age.set(None);
    fake.after_update.extend(DEBIAN.map(|package| (package, CURRENT)));
    assert_eq!(origin(&fake), "PATH");
    assert_eq!(fake.changed(2), ["apt-get update", "apt-get install"]);
}

#[test]
fn fresh_lists_with_a_candidate_that_will_do_are_not_updated() {
    let fake = Fake::default();
    offer(&fake, CURRENT);
    assert_eq!(origin(&fake), "PATH");
    assert_eq!(fake.changed(2), ["apt-get install"]);
}

#[test]
fn a_candidate_that_is_too_old_is_named_and_not_installed() {
    let fake = Fake::default();
    offer(&fake, OUTDATED);
    let missing = install(&fake).expect_err("1.85 is too old");
    assert!(missing.why.contains(&format!("apt offers rustc-web {OUTDATED}, older than 1.87.0")), "{missing}");
    assert_eq!(fake.changed(2), ["apt-get update"]);
    assert!(missing.remedy.starts_with("SPIP_EBPF_RUSTC="), "{missing}");
}

#[test]
fn packages_are_the_next_route_when_rustups_server_cannot_be_reached() {
    let mut fake = Fake { reaches_rustup: false, ..Fake::default() }.with_rustup(vec![compiler(
        "stable-x86_64",
        STABLE,
        22,
        false,
    )]);
    fake.lists_age.set(STALE);
    fake.after_update.extend(DEBIAN.map(|package| (package, CURRENT)));
    assert_eq!(origin(&fake), "PATH");
    let expected = ["rustup component", "rustup toolchain", "apt-get update", "apt-get install"];
    assert_eq!(fake.changed(2), expected);
}

#[test]
fn without_network_every_route_is_listed_and_the_remedy_is_none_that_was_tried() {
    let mut fake =
        Fake { has_network: false, ..Fake::default() }.with_rustup(vec![compiler("stable-x86_64", STABLE, 22, false)]);
    fake.refusal = Some("Packages need to be removed but remove is disabled.");
    offer(&fake, CURRENT);
    let missing = install(&fake).expect_err("nothing can be downloaded");
    assert_eq!(fake.changed(3), ["rustup component add", "rustup toolchain install"]);
    for reason in ["`rustup component add", "`rustup toolchain install", "remove is disabled"] {
        assert!(missing.why.contains(reason), "{missing}");
    }
    for tried in fake.changes.borrow().iter() {
        assert!(!missing.remedy.contains(tried.as_str()), "{missing}");
    }
}

#[test]
fn without_rights_the_remedy_is_the_command_of_one_who_has_them() {
    let fake = Fake { rights: Root::No, ..Fake::default() };
    offer(&fake, CURRENT);
    let missing = install(&fake).expect_err("packages need root");
    assert!(missing.remedy.ends_with("rustc-web cargo-web rust-web-src"), "{missing}");
    assert_eq!(fake.changed(9), [""; 0]);
}

#[test]
fn without_rights_rustup_gets_as_far_as_with_them() {
    let fake =
        Fake { rights: Root::No, ..Fake::default() }.with_rustup(vec![compiler("stable-x86_64", STABLE, 22, false)]);
    fake.linker.set(None);
    assert_eq!(origin(&fake), "rustup toolchain stable-x86_64");
    assert_eq!(fake.changed(3), ["rustup component add", "cargo install bpf-linker"]);
}

#[test]
fn a_route_that_leaves_nothing_usable_is_followed_by_the_next() {
    // The component is added, and the toolchain is still older than the kernel side needs.
    let fake = Fake::default().with_rustup(vec![compiler("stable-x86_64", Version(1, 80, 0), 22, false)]);
    assert_eq!(origin(&fake), "rustup toolchain 1.95.0");
    assert_eq!(fake.changed(3), ["rustup toolchain install"]);
}

#[test]
fn a_compiler_that_was_named_is_the_only_one() {
    let mut fake = Fake::default().with_rustup(vec![compiler("", Version(1, 80, 0), 22, true)]);
    fake.is_named = true;
    let missing = install(&fake).expect_err("1.80 is too old");
    assert!(missing.why.contains("older than 1.87.0"), "{missing}");
    assert_eq!(missing.remedy, "env --unset=SPIP_EBPF_RUSTC cargo xtask setup");
    assert_eq!(fake.changed(9), [""; 0]);
}

#[test]
fn another_package_manager_is_named_with_its_own_packages() {
    let expected = [
        ("dnf", "dnf install rust cargo rust-src"),
        ("pacman", "pacman -S --needed rust rust-src"),
        ("apk", "apk add rust cargo rust-src"),
        ("zypper", "zypper install rust cargo rust-src"),
    ];
    for (manager, command) in expected {
        let fake = Fake::default();
        *fake.programs.borrow_mut() = vec![manager];
        let missing = install(&fake).expect_err("setup runs apt only");
        assert!(missing.remedy.ends_with(command), "{missing}");
        assert!(!missing.to_string().contains("apt"), "{missing}");
        assert_eq!(fake.changed(9), [""; 0]);
    }
}

#[test]
fn a_check_changes_nothing_and_names_the_first_command() {
    let fake = Fake::default().with_rustup(vec![compiler("stable-x86_64", STABLE, 22, false)]);
    let missing = ready(&fake, &Packages::new(&fake), false).expect_err("sources are missing");
    assert_eq!(missing.remedy, "rustup component add rust-src --toolchain stable-x86_64");
    assert_eq!(fake.changed(9), [""; 0]);
}

#[test]
fn a_linker_that_cannot_be_built_is_missing_with_a_remedy_that_was_not_tried() {
    let fake =
        Fake { has_network: false, ..Fake::default() }.with_rustup(vec![compiler("stable-x86_64", STABLE, 22, true)]);
    fake.linker.set(None);
    let missing = install(&fake).expect_err("nothing can be downloaded");
    assert_eq!(missing.what, "bpf-linker 0.10.4");
    assert!(missing.why.contains("could not download"), "{missing}");
    assert_eq!(missing.remedy, "cargo binstall bpf-linker@0.10.4");
}

#[test]
fn an_outdated_linker_in_the_target_folder_is_replaced() {
    let fake = Fake::default().with_rustup(vec![compiler("stable-x86_64", STABLE, 22, true)]);
    fake.linker.set(Some("0.9.0"));
    assert_eq!(install(&fake).expect("it is built").linker.version, Version(0, 10, 4));
    assert_eq!(fake.changed(3), ["cargo install bpf-linker"]);
}
