//! The PROXY protocol in front of a session ([`spip_protocol::proxy`]).
//!
//! Of a peer in `proxy_protocol_from` the header is believed: the record, the limits and the dialogue are those of the
//! client that it names. Of anybody else it is a fact of the record. In either case what follows is understood as if it
//! stood alone, and the header is no payload. A header that breaks a rule stays where it is, and moves nothing.

use std::net::{IpAddr, SocketAddr};

use spip_protocol::proxy::{Parsed, parse};
use spip_protocol::value::Object;
use spip_record::DestinationSource;

use super::Guard;
use crate::kernel::addr::{ClientAddr, Destination};
use crate::process::clock;

/// State of a header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum State {
    /// One may still come.
    #[default]
    Awaited,
    /// It came, or something else did.
    Over,
}

/// Line ends that clients send in front of anything, and that version 2 begins with.
const LINE_ENDS: &[u8] = b"\r\n\r\n";

impl Guard {
    /// Takes a header from the front of what has come. Whether more bytes decide if there is one.
    pub(super) fn awaits_proxy(&mut self) -> bool {
        let payload = &mut self.session.payload;
        if self.proxy == State::Over || !payload.is_opening() {
            return false;
        }
        let peer = self.session.origin.client.socket();
        let is_believed = self.engine.network.believes(peer.ip());
        let kept = payload.kept();
        match parse(kept) {
            // A client that sends two line ends and waits is answered; only a balancer would go on.
            Parsed::NeedMore if !is_believed && LINE_ENDS.starts_with(kept) => return false,
            Parsed::NeedMore => return !payload.is_full(),
            Parsed::Absent => {}
            Parsed::Malformed(reason) => {
                let mut facts = Object::default();
                facts.word("malformed", reason);
                facts.flag("believed", false);
                self.session.proxy = Some(Box::new(facts));
            }
            Parsed::Header(header) => {
                let _header = payload.skip(header.length);
                let mut facts = header.facts;
                facts.flag("believed", is_believed);
                if let (true, Some((client, destination))) = (is_believed, header.addresses) {
                    self.believe(client, destination, &mut facts);
                }
                self.session.proxy = Some(Box::new(facts));
            }
        }
        self.proxy = State::Over;
        false
    }

    /// Makes the session that of `client`, and keeps in `facts` whose it was.
    fn believe(&mut self, client: SocketAddr, destination: SocketAddr, facts: &mut Object) {
        let origin = &mut self.session.origin;
        let mut keep = |address: &'static str, port: &'static str, of: SocketAddr| {
            facts.text(address, of.ip().to_string().as_bytes());
            facts.number(port, of.port());
        };
        keep("peer_ip", "peer_port", origin.client.socket());
        keep("local_ip", "local_port", origin.destination.socket());
        origin.client = ClientAddr::new(client);
        origin.destination = Destination::new(destination);
        origin.source = DestinationSource::Proxy;
        // Both are the balancer's.
        (origin.syn, origin.conflict) = (None, None);
        self.refused = self.permit.move_to(origin.client.ip(), clock::now()).err();
    }
}

impl crate::config::Network {
    /// Reports whether the PROXY protocol of a peer is believed.
    #[must_use]
    pub fn believes(&self, peer: IpAddr) -> bool {
        let peer = peer.to_canonical();
        self.proxies.iter().any(|prefix| prefix.contains(peer))
    }
}
