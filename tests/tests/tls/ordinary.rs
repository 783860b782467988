//! Clients that want to talk: what they say inside TLS reaches the record, and so do those that speak no TLS at all.

use std::io::Write;

use serde_json::json;
use spip_tests::{Net, SENSOR_V4, half_close, payload, read_to_end};

use crate::client::{openssl, python, run};

#[test]
fn curl_speaks_http_1_1_and_http_2_inside_tls() {
    let Some(net) = Net::new() else { return };
    net.redirect();
    let agent = net.agent().start();
    for (port, version, name) in [(443, "--http1.1", "http/1.1"), (8443, "--http2", "h2")] {
        let url = format!("https://www.example.com:{port}/path?q=1");
        let to = format!("www.example.com:{port}:{SENSOR_V4}");
        let ended = run(&net, "curl", &["-skv", "-m", "20", version, "--resolve", &to, "-A", "tester/1", &url], b"");
        let record = agent.expect_one(json!({
            "destination_port": port, "is_tls": true, "tls_server_name": "www.example.com", "tls_alpn": name,
            "tls_version": "TLSv1.3", "tls_error": null, "http": {"user_agent": "tester/1"},
        }));
        let offered: &[&str] = if name == "h2" { &["h2", "http/1.1"] } else { &["http/1.1"] };
        assert_eq!(record["tls_supported_protocols"], json!(offered), "{}", ended.output);
        let start: &[u8] = if name == "h2" { b"PRI * HTTP/2.0\r\n" } else { b"GET /path?q=1 HTTP/1.1\r\n" };
        assert!(payload(&record).starts_with(start), "{record}");
        assert_eq!(record["payload_sha256"].as_str().map(str::len), Some(64));
    }
    agent.stop().log.expect_count(2, json!({}));
}

#[test]
fn a_distrustful_client_leaves_its_alert() {
    let Some(net) = Net::new() else { return };
    net.redirect();
    let agent = net.agent().start();
    for (port, newest) in [(443, "TLSv1_3"), (444, "TLSv1_2")] {
        let ended = python(
            &net,
            &format!(
                "context = ssl.create_default_context()
context.maximum_version = ssl.TLSVersion.{newest}
try:
    context.wrap_socket(socket.create_connection((HOST, {port})), server_hostname='www.example.com')
except ssl.SSLCertVerificationError:
    sys.exit(0)
sys.exit('the certificate was trusted')
"
            ),
        );
        assert!(ended.success, "{}", ended.output);
        agent.expect_one(json!({
            "destination_port": port, "is_tls": true, "tls_error": "alert: unknown_ca", "close_reason": "tls_error",
            "tls_server_name": "www.example.com", "tls_version": null, "payload": "",
        }));
    }
}

#[test]
fn ssh_and_plain_clients_lose_no_byte_to_the_look_for_tls() {
    let Some(net) = Net::new() else { return };
    net.redirect();
    let agent = net.agent().set("first_byte_timeout_seconds", 2).set("read_timeout_seconds", 2).start();
    let host = SENSOR_V4.to_string();
    // OpenSSH sends its banner at once and waits for the server's: the sensor's deadline, or its close, ends it.
    let options =
        "-p 22 -o BatchMode=yes -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o ConnectTimeout=4";
    let arguments: Vec<&str> = options.split(' ').chain([host.as_str(), "true"]).collect();
    run(&net, "ssh", &arguments, b"");
    let record = agent.expect_one(json!({"destination_port": 22, "is_tls": false, "protocol": "ssh"}));
    let banner = payload(&record);
    assert!(banner.starts_with(b"SSH-2.0-OpenSSH") && banner.windows(2).any(|end| end == b"\r\n"), "{record}");

    // First bytes that TLS has too, and what they turn into.
    for (port, bytes) in [
        (1001, &b"\x16"[..]),
        (1002, b"\x16\x03\x01\x02\x00\x02"),
        (1003, b"\x16\x03\x01\x00\x00"),
        (1004, b"\x16\x02\x01 is no TLS"),
        (1005, b"\x80\x2e is no SSL 2.0"),
        (1006, b"\x17\x03\x03\x00\x01x"),
        (1007, b"GET / HTTP/1.0\r\n\r\n"),
        (1008, b"\x16\x03\x01\x00\x04\x02\x00\x00\x00"),
    ] {
        net.client.deliver((SENSOR_V4, port), bytes);
        let record = agent.expect_one(json!({"destination_port": port, "is_tls": false, "tls_client_hello_hex": null}));
        assert_eq!(payload(&record), bytes);
        assert_eq!(record["bytes_in"], bytes.len());
    }
}

#[test]
fn a_tls_prelude_of_another_protocol_is_payload() {
    let Some(net) = Net::new() else { return };
    net.redirect();
    let agent = net.agent().start();
    let prelude = b"CONNECT www.example.com:443 HTTP/1.1\r\n\r\n";
    let bytes = [&prelude[..], &crate::hello::vectors()[0].stream].concat();
    net.client.deliver((SENSOR_V4, 3128), &bytes);
    let record = agent.expect_one(json!({"destination_port": 3128, "is_tls": false, "tls_ja4": null}));
    assert_eq!(payload(&record), bytes);
}

#[test]
fn a_hello_behind_a_proxy_header_is_tls_and_the_header_is_a_claim() {
    let Some(net) = Net::new() else { return };
    net.redirect();
    let agent = net.agent().start();
    let hello = &crate::hello::vectors()[0].stream;
    for (port, header) in [
        (3129, &b"PROXY TCP4 192.0.2.1 192.0.2.2 5 443\r\n"[..]),
        (3130, b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0c\xc0\x00\x02\x01\xc0\x00\x02\x02\x00\x05\x01\xbb"),
    ] {
        net.client.deliver((SENSOR_V4, port), &[header, &hello[..]].concat());
        let record = agent.expect_one(json!({"destination_port": port, "is_tls": true}));
        assert!(record["tls_ja4"].is_string(), "{record}");
        assert_eq!((&record["proxy"]["source_ip"], &record["proxy"]["believed"]), (&json!("192.0.2.1"), &json!(false)));
    }
}

#[test]
fn with_tls_off_a_client_hello_is_payload_with_its_fingerprints() {
    let Some(net) = Net::new() else { return };
    net.redirect();
    let agent = net.agent().set("tls", "off").set("read_timeout_seconds", 1).start();
    let ended = openssl(&net, 443, "-servername www.example.com -alpn h2", b"");
    assert!(!ended.success, "{}", ended.output);
    let record = agent.expect_one(json!({
        "destination_port": 443, "is_tls": true, "tls_server_name": "www.example.com", "tls_version": null,
        "tls_supported_protocols": ["h2"], "tls_error": null, "bytes_out": 0, "close_reason": "idle_timeout",
    }));
    assert!(payload(&record).starts_with(&[0x16, 3, 1]), "{record}");
    assert_eq!(record["payload_hex"], record["tls_client_hello_hex"]);
    assert!(record["tls_ja4"].as_str().is_some_and(|ja4| ja4.starts_with("t13d")), "{record}");
    // What could not be answered either is no error of the client.
    let ssl2 = [&b"\x80\x1c\x01\0\x02\0\x03\0\0\0\x10\x01\0\x80"[..], &[7; 16]].concat();
    let mut stream = net.connect(444);
    stream.write_all(&ssl2).expect("the sensor takes bytes");
    agent.wait_open(1);
    agent.wait_all_read();
    half_close(&stream);
    read_to_end(&mut stream);
    let record = agent.expect_one(json!({"destination_port": 444, "is_tls": true, "close_reason": "client_closed"}));
    assert_eq!(payload(&record), ssl2);
}
