//! `spip-fuzz [TARGET|all|list] [SECONDS] [SEED]`: the engine without coverage, for that long on each target.
//!
//! Ends with status 1 and leaves the input in the corpus when something was found. With `list` it names the targets,
//! each with the directories of its corpus.

use std::fs;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use spip_fuzz::drive::{Finding, Until, drive};
use spip_fuzz::{Target, corpus, memory, targets};

#[global_allocator]
static ALLOCATOR: memory::Counting = memory::Counting;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let name = arguments.first().map_or("all", String::as_str);
    let number = |index: usize, default: u64| match arguments.get(index) {
        Some(text) => text.parse().ok(),
        None => Some(default),
    };
    if name == "list" {
        return list();
    }
    let chosen: Vec<_> = targets().into_iter().filter(|target| name == "all" || target.name == name).collect();
    let (Some(seconds), Some(seed), false) = (number(1, 60), number(2, 0), chosen.is_empty()) else {
        eprintln!("usage: spip-fuzz [TARGET|all|list] [SECONDS] [SEED]");
        return ExitCode::from(2);
    };
    for target in chosen {
        match drive(&target, seed, Until::Time(Instant::now() + Duration::from_secs(seconds))) {
            Ok(inputs) => println!("{:<24}{inputs:>12} inputs", target.name),
            Err(finding) => return report(&target, &finding),
        }
    }
    ExitCode::SUCCESS
}

fn list() -> ExitCode {
    for target in targets() {
        let homes = match corpus::homes(&target) {
            Ok(homes) => homes,
            Err(error) => {
                eprintln!("cannot read {}: {error}", corpus::directory().display());
                return ExitCode::FAILURE;
            }
        };
        let homes: Vec<_> = homes.iter().map(|home| home.display().to_string()).collect();
        println!("{}\t{}", target.name, homes.join("\t"));
    }
    ExitCode::SUCCESS
}

fn report(target: &Target, finding: &Finding) -> ExitCode {
    eprintln!("{finding}");
    let folder = corpus::found(target);
    let sum = finding.input.iter().fold(0u64, |sum, byte| sum.wrapping_mul(0x100_0000_01b3) ^ u64::from(*byte));
    let path = folder.join(format!("found-{sum:016x}"));
    match fs::create_dir_all(&folder).and_then(|()| fs::write(&path, &finding.input)) {
        Ok(()) => eprintln!("kept as {}: every run begins with it from now on", path.display()),
        Err(error) => eprintln!("cannot keep it as {}: {error}", path.display()),
    }
    ExitCode::FAILURE
}
