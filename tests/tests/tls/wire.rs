//! Bytes written by hand: captured hellos in pieces, hellos that go on as something else, and clients that stop in
//! the middle.

use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use serde_json::json;
use spip_tests::{Net, SENSOR_V4, half_close, payload, read_to_end, reset};

use crate::hello::{in_records, message, vectors};

/// TLS_RSA_EXPORT_WITH_RC4_40_MD5, which no library serves any more.
const EXPORT_SUITE: u16 = 0x0003;

/// Sends `bytes` in writes of `piece` bytes, a segment each where the kernel is asked for it.
fn send_in_pieces(stream: &mut TcpStream, bytes: &[u8], piece: usize) {
    stream.set_nodelay(true).expect("a TCP socket");
    for part in bytes.chunks(piece) {
        // A refusal may come before the last write.
        if stream.write_all(part).is_err() {
            break;
        }
    }
}

#[test]
fn captured_hellos_have_their_published_fingerprints_however_they_arrive() {
    let Some(net) = Net::new() else { return };
    net.redirect();
    let agent = net.agent().start();
    let mut port = 5000;
    for vector in vectors() {
        for piece in [1, 100, usize::MAX] {
            port += 1;
            let mut stream = net.connect(port);
            send_in_pieces(&mut stream, &vector.stream, piece);
            let _ = stream.shutdown(std::net::Shutdown::Write);
            read_to_end(&mut stream);
            let record = agent.expect_one(json!({
                "destination_port": port, "is_tls": true, "tls_ja4": vector.ja4, "payload": "",
            }));
            let raw_form = record["tls_ja4_r"].as_str().expect("the raw form");
            assert_eq!(raw_form.split('_').next(), vector.ja4.split('_').next(), "{}", vector.source);
            let kept = record["tls_client_hello_hex"].as_str().expect("the hello");
            assert!(hex::encode(&vector.stream).starts_with(kept), "{}: {record}", vector.source);
            assert_eq!(record["tls_ja3"].as_str().map(str::len), Some(32));
        }
    }
    agent.stop().log.expect_count(21, json!({}));
}

#[test]
fn captured_hellos_are_the_same_in_records_of_any_size() {
    let Some(net) = Net::new() else { return };
    net.redirect();
    let agent = net.agent().start();
    let mut port = 5000;
    for vector in vectors() {
        for (content, piece) in [(1, usize::MAX), (7, 11), (150, 100)] {
            port += 1;
            let bytes = in_records(vector.message(), content);
            let mut stream = net.connect(port);
            send_in_pieces(&mut stream, &bytes, piece);
            let _ = stream.shutdown(std::net::Shutdown::Write);
            read_to_end(&mut stream);
            agent.expect_one(json!({
                "destination_port": port, "is_tls": true, "tls_ja4": vector.ja4, "payload": "",
                "tls_error": "closed by the client", "tls_client_hello_hex": hex::encode(&bytes),
            }));
        }
    }
}

#[test]
fn hellos_of_the_ja3_project_have_their_published_fingerprints() {
    let Some(net) = Net::new() else { return };
    net.redirect();
    let agent = net.agent().start();
    // The two examples of its description; the first with a name, groups and point formats.
    let extensions = b"\0\0\0\x10\0\x0e\0\0\x0bexample.com\0\x0a\0\x08\0\x06\0\x17\0\x18\0\x19\0\x0b\0\x02\x01\0";
    let first = [47, 53, 5, 10, 49161, 49162, 49171, 49172, 50, 56, 19, 4];
    let second = [4, 5, 10, 9, 100, 98, 3, 6, 19, 18, 99];
    for (port, hello, ja3) in [
        (1, message(0x0301, &first, extensions), "ada70206e40642a3e4461f35503241d5"),
        (2, message(0x0301, &second, b""), "de350869b8c85de67a350c8d186f11e6"),
    ] {
        net.client.deliver((SENSOR_V4, port), &in_records(&hello, 1 << 14));
        agent.expect_one(json!({"destination_port": port, "is_tls": true, "tls_ja3": ja3}));
    }
}

#[test]
fn hellos_that_nobody_answers_are_named_and_kept() {
    let Some(net) = Net::new() else { return };
    net.redirect();
    let agent = net.agent().start();
    let ssl2 = [&b"\x80\x1f\x01\0\x02\0\x06\0\0\0\x10\x01\0\x80\x03\0\x80"[..], &[7; 16]].concat();
    // SSL 2.0's form, by a client that could speak TLS 1.0.
    let both = [&ssl2[..3], &[3, 1], &ssl2[5..]].concat();
    let ssl3 = message(0x0300, &[0x000a, 0x0005], b"");
    let ssl3 = [&[0x16, 3, 0, 0, u8::try_from(ssl3.len()).expect("short")][..], &ssl3].concat();
    let served = if cfg!(feature = "legacy-tls") { "tls 1.0 to tls 1.3" } else { "tls 1.2 and tls 1.3" };
    // One byte more than is read.
    let oversized = b"\x16\x03\x01\x40\0\x01\0\x3f\xfd and so on";
    for (port, hello, payload, error) in [
        (1, &ssl2[..], &ssl2[..], "ssl 2.0 client hello: ssl 2.0 offered"),
        (2, &both, &both, "ssl 2.0 client hello: tls 1.0 offered"),
        (3, &ssl3, b"", &format!("ssl 3.0 offered, {served} served")),
        (4, oversized, oversized, "client hello of 16385 bytes is longer than the limit"),
    ] {
        let mut stream = net.connect(port);
        stream.write_all(hello).expect("the sensor takes bytes");
        // It is the sensor that hangs up.
        read_to_end(&mut stream);
        agent.expect_one(json!({
            "destination_port": port, "is_tls": true, "tls_error": error, "close_reason": "tls_error",
            "tls_client_hello_hex": hex::encode(hello), "payload_hex": hex::encode(payload), "bytes_in": payload.len(),
        }));
    }
}

#[test]
fn a_hello_that_cannot_be_read_keeps_what_follows_it() {
    let Some(net) = Net::new() else { return };
    net.redirect();
    let agent = net.agent().set("read_timeout_seconds", 2).start();
    let hello = b"\x16\x03\x01\0\x05\x01\0\0\x01\0";
    let request = b"GET /after HTTP/1.1\r\nHost: a\r\n\r\n";
    for (port, piece) in [(1, usize::MAX), (2, 20)] {
        let mut stream = net.connect(port);
        send_in_pieces(&mut stream, &[&hello[..], request].concat(), piece);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        read_to_end(&mut stream);
        let record = agent.expect_one(json!({
            "destination_port": port, "is_tls": true, "close_reason": "tls_error", "http": {"target": "/after"},
            "tls_client_hello_hex": hex::encode(hello), "bytes_in": request.len(),
        }));
        assert_eq!(payload(&record), request);
        let error = record["tls_error"].as_str().expect("a reason");
        let reason = error.strip_prefix("malformed client hello: ").expect("it says what is wrong");
        assert_eq!(record["tls_client_hello_malformed"], reason);
    }
}

#[test]
fn what_follows_a_hello_in_clear_is_kept() {
    let Some(net) = Net::new() else { return };
    net.redirect();
    let agent = net.agent().set("read_timeout_seconds", 2).start();
    let hello = &vectors()[4].stream;
    let request = b"GET /after HTTP/1.1\r\nHost: a\r\n\r\n";
    // In one piece with the hello, and byte by byte behind it.
    for (port, piece) in [(1, usize::MAX), (2, 1)] {
        let mut stream = net.connect(port);
        send_in_pieces(&mut stream, &[&hello[..], request].concat(), piece);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        read_to_end(&mut stream);
        let record = agent.expect_one(json!({
            "destination_port": port, "is_tls": true, "tls_ja4": vectors()[4].ja4, "close_reason": "tls_error",
            "tls_client_hello_hex": hex::encode(hello), "protocol": "http", "http": {"target": "/after"},
        }));
        assert_eq!(payload(&record), request);
        assert_eq!(record["bytes_in"], request.len());
        let error = record["tls_error"].as_str().expect("a reason");
        assert!(error.starts_with("protocol violation: "), "{error}");
    }
    // Fewer bytes than any record has, and a client that waits.
    let mut stream = net.connect(3);
    stream.write_all(&[&hello[..], b"hi"].concat()).expect("the sensor takes bytes");
    read_to_end(&mut stream);
    let record = agent.expect_one(json!({"destination_port": 3, "payload": "hi", "close_reason": "idle_timeout"}));
    assert!(record["tls_error"].is_string(), "{record}");
    // More than a payload may hold.
    let mut stream = net.connect(4);
    let flood = vec![b'x'; 300_000];
    let _ = stream.write_all(&[&hello[..], &flood].concat());
    let _ = stream.shutdown(std::net::Shutdown::Write);
    read_to_end(&mut stream);
    let record = agent.expect_one(json!({"destination_port": 4, "close_reason": "payload_limit"}));
    assert_eq!(record["payload_truncated"], true);
    assert_eq!(payload(&record), &flood[..65_536]);
}

#[test]
fn a_stop_ends_what_follows_a_hello_in_clear_and_says_so() {
    let Some(net) = Net::new() else { return };
    net.redirect();
    let agent = net.agent().start();
    let mut stream = net.connect(5);
    stream.write_all(&[&vectors()[4].stream[..], b"hi"].concat()).expect("the sensor takes bytes");
    agent.wait_all_read();
    let log = agent.stop().log;
    let record = log.expect_one(json!({"destination_port": 5, "payload": "hi", "close_reason": "shutdown"}));
    assert!(record["tls_error"].is_string(), "{record}");
}

#[test]
fn a_hello_that_is_not_served_keeps_what_follows_it_too() {
    let Some(net) = Net::new() else { return };
    net.redirect();
    let agent = net.agent().set("read_timeout_seconds", 2).start();
    let hello = in_records(&message(0x0301, &[EXPORT_SUITE], b""), 1 << 14);
    net.client.deliver((SENSOR_V4, 1), &[&hello[..], b"EHLO a\r\n"].concat());
    agent.expect_one(json!({
        "destination_port": 1, "is_tls": true, "payload": "EHLO a\r\n", "tls_client_hello_hex": hex::encode(&hello),
    }));
    // Records of TLS are no payload, whatever they hold.
    net.client.deliver((SENSOR_V4, 2), &[&hello[..], b"\x15\x03\x01\x00\x02\x02\x28"].concat());
    agent.expect_one(json!({"destination_port": 2, "is_tls": true, "payload": ""}));
}

#[test]
fn a_client_whose_hello_came_at_once_is_told_each_time_why_it_is_refused() {
    const HANDSHAKE_FAILURE: u8 = 40;
    const PROTOCOL_VERSION: u8 = 70;
    let Some(net) = Net::new() else { return };
    net.redirect();
    let agent = net.agent().start();
    // supported_versions with TLS 1.3 and with a reserved number, supported_groups with x448.
    let (tls13, reserved, x448) =
        (b"\0\x2b\0\x03\x02\x03\x04", b"\0\x2b\0\x03\x02\x0a\x0a", b"\0\x0a\0\x04\0\x02\0\x1e");
    let algorithms = b"\0\x0d\0\x04\0\x02\x04\x03";
    let shares = b"\0\x33\0\x02\0\0";
    for (port, hello, alert, error) in [
        (1, message(0x0303, &[EXPORT_SUITE], algorithms), HANDSHAKE_FAILURE, "no common cipher suite"),
        (
            2,
            message(0x0303, &[0x1301], &[&tls13[..], x448, algorithms, shares].concat()),
            HANDSHAKE_FAILURE,
            "no common group",
        ),
        (3, message(0x0303, &[0x1301, 0xc02b], reserved), PROTOCOL_VERSION, "no version offered, "),
    ] {
        let hello = in_records(&hello, 1 << 14);
        for round in 0..50 {
            // It is there before the sensor has accepted, and before its reactor knows of the connection.
            let mut stream = net.connect(port);
            stream.write_all(&hello).expect("the sensor takes bytes");
            let answer = read_to_end(&mut stream);
            assert!(
                matches!(answer[..], [0x15, 3, _, 0, 2, 2, number] if number == alert),
                "{error}, {round}: {answer:x?}"
            );
        }
        for record in agent.expect_count(50, json!({"destination_port": port, "close_reason": "tls_error"})) {
            let said = record["tls_error"].as_str().expect("a reason");
            assert!(cfg!(feature = "legacy-tls") || said.starts_with(error), "{said}");
        }
    }
}

#[test]
fn what_comes_when_a_hello_was_refused_already_is_kept_and_counted() {
    let Some(net) = Net::new() else { return };
    net.redirect();
    let agent = net.agent().start();
    let not_served = in_records(&message(0x0301, &[EXPORT_SUITE], b""), 1 << 14);
    let ssl2 = [&b"\x80\x1c\x01\0\x02\0\x03\0\0\0\x10\x01\0\x80"[..], &[7; 16]].concat();
    // The last two are no hellos that could be taken off the payload.
    let hellos: [(&[u8], bool); 4] = [
        (&not_served, false),
        (b"\x16\x03\x01\0\x05\x01\0\0\x01\0", false),
        (b"\x16\x03\x01\x00\x04\x01\xff\xff\xff", true),
        (&ssl2, true),
    ];
    for ((hello, in_payload), port) in hellos.iter().zip(1..) {
        let mut stream = net.connect(port);
        stream.write_all(hello).expect("the sensor takes bytes");
        // It has refused, and said so.
        read_to_end(&mut stream);
        // A record of TLS says nothing in clear.
        stream
            .write_all(if *in_payload { b"" } else { &b"\x15\x03\x01\0\x02\x02\x28"[..] })
            .expect("the sensor takes bytes");
        stream.write_all(b"LATER").expect("the sensor takes bytes");
        drop(stream);
        let record = agent.expect_one(json!({"destination_port": port, "is_tls": true, "close_reason": "tls_error"}));
        let expected = if *in_payload { [hello, &b"LATER"[..]].concat() } else { b"LATER".to_vec() };
        assert_eq!(payload(&record), expected, "{record}");
        assert_eq!(record["bytes_in"], expected.len());
    }
    // What is too long for a hello is bounded as one, and counted as a payload.
    let mut stream = net.connect(5);
    stream.write_all(&[&b"\x16\x03\x01\x00\x04\x01\xff\xff\xff"[..], &[b'Q'; 150_000]].concat()).expect("taken");
    half_close(&stream);
    read_to_end(&mut stream);
    let record = agent.expect_one(json!({"destination_port": 5, "bytes_in": 150_009, "payload_truncated": true}));
    // As much of it as had come when that was clear.
    let hello = record["tls_client_hello_hex"].as_str().expect("the hello");
    assert!(hello.starts_with("160301000401ffffff") && hello.len() <= 2 * 32 * 1024, "{} digits", hello.len());
}

#[test]
fn single_bytes_by_the_hundreds_are_cut_off_in_time() {
    let Some(net) = Net::new() else { return };
    net.redirect();
    let agent = net.agent().set("first_byte_timeout_seconds", 1).set("read_timeout_seconds", 60).start();
    let hello = &vectors()[0].stream;
    let began = Instant::now();
    let mut streams: Vec<TcpStream> = Vec::new();
    // A few at a time: the deadline of the first runs while the last connects.
    for start in (1000..1400).step_by(10) {
        let new = net.client.connect_all((start..start + 10).map(|port| (None, SocketAddr::new(SENSOR_V4, port))));
        for mut stream in new {
            // The last hundred say hello, and nothing more.
            let bytes = if streams.len() < 300 { b"\x16" } else { &hello[..] };
            stream.write_all(bytes).expect("the sensor takes bytes");
            streams.push(stream);
        }
    }
    assert_eq!(streams.len(), 400);
    for stream in &mut streams {
        read_to_end(stream);
    }
    // Deadlines run from each accept; all of them have passed together, not one after the other.
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
    let mut records = agent.expect_count(
        300,
        json!({
            "payload_hex": "16", "is_tls": false, "close_reason": "first_byte_timeout", "tls_client_hello_hex": null,
        }),
    );
    records.extend(agent.expect_count(
        100,
        json!({
            "is_tls": true, "close_reason": "first_byte_timeout", "tls_error": "timed out", "payload": "",
            "tls_ja4": vectors()[0].ja4,
        }),
    ));
    for record in records {
        let duration = record["duration_ms"].as_u64().expect("a number");
        assert!((1000..6000).contains(&duration), "{record}");
    }
}

#[test]
fn a_hello_that_breaks_off_leaves_what_came_of_it() {
    let Some(net) = Net::new() else { return };
    net.redirect();
    let agent = net.agent().start();
    let hello = &vectors()[4].stream;
    let mut stream = net.connect(1);
    stream.write_all(&hello[..100]).expect("the sensor takes bytes");
    half_close(&stream);
    read_to_end(&mut stream);
    agent.expect_one(json!({
        "destination_port": 1, "is_tls": true, "tls_error": "client hello incomplete",
        "tls_client_hello_hex": hex::encode(&hello[..100]), "close_reason": "client_closed",
    }));
    // Another record inside the hello.
    let broken = [&hello[..5], &hello[5..60], b"\x17\x03\x03\x00\x01x"].concat();
    let length = u8::try_from(broken.len() - 5 - 6).expect("short");
    let broken = [&[0x16, 3, 1, 0, length][..], &broken[5..]].concat();
    let mut stream = net.connect(2);
    stream.write_all(&broken).expect("the sensor takes bytes");
    half_close(&stream);
    read_to_end(&mut stream);
    let record = agent.expect_one(json!({"destination_port": 2, "is_tls": true}));
    assert_eq!(payload(&record), broken);
    assert_eq!(record["tls_error"], "malformed client hello: another record inside the client hello");
    assert_eq!(record["tls_client_hello_malformed"], "another record inside the client hello");
    // Gone in the middle of the handshake.
    let mut stream = net.connect(3);
    stream.write_all(hello).expect("the sensor takes bytes");
    agent.wait_open(1);
    agent.wait_all_read();
    reset(stream);
    agent.expect_one(json!({"destination_port": 3, "is_tls": true, "close_reason": "client_reset"}));
}
