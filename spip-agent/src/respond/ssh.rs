//! SSH (RFC 4253), as OpenSSH speaks it before encryption: identification and key exchange algorithms, so that clients
//! of every kind send theirs. It ends where the first secret would be needed.

use super::lines::{line, may_end};
use super::{Dialogue, Reply, Scene, Service};

pub(super) static SERVICE: Service =
    Service { protocols: &["ssh"], speaks_first: true, begin: || Box::new(Ssh::Identification) };

/// The longest packet that every implementation must take (RFC 4253, section 6.1).
const PACKET_BYTES: usize = 35_000;
/// Message numbers (RFC 4253, section 12).
const DISCONNECT: u8 = 1;
const KEXINIT: u8 = 20;
const FIRST_OF_KEY_EXCHANGE: u8 = 30;

enum Ssh {
    Identification,
    Packets,
}

impl Dialogue for Ssh {
    fn greet(&mut self, scene: &Scene<'_>, reply: &mut Reply<'_>) {
        reply.line("ssh_identification", &scene.face.ssh);
    }

    fn is_worth_hearing(&mut self, heard: &[u8], looked: usize) -> bool {
        matches!(self, Self::Packets) || may_end(heard, looked)
    }

    fn hear(&mut self, heard: &[u8], scene: &Scene<'_>, reply: &mut Reply<'_>) -> usize {
        match self {
            Self::Identification => {
                let Some((text, used)) = line(heard) else { return 0 };
                if !text.starts_with(b"SSH-") {
                    reply.line("ssh_refusal", "Invalid SSH identification string.");
                    reply.close();
                } else if text.starts_with(b"SSH-2.") || text.starts_with(b"SSH-1.99-") {
                    reply.understood();
                    *self = Self::Packets;
                    reply.say("ssh_kexinit", &kexinit(scene));
                } else {
                    reply.understood();
                    reply.line("ssh_refusal", "Protocol major versions differ.");
                    reply.close();
                }
                used
            }
            Self::Packets => {
                let Some((length, rest)) = heard.split_first_chunk::<4>() else { return 0 };
                let length = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
                if !(2..=PACKET_BYTES).contains(&length) {
                    reply.close();
                    return heard.len();
                }
                let Some(packet) = rest.get(..length) else { return 0 };
                // The padding's length stands before the message number.
                if let Some(&number) = packet.get(1)
                    && (number == DISCONNECT || number >= FIRST_OF_KEY_EXCHANGE)
                {
                    reply.close();
                }
                4 + length
            }
        }
    }
}

/// The server's SSH_MSG_KEXINIT (RFC 4253, section 7.1), with what OpenSSH of the persona's version offers.
fn kexinit(scene: &Scene<'_>) -> Vec<u8> {
    let (major, minor) = openssh_version(&scene.face.ssh);
    let mut exchange = String::new();
    if major >= 9 {
        exchange.push_str("sntrup761x25519-sha512@openssh.com,");
    }
    exchange.push_str(
        "curve25519-sha256,curve25519-sha256@libssh.org,ecdh-sha2-nistp256,ecdh-sha2-nistp384,ecdh-sha2-nistp521,\
         diffie-hellman-group-exchange-sha256,diffie-hellman-group16-sha512,diffie-hellman-group18-sha512,\
         diffie-hellman-group14-sha256",
    );
    // Since 9.6, and before that by the distributions' updates of the end of 2023.
    if (major, minor) >= (8, 4) {
        exchange.push_str(",kex-strict-s-v00@openssh.com");
    }
    let keys = if (major, minor) >= (8, 8) {
        "rsa-sha2-512,rsa-sha2-256,ecdsa-sha2-nistp256,ssh-ed25519"
    } else {
        "rsa-sha2-512,rsa-sha2-256,ssh-rsa,ecdsa-sha2-nistp256,ssh-ed25519"
    };
    let ciphers = "chacha20-poly1305@openssh.com,aes128-ctr,aes192-ctr,aes256-ctr,aes128-gcm@openssh.com,\
                   aes256-gcm@openssh.com";
    let macs = "umac-64-etm@openssh.com,umac-128-etm@openssh.com,hmac-sha2-256-etm@openssh.com,\
                hmac-sha2-512-etm@openssh.com,hmac-sha1-etm@openssh.com,umac-64@openssh.com,umac-128@openssh.com,\
                hmac-sha2-256,hmac-sha2-512,hmac-sha1";
    let compression = "none,zlib@openssh.com";
    let mut message = vec![KEXINIT];
    message.extend_from_slice(&scene.random::<16>("ssh"));
    for list in [exchange.as_str(), keys, ciphers, ciphers, macs, macs, compression, compression, "", ""] {
        message.extend_from_slice(&u32::try_from(list.len()).unwrap_or_default().to_be_bytes());
        message.extend_from_slice(list.as_bytes());
    }
    // No guess follows; reserved.
    message.extend_from_slice(&[0; 5]);
    // Whole blocks of 8 with the two lengths, at least 4 bytes of padding (RFC 4253, section 6).
    let padding = 8 - (message.len() + 5) % 8;
    let padding = if padding < 4 { padding + 8 } else { padding };
    let mut packet = u32::try_from(message.len() + 1 + padding).unwrap_or_default().to_be_bytes().to_vec();
    packet.push(u8::try_from(padding).unwrap_or_default());
    packet.extend(message);
    packet.resize(packet.len() + padding, 0);
    packet
}

/// The version of OpenSSH in an identification; another server is taken for a recent one.
fn openssh_version(identification: &str) -> (u32, u32) {
    let parse = || {
        let (_, version) = identification.split_once("OpenSSH_")?;
        let (major, rest) = version.split_once('.')?;
        let minor: String = rest.chars().take_while(char::is_ascii_digit).collect();
        Some((major.parse().ok()?, minor.parse().ok()?))
    };
    parse().unwrap_or((9, 2))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_of_openssh_is_read_from_its_identification() {
        assert_eq!(openssh_version("SSH-2.0-OpenSSH_8.9p1 Ubuntu-3ubuntu0.10"), (8, 9));
        assert_eq!(openssh_version("SSH-2.0-dropbear_2022.83"), (9, 2));
    }
}
