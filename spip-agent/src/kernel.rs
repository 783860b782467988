//! What the kernel tells: listeners, steering, the eBPF programs, and where a connection was headed.

pub mod addr;
pub mod early_demux;
pub mod ebpf;
pub mod listen;
pub mod origin;
pub mod sockets;
pub mod steering;
