//! Overflows of the accept queue: the last packet of a handshake came, and the listener had no room for one more connection.
//! The client takes the connection for established; the kernel discards it (Linux net/ipv4/tcp_ipv4.c,
//! `tcp_v4_syn_recv_sock`) and counts that.
//!
//! The count is that of the network namespace, so it says that an overflow happened, not whose. It is read from a file that
//! is opened before the sandbox closes the way.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

/// The kernel's counters beyond those of the MIBs, for the network namespace of the process.
const TABLE: &str = "/proc/net/netstat";
/// The counter (`LINUX_MIB_LISTENOVERFLOWS`).
const COUNTER: &str = "ListenOverflows";
/// More than the table has: 5 kB on Linux 6.18.
const TABLE_BYTES: usize = 64 << 10;

/// The overflows since the start of the observation.
#[derive(Debug)]
pub struct Overflows {
    table: File,
    count: u64,
    /// Time at which the count was last seen to have grown, nanoseconds of `CLOCK_MONOTONIC`.
    last_ns: Option<u64>,
}

impl Overflows {
    /// Begins to observe.
    ///
    /// # Errors
    /// The table cannot be read, or lacks the counter.
    pub fn open() -> io::Result<Self> {
        let table = File::open(TABLE)?;
        let count = read(&table)?;
        Ok(Self { table, count, last_ns: None })
    }

    /// Looks at the counter.
    pub fn look(&mut self, now_ns: u64) {
        // A moment without an answer is made up for by the next look.
        if let Ok(count) = read(&self.table)
            && count != self.count
        {
            self.count = count;
            self.last_ns = Some(now_ns);
        }
    }

    /// Reports whether the queue overflowed after `since_ns`, as far as the last look saw.
    #[must_use]
    pub fn happened_after(&self, since_ns: u64) -> bool {
        self.last_ns.is_some_and(|last_ns| last_ns >= since_ns)
    }
}

fn read(table: &File) -> io::Result<u64> {
    let mut text = vec![0; TABLE_BYTES];
    let mut length = 0;
    loop {
        match table.read_at(&mut text[length..], length as u64) {
            Ok(0) => break,
            Ok(read) => length += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    let text = String::from_utf8_lossy(&text[..length]);
    counter(&text).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, format!("{TABLE} has no {COUNTER}")))
}

/// Finds the counter in a table of pairs of lines: names, and values.
fn counter(text: &str) -> Option<u64> {
    let mut lines = text.lines();
    while let (Some(names), Some(values)) = (lines.next(), lines.next()) {
        let mut pairs = names.split_ascii_whitespace().zip(values.split_ascii_whitespace());
        if let Some((_, value)) = pairs.find(|(name, _)| *name == COUNTER) {
            return value.parse().ok();
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_counter_is_found_by_its_name() {
        let table =
            "TcpExt: SyncookiesSent ListenOverflows ListenDrops\nTcpExt: 1 22 333\nIpExt: InNoRoutes\nIpExt: 4\n";
        assert_eq!(counter(table), Some(22));
        assert_eq!(counter("TcpExt: SyncookiesSent\nTcpExt: 1\nIpExt: A\nIpExt: 4\n"), None);
        for length in 0..table.len() {
            let _ = counter(&table[..length]);
        }
    }

    #[test]
    fn an_overflow_counts_for_what_came_before_it_was_seen() {
        let mut overflows = Overflows::open().expect("this kernel has the table");
        assert!(!overflows.happened_after(0));
        // As if the kernel had counted less before.
        overflows.count = overflows.count.wrapping_sub(1);
        overflows.look(500);
        assert!(overflows.happened_after(0) && overflows.happened_after(500));
        assert!(!overflows.happened_after(501));
    }
}
