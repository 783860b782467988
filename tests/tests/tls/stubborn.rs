//! Sessions that do not go by the book: large records, small ones, no goodbye, renegotiation, key updates.

use serde_json::json;
use sha2::{Digest, Sha256};
use spip_tests::Net;

use crate::client::{Running, openssl, python};

/// The digits of a megabyte, so that a byte out of place is noticed.
const PATTERN: &str = "DATA = b''.join(b'%07d ' % number for number in range(0, 131072))";

fn digest(length: usize) -> String {
    let data: String = (0..length / 8).map(|number| format!("{number:07} ")).collect();
    hex::encode(Sha256::digest(data))
}

#[test]
fn records_of_every_size_carry_their_bytes_whole() {
    let Some(net) = Net::new() else { return };
    net.redirect();
    let agent = net.agent().set("payload_limit_bytes", 2 << 20).start();
    for (port, version) in [(1, "TLSv1_2"), (2, "TLSv1_3")] {
        // The largest records that there are: Python writes them as full as they may be.
        let ended = python(
            &net,
            &format!(
                "{PATTERN}
context = ssl._create_unverified_context()
context.maximum_version = ssl.TLSVersion.{version}
client = context.wrap_socket(socket.create_connection((HOST, {port})))
client.sendall(DATA)
client.unwrap()
"
            ),
        );
        let record = agent.expect_one(json!({
            "destination_port": port, "bytes_in": 1 << 20, "payload_truncated": false, "close_reason": "client_closed",
        }));
        assert_eq!(record["payload_sha256"], digest(1 << 20), "{}", ended.output);
    }
    // The smallest ones.
    let ended = openssl(&net, 3, "-max_send_frag 512", b"0123456789abcdef".repeat(1000).as_slice());
    assert!(ended.success, "{}", ended.output);
    agent.expect_one(json!({"destination_port": 3, "bytes_in": 16_000, "payload": "0123456789abcdef".repeat(1000)}));
}

#[test]
fn a_broken_record_takes_nothing_with_it_that_came_before() {
    let Some(net) = Net::new() else { return };
    net.redirect();
    let agent = net.agent().start();
    // Good records and a broken one, in one write: with the last one of the handshake in TLS 1.3, which the client
    // ends, and after it in TLS 1.2.
    for (port, version) in [(1, "TLSv1_2"), (2, "TLSv1_3")] {
        for (port, broken) in
            [(port, r"b'\x17\x03\x03\x00\x20' + bytes(32)"), (port + 10, r"b'\x17\x03\x03\xff\xff' + bytes(70000)")]
        {
            let ended = python(
                &net,
                &format!(
                    "context = ssl._create_unverified_context()
context.maximum_version = ssl.TLSVersion.{version}
plain = socket.create_connection((HOST, {port}))
inbound, outbound = ssl.MemoryBIO(), ssl.MemoryBIO()
client = context.wrap_bio(inbound, outbound)
while True:
    try:
        client.do_handshake()
        break
    except ssl.SSLWantReadError:
        plain.sendall(outbound.read())
        inbound.write(plain.recv(65536))
client.write(b'before, ')
client.write(b'and again')
try:
    plain.sendall(outbound.read() + {broken})
    while plain.recv(65536):
        pass
except ConnectionError:
    pass
"
                ),
            );
            assert!(ended.success, "{}", ended.output);
            agent.expect_one(json!({
                "destination_port": port, "payload": "before, and again", "close_reason": "tls_error",
                "tls_version": version.replace('_', "."),
            }));
        }
    }
}

#[test]
fn a_close_without_goodbye_is_a_close() {
    let Some(net) = Net::new() else { return };
    net.redirect();
    let agent = net.agent().start();
    for (port, version) in [(1, "TLSv1_2"), (2, "TLSv1_3")] {
        let ended = python(
            &net,
            &format!(
                "context = ssl._create_unverified_context()
context.maximum_version = ssl.TLSVersion.{version}
client = context.wrap_socket(socket.create_connection((HOST, {port})))
client.sendall(b'cut off')
plain = socket.socket(fileno=client.detach())
plain.shutdown(socket.SHUT_WR)
while plain.recv(65536):
    pass
"
            ),
        );
        assert!(ended.success, "{}", ended.output);
        agent.expect_one(json!({
            "destination_port": port, "payload": "cut off", "close_reason": "client_closed", "tls_error": null,
        }));
    }
}

#[test]
fn renegotiation_is_refused_and_what_came_before_is_kept() {
    let Some(net) = Net::new() else { return };
    net.redirect();
    let agent = net.agent().start();
    // A port without a dialogue: on 443 such lines get the answer of a web server, and its goodbye.
    let to = format!("{}:4443", spip_tests::SENSOR_V4);
    let mut client = Running::start(&net, "openssl", &["s_client", "-connect", &to, "-tls1_2"]);
    client.write_apart(b"before\n");
    client.write_apart(b"R\n");
    // It gives up when it is told, and waits until then.
    let ended = client.end_by_itself();
    let output = &ended.output;
    assert!(output.contains("RENEGOTIATING") && output.contains("no renegotiation"), "{output}");
    let record = agent.expect_one(json!({"destination_port": 4443, "tls_version": "TLSv1.2", "is_tls": true}));
    let payload = record["payload"].as_str().expect("text");
    assert!(payload.starts_with("before\n") && !payload.contains("R\n"), "{record}");
}

#[test]
fn keys_may_be_updated() {
    let Some(net) = Net::new() else { return };
    net.redirect();
    let agent = net.agent().start();
    // A port without a dialogue: on 443 such lines get the answer of a web server, and its goodbye.
    let to = format!("{}:4443", spip_tests::SENSOR_V4);
    let mut client = Running::start(&net, "openssl", &["s_client", "-connect", &to, "-tls1_3"]);
    for piece in [&b"one\n"[..], b"K\n", b"two\n", b"k\n", b"three\n"] {
        client.write_apart(piece);
    }
    let ended = client.end();
    assert_eq!(ended.output.matches("KEYUPDATE").count(), 2, "{}", ended.output);
    agent.expect_one(json!({
        "destination_port": 4443, "payload": "one\ntwo\nthree\n", "tls_error": null, "close_reason": "client_closed",
    }));
}
