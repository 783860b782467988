pub(crate) mod client;

use std::io;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

pub(super) use client::run;

use super::certificate::tests::{Directory, files, fixture};
use super::*;
use client::{Client, TLS_1_2, TLS_1_3, exchange, minting, refused, refused_bytes};
use spip_protocol::client_hello::sample::{Hello, vectors};
use spip_protocol::client_hello::{Detection, handshake_message};

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
        let client = Client { versions: TLS_1_2, ..Client::default() };
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
                provider: CryptoProvider { cipher_suites: vec![*suite], ..aws_lc_rs::default_provider() },
                versions: if suite.tls13().is_some() { TLS_1_3 } else { TLS_1_2 },
                ..Client::default()
            };
            let (session, _) = exchange(&server, client).await;
            assert_eq!(session.cipher_suite, facts::iana_name(suite.suite()));
        }
        for group in aws_lc_rs::ALL_KX_GROUPS {
            let client = Client {
                provider: CryptoProvider { kx_groups: vec![*group], ..aws_lc_rs::default_provider() },
                versions: TLS_1_3,
                ..Client::default()
            };
            exchange(&server, client).await;
        }
    });
}

#[test]
fn the_suite_that_the_processor_computes_faster_is_agreed_to() {
    run(async {
        let server = minting();
        // The library's clients prefer AES-256.
        for (versions, faster, favourite) in [
            (TLS_1_3, "TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384"),
            (TLS_1_2, "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256", "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384"),
        ] {
            let (session, _) = exchange(&server, Client { versions, ..Client::default() }).await;
            assert_eq!(session.cipher_suite, if suites::has_order() { faster } else { favourite });
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
                let client = Client { protocols: offered.to_vec(), versions, ..Client::default() };
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
                cipher_suites: suites.filter(|suite| format!("{:?}", suite.suite()).contains("ECDHE_RSA")).collect(),
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
            let client = Client { name, ..Client::default() };
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
        for (chain, key) in [("ecdsa-chain.crt", "ecdsa-sec1.key"), ("rsa-chain.crt", "rsa-pkcs1.key")] {
            let certificate = read_certificate(&files(chain, key)).expect("a pair");
            let server = TlsServer::new(Some(certificate), false).expect("server");
            for versions in [TLS_1_3, TLS_1_2] {
                let client = Client { versions, ..Client::default() };
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
        let files = config::CertificateFiles { chain, key };
        let server = TlsServer::new(Some(read_certificate(&files).expect("a pair")), false);
        let server = Arc::new(server.expect("server"));
        let before = exchange(&server, Client::default()).await.1;

        directory.write("server.crt", b"nothing");
        let refusal = read_certificate(&files).expect_err("refused").to_string();
        assert!(refusal.contains("server.crt"), "{refusal}");
        assert_eq!(exchange(&server, Client::default()).await.1, before);

        directory.write("server.crt", &read("rsa-chain.crt"));
        let refusal = read_certificate(&files).expect_err("refused").to_string();
        assert!(refusal.contains("does not belong"), "{refusal}");
        assert_eq!(exchange(&server, Client::default()).await.1, before);

        directory.write("server.key", &read("rsa-pkcs8.key"));
        let renewal = server.renew(Some(read_certificate(&files).expect("read")));
        assert_eq!(exchange(&server, Client::default()).await.1, before, "not taken up yet");
        let _ = renewal.take_up();
        assert_ne!(exchange(&server, Client::default()).await.1, before);
    });
}

#[test]
fn a_server_without_files_has_nothing_to_renew() {
    let server = Arc::new(minting());
    let renewed = server.renew(None).take_up();
    assert!(Arc::ptr_eq(&server, &renewed));
}

#[test]
fn client_certificates_are_recorded_whoever_issued_them() {
    run(async {
        let server = TlsServer::new(None, true);
        let server = server.expect("server");
        for versions in [TLS_1_3, TLS_1_2] {
            let client = Client { certificate: Some(("client.crt", "client.key")), versions, ..Client::default() };
            let (session, _) = exchange(&server, client).await;
            let ClientCertificate::Presented(shown) = session.client_certificate else {
                panic!("{session:?}");
            };
            assert_eq!(shown.subject, "CN=client.example, O=Example");
            assert_eq!(shown.issuer, shown.subject);
            let valid = shown.not_after.zip(shown.not_before).map(|(after, before)| after - before);
            assert_eq!(valid, Some(36_500 * 24 * 60 * 60));
            assert_eq!(shown.sha256.len(), 64);

            let client = Client { versions, ..Client::default() };
            let (session, _) = exchange(&server, client).await;
            assert_eq!(session.client_certificate, ClientCertificate::NotSent);
        }
    });
}

#[test]
fn a_client_certificate_of_the_first_version_is_recorded_too() {
    run(async {
        let server = TlsServer::new(None, true);
        let server = server.expect("server");
        for versions in [TLS_1_3, TLS_1_2] {
            let client = Client { certificate: Some(("client-v1.crt", "client.key")), versions, ..Client::default() };
            let (session, _) = exchange(&server, client).await;
            let ClientCertificate::Presented(shown) = session.client_certificate else {
                panic!("{session:?}");
            };
            assert_eq!(shown.subject, "CN=old.example, O=Example");
        }
    });
}

#[test]
fn a_client_certificate_without_its_key_is_refused() {
    run(async {
        let server = TlsServer::new(None, true);
        let server = server.expect("server");
        for (key, reason) in [
            ("ecdsa-pkcs8.key", "protocol violation: client certificate: invalid peer certificate: BadSignature"),
            ("rsa-pkcs8.key", "protocol violation: signed handshake with unadvertised sig scheme"),
        ] {
            for versions in [TLS_1_3, TLS_1_2] {
                let client = Client { certificate: Some(("client.crt", key)), versions, ..Client::default() };
                assert_eq!(refused(&server, client).await.0.to_string(), reason);
            }
        }
    });
}

#[test]
fn a_certificate_that_is_none_is_unreadable() {
    for bytes in [&b""[..], b"\x30\x80", &[0x30; 5000]] {
        let chain = [CertificateDer::from(bytes)];
        assert_eq!(ClientCertificate::of_chain(&chain), ClientCertificate::Unreadable);
    }
}

#[test]
fn the_alert_of_a_distrustful_client_is_named() {
    run(async {
        let server = minting();
        for versions in [TLS_1_3, TLS_1_2] {
            let client = Client { trusts: false, versions, ..Client::default() };
            let (failure, _) = refused(&server, client).await;
            assert_eq!(failure.to_string(), "alert: unknown_ca");
        }
    });
}

#[test]
fn versions_that_are_not_served_are_named_and_answered_with_an_alert() {
    run(async {
        let server = minting();
        for (version, offered) in [(0x0300, "ssl 3.0"), (0x0301, "tls 1.0"), (0x0302, "tls 1.1")] {
            let hello = Hello::new()
                .version(version)
                .ciphers(&[0xc013, 0xc014, 0x002f, 0x0035])
                .groups(&[29, 23])
                .point_formats(&[0]);
            let (failure, answer) = refused_bytes(&server, &hello.records(1 << 14)).await;
            if cfg!(feature = "legacy-tls") && version > 0x0300 {
                assert_eq!((failure, answer[0]), (Failure::Closed, 22), "the handshake went on");
                continue;
            }
            assert_eq!(failure.to_string(), format!("{offered} offered, {}", served_versions()));
            assert_eq!(answer[0], 21, "an alert");
            assert_eq!(answer.last(), Some(&70), "protocol_version");
        }
    });
}

#[test]
fn what_is_not_in_common_is_named() {
    run(async {
        let server = minting();
        let hello = || Hello::new().point_formats(&[0]).signature_algorithms(&[0x0403, 0x0804, 0x0401]);
        for (hello, reason) in [
            (hello().ciphers(&[0xeeee, 0xeeef]).groups(&[29]), "no common cipher suite"),
            (hello().ciphers(&[0xeeee, 0xeeef]), "no common cipher suite"),
            (hello().ciphers(&[0xc02b, 0xc02f]).groups(&[0x001e]), "no common group"),
            // Suites of the version that is not spoken are none.
            (hello().ciphers(&[0xc02b]).groups(&[0x001e]).versions(&[0x0304]), "no common cipher suite"),
            (hello().ciphers(&[0x1301]).groups(&[0x001e]), "no common cipher suite"),
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
fn a_client_that_names_servers_twice_is_served() {
    run(async {
        let server = minting();
        let hello = Hello::new().ciphers(&[0xc02b, 0xc02f]).groups(&[29, 23]).point_formats(&[0]);
        let hello = hello.signature_algorithms(&[0x0403, 0x0804, 0x0401]);
        let hello = hello.server_name(b"a.example").server_name(b"b.example").server_name(b"a.example");
        let (failure, answer) = refused_bytes(&server, &hello.records(1 << 14)).await;
        assert_eq!((failure, answer[0]), (Failure::Closed, 22), "the handshake went on");
    });
}

#[test]
fn a_client_without_forward_secrecy_is_named_or_served_by_the_other_library() {
    run(async {
        let server = minting();
        let hello = Hello::new().point_formats(&[0]).signature_algorithms(&[0x0403, 0x0804, 0x0401]);
        let (failure, answer) =
            refused_bytes(&server, &hello.ciphers(&[0x002f, 0x0035]).groups(&[29]).records(1 << 14)).await;
        if cfg!(feature = "legacy-tls") {
            assert_eq!((failure, answer[0]), (Failure::Closed, 22), "the handshake went on");
        } else {
            assert_eq!((failure, answer[0]), (Failure::NoCommonCipherSuite, 21), "an alert");
        }
    });
}

#[test]
fn a_client_that_leaves_after_its_hello_is_named() {
    run(async {
        let server = minting();
        for vector in vectors() {
            let Detection::ClientHello { length } = spip_protocol::client_hello::detect(&vector.stream) else {
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
        assert_eq!(failure.to_string(), "protocol violation: bytes in clear instead of a record");
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
        let raw = spip_protocol::client_hello::sample::in_records(&message, 1);
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
    assert_eq!(Failure::of_stream(&error).to_string(), "connection broken: connection reset");
}

#[test]
fn the_facts_of_a_hello_come_from_its_bytes() {
    let facts = Facts::new(&vectors()[4].stream, Handshake::Off);
    let hello = facts.hello().expect("hello");
    assert_eq!(hello.server_name.as_deref(), Some("contile.services.mozilla.com"));
    assert_eq!(hello.protocols, ["h2", "http/1.1"]);
    assert_eq!(hello.ja4, "t13d1715h2_5b57614c22b0_3d5424432f57");
    assert!(hello.ja4_r.starts_with("t13d1715h2_002f,0035,"));
    let cut = Facts::new(&facts.client_hello[..100], Handshake::Failed(Failure::IncompleteHello));
    assert!(cut.hello().is_err());
}
