//! The certificates of clients, which are asked for where that is configured.

use std::cell::OnceCell;
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use rustls::crypto::aws_lc_rs::{default_provider, sign};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::sign::{CertifiedKey, SigningKey};
use spip_agent::tls::{ClientCertificate, Failure, MAX_NAME_CHARS, Replay, TlsServer};
use spip_protocol::client_hello::{ClientHello, Detection, Detector, handshake_message};
use spip_tls_client::{Shown, Trust};
use tokio::io::{AsyncReadExt, DuplexStream};
use tokio::runtime::Runtime;
use tokio_rustls::TlsConnector;

use super::engine;

/// Checks that the facts of a certificate are bounded, whatever it claims.
pub(super) fn client_certificate(bytes: &[u8]) {
    is_bounded(&ClientCertificate::of_chain(&[CertificateDer::from(bytes)]));
}

fn is_bounded(certificate: &ClientCertificate) {
    if let ClientCertificate::Presented(shown) = certificate {
        for name in [&shown.subject, &shown.issuer] {
            assert!(name.chars().count() <= MAX_NAME_CHARS);
        }
        assert_eq!(shown.sha256.len(), 64);
    }
}

thread_local! {
    static WORLD: OnceCell<World> = const { OnceCell::new() };
}

/// The key of the certificate that the corpus begins with: its handshake completes.
const KEY: &[u8] = include_bytes!("../../../spip-agent/fixtures/tls/client.key");

/// A server that asks for certificates, and a key for clients.
struct World {
    runtime: Runtime,
    server: TlsServer,
    key: Arc<dyn SigningKey>,
}

impl World {
    fn new() -> Self {
        let (runtime, server) = engine::start();
        let key = PrivateKeyDer::from_pem_slice(KEY).expect("PEM");
        let key = sign::any_supported_type(&key).expect("a key of a known kind");
        Self { runtime, server, key }
    }

    /// A client that shows these bytes as its certificate.
    fn client(&self, certificate: &[u8], tls13: bool) -> TlsConnector {
        let version = if tls13 { &rustls::version::TLS13 } else { &rustls::version::TLS12 };
        let chain = vec![CertificateDer::from(certificate.to_vec())];
        let config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_protocol_versions(&[version])
            .expect("a version of the library")
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Trust(true)))
            .with_client_cert_resolver(Arc::new(Shown(Arc::new(CertifiedKey::new(chain, Arc::clone(&self.key))))));
        TlsConnector::from(Arc::new(config))
    }
}

/// A handshake in which the client shows these bytes ends, in both versions.
pub(super) fn tls_client_certificate(bytes: &[u8]) {
    // What is empty is no certificate for either side.
    if bytes.is_empty() {
        return;
    }
    for tls13 in [true, false] {
        match handshake(bytes, tls13) {
            Err(failure) => assert!(!matches!(failure, Failure::Internal(_)), "{failure}"),
            Ok(certificate) => is_bounded(&certificate),
        }
    }
}

/// Returns the result of a handshake with a client that shows these bytes.
fn handshake(certificate: &[u8], tls13: bool) -> Result<ClientCertificate, Failure> {
    WORLD.with(|world| {
        let world = world.get_or_init(World::new);
        let client = world.client(certificate, tls13);
        world.runtime.block_on(async {
            let (far, near) = tokio::io::duplex(1 << 16);
            let name = ServerName::try_from("www.example.com").expect("a name");
            let both = async { tokio::join!(client.connect(name, far), serve(&world.server, near)) };
            tokio::time::timeout(Duration::from_secs(60), both).await.expect("it ends").1
        })
    })
}

/// Reads a hello as a session does, then completes the handshake.
async fn serve(server: &TlsServer, mut stream: DuplexStream) -> Result<ClientCertificate, Failure> {
    let mut received = Vec::new();
    let mut detector = Detector::default();
    let length = loop {
        match detector.advance(&received) {
            Detection::ClientHello { length } => break length,
            verdict => assert!(verdict.needs_more(), "{verdict:?}"),
        }
        assert_ne!(stream.read_buf(&mut received).await.expect("memory"), 0, "a client leaves without a hello");
    };
    let handshake = {
        let raw = received[..length].to_vec();
        let message = handshake_message(&raw);
        let hello = ClientHello::parse(&message).expect("a hello of the library");
        server.accept(&hello, Replay::new(received, length, stream))
    };
    match handshake.await {
        Ok(accepted) => Ok(accepted.session.client_certificate),
        Err(rejected) => Err(rejected.failure),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::corpus;

    #[test]
    fn the_owner_of_a_certificate_completes_the_handshake_and_nobody_else() {
        let seed =
            |name: &str| std::fs::read(corpus::directory().join("client_certificate").join(name)).expect("there");
        for tls13 in [true, false] {
            let shown = handshake(&seed("client"), tls13);
            assert!(matches!(shown, Ok(ClientCertificate::Presented(_))), "{shown:?}");
            let shown = handshake(&seed("rsa-chain"), tls13);
            assert!(shown.is_err(), "{shown:?}");
        }
    }
}
