//! Every function that reads hostile bytes, as a fuzz target: a plain function on a slice that panics where
//! something does not hold.
//!
//! Two engines drive the same list. The one in [`drive`] runs everywhere: it mutates a small committed corpus from a
//! seed, looks at no coverage, and repeats exactly; it is part of the tests. libFuzzer (`fuzz/libfuzzer`) searches
//! by coverage and needs a compiler for C++. `cargo xtask fuzz` takes whichever the machine has.
//!
//! Beside panics both find what takes too long and what takes too much memory (see [`memory`]). An input that was found
//! belongs into `corpus/<target>`, where every later run begins with it.

pub mod corpus;
pub mod drive;
pub mod memory;
pub mod mutate;
mod targets;

pub use targets::{Target, targets};
