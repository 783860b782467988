//! The Community ID, version 1, computed from the specification and not from the agent's code, so that the two check
//! each other: `1:` and base64 of SHA-1 over seed, the smaller end, the larger end, protocol, a zero, both ports.
//! Source: <https://github.com/corelight/community-id-spec>.

use std::net::{IpAddr, SocketAddr};

use sha1::{Digest, Sha1};

const TCP: u8 = 6;

/// The Community ID of a TCP connection.
#[must_use]
pub fn of_tcp(seed: u16, one: SocketAddr, other: SocketAddr) -> String {
    let key = |end: SocketAddr| (octets(end.ip()), end.port());
    let (low, high) = if key(one) <= key(other) { (key(one), key(other)) } else { (key(other), key(one)) };
    let mut bytes = seed.to_be_bytes().to_vec();
    bytes.extend(low.0);
    bytes.extend(high.0);
    bytes.extend([TCP, 0]);
    bytes.extend(low.1.to_be_bytes());
    bytes.extend(high.1.to_be_bytes());
    format!("1:{}", base64(&Sha1::digest(&bytes)))
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

/// RFC 4648, section 4, with padding.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for group in bytes.chunks(3) {
        let bits = group.iter().fold(0u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - group.len()));
        for digit in 0..4 {
            let index = (bits >> (18 - 6 * digit)) & 63;
            text.push(if digit <= group.len() { char::from(DIGITS[index as usize]) } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end(text: &str) -> SocketAddr {
        text.parse().expect("an address")
    }

    /// RFC 4648, section 10.
    #[test]
    fn base64_pads() {
        assert_eq!(
            ["f", "fo", "foo", "foobar"].map(|text| base64(text.as_bytes())),
            ["Zg==", "Zm8=", "Zm9v", "Zm9vYmFy"]
        );
    }

    /// The first TCP example of the specification's baseline.
    #[test]
    fn the_specifications_example_holds_in_both_directions() {
        let (one, other) = (end("128.232.110.120:34855"), end("66.35.250.204:80"));
        assert_eq!(of_tcp(0, one, other), "1:LQU9qZlK+B5F3KDmev6m5PMibrg=");
        assert_eq!(of_tcp(0, other, one), "1:LQU9qZlK+B5F3KDmev6m5PMibrg=");
        assert_eq!(of_tcp(1, one, other), "1:3V71V58M3Ksw/yuFALMcW0LAHvc=");
    }
}
