//! The kernel side: programs that tell the agent where a connection was going before address translation.
//!
//! Address translation leaves one thing of a SYN alone: the sequence number. So `syn_observer` notes every SYN of the
//! network namespace under (source address, sequence number + 1), and `sock_ops`, which is called when a connection is
//! established, asks for (remote address, next sequence number expected), and writes what it finds under the socket's
//! cookie, where the agent looks it up. What the types mean, and in which byte order, is decided in `spip-common`.
//!
//! Where the agent wants to know of scans, both tell it what they see through a ring buffer, and `syn_arrival`, a filter
//! on the listening sockets that lets everything pass, tells which SYNs arrived there.
//!
//! The programs are thin entries; each has a file. They decide nothing about a packet's fate: the filter drops its own
//! copies, and `sock_ops` changes nothing but the callbacks of the listener's own connections.
#![no_std]
#![no_main]

mod connection;
mod events;
mod maps;
mod skb;
mod sock_ops;
mod steer;
mod syn_arrival;
mod syn_data;
mod syn_observer;

/// Never called: nothing in the programs can panic, or the verifier would refuse them. The language asks for it.
#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo) -> ! {
    loop {}
}

/// Licence that the kernel asks for before it offers the helpers reserved for GPL programs.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
