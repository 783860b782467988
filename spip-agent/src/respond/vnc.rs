//! VNC (RFC 6143): version, password authentication, refusal. The client's answer to the challenge is in its payload.

use super::{Dialogue, Reply, Scene, Service};

pub(super) static SERVICE: Service =
    Service { protocols: &["vnc"], speaks_first: true, begin: || Box::new(Vnc::Version) };

/// VNC authentication (RFC 6143, section 7.2.2).
const VNC_AUTHENTICATION: u8 = 2;

enum Vnc {
    Version,
    Security,
    Response,
}

impl Dialogue for Vnc {
    fn greet(&mut self, scene: &Scene<'_>, reply: &mut Reply<'_>) {
        reply.say("vnc_greeting", format!("RFB {}\n", scene.face.vnc).as_bytes());
    }

    fn hear(&mut self, heard: &[u8], scene: &Scene<'_>, reply: &mut Reply<'_>) -> usize {
        match self {
            Self::Version => {
                let Some(version) = heard.get(..12) else { return 0 };
                if !version.starts_with(b"RFB ") {
                    reply.close();
                    return 12;
                }
                reply.understood();
                if version < b"RFB 003.007\n".as_slice() {
                    // Before 3.7 the server decides.
                    let mut message = vec![0, 0, 0, VNC_AUTHENTICATION];
                    let challenge = scene.random::<16>("vnc");
                    message.extend_from_slice(&challenge);
                    reply.challenge(&challenge);
                    *self = Self::Response;
                    reply.say("vnc_challenge", &message);
                } else {
                    *self = Self::Security;
                    reply.say("vnc_security", &[1, VNC_AUTHENTICATION]);
                }
                12
            }
            Self::Security => {
                let Some(choice) = heard.first() else { return 0 };
                if *choice == VNC_AUTHENTICATION {
                    *self = Self::Response;
                    let challenge = scene.random::<16>("vnc");
                    reply.challenge(&challenge);
                    reply.say("vnc_challenge", &challenge);
                } else {
                    reply.close();
                }
                1
            }
            Self::Response => {
                if heard.len() < 16 {
                    return 0;
                }
                let reason = b"Authentication failed";
                let mut message = vec![0, 0, 0, 1, 0, 0, 0, u8::try_from(reason.len()).unwrap_or_default()];
                message.extend_from_slice(reason);
                reply.say("vnc_refusal", &message);
                reply.close();
                16
            }
        }
    }
}
