//! `spip-fuzz [TARGET|all] [SECONDS] [SEED]`: the engine without coverage, for as long as asked.
//!
//! Ends with status 1 and leaves the input beside the corpus when something was found; with `list` it names the
//! targets.

use std::fs;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use spip_fuzz::drive::{Finding, Until, drive};
use spip_fuzz::{corpus, memory, targets};

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
        targets().iter().for_each(|target| println!("{}", target.name));
        return ExitCode::SUCCESS;
    }
    let chosen: Vec<_> = targets().into_iter().filter(|target| name == "all" || target.name == name).collect();
    let (Some(seconds), Some(seed), false) = (number(1, 60), number(2, 0), chosen.is_empty()) else {
        eprintln!("usage: spip-fuzz [TARGET|all|list] [SECONDS] [SEED]");
        return ExitCode::from(2);
    };
    let each = Duration::from_secs(seconds) / u32::try_from(chosen.len()).unwrap_or(1);
    for target in chosen {
        match drive(&target, seed, Until::Time(Instant::now() + each)) {
            Ok(inputs) => println!("{:<16}{inputs:>12} inputs", target.name),
            Err(finding) => return report(&finding),
        }
    }
    ExitCode::SUCCESS
}

fn report(finding: &Finding) -> ExitCode {
    eprintln!("{finding}");
    let folder = corpus::home(finding.target);
    // A target without a corpus of its own would lose all others by getting one.
    if folder.is_dir() {
        let sum = finding.input.iter().fold(0u64, |sum, byte| sum.wrapping_mul(0x100_0000_01b3) ^ u64::from(*byte));
        let path = folder.join(format!("found-{sum:016x}"));
        match fs::write(&path, &finding.input) {
            Ok(()) => eprintln!("kept as {}: every run begins with it from now on", path.display()),
            Err(error) => eprintln!("cannot keep it as {}: {error}", path.display()),
        }
    }
    ExitCode::FAILURE
}
