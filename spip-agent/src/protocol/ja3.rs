//! JA3, as published with salesforce/ja3 (BSD-3-Clause): version, cipher suites, extensions, groups and point formats
//! of a ClientHello as decimal numbers in the order in which they were sent, and the MD5 of that text.
//!
//! GREASE values are left out. The version is the one in the message itself, not the record's and not the one in
//! `supported_versions`.

use std::fmt;

use md5::{Digest, Md5};

use super::client_hello::{ClientHello, is_grease};

/// The text form of JA3, such as `771,4865-4866,0-23,29-23,0`, written on display.
#[derive(Clone, Copy, Debug)]
pub struct Ja3<'a>(pub &'a ClientHello<'a>);

impl Ja3<'_> {
    /// The MD5 of the text, in 32 lower-case hexadecimal digits: what is usually meant by "the JA3".
    #[must_use]
    pub fn md5(self) -> String {
        let mut digest = Hashing(Md5::new());
        // Neither the digest nor the formatting of numbers can fail.
        let _ = fmt::Write::write_fmt(&mut digest, format_args!("{self}"));
        hex::encode(digest.0.finalize())
    }
}

impl fmt::Display for Ja3<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hello = self.0;
        write!(f, "{},", hello.legacy_version.0)?;
        join(f, hello.cipher_suites.iter())?;
        f.write_str(",")?;
        join(f, hello.extensions.numbers())?;
        f.write_str(",")?;
        join(f, hello.groups.iter())?;
        f.write_str(",")?;
        join(f, hello.point_formats.iter().map(|format| u16::from(*format)))
    }
}

fn join(f: &mut fmt::Formatter<'_>, numbers: impl Iterator<Item = u16>) -> fmt::Result {
    for (index, number) in numbers.filter(|number| !is_grease(*number)).enumerate() {
        if index > 0 {
            f.write_str("-")?;
        }
        write!(f, "{number}")?;
    }
    Ok(())
}

/// Hashes what is formatted, so that a text of some kilobytes is never built.
struct Hashing(Md5);

impl fmt::Write for Hashing {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.update(text);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::client_hello::sample::Hello;

    fn ja3(hello: &Hello) -> (String, String) {
        let message = hello.message();
        let hello = ClientHello::parse(&message).expect("hello");
        (Ja3(&hello).to_string(), Ja3(&hello).md5())
    }

    #[test]
    fn the_published_examples_have_their_published_hashes() {
        // The two examples of the project's description.
        let (text, md5) = ja3(&Hello::new()
            .version(769)
            .ciphers(&[47, 53, 5, 10, 49161, 49162, 49171, 49172, 50, 56, 19, 4])
            .server_name(b"example.com")
            .groups(&[23, 24, 25])
            .point_formats(&[0]));
        assert_eq!(text, "769,47-53-5-10-49161-49162-49171-49172-50-56-19-4,0-10-11,23-24-25,0");
        assert_eq!(md5, "ada70206e40642a3e4461f35503241d5");
        let (text, md5) = ja3(&Hello::new().version(769).ciphers(&[4, 5, 10, 9, 100, 98, 3, 6, 19, 18, 99]));
        assert_eq!(text, "769,4-5-10-9-100-98-3-6-19-18-99,,,");
        assert_eq!(md5, "de350869b8c85de67a350c8d186f11e6");
    }

    #[test]
    fn grease_is_left_out_everywhere() {
        let (text, _) = ja3(&Hello::new()
            .ciphers(&[0x0a0a, 0x1301])
            .extension(0xfafa, &[])
            .groups(&[0x1a1a, 29])
            .versions(&[0x2a2a, 0x0304]));
        assert_eq!(text, "771,4865,10-43,29,");
    }
}
