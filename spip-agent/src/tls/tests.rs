use super::certificate::tests::{Directory, files, fixture};
use super::*;
use crate::protocol::client_hello::sample::{Hello, vectors};
use crate::protocol::client_hello::{Detection, Detector, handshake_message};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{CertificateError as Distrust, ClientConfig, DigitallySignedStruct, SignatureScheme};
use std::io;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio_rustls::{TlsConnector, client};

type Versions = &'static [&'static rustls::SupportedProtocolVersion];
static TLS_1_2: Versions = &[&rustls::version::TLS12];
static TLS_1_3: Versions = &[&rustls::version::TLS13];

/// Runs a test that must end.
pub(super) fn run<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("runtime");
    runtime.block_on(async {
        tokio::time::timeout(Duration::from_secs(60), test)
            .await
            .expect("in time")
    })
}

fn config() -> config::Tls {
    config::Tls {
        enabled: true,
        certificate: None,
        ask_client_certificate: false,
    }
}

fn minting() -> TlsServer {
    TlsServer::new(&config()).expect("server")
}

/// Trusts any server, or none; remembers nothing.
#[derive(Debug)]
struct Trust(bool);

impl ServerCertVerifier for Trust {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if self.0 {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(Distrust::UnknownIssuer.into())
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = aws_lc_rs::default_provider().signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, &algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = aws_lc_rs::default_provider().signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, &algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        let algorithms = aws_lc_rs::default_provider().signature_verification_algorithms;
        algorithms.supported_schemes()
    }
}

/// What a client of the library is like.
struct Client {
    versions: Versions,
    provider: CryptoProvider,
    protocols: Vec<&'static [u8]>,
    name: &'static str,
    trusts: bool,
    certificate: Option<(&'static str, &'static str)>,
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
    async fn connect(self, stream: DuplexStream) -> io::Result<client::TlsStream<DuplexStream>> {
        let builder = ClientConfig::builder_with_provider(Arc::new(self.provider))
            .with_protocol_versions(self.versions)
            .expect("versions")
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Trust(self.trusts)));
        let mut config = match self.certificate {
            None => builder.with_no_client_auth(),
            Some((chain, key)) => builder
                .with_client_auth_cert(
                    vec![CertificateDer::from_pem_file(fixture(chain)).expect("certificate")],
                    PrivateKeyDer::from_pem_file(fixture(key)).expect("key"),
                )
                .expect("pair"),
        };
        config.alpn_protocols = self.protocols.iter().map(|name| name.to_vec()).collect();
        let name = ServerName::try_from(self.name).expect("name");
        TlsConnector::from(Arc::new(config))
            .connect(name, stream)
            .await
    }
}

/// Reads a hello as a session does, then hands over.
async fn accept(
    server: &TlsServer,
    mut stream: DuplexStream,
) -> (
    Vec<u8>,
    Result<Accepted<Prefixed<DuplexStream>>, Rejected<Prefixed<DuplexStream>>>,
) {
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
        server.accept(&hello, Prefixed::new(received, stream))
    };
    let result = future.await;
    (raw, result)
}

/// A handshake, and an exchange of bytes after it.
async fn exchange(server: &TlsServer, client: Client) -> (Session, Vec<CertificateDer<'static>>) {
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
        let Accepted {
            mut stream,
            session,
        } = accepted.expect("server");
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
async fn refused(server: &TlsServer, client: Client) -> (Failure, String) {
    let (far, near) = tokio::io::duplex(1 << 14);
    let client = tokio::spawn(async move {
        let error = client.connect(far).await.expect_err("refused");
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
async fn refused_bytes(server: &TlsServer, bytes: &[u8]) -> (Failure, Vec<u8>) {
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

#[test]
fn both_versions_are_served_without_any_certificate_of_the_operator() {
    run(async {
        let server = minting();
        let (session, chain) = exchange(&server, Client::default()).await;
        assert_eq!(session.version, "TLSv1.3");
        assert!(session.cipher_suite.starts_with("TLS_AES_"), "{session:?}");
        assert_eq!(session.protocol, None);
        assert_eq!(session.client_certificate, ClientCertificate::NotAsked);
        assert_eq!(chain.len(), 1);
        let client = Client {
            versions: TLS_1_2,
            ..Client::default()
        };
        let (session, _) = exchange(&server, client).await;
        assert_eq!(session.version, "TLSv1.2");
        assert!(session.cipher_suite.starts_with("TLS_ECDHE_ECDSA_WITH_"));
    });
}

#[test]
fn every_suite_and_group_of_the_provider_is_served() {
    run(async {
        let server = minting();
        for suite in aws_lc_rs::ALL_CIPHER_SUITES {
            let client = Client {
                provider: CryptoProvider {
                    cipher_suites: vec![*suite],
                    ..aws_lc_rs::default_provider()
                },
                versions: if suite.tls13().is_some() {
                    TLS_1_3
                } else {
                    TLS_1_2
                },
                ..Client::default()
            };
            let (session, _) = exchange(&server, client).await;
            assert_eq!(session.cipher_suite, facts::iana_name(suite.suite()));
        }
        for group in aws_lc_rs::ALL_KX_GROUPS {
            let client = Client {
                provider: CryptoProvider {
                    kx_groups: vec![*group],
                    ..aws_lc_rs::default_provider()
                },
                versions: TLS_1_3,
                ..Client::default()
            };
            exchange(&server, client).await;
        }
    });
}

#[test]
fn the_clients_favourite_protocol_is_agreed_to() {
    run(async {
        let server = minting();
        for (offered, agreed) in [
            (&[&b"h2"[..], b"http/1.1"][..], Some("h2")),
            (&[b"http/1.1", b"h2"], Some("http/1.1")),
            (&[b"mqtt"], Some("mqtt")),
            (&[b"\x0a\x0a", b"h2"], Some("h2")),
            (&[b"\x0a\x0a"], None),
            (&[b"\xff\x01"], Some("\u{fffd}\u{1}")),
            (&[], None),
        ] {
            for versions in [TLS_1_3, TLS_1_2] {
                let hello = Hello::new().protocols(offered).message();
                let hello = ClientHello::parse(&hello).expect("hello");
                let favourite = favourite_protocol(&hello).map(String::from_utf8_lossy);
                assert_eq!(favourite.as_deref(), agreed);
                let client = Client {
                    protocols: offered.to_vec(),
                    versions,
                    ..Client::default()
                };
                let (session, _) = exchange(&server, client).await;
                assert_eq!(session.protocol.as_deref(), agreed);
            }
        }
    });
}

#[test]
fn a_client_without_ecdsa_is_served_with_rsa() {
    run(async {
        let server = minting();
        let suites = aws_lc_rs::ALL_CIPHER_SUITES.iter().copied();
        let client = Client {
            provider: CryptoProvider {
                cipher_suites: suites
                    .filter(|suite| format!("{:?}", suite.suite()).contains("ECDHE_RSA"))
                    .collect(),
                ..aws_lc_rs::default_provider()
            },
            versions: TLS_1_2,
            ..Client::default()
        };
        let (session, _) = exchange(&server, client).await;
        assert!(session.cipher_suite.starts_with("TLS_ECDHE_RSA_WITH_"));
    });
}

#[test]
fn names_and_addresses_are_answered_with_their_own_certificate() {
    run(async {
        let server = minting();
        for (name, subject) in [
            ("a.example", "CN=a.example"),
            ("under_score.example", "CN=under_score.example"),
            // For an address the library sends no server name.
            ("192.0.2.1", "CN=localhost"),
        ] {
            let client = Client {
                name,
                ..Client::default()
            };
            let (_, chain) = exchange(&server, client).await;
            let ClientCertificate::Presented(shown) = ClientCertificate::of_chain(&chain) else {
                panic!("unreadable");
            };
            assert_eq!(shown.subject, subject);
        }
    });
}

#[test]
fn the_operators_certificate_is_served_with_its_chain() {
    run(async {
        for (chain, key) in [
            ("ecdsa-chain.crt", "ecdsa-sec1.key"),
            ("rsa-chain.crt", "rsa-pkcs1.key"),
        ] {
            let server = TlsServer::new(&config::Tls {
                certificate: Some(files(chain, key)),
                ..config()
            });
            let server = server.expect("server");
            for versions in [TLS_1_3, TLS_1_2] {
                let client = Client {
                    versions,
                    ..Client::default()
                };
                let (_, shown) = exchange(&server, client).await;
                let expected: Vec<_> = CertificateDer::pem_file_iter(fixture(chain))
                    .expect("file")
                    .map(|certificate| certificate.expect("certificate"))
                    .collect();
                assert_eq!(shown, expected);
            }
        }
    });
}

#[test]
fn a_broken_certificate_is_refused_while_the_old_one_goes_on() {
    run(async {
        let directory = Directory::new();
        let read = |name: &str| std::fs::read(fixture(name)).expect("fixture");
        let chain = directory.write("server.crt", &read("ecdsa-chain.crt"));
        let key = directory.write("server.key", &read("ecdsa-pkcs8.key"));
        let server = TlsServer::new(&config::Tls {
            certificate: Some(config::CertificateFiles { chain, key }),
            ..config()
        });
        let server = server.expect("server");
        let before = exchange(&server, Client::default()).await.1;

        directory.write("server.crt", b"nothing");
        let refusal = server.reload().expect_err("refused").to_string();
        assert!(refusal.contains("server.crt"), "{refusal}");
        assert_eq!(exchange(&server, Client::default()).await.1, before);

        directory.write("server.crt", &read("rsa-chain.crt"));
        let refusal = server.reload().expect_err("refused").to_string();
        assert!(refusal.contains("does not belong"), "{refusal}");
        assert_eq!(exchange(&server, Client::default()).await.1, before);

        directory.write("server.key", &read("rsa-pkcs8.key"));
        server.reload().expect("reloaded");
        assert_ne!(exchange(&server, Client::default()).await.1, before);
    });
}

#[test]
fn a_server_without_files_has_nothing_to_reload() {
    minting().reload().expect("nothing to do");
}

#[test]
fn client_certificates_are_recorded_whoever_issued_them() {
    run(async {
        let server = TlsServer::new(&config::Tls {
            ask_client_certificate: true,
            ..config()
        });
        let server = server.expect("server");
        for versions in [TLS_1_3, TLS_1_2] {
            let client = Client {
                certificate: Some(("client.crt", "client.key")),
                versions,
                ..Client::default()
            };
            let (session, _) = exchange(&server, client).await;
            let ClientCertificate::Presented(shown) = session.client_certificate else {
                panic!("{session:?}");
            };
            assert_eq!(shown.subject, "CN=client.example, O=Example");
            assert_eq!(shown.issuer, shown.subject);
            assert_eq!(shown.not_after - shown.not_before, 36_500 * 24 * 60 * 60);
            assert_eq!(shown.sha256.len(), 64);

            let client = Client {
                versions,
                ..Client::default()
            };
            let (session, _) = exchange(&server, client).await;
            assert_eq!(session.client_certificate, ClientCertificate::NotSent);
        }
    });
}

#[test]
fn a_certificate_that_is_none_is_unreadable() {
    for bytes in [&b""[..], b"\x30\x80", &[0x30; 5000]] {
        let chain = [CertificateDer::from(bytes)];
        assert_eq!(
            ClientCertificate::of_chain(&chain),
            ClientCertificate::Unreadable
        );
    }
}

#[test]
fn the_alert_of_a_distrustful_client_is_named() {
    run(async {
        let server = minting();
        for versions in [TLS_1_3, TLS_1_2] {
            let client = Client {
                trusts: false,
                versions,
                ..Client::default()
            };
            let (failure, _) = refused(&server, client).await;
            assert_eq!(failure.to_string(), "alert: unknown_ca");
        }
    });
}

#[test]
fn versions_that_are_not_served_are_named_and_answered_with_an_alert() {
    run(async {
        let server = minting();
        for (version, offered) in [
            (0x0300, "ssl 3.0"),
            (0x0301, "tls 1.0"),
            (0x0302, "tls 1.1"),
        ] {
            let hello = Hello::new()
                .version(version)
                .ciphers(&[0xc013, 0xc014, 0x002f, 0x0035])
                .groups(&[29, 23])
                .point_formats(&[0]);
            let (failure, answer) = refused_bytes(&server, &hello.records(1 << 14)).await;
            assert_eq!(
                failure.to_string(),
                format!("{offered} offered, tls 1.2 and tls 1.3 served")
            );
            assert_eq!(answer[0], 21, "an alert");
            assert_eq!(answer.last(), Some(&70), "protocol_version");
        }
    });
}

#[test]
fn what_is_not_in_common_is_named() {
    run(async {
        let server = minting();
        let hello = || {
            Hello::new()
                .point_formats(&[0])
                .signature_algorithms(&[0x0403, 0x0804, 0x0401])
        };
        for (hello, reason) in [
            (
                hello().ciphers(&[0x002f, 0x0035]).groups(&[29]),
                "no common cipher suite",
            ),
            (hello().ciphers(&[0x002f, 0x0035]), "no common cipher suite"),
            (
                hello().ciphers(&[0xc02b]).groups(&[29]).server_name(b"a b"),
                "protocol violation: server name must contain one host name",
            ),
            (
                hello().ciphers(&[0xc02b, 0xc02f]).groups(&[0x001e]),
                "no common group",
            ),
            (
                Hello::new().ciphers(&[0xc02b]).groups(&[29]),
                "incompatible client: signature algorithms extension required",
            ),
        ] {
            let (failure, answer) = refused_bytes(&server, &hello.records(1 << 14)).await;
            assert_eq!(failure.to_string(), reason);
            assert_eq!(answer[0], 21, "an alert");
        }
    });
}

#[test]
fn a_client_that_leaves_after_its_hello_is_named() {
    run(async {
        let server = minting();
        for vector in vectors() {
            let Detection::ClientHello { length } =
                crate::protocol::client_hello::detect(&vector.stream)
            else {
                panic!("no hello in {}", vector.source);
            };
            let (failure, answer) = refused_bytes(&server, &vector.stream[..length]).await;
            assert_eq!(failure, Failure::Closed, "{}", vector.source);
            assert_eq!(answer[0], 22, "the handshake went on");
        }
    });
}

#[test]
fn garbage_after_a_hello_is_a_violation() {
    run(async {
        let server = minting();
        let vector = &vectors()[4];
        let bytes = [&vector.stream[..], b"GET / HTTP/1.1\r\n\r\n"].concat();
        let (failure, _) = refused_bytes(&server, &bytes).await;
        assert!(
            failure.to_string().starts_with("protocol violation: "),
            "{failure}"
        );
    });
}

#[test]
fn a_hello_in_the_smallest_records_completes() {
    run(async {
        // A real client's hello, cut anew; the rest of the handshake cannot follow, because it hashes messages, not
        // records: it is the server's flight that shows that the hello was taken.
        let server = minting();
        let vector = &vectors()[4];
        let message = handshake_message(&vector.stream);
        let raw = crate::protocol::client_hello::sample::in_records(&message, 1);
        let (failure, answer) = refused_bytes(&server, &raw).await;
        assert_eq!(failure, Failure::Closed);
        assert_eq!(answer[0], 22);
    });
}

#[test]
fn errors_after_the_handshake_have_reasons_too() {
    let alert = rustls::Error::AlertReceived(rustls::AlertDescription::BadCertificate);
    let error = io::Error::new(io::ErrorKind::InvalidData, alert);
    assert_eq!(Failure::of_stream(&error), Failure::Alert(42));
    let error = io::Error::from(io::ErrorKind::UnexpectedEof);
    assert_eq!(Failure::of_stream(&error), Failure::Closed);
    let error = io::Error::from(io::ErrorKind::ConnectionReset);
    assert_eq!(
        Failure::of_stream(&error).to_string(),
        "connection broken: connection reset"
    );
}

#[test]
fn the_facts_of_a_hello_come_from_its_bytes() {
    let facts = Facts {
        client_hello: vectors()[4].stream.clone().into(),
        handshake: Handshake::Off,
    };
    let hello = facts.hello().expect("hello");
    assert_eq!(
        hello.server_name.as_deref(),
        Some("contile.services.mozilla.com")
    );
    assert_eq!(hello.protocols, ["h2", "http/1.1"]);
    assert_eq!(hello.ja4, "t13d1715h2_5b57614c22b0_3d5424432f57");
    assert!(hello.ja4_r.starts_with("t13d1715h2_002f,0035,"));
    assert_eq!(hello.version, Version::TLS_1_3);
    let cut = Facts {
        client_hello: facts.client_hello[..100].into(),
        handshake: Handshake::Failed(Failure::IncompleteHello),
    };
    assert!(cut.hello().is_err());
}
