//! ClientHellos with every version, suite, group, name and protocol, and their results.

use serde_json::{Value, json};
use spip_tests::{Agent, Net, payload};

use crate::client::{openssl, python, run};

/// Ciphers with which OpenSSL speaks versions that are no longer safe.
const OLD_CIPHERS: &str = "ALL:@SECLEVEL=0";

#[test]
fn both_versions_that_are_served_carry_payload() {
    let Some(net) = Net::new() else { return };
    net.redirect();
    let agent = net.agent().start();
    for (port, option, version) in [(1002, "-tls1_2", "TLSv1.2"), (1003, "-tls1_3", "TLSv1.3")] {
        let ended = openssl(&net, port, &format!("{option} -servername a.example"), b"hello\n");
        assert!(ended.success, "{}", ended.output);
        let record = agent.expect_one(json!({
            "destination_port": port, "is_tls": true, "tls_version": version, "payload": "hello\n", "bytes_in": 6,
            "close_reason": "client_closed", "tls_error": null, "tls_server_name": "a.example", "tls_alpn": null,
        }));
        let suite = record["tls_cipher_suite"].as_str().expect("a suite");
        assert_eq!(suite.starts_with("TLS_ECDHE_"), version == "TLSv1.2", "{suite}");
    }
}

#[test]
fn versions_before_tls_1_2_are_recorded_with_a_reason_or_decrypted() {
    let Some(net) = Net::new() else { return };
    net.redirect();
    let agent = net.agent().start();
    for (port, option, offered, version) in
        [(1000, "-tls1", "tls 1.0", "TLSv1.0"), (1001, "-tls1_1", "tls 1.1", "TLSv1.1")]
    {
        let ended = openssl(&net, port, &format!("{option} -cipher {OLD_CIPHERS} -servername old.example"), b"hello\n");
        let record = agent.expect_one(json!({
            "destination_port": port, "is_tls": true, "tls_server_name": "old.example",
        }));
        let ja4 = record["tls_ja4"].as_str().expect("a fingerprint");
        assert!(ja4.starts_with(&format!("t1{}d", &offered[6..])), "{ja4}");
        if cfg!(feature = "legacy-tls") {
            assert!(ended.success, "{}", ended.output);
            assert_eq!([&record["payload"], &record["tls_version"]], [&json!("hello\n"), &json!(version)], "{record}");
            assert_eq!(record["tls_error"], Value::Null);
        } else {
            assert!(!ended.success && ended.output.contains("protocol version"), "{}", ended.output);
            assert_eq!(record["tls_error"], format!("{offered} offered, tls 1.2 and tls 1.3 served"));
            assert_eq!([&record["payload"], &record["close_reason"]], [&json!(""), &json!("tls_error")]);
        }
    }
}

#[test]
fn a_client_that_names_no_server_is_served() {
    let Some(net) = Net::new() else { return };
    net.redirect();
    let agent = net.agent().start();
    let ended = openssl(&net, 443, "-noservername", b"hello\n");
    assert!(ended.success && ended.output.contains("CN = localhost"), "{}", ended.output);
    agent.expect_one(json!({"payload": "hello\n", "tls_server_name": null, "tls_error": null}));
}

#[test]
fn no_server_name_is_refused() {
    let Some(net) = Net::new() else { return };
    net.redirect();
    let agent = net.agent().start();
    let long = "a".repeat(250);
    for (index, name) in [
        "192.0.2.1",
        "2001:db8::1",
        "_dmarc.example.com",
        "-",
        "a..b",
        ".",
        "..%2f..%2fetc",
        "a-.example",
        "1.2.3",
        "*.example.com",
        "${jndi:ldap://192.0.2.1/a}",
        "ex\u{e4}mple.com",
        "<script>",
        long.as_str(),
    ]
    .into_iter()
    .enumerate()
    {
        for (start, version) in [
            (2000, &["-tls1_2"][..]),
            (3000, &["-tls1_3"]),
            // Asked for another group than the one that it has begun with.
            (4000, &["-tls1_3", "-groups", "X448:P-256"]),
            (5000, &["-tls1", "-cipher", OLD_CIPHERS]),
        ] {
            if start == 5000 && cfg!(not(feature = "legacy-tls")) {
                continue;
            }
            let port = start + u16::try_from(index).expect("few");
            let to = format!("{}:{port}", spip_tests::SENSOR_V4);
            let arguments = [&["s_client", "-connect", &to, "-servername", name], version].concat();
            let ended = run(&net, "openssl", &arguments, b"hello\n");
            assert!(ended.success, "{name} {version:?}: {}", ended.output);
            agent.expect_one(json!({
                "destination_port": port, "tls_server_name": name, "payload": "hello\n", "tls_error": null,
            }));
        }
    }
}

#[test]
fn the_first_protocol_that_a_client_offers_is_agreed_to() {
    let Some(net) = Net::new() else { return };
    net.redirect();
    let agent = net.agent().start();
    for (port, offered) in
        [(1, "h2,http/1.1"), (2, "http/1.1,h2"), (3, "imap"), (4, "x"), (5, "acme-tls/1"), (6, "a b")]
    {
        let to = format!("{}:{port}", spip_tests::SENSOR_V4);
        let ended = run(&net, "openssl", &["s_client", "-connect", &to, "-alpn", offered], b"hello\n");
        let names: Vec<&str> = offered.split(',').collect();
        assert!(ended.output.contains(&format!("ALPN protocol: {}", names[0])), "{}", ended.output);
        agent.expect_one(json!({
            "destination_port": port, "payload": "hello\n", "tls_alpn": names[0], "tls_supported_protocols": names,
        }));
    }
}

#[test]
fn a_client_with_one_group_is_served_where_the_group_is_and_told_where_it_is_not() {
    let Some(net) = Net::new() else { return };
    net.redirect();
    let agent = net.agent().start();
    for (port, groups, served) in
        [(1, "X25519", true), (2, "P-256", true), (3, "P-384", true), (4, "X448:P-256", true), (5, "X448", false)]
    {
        let ended = openssl(&net, port, &format!("-tls1_3 -groups {groups}"), b"hello\n");
        assert_eq!(ended.success, served, "{groups}: {}", ended.output);
        let (payload, error) = if served { ("hello\n", None) } else { ("", Some("no common group")) };
        agent.expect_one(json!({"destination_port": port, "payload": payload, "tls_error": error, "is_tls": true}));
    }
}

#[test]
fn a_client_of_tls_1_2_is_shown_a_certificate_with_a_key_that_it_takes() {
    let Some(net) = Net::new() else { return };
    net.redirect();
    let agent = net.agent().start();
    for (port, groups, key) in
        [(1, "X25519", "RSA"), (2, "P-384", "RSA"), (3, "X25519:P-256", "ECDSA"), (4, "P-256", "ECDSA")]
    {
        let ended = openssl(&net, port, &format!("-tls1_2 -groups {groups}"), b"hello\n");
        assert!(ended.success, "{groups}: {}", ended.output);
        let record = agent.expect_one(json!({"destination_port": port, "payload": "hello\n", "tls_error": null}));
        let suite = record["tls_cipher_suite"].as_str().expect("a suite");
        assert!(suite.starts_with(&format!("TLS_ECDHE_{key}_")), "{groups}: {suite}");
    }
}

#[test]
fn no_session_is_resumed() {
    let Some(net) = Net::new() else { return };
    net.redirect();
    let agent = net.agent().start();
    // Five times more, each with the session of the one before.
    let ended = openssl(&net, 1, "-tls1_2 -reconnect", b"");
    assert_eq!(ended.output.matches("\nNew, ").count(), 6, "{}", ended.output);
    assert!(!ended.output.contains("Reused, "), "{}", ended.output);
    agent.expect_count(6, json!({"destination_port": 1, "tls_version": "TLSv1.2", "tls_error": null}));
    for (port, version) in [(2, "-tls1_2"), (3, "-tls1_3")] {
        let session = net.path().join(version);
        let keep = format!("{version} -msg -sess_out {}", session.display());
        let ended = openssl(&net, port, &keep, b"hello\n");
        assert!(ended.success && ended.output.contains("Finished"), "{}", ended.output);
        assert!(!ended.output.contains("NewSessionTicket"), "{}", ended.output);
        assert!(!session.exists(), "there is nothing to come back with");
    }
}

#[test]
fn a_session_with_another_server_is_no_obstacle() {
    let Some(net) = Net::new() else { return };
    net.redirect();
    let agent = net.agent().start();
    let fixture = |name: &str| format!("{}/../spip-agent/fixtures/tls/{name}", env!("CARGO_MANIFEST_DIR"));
    let (chain, key) = (fixture("ecdsa-chain.crt"), fixture("ecdsa-sec1.key"));
    for (port, version) in [(1, "TLSv1_2"), (2, "TLSv1_3")] {
        let ended = python(
            &net,
            &format!(
                "theirs = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
theirs.load_cert_chain('{chain}', '{key}')
ours = ssl._create_unverified_context()
ours.maximum_version = ssl.TLSVersion.{version}
up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
server = theirs.wrap_bio(up, down, server_side=True)
client = ours.wrap_bio(down, up)
def step(done):
    try:
        done()
    except ssl.SSLWantReadError:
        pass
for _ in range(4):
    step(client.do_handshake)
    step(server.do_handshake)
server.write(b'x')
client.read(1)
assert client.session.has_ticket
again = ours.wrap_socket(socket.create_connection((HOST, {port})), session=client.session)
assert not again.session_reused
again.sendall(b'hello')
"
            ),
        );
        assert!(ended.success, "{}", ended.output);
        let record = agent.expect_one(json!({"destination_port": port, "payload": "hello", "tls_error": null}));
        let hello = record["tls_client_hello_hex"].as_str().expect("the hello");
        assert!(hello.len() > 600, "it offers what it has kept: {record}");
    }
}

#[test]
fn options_that_few_clients_use_do_no_harm() {
    let Some(net) = Net::new() else { return };
    net.redirect();
    let agent = net.agent().start();
    for (port, options) in [
        (1, "-status"),
        (2, "-tls1_2 -status -no_ticket"),
        (3, "-tls1_2 -no_ticket -sigalgs ECDSA+SHA384:RSA+SHA384"),
        (4, "-tls1_2 -legacy_renegotiation -no_etm"),
        (5, "-tls1_3 -no_middlebox"),
        (6, "-tls1_2 -nextprotoneg h2"),
        (7, "-maxfraglen 512"),
        (8, "-use_srtp SRTP_AES128_CM_SHA1_80 -sigalgs RSA-PSS+SHA256:ECDSA+SHA256"),
    ] {
        let ended = openssl(&net, port, options, b"hello\n");
        assert!(ended.success, "{options}: {}", ended.output);
        agent.expect_one(json!({"destination_port": port, "payload": "hello\n", "tls_error": null}));
    }
    // A client that says that it has fallen back, and sees that the sensor speaks a later version.
    let ended = openssl(&net, 20, "-tls1_2 -fallback_scsv", b"hello\n");
    assert!(!ended.success, "{}", ended.output);
    let record = agent.expect_one(json!({"destination_port": 20, "payload": "", "close_reason": "tls_error"}));
    assert!(record["tls_error"].as_str().is_some_and(|error| error.starts_with("alert: ")), "{record}");
}

/// The suites of TLS 1.2 that the sensor's library serves, as OpenSSL calls them.
const SERVED: [&str; 6] = [
    "ECDHE-ECDSA-AES256-GCM-SHA384",
    "ECDHE-RSA-AES256-GCM-SHA384",
    "ECDHE-ECDSA-CHACHA20-POLY1305",
    "ECDHE-RSA-CHACHA20-POLY1305",
    "ECDHE-ECDSA-AES128-GCM-SHA256",
    "ECDHE-RSA-AES128-GCM-SHA256",
];

/// Offers each suite by itself that the client's library knows in a version, as sslscan does, and says what became of
/// it.
fn enumerate(net: &Net, agent: &Agent, version: &str, first_port: u16) -> Vec<(String, Value)> {
    let list = run(net, "openssl", &["ciphers", "-s", version, "ALL:eNULL:@SECLEVEL=0"], b"").output;
    let suites = list.trim().split(':').filter(|suite| !suite.starts_with("TLS_"));
    let outcomes: Vec<(String, Value)> = suites
        .zip(first_port..)
        .map(|(suite, port)| {
            let ended = openssl(net, port, &format!("{version} -cipher {suite}:@SECLEVEL=0"), b"hello\n");
            let record = agent.expect_one(json!({"destination_port": port, "is_tls": true}));
            assert_eq!(ended.success, record["tls_error"].is_null(), "{suite}: {record} {}", ended.output);
            assert_eq!(payload(&record), if ended.success { &b"hello\n"[..] } else { b"" }, "{suite}: {record}");
            (suite.to_owned(), record["tls_error"].clone())
        })
        .collect();
    if cfg!(feature = "legacy-tls") {
        // The other library is the client's own: only those are left that need a DSA key, which no server has.
        for (suite, error) in &outcomes {
            assert_eq!(error.is_null(), !suite.contains("-DSS-"), "{suite}: {error}");
        }
    }
    outcomes
}

#[test]
fn an_enumeration_of_old_suites_leaves_one_record_for_each() {
    let Some(net) = Net::new() else { return };
    net.redirect();
    let agent = net.agent().start();
    for (version, offered, port) in [("-tls1", "tls 1.0", 10_000), ("-tls1_1", "tls 1.1", 11_000)] {
        let suites = enumerate(&net, &agent, version, port);
        assert!(!suites.is_empty(), "the client's library has none for {offered}");
        if cfg!(not(feature = "legacy-tls")) {
            let reason = format!("{offered} offered, tls 1.2 and tls 1.3 served");
            assert!(suites.iter().all(|(_, error)| *error == *reason), "{suites:?}");
        }
    }
}

#[test]
fn an_enumeration_of_suites_leaves_one_record_for_each() {
    let Some(net) = Net::new() else { return };
    net.redirect();
    let agent = net.agent().set("max_sessions_per_source", 1000).start();
    let suites = enumerate(&net, &agent, "-tls1_2", 20_000);
    let known: Vec<_> = SERVED.iter().filter(|suite| suites.iter().any(|(one, _)| one == *suite)).collect();
    assert!(!known.is_empty() && suites.len() > SERVED.len(), "{suites:?}");
    for (suite, error) in &suites {
        if known.iter().any(|one| *one == suite) {
            assert_eq!(*error, Value::Null, "{suite}");
        } else if cfg!(not(feature = "legacy-tls")) {
            assert_eq!(*error, "no common cipher suite", "{suite}");
        }
    }
    let port = 30_000;
    for (index, suite) in
        ["TLS_AES_256_GCM_SHA384", "TLS_AES_128_GCM_SHA256", "TLS_CHACHA20_POLY1305_SHA256"].iter().enumerate()
    {
        let port = port + u16::try_from(index).expect("few");
        let ended = openssl(&net, port, &format!("-tls1_3 -ciphersuites {suite}"), b"hello\n");
        assert!(ended.success, "{}", ended.output);
        agent.expect_one(json!({"destination_port": port, "tls_cipher_suite": suite, "payload": "hello\n"}));
    }
    agent.stop().log.expect_count(suites.len() + 3, json!({}));
}

#[test]
fn a_client_certificate_is_asked_for_where_configured_and_recorded() {
    let Some(net) = Net::new() else { return };
    net.redirect();
    let agent = net.agent().set("tls_client_certificates", true).start();
    let fixture = |name: &str| format!("{}/../spip-agent/fixtures/tls/{name}", env!("CARGO_MANIFEST_DIR"));
    // With a name that the library must not see, too: it is part of what the client signs.
    for (port, version) in [
        (1, "-tls1_2"),
        (2, "-tls1_3"),
        (3, "-tls1_2 -servername a..b"),
        (4, "-tls1_3 -servername a..b"),
        (5, "-tls1_3 -servername a..b -groups X448:P-256"),
    ] {
        let pair = format!("{version} -cert {} -key {}", fixture("client.crt"), fixture("client.key"));
        let ended = openssl(&net, port, &pair, b"hello\n");
        assert!(ended.success, "{}", ended.output);
        let record = agent.expect_one(json!({"destination_port": port, "payload": "hello\n"}));
        let shown = &record["tls_client_certificate"];
        for (key, value) in [
            ("subject", "CN=client.example, O=Example"),
            ("issuer", "CN=client.example, O=Example"),
            ("not_before", "2026-11-23T09:28:26Z"),
            ("not_after", "2126-10-30T09:28:26Z"),
            ("sha256", "d73850e5a47024907b3696fceb9decea5c1fb0d0ca1d047d1428058d70cb213f"),
        ] {
            assert_eq!(shown[key], value, "{key}: {record}");
        }
        openssl(&net, port + 10, version, b"hello\n");
        agent.expect_one(json!({
            "destination_port": port + 10, "payload": "hello\n", "tls_client_certificate": null,
        }));
    }
    // Of the first version of X.509, as small devices still have.
    let pair = format!("-cert {} -key {}", fixture("client-v1.crt"), fixture("client.key"));
    let ended = openssl(&net, 20, &pair, b"hello\n");
    assert!(ended.success, "{}", ended.output);
    let record = agent.expect_one(json!({"destination_port": 20, "payload": "hello\n", "tls_error": null}));
    assert_eq!(record["tls_client_certificate"]["subject"], "CN=old.example, O=Example", "{record}");
}
