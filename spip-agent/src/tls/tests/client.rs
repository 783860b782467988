//! Clients of the library, and handshakes with them over streams in memory.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::sign::CertifiedKey;
use spip_tls_client::{Shown, Trust};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream};
use tokio_rustls::{TlsConnector, client};

use crate::tls::certificate::tests::fixture;
use crate::tls::{Accepted, Failure, Rejected, Replay, Session, TlsServer};
use spip_protocol::client_hello::{ClientHello, Detection, Detector, handshake_message};

pub(crate) type Versions = &'static [&'static rustls::SupportedProtocolVersion];
pub(crate) static TLS_1_2: Versions = &[&rustls::version::TLS12];
pub(crate) static TLS_1_3: Versions = &[&rustls::version::TLS13];

/// Runs a test that must end.
pub(in crate::tls) fn run<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
    runtime.block_on(async { tokio::time::timeout(Duration::from_secs(60), test).await.expect("in time") })
}

pub(super) fn minting() -> TlsServer {
    TlsServer::new(None, false).expect("server")
}

/// Settings of a client of the library.
pub(crate) struct Client {
    pub(crate) versions: Versions,
    pub(crate) provider: CryptoProvider,
    pub(crate) protocols: Vec<&'static [u8]>,
    pub(crate) name: &'static str,
    pub(crate) trusts: bool,
    pub(crate) certificate: Option<(&'static str, &'static str)>,
}

impl Default for Client {
    fn default() -> Self {
        Self {
            versions: rustls::ALL_VERSIONS,
            provider: aws_lc_rs::default_provider(),
            protocols: Vec::new(),
            name: "www.example.com",
            trusts: true,
            certificate: None,
        }
    }
}

impl Client {
    /// Connects over `stream`.
    pub(crate) async fn connect<S: AsyncRead + AsyncWrite + Unpin>(
        self,
        stream: S,
    ) -> io::Result<client::TlsStream<S>> {
        let builder = ClientConfig::builder_with_provider(Arc::new(self.provider))
            .with_protocol_versions(self.versions)
            .expect("versions")
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Trust(self.trusts)));
        let mut config = match self.certificate {
            None => builder.with_no_client_auth(),
            Some((chain, key)) => {
                let chain = CertificateDer::from_pem_file(fixture(chain)).expect("certificate");
                let key = PrivateKeyDer::from_pem_file(fixture(key)).expect("key");
                let key = aws_lc_rs::default_provider().key_provider.load_private_key(key).expect("usable");
                builder.with_client_cert_resolver(Arc::new(Shown(Arc::new(CertifiedKey::new(vec![chain], key)))))
            }
        };
        config.alpn_protocols = self.protocols.iter().map(|name| name.to_vec()).collect();
        let name = ServerName::try_from(self.name).expect("name");
        TlsConnector::from(Arc::new(config)).connect(name, stream).await
    }
}

/// Reads a hello as a session does, then hands over.
async fn accept(
    server: &TlsServer,
    mut stream: DuplexStream,
) -> (Vec<u8>, Result<Accepted<DuplexStream>, Rejected<DuplexStream>>) {
    let mut received = Vec::new();
    let mut detector = Detector::default();
    let length = loop {
        match detector.advance(&received) {
            Detection::ClientHello { length } => break length,
            verdict => assert!(verdict.needs_more(), "{verdict:?}"),
        }
        assert_ne!(stream.read_buf(&mut received).await.expect("read"), 0);
    };
    let raw = received[..length].to_vec();
    let future = {
        let message = handshake_message(&raw);
        let hello = ClientHello::parse(&message).expect("hello");
        server.accept(&hello, Replay::new(received, length, stream))
    };
    let result = future.await;
    (raw, result)
}

/// A handshake, and an exchange of bytes after it.
pub(super) async fn exchange(server: &TlsServer, client: Client) -> (Session, Vec<CertificateDer<'static>>) {
    let (far, near) = tokio::io::duplex(1 << 14);
    let client = tokio::spawn(async move {
        let mut stream = client.connect(far).await.expect("client");
        stream.write_all(b"ping").await.expect("write");
        let mut answer = [0; 4];
        stream.read_exact(&mut answer).await.expect("read");
        assert_eq!(&answer, b"pong");
        let chain = stream.get_ref().1.peer_certificates().expect("chain");
        chain.to_vec()
    });
    let server = async {
        let (_, accepted) = accept(server, near).await;
        let Accepted { mut stream, session } = accepted.expect("server");
        let mut question = [0; 4];
        stream.read_exact(&mut question).await.expect("read");
        assert_eq!(&question, b"ping");
        stream.write_all(b"pong").await.expect("write");
        stream.flush().await.expect("flush");
        session
    };
    let session = server.await;
    (session, client.await.expect("client"))
}

/// A handshake that fails; what the server and the client say.
pub(super) async fn refused(server: &TlsServer, client: Client) -> (Failure, String) {
    let (far, near) = tokio::io::duplex(1 << 14);
    let client = tokio::spawn(async move {
        let error = match client.connect(far).await {
            // In TLS 1.3 the client is done before the server has seen the last of it.
            Ok(mut stream) => stream.read(&mut [0]).await.expect_err("refused"),
            Err(error) => error,
        };
        error.to_string()
    });
    let server = async {
        let (_, result) = accept(server, near).await;
        result.expect_err("refused").failure
    };
    let failure = server.await;
    (failure, client.await.expect("client"))
}

/// Sends bytes that were made elsewhere, closes, and says how that failed.
pub(super) async fn refused_bytes(server: &TlsServer, bytes: &[u8]) -> (Failure, Vec<u8>) {
    let (mut far, near) = tokio::io::duplex(1 << 16);
    far.write_all(bytes).await.expect("write");
    far.shutdown().await.expect("shutdown");
    let (_, result) = accept(server, near).await;
    let rejected = result.expect_err("refused");
    drop(rejected.stream);
    let mut answer = Vec::new();
    far.read_to_end(&mut answer).await.expect("read");
    (rejected.failure, answer)
}
