//! How a shipper proves to a server that it may publish: each way that the configuration has, at a real server.

use std::fs;
use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use nkeys::KeyPair;

use crate::support::{Nats, Place, append, once, peer, records, run};

/// Delivers ten records with `keys`, which the server accepts; asserts that it refuses `others` with `refusal`.
fn accepted_and_refused(place: &Place, server: &Nats, keys: &str, others: &str, refusal: &str) {
    append(&place.log(), &records("s", "r", 1..11));
    let (succeeded, text) = run(&place.configure(&(server.sink() + others)), &["--once", "--timeout", "1"]);
    assert!(!succeeded && text.to_lowercase().contains(refusal), "{text}");
    let text = once(&place.configure(&(server.sink() + keys)));
    assert!(text.contains("delivered 10 lines"), "{text}");
}

#[test]
fn a_token_is_read_from_its_file() {
    let Some(program) = peer("SPIP_NATS_SERVER") else { return };
    let place = Place::new();
    let server = Nats::start(&program, &place, "authorization { token: \"right-token\" }");
    let (right, wrong) = (place.path("right"), place.path("wrong"));
    fs::write(&right, "right-token\n").expect("a file");
    fs::write(&wrong, "wrong-token\n").expect("a file");
    let keys = |file| format!("token_file = {file:?}\n");
    accepted_and_refused(&place, &server, &keys(&right), &keys(&wrong), "authorization violation");
}

#[test]
fn an_nkey_is_read_from_its_file() {
    let Some(program) = peer("SPIP_NATS_SERVER") else { return };
    let place = Place::new();
    let (right, wrong) = (KeyPair::new_user(), KeyPair::new_user());
    let server =
        Nats::start(&program, &place, &format!("authorization {{ users: [{{ nkey: {} }}] }}", right.public_key()));
    let keys = |key: &KeyPair, name: &str| {
        let file = place.path(name);
        fs::write(&file, format!("# as `nk -gen user` writes it\n{}\n", key.seed().expect("a seed"))).expect("a file");
        format!("nkey_file = {file:?}\n")
    };
    accepted_and_refused(&place, &server, &keys(&right, "right"), &keys(&wrong, "wrong"), "authorization violation");
}

/// Returns a token as NATS signs it: claims of `subject`, issued by `issuer`.
fn token(issuer: &KeyPair, subject: &KeyPair, claims: &serde_json::Value) -> String {
    let (issued, named) = (issuer.public_key(), subject.public_key());
    let body = serde_json::json!({ "jti": named, "iat": 1_700_000_000, "iss": issued, "sub": named, "nats": claims });
    let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    let text = format!("{}.{}", encode(br#"{"typ":"JWT","alg":"ed25519-nkey"}"#), encode(body.to_string().as_bytes()));
    let signature = issuer.sign(text.as_bytes()).expect("a seed");
    format!("{text}.{}", encode(&signature))
}

#[test]
fn credentials_of_an_operator_are_read_from_their_file() {
    let Some(program) = peer("SPIP_NATS_SERVER") else { return };
    let place = Place::new();
    let (operator, system, account) = (KeyPair::new_operator(), KeyPair::new_account(), KeyPair::new_account());
    let limits = serde_json::json!({
        "subs": -1, "data": -1, "payload": -1, "imports": -1, "exports": -1, "wildcards": true, "conn": -1, "leaf": -1,
        "mem_storage": -1, "disk_storage": -1, "streams": -1, "consumer": -1,
    });
    let of_account = serde_json::json!({ "limits": limits, "type": "account", "version": 2 });
    let mut of_system = of_account.clone();
    for limit in ["mem_storage", "disk_storage", "streams", "consumer"] {
        of_system["limits"][limit] = serde_json::json!(0);
    }
    let more = format!(
        "operator: {}\nsystem_account: {}\nresolver: MEMORY\nresolver_preload: {{\n{}: {}\n{}: {}\n}}\n",
        token(&operator, &operator, &serde_json::json!({ "type": "operator", "version": 2 })),
        system.public_key(),
        system.public_key(),
        token(&operator, &system, &of_system),
        account.public_key(),
        token(&operator, &account, &of_account),
    );
    let server = Nats::start(&program, &place, &more);
    let keys = |issuer: &KeyPair, name: &str| {
        let user = KeyPair::new_user();
        let claims = serde_json::json!({ "subs": -1, "data": -1, "payload": -1, "type": "user", "version": 2 });
        let text = format!(
            "-----BEGIN NATS USER JWT-----\n{}\n------END NATS USER JWT------\n\n\
             -----BEGIN USER NKEY SEED-----\n{}\n------END USER NKEY SEED------\n",
            token(issuer, &user, &claims),
            user.seed().expect("a seed")
        );
        let file = place.path(name);
        fs::write(&file, text).expect("a file");
        format!("credentials_file = {file:?}\n")
    };
    // One of the account, and one of an account that the operator does not know.
    let (right, wrong) = (keys(&account, "right.creds"), keys(&KeyPair::new_account(), "wrong.creds"));
    accepted_and_refused(&place, &server, &right, &wrong, "authorization violation");
}

#[test]
fn a_server_that_wants_a_certificate_gets_the_configured_one() {
    let Some(program) = peer("SPIP_NATS_SERVER") else { return };
    let place = Place::new();
    let made = Command::new(env!("CARGO_BIN_EXE_spip-ship"))
        .args(["hub", "init", "--host", "127.0.0.1", "--directory"])
        .arg(place.path("etc"))
        .arg("--data")
        .arg(place.path("data"))
        .output()
        .expect("the program starts");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let file = |name: &str| place.path("etc").join(name);
    let (authority, certificate, key) = (file("ca.pem"), file("server.pem"), file("server.key"));
    let tls = format!(
        "tls {{ cert_file: {certificate:?}, key_file: {key:?}, ca_file: {authority:?}, verify: true, timeout: 10 }}"
    );
    let server = Nats::start(&program, &place, &tls);
    let without = format!("ca_file = {authority:?}\n");
    let with = format!("{without}cert_file = {certificate:?}\nkey_file = {key:?}\n");
    accepted_and_refused(&place, &server, &with, &without, "cannot connect");
}
