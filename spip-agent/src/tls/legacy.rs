//! Handshakes of TLS 1.0 and 1.1, and with suites that rustls lacks, by OpenSSL (feature `legacy-tls`).
//!
//! It offers what no server should offer any more: no security level, every cipher that the library was
//! built with. Nothing is protected by it; the payload of old scanners and old devices is to be read. The same
//! bounds hold as elsewhere: the caller's deadline ends the handshake, nothing is resumed or renegotiated, and buffers
//! are given back while a session is idle.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use openssl::bn::BigNum;
use openssl::dh::Dh;
use openssl::error::ErrorStack;
use openssl::pkey::PKey;
use openssl::ssl::{
    self, AlpnError, ErrorCode, Ssl, SslContext, SslMethod, SslMode, SslOptions, SslSessionCacheMode, SslVerifyMode,
    SslVersion,
};
use openssl::x509::X509;
use rustls::pki_types::CertificateDer;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_openssl::SslStream;

use super::identity::Identity;
use super::{ClientCertificate, Failure, Replay, Session};
use spip_protocol::client_hello::{ClientHello, Version, extension, is_grease};

/// A stream inside TLS.
pub(super) type Stream<S> = SslStream<Slot<S>>;

/// Stream and agreed parameters of an old session; or the failure, and the stream beneath.
pub(super) type Outcome<S> = Result<(Box<Stream<S>>, Session), (Failure, Replay<S>)>;

/// Reports whether this library may have something in common with a client that the other one cannot serve.
pub(super) fn may_serve(hello: &ClientHello<'_>) -> bool {
    if hello.extensions.contains(extension::SUPPORTED_VERSIONS) {
        let served = [Version::TLS_1_0, Version::TLS_1_1, Version::TLS_1_2];
        served.iter().any(|version| hello.supported_versions.contains(version.0))
    } else {
        hello.legacy_version >= Version::TLS_1_0
    }
}

/// Reports whether a client takes nothing but ECDSA certificates: its suites name no other (IANA registry of cipher
/// suites).
pub(super) fn wants_ecdsa(hello: &ClientHello<'_>) -> bool {
    let is_ecdsa = |suite: u16| {
        matches!(suite, 0xc006..=0xc00a | 0xc023..=0xc024 | 0xc02b..=0xc02c | 0xc048..=0xc049 | 0xc05c..=0xc05d
            | 0xc072..=0xc073 | 0xc086..=0xc087 | 0xc0ac..=0xc0af | 0xcca9)
    };
    // Signals, not suites.
    let is_none = |suite: u16| is_grease(suite) || matches!(suite, 0x00ff | 0x5600);
    let mut suites = hello.cipher_suites.iter().filter(|suite| !is_none(*suite)).peekable();
    suites.peek().is_some() && suites.all(is_ecdsa)
}

/// Completes the handshake.
pub(super) async fn accept<S>(identity: &Identity, asks_certificate: bool, stream: Replay<S>) -> Outcome<S>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let ssl = match context(identity, asks_certificate).and_then(|context| Ssl::new(&context)) {
        Ok(ssl) => ssl,
        Err(error) => return Err((Failure::Internal(reason(&error)), stream)),
    };
    let mut stream = match SslStream::new(ssl, Slot(None)) {
        Ok(empty) => Box::new(empty).filled(stream),
        Err(error) => return Err((Failure::Internal(reason(&error)), stream)),
    };
    let accepted = std::future::poll_fn(|context| Pin::new(&mut *stream).poll_accept(context)).await;
    match (accepted, stream.get_mut().0.take()) {
        (Ok(()), Some(mut inner)) => {
            inner.end_opening();
            stream.get_mut().0 = Some(inner);
            let session = session(stream.ssl(), asks_certificate);
            Ok((stream, session))
        }
        (Err(error), Some(inner)) => Err((Failure::of_openssl(&error), inner)),
        (_, None) => unreachable!("the stream is taken here only"),
    }
}

/// A context for one handshake: certificates differ from client to client.
fn context(identity: &Identity, asks_certificate: bool) -> Result<SslContext, ErrorStack> {
    let mut context = SslContext::builder(SslMethod::tls_server())?;
    context.set_security_level(0);
    context.set_min_proto_version(Some(SslVersion::TLS1))?;
    context.set_max_proto_version(Some(SslVersion::TLS1_2))?;
    context.set_cipher_list("ALL:COMPLEMENTOFALL:@SECLEVEL=0")?;
    context.set_options(SslOptions::NO_TICKET | SslOptions::NO_RENEGOTIATION | SslOptions::IGNORE_UNEXPECTED_EOF);
    context.set_mode(SslMode::RELEASE_BUFFERS);
    context.set_session_cache_mode(SslSessionCacheMode::OFF);
    // RFC 3526, section 3, with its generator.
    let prime = BigNum::get_rfc3526_prime_2048()?;
    let group = Dh::from_pqg(prime, None, BigNum::from_u32(2)?)?;
    context.set_tmp_dh(&group)?;
    let mut chain = identity.cert.iter();
    if let Some(leaf) = chain.next() {
        context.set_certificate(&*X509::from_der(leaf)?)?;
    }
    for issuer in chain {
        context.add_extra_chain_cert(X509::from_der(issuer)?)?;
    }
    let key = PKey::private_key_from_der(identity.key())?;
    context.set_private_key(&*key)?;
    context.set_alpn_select_callback(|_, offered| favourite(offered).ok_or(AlpnError::NOACK));
    if asks_certificate {
        // A client with the key is believed; the issuer makes no difference.
        context.set_verify_callback(SslVerifyMode::PEER, |_, _| true);
    }
    Ok(context.build())
}

/// The first protocol of a client's list that is no GREASE.
fn favourite(mut list: &[u8]) -> Option<&[u8]> {
    while let Some((length, rest)) = list.split_first() {
        let (name, next) = rest.split_at_checked(usize::from(*length))?;
        let reserved = matches!(name, [high, low] if is_grease(u16::from_be_bytes([*high, *low])));
        if !name.is_empty() && !reserved {
            return Some(name);
        }
        list = next;
    }
    None
}

fn session(ssl: &ssl::SslRef, asks_certificate: bool) -> Session {
    let cipher = ssl.current_cipher();
    let client_certificate = if asks_certificate {
        let chain: Vec<CertificateDer<'_>> =
            ssl.peer_certificate().and_then(|leaf| leaf.to_der().ok()).map(CertificateDer::from).into_iter().collect();
        ClientCertificate::of_chain(&chain)
    } else {
        ClientCertificate::NotAsked
    };
    Session {
        version: match ssl.version_str() {
            "TLSv1" => "TLSv1.0",
            other => other,
        },
        cipher_suite: cipher.and_then(|cipher| cipher.standard_name()).unwrap_or_default().to_owned(),
        protocol: ssl.selected_alpn_protocol().map(|name| String::from_utf8_lossy(name).into_owned()),
        client_certificate,
    }
}

impl Failure {
    /// The reason behind an error of the other library.
    pub(super) fn of_openssl(error: &ssl::Error) -> Self {
        // Numbers of <openssl/sslerr.h>.
        const ALERT: i32 = 1000;
        const NO_SHARED_CIPHER: i32 = 193;
        const UNEXPECTED_EOF: i32 = 294;
        match (error.code(), error.io_error(), error.ssl_error().and_then(|stack| stack.errors().first())) {
            (_, Some(error), _) => Self::of_stream(error),
            (ErrorCode::ZERO_RETURN, ..) | (ErrorCode::SYSCALL, None, None) => Self::Closed,
            (_, None, Some(first)) => match first.reason_code() {
                UNEXPECTED_EOF => Self::Closed,
                NO_SHARED_CIPHER => Self::NoCommonCipherSuite,
                code @ ALERT..=1255 => Self::Alert(u8::try_from(code - ALERT).unwrap_or(u8::MAX)),
                _ => Self::Violation(first.reason().unwrap_or("unknown").to_owned()),
            },
            (_, None, None) => Self::Closed,
        }
    }
}

fn reason(error: &ErrorStack) -> String {
    error.errors().first().and_then(|first| first.reason()).unwrap_or("openssl").to_owned()
}

/// Reads what was decrypted. An error of the library becomes one of the kind that says that the protocol was broken.
pub(super) fn poll_read<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut Stream<S>,
    context: &mut Context<'_>,
    buffer: &mut ReadBuf<'_>,
) -> Poll<io::Result<()>> {
    Pin::new(stream).poll_read(context, buffer).map_err(|error| {
        let broken = error.get_ref().is_some_and(|inner| inner.is::<ssl::Error>());
        if broken { io::Error::new(io::ErrorKind::InvalidData, error) } else { error }
    })
}

/// A place for the stream beneath, so that it can be had back when the handshake fails.
#[derive(Debug)]
pub(super) struct Slot<S>(Option<Replay<S>>);

impl<S> Slot<S> {
    /// The stream beneath, unless it was taken out.
    pub(super) fn stream_mut(&mut self) -> Option<&mut S> {
        self.0.as_mut().map(Replay::stream_mut)
    }
}

/// Fills the slot of a stream that was made empty, since making it may fail.
trait Filled<S> {
    fn filled(self, stream: Replay<S>) -> Self;
}

impl<S: AsyncRead + AsyncWrite> Filled<S> for Box<Stream<S>> {
    fn filled(mut self, stream: Replay<S>) -> Self {
        self.get_mut().0 = Some(stream);
        self
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Slot<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut self.0 {
            Some(stream) => Pin::new(stream).poll_read(context, buffer),
            None => Poll::Ready(Ok(())),
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Slot<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.0 {
            Some(stream) => Pin::new(stream).poll_write(context, bytes),
            None => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.0 {
            Some(stream) => Pin::new(stream).poll_flush(context),
            None => Poll::Ready(Ok(())),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.0 {
            Some(stream) => Pin::new(stream).poll_shutdown(context),
            None => Poll::Ready(Ok(())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use spip_protocol::client_hello::sample::Hello;

    fn with<T>(hello: &Hello, read: impl FnOnce(&ClientHello<'_>) -> T) -> T {
        read(&ClientHello::parse(&hello.message()).expect("hello"))
    }

    #[test]
    fn old_versions_are_served_and_older_ones_are_not() {
        for (version, served) in [(0x0300, false), (0x0301, true), (0x0302, true), (0x0303, true)] {
            assert_eq!(with(&Hello::new().version(version), may_serve), served, "{version:#x}");
        }
        assert!(with(&Hello::new().versions(&[0x0304, 0x0302]), may_serve));
        assert!(!with(&Hello::new().versions(&[0x0304]), may_serve));
    }

    #[test]
    fn ecdsa_is_shown_to_those_alone_who_take_nothing_else() {
        for (suites, ecdsa) in [
            (&[0xc009, 0xc00a, 0x00ff][..], true),
            (&[0x0a0a, 0xc009], true),
            (&[0xc009, 0xc013], false),
            (&[0x002f], false),
            (&[0x00ff], false),
            (&[], false),
        ] {
            assert_eq!(with(&Hello::new().ciphers(suites), wants_ecdsa), ecdsa, "{suites:x?}");
        }
    }

    #[test]
    fn the_first_protocol_that_means_something_is_taken() {
        assert_eq!(favourite(b"\x02\x0a\x0a\x00\x02h2\x08http/1.1"), Some(&b"h2"[..]));
        assert_eq!(favourite(b"\x05h2"), None);
        assert_eq!(favourite(b""), None);
    }
}
