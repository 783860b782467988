//! JA3, as published with salesforce/ja3 (BSD-3-Clause): version, cipher suites, extensions, groups and point formats
//! of a ClientHello as decimal numbers in the order in which they were sent, and the MD5 of that text.
//!
//! GREASE values are left out. The version is the one in the message itself, not the record's and not the one in
//! `supported_versions`.

use md5::{Digest, Md5};

use super::client_hello::{ClientHello, is_grease};

/// The text that JA3 is the MD5 of.
#[derive(Clone, Copy, Debug)]
pub struct Ja3<'a>(pub &'a ClientHello<'a>);

impl Ja3<'_> {
    /// The MD5 of the text, in 32 lower-case hexadecimal digits: what is usually meant by "the JA3".
    #[must_use]
    pub fn md5(self) -> String {
        hex::encode(Md5::digest(self.text()))
    }

    /// The text form, such as `771,4865-4866,0-23,29-23,0`; at most about three times as long as the hello.
    fn text(self) -> String {
        let hello = self.0;
        let mut text = String::with_capacity(256);
        text.push_str(itoa::Buffer::new().format(hello.legacy_version.0));
        push_list(&mut text, hello.cipher_suites.iter());
        push_list(&mut text, hello.extensions.numbers());
        push_list(&mut text, hello.groups.iter());
        push_list(&mut text, hello.point_formats.iter().map(|format| u16::from(*format)));
        text
    }
}

/// Appends a comma and the numbers, with dashes between them.
fn push_list(text: &mut String, numbers: impl Iterator<Item = u16>) {
    text.push(',');
    for (index, number) in numbers.filter(|number| !is_grease(*number)).enumerate() {
        if index > 0 {
            text.push('-');
        }
        text.push_str(itoa::Buffer::new().format(number));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client_hello::sample::Hello;

    fn ja3(hello: &Hello) -> (String, String) {
        let message = hello.message();
        let hello = ClientHello::parse(&message).expect("hello");
        (Ja3(&hello).text(), Ja3(&hello).md5())
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
