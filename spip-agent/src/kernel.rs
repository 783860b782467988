//! Facts from the kernel: listeners, steering, the eBPF programs, and the destination of a connection.

pub mod accept_queue;
pub mod addr;
pub mod early_demux;
pub mod ebpf;
pub mod interfaces;
pub mod listen;
pub mod listening;
pub mod origin;
pub mod routes;
pub mod sockets;
pub mod steering;
