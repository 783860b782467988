//! Bytes written by hand: captured hellos in pieces, hellos that go on as something else, and clients that stop in
//! the middle.

use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use serde_json::json;
use spip_tests::{Net, SENSOR_V4, half_close, payload, read_to_end, reset};

use crate::hello::vectors;

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
    agent.expect_one(json!({"destination_port": 3, "payload": "hi", "close_reason": "tls_error"}));
    // More than a payload may hold.
    let mut stream = net.connect(4);
    let flood = vec![b'x'; 300_000];
    let _ = stream.write_all(&[&hello[..], &flood].concat());
    let _ = stream.shutdown(std::net::Shutdown::Write);
    read_to_end(&mut stream);
    let record = agent.expect_one(json!({"destination_port": 4, "close_reason": "tls_error"}));
    assert_eq!(record["payload_truncated"], true);
    assert_eq!(payload(&record), &flood[..65_536]);
}

#[test]
fn a_hello_that_is_not_served_keeps_what_follows_it_too() {
    let Some(net) = Net::new() else { return };
    net.redirect();
    let agent = net.agent().set("read_timeout_seconds", 2).start();
    // TLS 1.0 with nothing but a suite that nobody serves any more.
    let body = [&[3, 1][..], &[7; 32], &[0], &[0, 2, 0, 1], &[1, 0]].concat();
    let message = [&[1, 0, 0, u8::try_from(body.len()).expect("short")][..], &body].concat();
    let hello = [&[22, 3, 1, 0, u8::try_from(message.len()).expect("short")][..], &message].concat();
    net.client.deliver((SENSOR_V4, 1), &[&hello[..], b"EHLO a\r\n"].concat());
    agent.expect_one(json!({
        "destination_port": 1, "is_tls": true, "payload": "EHLO a\r\n", "tls_client_hello_hex": hex::encode(&hello),
    }));
    // Records of TLS are no payload, whatever they hold.
    net.client.deliver((SENSOR_V4, 2), &[&hello[..], b"\x15\x03\x01\x00\x02\x02\x28"].concat());
    agent.expect_one(json!({"destination_port": 2, "is_tls": true, "payload": ""}));
}

#[test]
fn single_bytes_by_the_hundreds_are_cut_off_in_time() {
    let Some(net) = Net::new() else { return };
    net.redirect();
    let agent = net.agent().set("first_byte_timeout_seconds", 1).set("read_timeout_seconds", 60).start();
    let hello = &vectors()[0].stream;
    let began = Instant::now();
    let mut streams: Vec<TcpStream> =
        net.client.connect_all((0..400).map(|number| (None, SocketAddr::new(SENSOR_V4, 1000 + number))));
    assert_eq!(streams.len(), 400);
    for (index, stream) in streams.iter_mut().enumerate() {
        // The last hundred say hello, and nothing more.
        let bytes = if index < 300 { b"\x16" } else { &hello[..] };
        stream.write_all(bytes).expect("the sensor takes bytes");
    }
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
    // Gone in the middle of the handshake.
    let mut stream = net.connect(3);
    stream.write_all(hello).expect("the sensor takes bytes");
    agent.wait_all_read();
    reset(stream);
    agent.expect_one(json!({"destination_port": 3, "is_tls": true, "close_reason": "client_reset"}));
}
