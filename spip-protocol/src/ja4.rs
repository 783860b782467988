//! JA4 for TLS clients over TCP, after the text specification (FoxIO-LLC/ja4, technical_details/JA4.md). This one
//! fingerprint of the JA4 family is under the BSD-3-Clause licence; the others are not, and have no place here.
//!
//! Where implementations differ from the text, the text is followed: a first protocol name that does not begin and
//! end with an ASCII letter or digit is shown by the first and the last digit of its hexadecimal form, and GREASE is
//! ignored wherever it stands, signature algorithms and protocol names included.
//!
//! The text leaves open what a `supported_versions` extension without any version means. Here it is as if it were
//! absent.

use std::fmt::Write;
use std::ops::Range;

use sha2::{Digest, Sha256};

use super::client_hello::{ClientHello, Version, extension, is_grease};

/// Characters before the first list.
const START_LENGTH: usize = 10;
/// Digits of a number in the lists.
const DIGITS: usize = 4;
/// Digits of a hash that are kept.
const HASH_DIGITS: usize = 12;
/// Text in place of the hash of an empty list.
const NOTHING: &str = "000000000000";

/// A JA4: its raw form, and where the parts begin that are hashed.
#[derive(Clone, Debug)]
pub struct Ja4 {
    /// Start, ciphers, extensions with signature algorithms; `_` between them.
    raw: String,
    /// Sorted, without GREASE.
    ciphers: Range<usize>,
    /// Sorted, without GREASE, server name and protocols; then the signature algorithms in the order in which they
    /// were sent, without GREASE.
    extensions: Range<usize>,
}

impl Ja4 {
    /// Takes a hello apart.
    #[must_use]
    pub fn new(hello: &ClientHello<'_>) -> Self {
        let mut ciphers = without_grease(hello.cipher_suites.iter());
        let mut extensions = without_grease(hello.extensions.numbers());
        let signature_algorithms = without_grease(hello.signature_algorithms.iter());
        let numbers = ciphers.len() + extensions.len() + signature_algorithms.len();
        let mut raw = String::with_capacity(START_LENGTH + 3 + numbers * (DIGITS + 1));
        // Writing into a String cannot fail.
        let _ = write!(
            raw,
            "t{}{}{:02}{:02}{}_",
            version(hello.highest_version().unwrap_or(hello.legacy_version)),
            if hello.extensions.contains(extension::SERVER_NAME) { 'd' } else { 'i' },
            ciphers.len().min(99),
            extensions.len().min(99),
            protocol(hello.protocols.iter_without_grease().next()),
        );
        ciphers.sort_unstable();
        extensions.sort_unstable();
        extensions.retain(|number| {
            !matches!(*number, extension::SERVER_NAME | extension::APPLICATION_LAYER_PROTOCOL_NEGOTIATION)
        });
        let ciphers = push_list(&mut raw, &ciphers);
        raw.push('_');
        let mut extensions = push_list(&mut raw, &extensions);
        if !signature_algorithms.is_empty() {
            raw.push('_');
            extensions.end = push_list(&mut raw, &signature_algorithms).end;
        }
        Self { raw, ciphers, extensions }
    }

    /// The fingerprint `JA4`, such as `t13d1516h2_8daaf6152771_e5627efa2ab1`.
    #[must_use]
    pub fn hashed(&self) -> String {
        let mut text = String::with_capacity(START_LENGTH + 2 * (1 + HASH_DIGITS));
        text.push_str(&self.raw[..self.ciphers.start]);
        push_hash(&mut text, &self.raw[self.ciphers.clone()]);
        text.push('_');
        push_hash(&mut text, &self.raw[self.extensions.clone()]);
        text
    }

    /// The raw form `JA4_r`, with the sorted lists in place of their hashes.
    #[must_use]
    pub fn raw(&self) -> &str {
        &self.raw
    }
}

fn without_grease(numbers: impl Iterator<Item = u16>) -> Vec<u16> {
    numbers.filter(|number| !is_grease(*number)).collect()
}

fn version(version: Version) -> &'static str {
    match version.0 {
        0x0304 => "13",
        0x0303 => "12",
        0x0302 => "11",
        0x0301 => "10",
        0x0300 => "s3",
        0x0002 => "s2",
        0xfeff => "d1",
        0xfefd => "d2",
        0xfefc => "d3",
        _ => "00",
    }
}

/// The two characters that stand for the first protocol name.
fn protocol(name: Option<&[u8]>) -> String {
    let Some((first, last)) = name.and_then(|name| name.first().zip(name.last())) else {
        return "00".to_owned();
    };
    if first.is_ascii_alphanumeric() && last.is_ascii_alphanumeric() {
        return String::from_iter([char::from(*first), char::from(*last)]);
    }
    format!("{:x}{:x}", first >> 4, last & 15)
}

/// Appends numbers in four digits each, with commas between them; where they stand.
fn push_list(text: &mut String, numbers: &[u16]) -> Range<usize> {
    let start = text.len();
    for (index, number) in numbers.iter().enumerate() {
        if index > 0 {
            text.push(',');
        }
        for shift in [12, 8, 4, 0] {
            text.push(char::from_digit(u32::from(number >> shift & 0xf), 16).unwrap_or('0'));
        }
    }
    start..text.len()
}

/// Appends the first digits of the hash of a list.
fn push_hash(text: &mut String, list: &str) {
    if list.is_empty() {
        text.push_str(NOTHING);
        return;
    }
    let mut digits = [0; HASH_DIGITS];
    // As many digits as two for each byte.
    let _ = hex::encode_to_slice(&Sha256::digest(list)[..HASH_DIGITS / 2], &mut digits);
    text.extend(digits.map(char::from));
}

#[cfg(test)]
mod tests;
