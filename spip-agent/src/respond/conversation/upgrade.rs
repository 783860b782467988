//! TLS in the middle of a conversation: `STARTTLS`, an SSLRequest, a negotiation of RDP, a pre-login of TDS.
//!
//! A dialogue agrees by [`Reply::start_tls`]. What the client says next is a ClientHello then, and is kept from the
//! dialogue; the session completes the handshake once the agreement was sent, and the same dialogue goes on inside. A
//! client that agrees to TLS and goes on in clear is answered in clear.

use super::{Conversation, Reply, State};
use crate::tls::Framing;

impl Conversation {
    /// Returns the offset in the client's bytes at which a ClientHello begins, and what carries it, if the client and the
    /// sensor agreed on TLS and the sensor has answered so.
    #[must_use]
    pub fn awaits_hello(&self) -> Option<(usize, Framing)> {
        let framing = self.agreed_on_tls?;
        (self.pending.is_empty() && !self.closing).then_some((self.answered, framing))
    }

    /// Reports whether client and sensor agreed on TLS, and no ClientHello has come yet.
    #[must_use]
    pub fn agreed_on_tls(&self) -> bool {
        self.agreed_on_tls.is_some()
    }

    /// Goes on inside TLS, behind the `received` bytes in clear.
    pub fn go_on_in_tls(&mut self, received: u64) {
        self.agreed_on_tls = None;
        self.client_bytes = received;
        self.looked = 0;
        // What the handshake left to be sent is not the dialogue's.
        self.unflushed = false;
        if let State::Talking(_, dialogue) = &mut self.state {
            dialogue.is_in_tls();
        }
    }

    /// Goes on in clear: what came is no ClientHello.
    pub fn go_on_in_clear(&mut self) {
        self.agreed_on_tls = None;
    }
}

impl Reply<'_> {
    /// Agrees on TLS: what follows is a ClientHello. Only where the scene offers it.
    pub(in crate::respond) fn start_tls(&mut self) {
        *self.agreed_on_tls = Some(Framing::Stream);
    }

    /// The same, and the handshake will be in packets of TDS.
    pub(in crate::respond) fn start_tls_in_packets(&mut self) {
        *self.agreed_on_tls = Some(Framing::TdsPackets);
    }
}

#[cfg(test)]
mod tests {
    use super::Framing;
    use crate::respond::tests::Talk;

    #[test]
    fn every_way_into_tls_is_agreed_to_where_tls_is_offered() {
        let ways: &[(u16, &[u8], &[u8])] = &[
            (25, b"EHLO a.test\r\nSTARTTLS\r\n", b"220 2.0.0 Ready to start TLS\r\n"),
            (21, b"AUTH TLS\r\n", b"234 Proceed with negotiation.\r\n"),
            (110, b"CAPA\r\nSTLS\r\n", b"+OK Begin TLS negotiation now.\r\n"),
            (143, b"a1 STARTTLS\r\n", b"a1 OK Begin TLS negotiation now.\r\n"),
            (5432, b"\x00\x00\x00\x08\x04\xd2\x16\x2f", b"S"),
            (
                3389,
                b"\x03\x00\x00\x13\x0e\xe0\x00\x00\x00\x00\x00\x01\x00\x08\x00\x03\x00\x00\x00",
                b"\x03\x00\x00\x13\x0e\xd0\x00\x00\x12\x34\x00\x02\x1f\x08\x00\x01\x00\x00\x00",
            ),
        ];
        for (port, said, answer) in ways {
            let mut talk = Talk::to(*port);
            talk.offers_tls = true;
            talk.says(said);
            assert!(talk.server.ends_with(answer), "{port}: {:?}", String::from_utf8_lossy(&talk.server));
            assert_eq!(talk.conversation.awaits_hello(), Some((said.len(), Framing::Stream)), "{port}");
            // A hello is nothing that the dialogue answers.
            assert_eq!(talk.says(b"\x16\x03\x01"), "", "{port}");

            let mut talk = Talk::to(*port);
            talk.says(said);
            assert_eq!(talk.conversation.awaits_hello(), None, "{port}: nobody could complete the handshake");
        }
    }

    #[test]
    fn a_dialogue_goes_on_inside_tls_and_offers_it_no_more() {
        let mut talk = Talk::to(25);
        talk.offers_tls = true;
        assert!(talk.says(b"EHLO a.test\r\n").contains("250-STARTTLS\r\n"));
        talk.says(b"STARTTLS\r\n");
        talk.conversation.go_on_in_tls(talk.client.len() as u64);
        talk.offers_tls = false;
        let inside = talk.says(b"EHLO b.test\r\n");
        assert!(inside.starts_with("250-") && !inside.contains("STARTTLS"), "{inside}");
    }

    #[test]
    fn a_client_that_goes_on_in_clear_is_answered_in_clear() {
        let mut talk = Talk::to(25);
        talk.offers_tls = true;
        talk.says(b"EHLO a.test\r\nSTARTTLS\r\n");
        assert_eq!(talk.says(b"NOOP\r\n"), "");
        talk.conversation.go_on_in_clear();
        assert_eq!(talk.says(b""), "250 2.0.0 Ok\r\n");
    }
}
