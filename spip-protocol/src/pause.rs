//! Decides the protocol of a client that fell silent while its bytes were still ambiguous.
//!
//! [`super::classify`] waits as long as bytes fit two protocols, and its answers are final. Some clients say so little
//! that this would take for ever: three bytes of SOCKS, one request of Modbus, a negotiation of Telnet. Then they wait,
//! and that they wait is the evidence: their first message is whole in one protocol and a fragment in every other. So
//! the table names protocols whose first message can be told from its beginning but not from the whole of it, and
//! [`pause`] names one of them only while nothing contradicts it and no other does the same. What follows may still
//! contradict; then the bytes together decide again.

use super::reader::{End, Reader};
use super::{CLASSIFY_BYTES, Protocol, minecraft, modbus, openflow, s7, socks, telnet, zookeeper};

/// A protocol, and whether its first message is whole.
type Whole = (&'static Protocol, fn(&mut Reader<'_>) -> Result<bool, End>);

/// The protocols whose clients may wait before they are recognised.
static WHOLE: &[Whole] = &[
    (&zookeeper::PROTOCOL, zookeeper::asks),
    (&openflow::PROTOCOL, openflow::greets),
    (&telnet::PROTOCOL, telnet::negotiates),
    (&s7::PROTOCOL, s7::connects),
    (&socks::PROTOCOL, socks::greets),
    (&minecraft::PROTOCOL, minecraft::pings),
    (&modbus::PROTOCOL, modbus::asks),
];

/// Names what a client speaks that has sent these bytes and waits; `None` where none or more than one protocol fits.
#[must_use]
pub fn pause(bytes: &[u8]) -> Option<&'static Protocol> {
    if bytes.len() >= CLASSIFY_BYTES {
        return None;
    }
    let fits = |(protocol, whole): &&Whole| {
        (protocol.recognise)(&mut Reader::new(bytes)) == Err(End) && whole(&mut Reader::new(bytes)) == Ok(true)
    };
    let mut fitting = WHOLE.iter().filter(fits);
    match (fitting.next(), fitting.next()) {
        (Some((protocol, _)), None) => Some(protocol),
        _ => None,
    }
}
