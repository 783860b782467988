//! Handshakes with clients whose server name is no host name: malformed, of an unknown type, with a list that lies, or
//! there more than once.
//!
//! The library refuses them, as RFC 6066 allows; a sensor wants to hear them. It has no use for the name, since the
//! certificate is chosen before it is asked. So it is given the hello with other numbers in place of the extension's,
//! which mean nothing, and has nothing to object to. Both sides hash all that was said, and what the client
//! hashes is what it has sent: the hash functions in the library's hands put the number back. Only hellos in which
//! the other numbers do not occur are treated like this, so that putting back is exact.
//!
//! A client that has to be asked for another group repeats its hello after the handshake began; [`super::Replay`] has
//! that second one hidden too.

use std::ops::Range;
use std::sync::{Arc, LazyLock};

use rustls::crypto::hash::{Context, Hash, HashAlgorithm, Output};
use rustls::crypto::{CipherSuiteCommon, CryptoProvider};
use rustls::pki_types;
use rustls::{SupportedCipherSuite, Tls12CipherSuite, Tls13CipherSuite};

use spip_protocol::client_hello::{ClientHello, ServerName, extension, extension_offsets};

/// Numbers that the library sees in place of `server_name`, each at most once: they are reserved for private use (RFC
/// 8446, section 11), so they have no meaning between a client and a server that do not know each other.
const STAND_INS: Range<u16> = 0xff5a..0xff62;

/// Reports whether the library would refuse this client for the name that it asks for.
pub(super) fn is_needed(hello: &ClientHello<'_>, message: &[u8]) -> bool {
    /// List length, type and name length in front of a name.
    const NAME_HEADER_BYTES: usize = 5;
    match hello.server_name {
        ServerName::Absent => false,
        ServerName::Malformed(_) => true,
        ServerName::Name(name) => {
            let mut places = places(message, |number| number == extension::SERVER_NAME);
            let length = places
                .next()
                .and_then(|at| message.get(at + 2..at + 4))
                .map(|length| usize::from(u16::from_be_bytes([length[0], length[1]])));
            length != Some(NAME_HEADER_BYTES + name.len())
                || pki_types::ServerName::try_from(name).is_err()
                || places.next().is_some()
        }
    }
}

/// A record with the hello in which the name is hidden; `None` where that is not possible.
pub(super) fn hide(message: &[u8]) -> Option<Vec<u8>> {
    let is_stand_in = |number: u16| STAND_INS.contains(&number);
    let names = || places(message, |number| number == extension::SERVER_NAME);
    let is_exact = places(message, is_stand_in).next().is_none() && (1..=STAND_INS.len()).contains(&names().count());
    if !is_exact {
        return None;
    }
    let length = u16::try_from(message.len()).ok()?.to_be_bytes();
    // The version of a first record is 3.1 by custom, and is ignored (RFC 8446, section 5.1).
    let header = [22, 3, 1, length[0], length[1]];
    let mut record = [&header[..], message].concat();
    for (at, number) in names().zip(STAND_INS) {
        record[header.len() + at..][..2].copy_from_slice(&number.to_be_bytes());
    }
    Some(record)
}

/// The transcript as the client knows it: `bytes`, where they are a hello with a hidden name, with the name shown.
pub(super) fn shown(bytes: &[u8]) -> Option<Vec<u8>> {
    if bytes.first() != Some(&1) {
        return None;
    }
    let mut hidden = places(bytes, |number| STAND_INS.contains(&number)).peekable();
    hidden.peek()?;
    let mut shown = bytes.to_vec();
    for at in hidden {
        shown[at..][..2].copy_from_slice(&extension::SERVER_NAME.to_be_bytes());
    }
    Some(shown)
}

/// Returns the places in a hello of the extensions with such numbers.
fn places(message: &[u8], is_one: impl Fn(u16) -> bool) -> impl Iterator<Item = usize> {
    extension_offsets(message).filter(move |(_, number)| is_one(*number)).map(|(at, _)| at)
}

/// `provider`, with hash functions that hash hidden names as they were sent.
pub(super) fn provider(provider: &CryptoProvider) -> Arc<CryptoProvider> {
    /// The library wants suites that live forever; these are made once.
    static SUITES: LazyLock<Vec<SupportedCipherSuite>> =
        LazyLock::new(|| super::suites::served().iter().map(restoring).collect());
    Arc::new(CryptoProvider { cipher_suites: SUITES.clone(), ..provider.clone() })
}

fn restoring(suite: &SupportedCipherSuite) -> SupportedCipherSuite {
    let common = |common: &CipherSuiteCommon| CipherSuiteCommon {
        suite: common.suite,
        hash_provider: Box::leak(Box::new(Restoring(common.hash_provider))),
        confidentiality_limit: common.confidentiality_limit,
    };
    match suite {
        SupportedCipherSuite::Tls12(suite) => SupportedCipherSuite::Tls12(Box::leak(Box::new(Tls12CipherSuite {
            common: common(&suite.common),
            prf_provider: suite.prf_provider,
            kx: suite.kx,
            sign: suite.sign,
            aead_alg: suite.aead_alg,
        }))),
        SupportedCipherSuite::Tls13(suite) => SupportedCipherSuite::Tls13(Box::leak(Box::new(Tls13CipherSuite {
            common: common(&suite.common),
            hkdf_provider: suite.hkdf_provider,
            aead_alg: suite.aead_alg,
            quic: suite.quic,
        }))),
    }
}

/// A hash function that hashes hidden names as they were sent.
struct Restoring(&'static dyn Hash);

impl Hash for Restoring {
    fn start(&self) -> Box<dyn Context> {
        Box::new(Running(self.0.start()))
    }

    fn hash(&self, data: &[u8]) -> Output {
        match shown(data) {
            Some(data) => self.0.hash(&data),
            None => self.0.hash(data),
        }
    }

    fn output_len(&self) -> usize {
        self.0.output_len()
    }

    fn algorithm(&self) -> HashAlgorithm {
        self.0.algorithm()
    }
}

/// One of its computations. Messages come whole, one an update.
struct Running(Box<dyn Context>);

impl Context for Running {
    fn fork_finish(&self) -> Output {
        self.0.fork_finish()
    }

    fn fork(&self) -> Box<dyn Context> {
        Box::new(Self(self.0.fork()))
    }

    fn finish(self: Box<Self>) -> Output {
        self.0.finish()
    }

    fn update(&mut self, data: &[u8]) {
        match shown(data) {
            Some(data) => self.0.update(&data),
            None => self.0.update(data),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use spip_protocol::client_hello::sample::Hello;

    fn needed(hello: &Hello) -> bool {
        let message = hello.message();
        is_needed(&ClientHello::parse(&message).expect("hello"), &message)
    }

    #[test]
    fn names_that_the_library_takes_are_left_alone() {
        assert!(!needed(&Hello::new()));
        for name in ["a.example", "_a.example", "192.0.2.1", "2001:db8::1", "A.", "a-b.example"] {
            assert!(!needed(&Hello::new().server_name(name.as_bytes())), "{name}");
        }
    }

    #[test]
    fn names_that_it_does_not_take_are_hidden() {
        for name in ["", "a b", "a..b", ".", "a-.example", "1.2.3", "é.example", &"a".repeat(64), "*.example"] {
            assert!(needed(&Hello::new().server_name(name.as_bytes())), "{name}");
        }
        for body in [&b""[..], b"\0", b"\0\x04\0\0\x01a!", b"\0\x04\x01\0\x01a", b"\0\x09\0\0\x01a\0\0\x02bc"] {
            assert!(needed(&Hello::new().extension(0, body)), "{}", body.escape_ascii());
        }
        assert!(needed(&Hello::new().server_name(b"a.example").server_name(b"a.example")));
    }

    #[test]
    fn a_hidden_name_comes_back_exactly() {
        let message = Hello::new().groups(&[29]).server_name(b"a b").versions(&[0x0304]).message();
        let record = hide(&message).expect("hidden");
        let hidden = &record[5..];
        assert_ne!(hidden, message);
        assert!(!ClientHello::parse(hidden).expect("hello").extensions.contains(extension::SERVER_NAME));
        assert_eq!(shown(hidden).as_deref(), Some(&message[..]));
        assert_eq!(shown(&message), None);
        assert_eq!(shown(b""), None);
        // Several have a stand-in each, as far as those go.
        for (count, hides) in [(2, true), (8, true), (9, false)] {
            let names = (0..count).fold(Hello::new(), |hello, _| hello.server_name(b"a"));
            let message = names.versions(&[0x0304]).message();
            let hidden = hide(&message);
            assert_eq!(hidden.is_some(), hides, "{count}");
            if let Some(record) = hidden {
                let mut numbers: Vec<_> = extension_offsets(&record[5..]).map(|(_, number)| number).collect();
                numbers.sort_unstable();
                numbers.dedup();
                assert_eq!(numbers.len(), count + 1);
                assert_eq!(shown(&record[5..]).as_deref(), Some(&message[..]));
            }
        }
    }

    #[test]
    fn a_hello_that_has_the_other_number_is_left_alone() {
        let message = Hello::new().server_name(b"a b").extension(STAND_INS.start, b"").message();
        assert_eq!(hide(&message), None);
    }
}
