//! Openings of protocols that are cut, bent and repeated: the same number always gives the same bytes.

/// Whole openings, from which the broken ones are made.
const OPENINGS: [&[u8]; 14] = [
    &[0x16, 0x03, 0x01, 0x02, 0x00, 0x01],
    b"\x16\x03\x01\x00\x2f\x01\x00\x00\x2b\x03\x03abcdefghijklmnopqrstuvwxyz012345\x00\x00\x04\x13\x01\x00\x2f\x01\x00",
    b"GET /%00/../..;${jndi:ldap://x/} HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x12\x04\x00\x00\x00\x00\x00\x00\x03\x00\x00\x00\x80\x00\x04\xff\xff\xff\xff",
    b"SSH-2.0-x\r\n\x00\x00\x01\x14\x05\x14abcdefghijklmnop\x00\x00\x7f\xff",
    b"\x00\x00\x00\x54\xfeSMB@\x00\x00\x00\x00\x00\x00\x00\x00\x00\x1f\x00\x00\x00\x00\x00\x00\x00",
    b"\x03\x00\x00\x2f\x2a\xe0\x00\x00\x00\x00\x00Cookie: mstshash=a\r\n\x01\x00\x08\x00\x03\x00\x00\x00",
    b"*2147483647\r\n$4294967295\r\nAUTH\r\n",
    b"PROXY TCP4 256.0.0.1 198.51.100.1 70000 -1\r\nGET / HTTP/1.0\r\n\r\n",
    b"\r\n\r\n\x00\r\nQUIT\n\x21\x11\xff\xffrest",
    b"\xff\xfd\x18\xff\xfa\x18\x00xterm\xff\xf0root\r\x00\xff\xff\r\n",
    b"\x10\xff\xff\xff\x7f\x00\x04MQTT\x04\xc2\x00\x3c\xff\xff",
    b"AMQP\x00\x00\x09\x01\x01\x00\x00\xff\xff\xff\xff",
    b"\x12\x01\x00\x2f\x00\x00\x01\x00\x00\x00\x1a\xff\xff\xff\xff",
];
/// Longest payload.
const MOST: usize = 64 * 1024;

/// Returns the broken opening of this number, never empty.
pub(crate) fn bytes(number: u32) -> Vec<u8> {
    let mut state = u64::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut random = move |below: usize| {
        // Xorshift, which is plenty for inputs.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state >> 33).unwrap_or_default() % below
    };
    let mut bytes = OPENINGS[random(OPENINGS.len())].to_vec();
    for _ in 0..random(4) {
        let at = random(bytes.len());
        match random(4) {
            0 => bytes[at] ^= 1 << random(8),
            1 => bytes.truncate(at + 1),
            2 => bytes.extend(
                std::iter::repeat_with(|| u8::try_from(random(256)).unwrap_or_default()).take(300).collect::<Vec<_>>(),
            ),
            _ => bytes = bytes.repeat((MOST / bytes.len()).clamp(1, 1 + random(40))),
        }
    }
    bytes.truncate(MOST);
    bytes
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn broken_openings_are_many_repeatable_and_bounded() {
        let all: HashSet<Vec<u8>> = (0..2_000).map(bytes).collect();
        assert!(all.len() > 1_000, "{}", all.len());
        assert!(all.iter().all(|bytes| !bytes.is_empty() && bytes.len() <= MOST));
        assert_eq!(bytes(7), bytes(7));
    }
}
