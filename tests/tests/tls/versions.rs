//! What clients may offer: every version, suite, group, name and protocol, and what comes of it.

use serde_json::{Value, json};
use spip_tests::{Net, payload};

use crate::client::{openssl, run};

/// What OpenSSL needs to speak what is no longer safe.
const OLD: &str = "-cipher ALL:@SECLEVEL=0";

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
        let ended = openssl(&net, port, &format!("{option} {OLD} -servername old.example"), b"hello\n");
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
        for (start, version) in [(2000, "-tls1_2"), (3000, "-tls1_3")] {
            let port = start + u16::try_from(index).expect("few");
            let to = format!("{}:{port}", spip_tests::SENSOR_V4);
            let ended = run(&net, "openssl", &["s_client", "-connect", &to, version, "-servername", name], b"hello\n");
            assert!(ended.success, "{name}: {}", ended.output);
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

/// The suites of TLS 1.2 that the sensor's library serves, as OpenSSL calls them.
const SERVED: [&str; 6] = [
    "ECDHE-ECDSA-AES256-GCM-SHA384",
    "ECDHE-RSA-AES256-GCM-SHA384",
    "ECDHE-ECDSA-CHACHA20-POLY1305",
    "ECDHE-RSA-CHACHA20-POLY1305",
    "ECDHE-ECDSA-AES128-GCM-SHA256",
    "ECDHE-RSA-AES128-GCM-SHA256",
];

#[test]
fn an_enumeration_of_suites_leaves_one_record_for_each() {
    let Some(net) = Net::new() else { return };
    net.redirect();
    let agent = net.agent().set("max_sessions_per_source", 1000).start();
    // As sslscan does: one handshake for each suite that the client's library knows.
    let list = run(&net, "openssl", &["ciphers", "-s", "-tls1_2", "ALL:eNULL:@SECLEVEL=0"], b"").output;
    let suites: Vec<&str> = list.trim().split(':').filter(|suite| !suite.starts_with("TLS_")).collect();
    assert!(suites.len() > 60, "{list}");
    let mut completed = 0;
    for (index, suite) in suites.iter().enumerate() {
        let port = 20_000 + u16::try_from(index).expect("few");
        let ended = openssl(&net, port, &format!("-tls1_2 -cipher {suite}:@SECLEVEL=0"), b"hello\n");
        let served = SERVED.contains(suite);
        let record = agent.expect_one(json!({"destination_port": port, "is_tls": true}));
        if !cfg!(feature = "legacy-tls") || served {
            assert_eq!(ended.success, served, "{suite}: {}", ended.output);
            let error = if served { Value::Null } else { json!("no common cipher suite") };
            assert_eq!(record["tls_error"], error, "{suite}");
        }
        assert_eq!(payload(&record), if ended.success { &b"hello\n"[..] } else { b"" }, "{suite}: {record}");
        completed += usize::from(ended.success);
    }
    // With the other library only those are left that need a DSA key, which nobody has.
    let dsa = suites.iter().filter(|suite| suite.contains("-DSS-")).count();
    assert_eq!(completed, if cfg!(feature = "legacy-tls") { suites.len() - dsa } else { SERVED.len() });
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
    for (port, version) in
        [(1, "-tls1_2"), (2, "-tls1_3"), (3, "-tls1_2 -servername a..b"), (4, "-tls1_3 -servername a..b")]
    {
        let pair = format!("{version} -cert {} -key {}", fixture("client.crt"), fixture("client.key"));
        let ended = openssl(&net, port, &pair, b"hello\n");
        assert!(ended.success, "{}", ended.output);
        let record = agent.expect_one(json!({"destination_port": port, "payload": "hello\n"}));
        assert_eq!(record["tls_client_certificate"]["subject"], "CN=client.example, O=Example", "{record}");
        openssl(&net, port + 10, version, b"hello\n");
        agent.expect_one(json!({
            "destination_port": port + 10, "payload": "hello\n", "tls_client_certificate": null,
        }));
    }
}
