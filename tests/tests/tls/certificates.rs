//! Certificates for clients: one for the name that they ask for, or the operator's own.

use std::fs;

use nix::sys::signal::Signal;
use serde_json::json;
use spip_tests::Net;

use crate::client::openssl;

/// A file of the unit tests.
fn fixture(name: &str) -> String {
    let path = format!("{}/../spip-agent/fixtures/tls/{name}", env!("CARGO_MANIFEST_DIR"));
    fs::read_to_string(path).expect("the fixture exists")
}

/// The certificate, in PEM, that a client is shown.
fn shown(net: &Net, port: u16, arguments: &str) -> String {
    let ended = openssl(net, port, &format!("-showcerts {arguments}"), b"hello\n");
    let start = ended.output.find("-----BEGIN CERTIFICATE-----").unwrap_or_else(|| panic!("{}", ended.output));
    let end = ended.output.find("-----END CERTIFICATE-----").expect("an end");
    ended.output[start..end].to_owned()
}

#[test]
fn a_name_has_its_own_certificate_each_time() {
    let Some(net) = Net::new() else { return };
    net.redirect();
    let agent = net.agent().start();
    let first = shown(&net, 1, "-servername a.example");
    assert_eq!(shown(&net, 2, "-servername A.example"), first);
    assert_ne!(shown(&net, 3, "-servername b.example"), first);
    let ended = openssl(&net, 4, "-servername a.example -tls1_2 -cipher ECDHE-RSA-AES128-GCM-SHA256", b"hello\n");
    assert!(ended.output.contains("CN = a.example"), "{}", ended.output);
    agent.expect_count(4, json!({"payload": "hello\n", "tls_error": null}));
}

#[test]
fn the_operators_certificate_is_read_again_on_sighup_and_kept_when_the_new_one_is_broken() {
    let Some(net) = Net::new() else { return };
    net.redirect();
    let (chain, key) = (net.path().join("server.crt"), net.path().join("server.key"));
    let install = |names: [&str; 2]| {
        fs::write(&chain, fixture(names[0])).expect("written");
        fs::write(&key, fixture(names[1])).expect("written");
    };
    install(["ecdsa-chain.crt", "ecdsa-sec1.key"]);
    let paths = [&chain, &key].map(|path| path.to_str().expect("text"));
    let agent = net.agent().set("cert_path", paths[0]).set("key_path", paths[1]).start();
    let first = shown(&net, 1, "-servername a.example");
    assert!(fixture("ecdsa-chain.crt").contains(first.trim_end()), "{first}");

    fs::write(&chain, "nothing").expect("written");
    agent.signal(Signal::SIGHUP);
    let refusal = agent.wait_message(json!({"level": "error", "target": "config"})).to_string();
    assert!(refusal.contains(paths[0]) && refusal.contains("holds no certificate"), "{refusal}");
    assert_eq!(shown(&net, 2, ""), first);

    install(["rsa-chain.crt", "rsa-pkcs1.key"]);
    agent.signal(Signal::SIGHUP);
    let second = spip_tests::eventually("the new certificate is shown", || {
        let shown = shown(&net, 3, "");
        (shown != first).then_some(shown)
    });
    assert!(fixture("rsa-chain.crt").contains(second.trim_end()), "{second}");
}
