//! A NATS server that answers garbage, never, or too much; and a state of zeros.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::process::ExitStatusExt as _;
use std::process::Command;
use std::thread;

use crate::support::{Nats, Place, append, assert_each_once, once, peer, records, run, sink_at};

const INFO: &str = "INFO {\"server_id\":\"X\",\"server_name\":\"x\",\"version\":\"2.10.0\",\"go\":\"go1\",\"host\":\"127.0.0.1\",\
    \"port\":4222,\"headers\":true,\"max_payload\":1048576,\"proto\":1,\"client_id\":1,\"client_ip\":\"127.0.0.1\",\
    \"jetstream\":true,\"auth_required\":false,\"tls_required\":false}\r\n";

/// Greets each client with `greeting`, then says `piece` after whatever it hears, or `endless`ly.
fn server(greeting: &str, piece: &'static str, endless: bool) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = listener.local_addr().expect("an address").port();
    let greeting = greeting.to_owned();
    thread::spawn(move || {
        for client in listener.incoming() {
            let (Ok(client), greeting) = (client, greeting.clone()) else { return };
            thread::spawn(move || say(client, &greeting, piece, endless));
        }
    });
    port
}

fn say(mut client: TcpStream, greeting: &str, piece: &str, endless: bool) {
    let mut bytes = [0; 16 * 1024];
    if client.write_all(greeting.as_bytes()).is_err() {
        return;
    }
    if endless {
        let pieces = piece.repeat(64 * 1024 / piece.len() + 1);
        while client.write_all(pieces.as_bytes()).is_ok() {}
    }
    while client.read(&mut bytes).is_ok_and(|count| count > 0) {
        if client.write_all(piece.as_bytes()).is_err() {
            return;
        }
    }
}

#[test]
fn a_server_that_answers_garbage_never_or_too_much_loses_nothing() {
    let wide = format!("INFO {{\"server_id\":\"{}\"}}\r\n", "x".repeat(1 << 20));
    let open = format!("INFO {{\"server_id\":\"{}", "x".repeat(8 << 20));
    let cases = [
        ("nothing", server("", "", false)),
        ("garbage", server("\0\u{1}garbage\r\n\r\n", "garbage\r\n", false)),
        ("HTTP", server("HTTP/1.1 400 Bad Request\r\n\r\n", "", false)),
        ("no line end", server(&open, "", false)),
        ("a long INFO", server(&wide, "PONG\r\n", false)),
        ("no PONG", server(INFO, "", false)),
        ("only PONG", server(INFO, "PONG\r\n", false)),
        ("garbage for an answer", server(INFO, "PONG\r\nMSG _INBOX.x 1 3\r\n{}}\r\n", false)),
        ("endless PONG", server(INFO, "PONG\r\n", true)),
        ("endless errors", server(INFO, "-ERR 'no'\r\n", true)),
        ("endless messages", server(&format!("{INFO}PONG\r\n"), "MSG a 1 2\r\n{}\r\n", true)),
        ("a message without end", server(&format!("{INFO}PONG\r\nMSG a 1 99999999999\r\n"), "x", true)),
    ];
    thread::scope(|scope| {
        for (case, port) in cases {
            scope.spawn(move || fails(case, port));
        }
    });
}

/// Delivers to a server that takes nothing, and then to one that does.
fn fails(case: &str, port: u16) {
    let place = Place::new();
    append(&place.log(), &records("s", "r", 1..51));
    let config = place.configure(&sink_at(port));
    let output = Command::new("timeout")
        .args(["--signal=KILL", "240", env!("CARGO_BIN_EXE_spip-ship"), "--config"])
        .arg(&config)
        .args(["--once", "--timeout", "1"])
        .output()
        .expect("timeout starts");
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && !text.contains("panicked"), "{case}: {text}");
    // Its bound on memory may end it. `timeout` ends by the signal that it sends.
    assert_ne!(output.status.signal(), Some(9), "{case}: it does not end\n{text}");
    println!("{case}: {}: {}", output.status, text.lines().last().unwrap_or_default());
    let Some(program) = peer("SPIP_NATS_SERVER") else { return };
    let real = Nats::start(&program, &place, "");
    once(&place.configure(&real.sink()));
    assert_each_once(&real.stored(), "r", 1..51);
}

#[test]
fn a_state_of_zeros_is_reported_and_repeats_nothing() {
    let Some(program) = peer("SPIP_NATS_SERVER") else { return };
    let place = Place::new();
    let server = Nats::start(&program, &place, "");
    let config = place.configure(&server.sink());
    append(&place.log(), &records("s", "r", 1..101));
    once(&config);
    let state = place.path("state/nats.state");
    let length = usize::try_from(fs::metadata(&state).expect("a state").len()).expect("small");
    let mut last = 101;
    for bytes in [vec![0; length], vec![0; 4096], vec![0; 64 << 20], Vec::new(), vec![b'\n'; length], vec![0xff; 3]] {
        fs::write(&state, &bytes).expect("a file");
        let (_, text) = run(&config, &["status"]);
        assert!(!text.contains("panicked"), "{text}");
        append(&place.log(), &records("s", "r", last..last + 10));
        last += 10;
        let text = once(&config);
        assert!(text.contains("state") && text.contains("goes on behind its last message"), "{text}");
        assert_each_once(&server.stored(), "r", 1..last);
    }
}
