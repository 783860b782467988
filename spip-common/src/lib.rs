//! Types shared by the kernel side and the agent: the keys, values and names of the maps, the counters, the constants
//! that the loader sets, and the parsing of a SYN.
//!
//! Decided here once, for both sides:
//!
//! - **Byte order.** An address is 16 bytes as on the wire, IPv4 as `::ffff:a.b.c.d`. Every number (port, sequence
//!   number, window, length, time) is in the byte order of the machine. Code that reads a packet or a kernel structure
//!   converts at once; nothing in a map is in network order. Kernel and agent are the same machine, so this is safe.
//! - **Layout.** All types in maps are `#[repr(C)]`, at most 8-byte aligned, without implicit padding: every byte has
//!   a name, so every byte is written, and `bpftool map dump` shows names.
//! - **Parsing** is generic over where the bytes come from ([`Packet`]): the kernel side reads a socket buffer, tests
//!   and the agent read a slice. There is one parser, and it is tested on the host.
//!
//! The crate is `no_std`, allocates nothing and cannot panic on any input.
#![no_std]

#[cfg(test)]
extern crate std;

pub mod counters;
pub mod event;
pub mod map;
pub mod named;
pub mod packet;
pub mod steer;
pub mod syn;

pub use counters::Counters;
pub use event::{Step, SynEvent};
pub use map::{Entry, SynData, SynKey};
pub use packet::{Packet, Parsed, Refused, parse, parse_headers};
pub use steer::SteerCounters;
pub use syn::Syn;
