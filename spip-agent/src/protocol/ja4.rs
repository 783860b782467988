//! JA4 for TLS clients over TCP, after the text specification (FoxIO-LLC/ja4, technical_details/JA4.md). This one
//! fingerprint of the JA4 family is under the BSD-3-Clause licence; the others are not, and have no place here.
//!
//! Where implementations differ from the text, the text is followed: a first protocol name that does not begin and
//! end with an ASCII letter or digit is shown by the first and the last digit of its hexadecimal form, and GREASE is
//! ignored wherever it stands, signature algorithms and protocol names included.
//!
//! The text leaves open what a `supported_versions` extension without any version means. Here it is as if it were
//! absent.

use std::fmt::{self, Write};

use sha2::{Digest, Sha256};

use super::client_hello::{ClientHello, Version, extension, is_grease};

/// Digits of a hash that are kept.
const HASH_DIGITS: usize = 12;
/// What stands in place of the hash of an empty list.
const NOTHING: &str = "000000000000";

/// The parts of a JA4, ready to be written hashed or raw.
#[derive(Clone, Debug)]
pub struct Ja4 {
    /// The first part, such as `t13d1516h2`.
    start: String,
    /// Sorted, without GREASE.
    ciphers: Vec<u16>,
    /// Sorted, without GREASE, server name and protocols.
    extensions: Vec<u16>,
    /// In the order in which they were sent, without GREASE.
    signature_algorithms: Vec<u16>,
}

impl Ja4 {
    /// Takes a hello apart.
    #[must_use]
    pub fn new(hello: &ClientHello<'_>) -> Self {
        let mut ciphers = without_grease(hello.cipher_suites.iter());
        let mut extensions = without_grease(hello.extensions.numbers());
        let mut start = String::with_capacity(10);
        // Writing into a String cannot fail.
        let _ = write!(
            start,
            "t{}{}{:02}{:02}{}",
            version(hello.highest_version()),
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
        Self { start, ciphers, extensions, signature_algorithms: without_grease(hello.signature_algorithms.iter()) }
    }

    /// The fingerprint `JA4`, such as `t13d1516h2_8daaf6152771_e5627efa2ab1`.
    #[must_use]
    pub fn hashed(&self) -> String {
        let ciphers =
            if self.ciphers.is_empty() { NOTHING.to_owned() } else { hash(format_args!("{}", List(&self.ciphers))) };
        let extensions =
            if self.extensions.is_empty() { NOTHING.to_owned() } else { hash(format_args!("{}", Extensions(self))) };
        format!("{}_{ciphers}_{extensions}", self.start)
    }

    /// The raw form `JA4_r`, with the sorted lists in place of their hashes.
    #[must_use]
    pub fn raw(&self) -> String {
        format!("{}_{}_{}", self.start, List(&self.ciphers), Extensions(self))
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

/// Numbers in four digits each, with commas between them.
struct List<'a>(&'a [u16]);

impl fmt::Display for List<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, number) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str(",")?;
            }
            write!(f, "{number:04x}")?;
        }
        Ok(())
    }
}

/// Extensions and, where there are any, signature algorithms.
struct Extensions<'a>(&'a Ja4);

impl fmt::Display for Extensions<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        List(&self.0.extensions).fmt(f)?;
        if !self.0.signature_algorithms.is_empty() {
            write!(f, "_{}", List(&self.0.signature_algorithms))?;
        }
        Ok(())
    }
}

fn hash(text: fmt::Arguments<'_>) -> String {
    let mut digest = Hashing(Sha256::new());
    // Neither the digest nor the formatting of numbers can fail.
    let _ = digest.write_fmt(text);
    let mut digits = hex::encode(digest.0.finalize());
    digits.truncate(HASH_DIGITS);
    digits
}

/// Hashes what is formatted, so that a text of some kilobytes is never built.
struct Hashing(Sha256);

impl Write for Hashing {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.update(text);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
