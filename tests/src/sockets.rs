//! Sockets that the kernel holds for the agent: read from `/proc/net/tcp`, so that a test knows when everything has
//! been accepted and read, without the agent having to say so.

use std::fs;

use crate::namespace::Namespace;

/// One TCP socket of a namespace.
struct Row {
    port: u16,
    state: u8,
    /// Bytes that wait to be read; for a listener, connections that wait to be accepted.
    waiting: u64,
}

/// State numbers of the kernel (include/net/tcp_states.h).
const ESTABLISHED: u8 = 1;
const SYN_RECV: u8 = 3;
const CLOSE_WAIT: u8 = 8;
const LISTEN: u8 = 10;

impl Row {
    /// Reports whether a process of this side has it, or will accept it: to its client a connection is open while the
    /// last packet of the handshake is on its way. A socket that is closed here and still waits for the other side
    /// belongs to the kernel alone.
    fn is_held(&self) -> bool {
        matches!(self.state, ESTABLISHED | SYN_RECV | CLOSE_WAIT)
    }
}

fn rows(namespace: &Namespace) -> Vec<Row> {
    let text = namespace.enter(|| {
        // `/proc/net` is the namespace of the process's first thread; this one is of the thread that entered.
        ["tcp", "tcp6"].map(|table| fs::read_to_string(format!("/proc/thread-self/net/{table}")).unwrap_or_default())
    });
    text.iter().flat_map(|table| table.lines().skip(1)).filter_map(row).collect()
}

fn row(line: &str) -> Option<Row> {
    let mut fields = line.split_whitespace().skip(1);
    let (_, port) = fields.next()?.rsplit_once(':')?;
    let state = u8::from_str_radix(fields.nth(1)?, 16).ok()?;
    let (_, waiting) = fields.next()?.split_once(':')?;
    Some(Row { port: u16::from_str_radix(port, 16).ok()?, state, waiting: u64::from_str_radix(waiting, 16).ok()? })
}

/// Reports whether every connection to `port` has been accepted and every byte that came has been read.
pub(crate) fn all_read(namespace: &Namespace, port: u16) -> bool {
    let rows = rows(namespace);
    let mut rows = rows.iter().filter(|row| row.port == port && (row.is_held() || row.state == LISTEN));
    rows.all(|row| row.waiting == 0 && row.state != SYN_RECV)
}

/// Connections to `port` that are open on this side, accepted or not.
pub(crate) fn open(namespace: &Namespace, port: u16) -> usize {
    rows(namespace).iter().filter(|row| row.port == port && row.is_held()).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_with_three_waiting_connections_is_read_from_the_table() {
        let row = row("   0: 00000000000000000000000000000000:3039 00000000000000000000000000000000:0000 0A 00000000:00000003 00:00000000 00000000  0 0 1").expect("a row");
        assert_eq!((row.port, row.state, row.waiting), (12345, LISTEN, 3));
    }

    #[test]
    fn a_line_that_is_cut_is_no_socket() {
        assert!(row("   0: 0100007F:3039 0100007F:").is_none());
    }
}
