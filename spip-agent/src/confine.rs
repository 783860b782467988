//! Confinement of the process: sandbox, identity, bounds of descriptors and memory.

pub mod descriptors;
pub mod memory;
pub mod sandbox;
