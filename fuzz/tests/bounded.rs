//! A short run of every target, the same one each time: part of the ordinary tests.

use spip_fuzz::drive::{Until, drive};
use spip_fuzz::{corpus, memory, targets};

#[global_allocator]
static ALLOCATOR: memory::Counting = memory::Counting;

/// Time for all inputs of one target, about, in a build without optimisation.
const MICROS_PER_TARGET: u64 = 150_000;

#[test]
fn no_input_near_the_corpus_breaks_anything() {
    for target in targets() {
        let inputs = MICROS_PER_TARGET / u64::from(target.micros);
        if let Err(finding) = drive(&target, 0, Until::Inputs(inputs)) {
            panic!("{finding}");
        }
    }
}

#[test]
fn every_directory_of_the_corpus_belongs_to_a_target() {
    let targets = targets();
    let known: Vec<_> = targets.iter().flat_map(|target| &target.seeds).collect();
    for entry in std::fs::read_dir(corpus::directory()).expect("a corpus") {
        let name = entry.expect("an entry").file_name();
        let name = name.to_str().expect("text");
        // What was found in targets that have no corpus of their own is there for all of them.
        assert!(name == "found" || known.iter().any(|known| *known == name), "{name}");
    }
}
