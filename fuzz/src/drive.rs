//! The engine that runs everywhere: inputs from a seed, a bound on memory, and a watch on time. The bound on memory is
//! the other engine's, too.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use crate::mutate::{Random, mutated};
use crate::{Target, corpus, memory};

/// One input may hold this much, and [`MEMORY_PER_BYTE`] for each of its bytes.
const MEMORY_BYTES: usize = 2 << 20;
/// A record has a byte up to eight times, and is made from facts that were copied.
const MEMORY_PER_BYTE: usize = 128;
/// A machine that is busy must not make a finding.
const SLOW: Duration = Duration::from_secs(5);

/// End of a run.
#[derive(Clone, Copy, Debug)]
pub enum Until {
    /// Number of inputs, besides the corpus.
    Inputs(u64),
    /// Until then.
    Time(Instant),
}

/// An input that must not do what it does.
#[derive(Debug)]
pub struct Finding {
    /// The target.
    pub target: String,
    /// The input.
    pub input: Vec<u8>,
    /// Account of the run.
    pub what: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}, by {} bytes: ", self.target, self.what, self.input.len())?;
        write!(f, "{}", self.input.iter().take(256).map(|byte| format!("{byte:02x}")).collect::<String>())
    }
}

/// Runs the corpus of `target`, then mutations of it that follow from `seed`; returns how many inputs it ran.
///
/// # Errors
/// The first finding.
///
/// # Panics
/// When the corpus cannot be read.
pub fn drive(target: &Target, seed: u64, until: Until) -> Result<u64, Box<Finding>> {
    let seeds = seeds(target);
    for seed in &seeds {
        let _ = catch_unwind(AssertUnwindSafe(|| target.run(seed)));
    }
    for seed in &seeds {
        try_one(target, seed)?;
    }
    let mut random =
        Random::new(seed ^ target.name.bytes().fold(0u64, |sum, byte| sum.wrapping_mul(31) + u64::from(byte)));
    let mut count = 0;
    loop {
        let over = match until {
            Until::Inputs(inputs) => count >= inputs,
            Until::Time(end) => Instant::now() >= end,
        };
        if over {
            return Ok(count + seeds.len() as u64);
        }
        try_one(target, &mutated(&seeds, &mut random))?;
        count += 1;
    }
}

fn seeds(target: &Target) -> Vec<Vec<u8>> {
    let seeds = corpus::of(target).expect("the corpus is part of the project");
    assert!(!seeds.is_empty(), "{} has no corpus", target.name);
    seeds
}

/// Runs the corpus once: what is made once, as keys are, is no part of any input.
///
/// # Panics
/// When the corpus cannot be read, and at a finding in it.
pub fn warm_up(target: &Target) {
    seeds(target).iter().for_each(|seed| target.run(seed));
}

/// Runs one input; how much memory it held, where that is more than it may.
///
/// # Errors
/// That it was too much.
///
/// # Panics
/// When something does not hold: that is a finding, too.
pub fn run_within_memory(target: &Target, input: &[u8]) -> Result<(), String> {
    let peak = memory::peak(|| target.run(input));
    if peak > MEMORY_BYTES + MEMORY_PER_BYTE * input.len() { Err(format!("{peak} bytes of memory")) } else { Ok(()) }
}

fn try_one(target: &Target, input: &[u8]) -> Result<(), Box<Finding>> {
    let finding =
        |what: String| Err(Box::new(Finding { target: target.name.to_string(), input: input.to_vec(), what }));
    let began = Instant::now();
    match catch_unwind(AssertUnwindSafe(|| run_within_memory(target, input))) {
        Ok(Ok(())) => {}
        Ok(Err(too_much)) => return finding(too_much),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
            return finding(format!("panic: {}", text.unwrap_or("of another kind")));
        }
    }
    if began.elapsed() > SLOW {
        return finding(format!("{:?} of time", began.elapsed()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[global_allocator]
    static ALLOCATOR: memory::Counting = memory::Counting;

    fn finding(run: fn(&[u8])) -> Box<Finding> {
        drive(&Target::function("packet", 1, &["packet"], run), 0, Until::Inputs(2000)).expect_err("a finding")
    }

    #[test]
    fn a_panic_is_found_with_its_input() {
        let finding = finding(|bytes| assert!(bytes.len() < 100, "too long"));
        assert_eq!((finding.target.as_str(), finding.what.as_str()), ("packet", "panic: too long"));
        assert!(finding.input.len() >= 100);
        assert!(finding.to_string().starts_with("packet: panic: too long, by "));
    }

    #[test]
    fn too_much_memory_is_found() {
        let finding = finding(|bytes| drop(std::hint::black_box(vec![0u8; bytes.len() * bytes.len() * 64])));
        assert!(finding.what.ends_with("bytes of memory"), "{finding}");
    }

    #[test]
    fn equal_seeds_give_equal_inputs() {
        let run = |seed| {
            let seeds = seeds(&Target::function("ssh", 1, &["ssh"], |_| {}));
            let mut random = Random::new(seed);
            (0..100).map(|_| mutated(&seeds, &mut random)).collect::<Vec<_>>()
        };
        assert_eq!(run(7), run(7));
        assert_ne!(run(7), run(8));
    }
}
