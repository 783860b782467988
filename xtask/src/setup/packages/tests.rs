//! The table of tools, and what setup does about those that are missing.

use super::super::fake::{Fake, STALE};
use super::*;

fn programs(need: Need) -> Vec<&'static str> {
    tools().filter(|tool| tool.needs.contains(&need)).map(|tool| tool.program).collect()
}

#[test]
fn a_build_needs_no_network_tools() {
    assert_eq!(programs(Need::Build), ["cc"]);
    assert_eq!(programs(Need::Lint), ["cc", "pkg-config"]);
    assert_eq!(programs(Need::Fuzz), ["cc", "c++"]);
}

#[test]
fn the_demo_needs_no_peers_of_the_tests_and_the_tests_all_that_the_demo_needs() {
    let (demo, test) = (programs(Need::Demo), programs(Need::Test));
    assert!(demo.iter().all(|program| test.contains(program)));
    assert!(!demo.contains(&"chromium") && test.contains(&"chromium"));
}

#[test]
fn a_soak_needs_no_clients_of_the_tests_but_a_look_at_maps() {
    let soak = programs(Need::Soak);
    assert!(soak.contains(&"bpftool") && soak.contains(&"ip") && !soak.contains(&"nmap"), "{soak:?}");
}

#[test]
fn the_table_is_whole() {
    for line in TOOLS.lines().filter(|line| !line.starts_with('#')) {
        assert_eq!(line.split('|').count(), 9, "{line}");
        let word = line.split('|').nth(1).expect("the commands").trim();
        assert!(["all", "namespaces", "maps", "test", "legacy", "fuzz", "python"].contains(&word), "{line}");
    }
    for tool in tools() {
        assert!(!tool.packages[0].is_empty(), "{}", tool.program);
        assert!(tool.without.is_some() || tool.packages.iter().all(|package| !package.is_empty()), "{}", tool.program);
    }
}

#[test]
fn a_package_that_brings_two_programs_is_named_once() {
    let tables: Vec<Tool> = tools().filter(|tool| tool.program.ends_with("tables")).collect();
    assert_eq!(names(&tables, 0), "iptables");
}

#[test]
fn a_tool_that_fails_its_check_is_missing() {
    let fake = Fake::default();
    fake.programs.borrow_mut().extend(["cc", "pkg-config"]);
    let missing: Vec<&str> = tools().filter(|tool| !tool.is_there(&fake)).map(|tool| tool.program).collect();
    assert!(missing.contains(&"pkg-config") && !missing.contains(&"cc"), "{missing:?}");
}

#[test]
fn a_required_tool_is_installed_from_lists_that_are_updated_first() {
    let mut fake = Fake::default();
    fake.lists_age.set(STALE);
    fake.after_update.extend([("gcc", "4:12.2.0-3"), ("libc6-dev", "2.36")]);
    assert!(Packages::new(&fake).ready(Need::Build, true).is_none());
    assert_eq!(fake.changed(2), ["apt-get update", "apt-get install"]);
}

#[test]
fn lists_that_lack_a_package_are_updated_once_however_many_tools_are_missing() {
    let fake = Fake::default();
    let missing = Packages::new(&fake).ready(Need::Fuzz, true).expect("cc is offered nowhere");
    assert_eq!(fake.changed(2), ["apt-get update"]);
    assert!(missing.why.contains("apt offers no gcc, apt offers no libc6-dev"), "{missing}");
}

#[test]
fn an_optional_tool_that_is_not_offered_is_left_out() {
    let fake = Fake::default();
    fake.offered.borrow_mut().extend([("gcc", "12"), ("libc6-dev", "2.36")]);
    assert!(Packages::new(&fake).ready(Need::Fuzz, true).is_none());
    assert!(!fake.programs.borrow().contains(&"c++"));
}

#[test]
fn a_candidate_is_compared_without_its_epoch() {
    let fake = Fake::default();
    fake.offered.borrow_mut().extend([("gcc", "4:12.2.0-3"), ("libssl-dev", "1.1.0l-1~deb9u1")]);
    let packages = Packages::new(&fake);
    assert_eq!(packages.candidate("gcc").as_deref(), Some("12.2.0-3"));
    let obstacle = packages.offer(&["libssl-dev>=1.1.1".to_owned()], true, [""; 4]).expect_err("1.1.0 is older");
    assert_eq!(obstacle.reason, "apt offers libssl-dev 1.1.0l-1~deb9u1, older than 1.1.1");
}

#[test]
fn what_apt_would_have_to_remove_something_for_is_not_installed() {
    let mut fake = Fake::default();
    fake.offered.borrow_mut().extend([("gcc", "12"), ("libc6-dev", "2.36")]);
    fake.refusal = Some("Packages need to be removed but remove is disabled.");
    let missing = Packages::new(&fake).ready(Need::Build, true).expect("apt refuses");
    assert!(missing.why.ends_with("Packages need to be removed but remove is disabled."), "{missing}");
    assert_eq!(fake.changed(9), [""; 0]);
}

#[test]
fn without_rights_the_lists_are_read_and_the_command_is_named() {
    let fake = Fake { rights: Root::No, ..Fake::default() };
    fake.offered.borrow_mut().extend([("gcc", "12"), ("libc6-dev", "2.36")]);
    let missing = Packages::new(&fake).ready(Need::Build, true).expect("nobody may install it");
    assert!(missing.remedy.ends_with("gcc libc6-dev"), "{missing}");
    assert_eq!(fake.changed(9), [""; 0]);
}

#[test]
fn a_system_without_a_known_package_manager_hears_what_debian_calls_it() {
    let fake = Fake::default();
    fake.programs.borrow_mut().clear();
    let missing = Packages::new(&fake).ready(Need::Build, true).expect("there is no cc");
    assert_eq!(missing.remedy, "install what Debian calls gcc libc6-dev");
}
