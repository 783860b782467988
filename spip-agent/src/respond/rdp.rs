//! RDP's connection request ([MS-RDPBCGR] 2.2.1.2): TLS is agreed to, so that the client shows its ClientHello and what it
//! says inside; without TLS the sensor speaks the protocol's own security, and says no more.

use super::{Dialogue, Reply, Scene, Service};

pub(super) static SERVICE: Service =
    Service { protocols: &["rdp"], speaks_first: false, begin: || Box::new(Rdp { has_answered: false }) };

/// Parts of RDP_NEG_REQ and RDP_NEG_RSP.
mod negotiation {
    pub(super) const REQUEST: u8 = 1;
    pub(super) const RESPONSE: u8 = 2;
    pub(super) const BYTES: u8 = 8;
    /// Protocol TLS without network level authentication: what comes first inside is in clear.
    pub(super) const SSL: u8 = 1;
    /// Extended client data, graphics pipeline, restricted admin, and so on: what Windows answers.
    pub(super) const FLAGS: u8 = 0x1f;
}

struct Rdp {
    has_answered: bool,
}

impl Dialogue for Rdp {
    fn hear(&mut self, heard: &[u8], scene: &Scene<'_>, reply: &mut Reply<'_>) -> usize {
        if self.has_answered {
            return heard.len();
        }
        let Some([3, 0, high, low]) = heard.first_chunk() else { return 0 };
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        let Some(request) = heard.get(..length) else { return 0 };
        self.has_answered = true;
        reply.understood();
        // A negotiation request is the last part of the packet.
        let wanted = request.last_chunk::<8>().filter(|part| matches!(part, [negotiation::REQUEST, _, 8, 0, ..]));
        // Connection confirm: destination reference of the client, and one of the server.
        match wanted {
            Some([.., protocols, _, _, _]) if *protocols & (negotiation::SSL | 2) != 0 && scene.offers_tls => {
                reply.say("rdp_tls", &confirm(negotiation::SSL, negotiation::FLAGS));
                reply.start_tls();
            }
            Some(_) => reply.say("rdp_confirm", &confirm(0, 0)),
            None => reply.say("rdp_confirm", &[3, 0, 0, 11, 6, 0xd0, 0, 0, 0x12, 0x34, 0]),
        }
        length
    }
}

/// A connection confirm that selects `protocol`.
fn confirm(protocol: u8, flags: u8) -> [u8; 19] {
    [3, 0, 0, 19, 14, 0xd0, 0, 0, 0x12, 0x34, 0, negotiation::RESPONSE, flags, negotiation::BYTES, 0, protocol, 0, 0, 0]
}
