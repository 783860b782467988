//! Answers around a handshake: what a client was told before it began one, and what it is told after one that failed.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::*;
use crate::kernel::addr::Destination;
use crate::respond::persona::tests::persona;
use crate::tls::tests::client::{Client, TLS_1_2, TLS_1_3};
use crate::tls::{Carrier, Unwrapper};
use spip_protocol::client_hello::sample::Hello;

/// Runs a session of a sensor that answers, TLS too, over a real socket, and `client` beside it; returns the record.
fn record(port: u16, client: impl AsyncFnOnce(TcpStream)) -> Value {
    let lines = "banner_after_ms = 1";
    let server = Arc::new(TlsServer::new(None, false).expect("a server"));
    let bench = Bench::configured(&format!("tls-{}", Uuid::new_v4()), Some(server), lines);
    let text = format!("ip = \"::\"\nport = 1\n{lines}\n");
    let respond = Config::from_str(&text, std::path::Path::new("/x")).expect("a configuration").config.respond;
    bench.answer(Responder { persona: persona(), ports: respond.ports, banner_after: respond.banner_after });
    block_on(async {
        let (peer, mut guard, socket) = bench.connect(b"");
        peer.set_nonblocking(true).expect("a socket");
        guard.session.origin.destination = Destination::new(([127, 0, 0, 1], port).into());
        let open = &bench.intake.sessions_by_worker[0];
        let timer = Timer::new(open, guard.source(), &bench.intake.engine().timeouts, Instant::now());
        tokio::select! {
            () = open.keep_time() => {}
            _ = async {
                let peer = TcpStream::from_std(peer).expect("a socket");
                tokio::join!(run(Box::new(guard), socket, timer), client(peer))
            } => {}
        }
    });
    let mut records = bench.records();
    assert_eq!(records.len(), 1, "one record");
    records.remove(0)
}

#[test]
fn a_greeted_client_that_begins_tls_after_all_is_served_from_the_start() {
    let request = b"GET /inside HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    let record = record(21, async |mut stream| {
        let mut greeting = [0; 4];
        stream.read_exact(&mut greeting).await.expect("a greeting");
        assert_eq!(&greeting, b"220 ");
        // The rest of it stands before the handshake.
        while stream.read_u8().await.expect("a line") != b'\n' {}
        // Having agreed to HTTP it goes first, however long it takes.
        let client = Client { protocols: vec![b"http/1.1"], ..Client::default() };
        let mut stream = client.connect(stream).await.expect("a handshake");
        stream.write_all(request).await.expect("sent");
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        assert!(answer.starts_with(b"HTTP/1.1 "), "{}", String::from_utf8_lossy(&answer));
    });
    assert_eq!((&record["protocol"], &record["is_tls"]), (&"http".into(), &true.into()), "{record}");
    assert_eq!(record["payload"], String::from_utf8_lossy(request).as_ref(), "{record}");
    assert_eq!(record["tls_error"], Value::Null);
}

#[test]
fn nothing_is_said_in_clear_after_a_handshake_that_failed() {
    // SSL 3.0 is served by no build.
    let hello = Hello::new().version(0x0300).ciphers(&[0x002f, 0x0035]).records(1 << 14);
    let request = b"GET /clear HTTP/1.1\r\nHost: a\r\n\r\n";
    for port in [21, 80] {
        let record = record(port, async |mut stream| {
            stream.write_all(&[&hello[..], request].concat()).await.expect("sent");
            let mut answer = Vec::new();
            // An alert, and then nothing until the sensor ends it.
            let said = tokio::time::timeout(Duration::from_millis(300), stream.read_to_end(&mut answer)).await;
            stream.shutdown().await.expect("closed");
            if said.is_err() {
                let _ = stream.read_to_end(&mut answer).await;
            }
            assert!(!answer.windows(5).any(|part| part == b"HTTP/" || part == b"220 f"), "{answer:?}");
            assert!(answer.len() <= 7, "no more than an alert: {answer:?}");
        });
        assert_eq!((&record["bytes_out"], &record["is_tls"]), (&0.into(), &true.into()), "{record}");
        assert!(record["tls_error"].is_string(), "{record}");
        assert_eq!(record["payload"], String::from_utf8_lossy(request).as_ref(), "{record}");
    }
}

/// The content of an unwrapped message of TDS, or a message of it.
fn tds(kind: u8, content: &[u8]) -> Vec<u8> {
    let length = u16::try_from(8 + content.len()).expect("short").to_be_bytes();
    [&[kind, 1, length[0], length[1], 0, 0, 1, 0], content].concat()
}

/// Reads a message of one packet.
async fn tds_answer<S: tokio::io::AsyncRead + Unpin>(stream: &mut S) -> Vec<u8> {
    let mut header = [0; 8];
    stream.read_exact(&mut header).await.expect("a header");
    let mut content = vec![0; usize::from(u16::from_be_bytes([header[2], header[3]])) - 8];
    stream.read_exact(&mut content).await.expect("a packet");
    content
}

#[test]
fn a_client_of_sql_server_that_wants_encryption_has_its_handshake_in_packets() {
    const LOGIN: &[u8] = include_bytes!("../../../../spip-protocol/fixtures/protocol/login.tds");
    // Version and encryption: on.
    let asked = tds(0x12, b"\0\0\x0b\0\x06\x01\0\x11\0\x01\xff\x0f\0\x10\x04\0\0\x01");
    for (versions, version) in [(TLS_1_2, "TLSv1.2"), (TLS_1_3, "TLSv1.3")] {
        let record = record(1433, async |mut stream| {
            stream.write_all(&asked).await.expect("sent");
            assert_eq!(tds_answer(&mut stream).await.last(), Some(&1), "encryption is on");
            // The packets of the test's client are those of the sensor, which their own tests hold against the specification.
            let stream = Carrier::in_packets(stream, Unwrapper::default());
            let client = Client { versions, name: "db.example.com", ..Client::default() };
            let mut stream = client.connect(stream).await.expect("a handshake");
            stream.get_mut().0.end_handshake();
            stream.write_all(LOGIN).await.expect("sent");
            assert_eq!(tds_answer(&mut stream).await.first(), Some(&0xe3), "let in");
            let statement: Vec<u8> = "select 1".encode_utf16().flat_map(u16::to_le_bytes).collect();
            stream.write_all(&tds(1, &statement)).await.expect("sent");
            assert_eq!(tds_answer(&mut stream).await.first(), Some(&0xaa), "refused");
            stream.shutdown().await.expect("closed");
        });
        assert_eq!((&record["protocol"], &record["tls_version"]), (&"tds".into(), &version.into()), "{record}");
        assert_eq!(record["tls_server_name"], "db.example.com", "{record}");
        assert!(record["tls_ja4"].as_str().is_some_and(|ja4| ja4.starts_with("t1")), "{record}");
        assert_eq!(record["tds"]["encryption"], "on", "{record}");
        assert_eq!(record["tds"]["statement"], "select 1", "{record}");
        let credential = &record["credentials"][0];
        assert_eq!((&credential["user"], &credential["secret"]), (&"sa".into(), &"P@ss\"wörd".into()), "{record}");
        assert_eq!(record["responses"], serde_json::json!(["tds_tls", "tds_login", "tds_refusal"]), "{record}");
    }
}

#[test]
fn a_hello_in_packets_is_recorded_where_the_handshake_fails() {
    let asked = tds(0x12, b"\0\0\x0b\0\x06\x01\0\x11\0\x01\xff\x0f\0\x10\x04\0\0\x03");
    // SSL 3.0 is served by no build.
    let hello = Hello::new().version(0x0300).ciphers(&[0x002f, 0x0035]).records(1 << 14);
    let record = record(1433, async |mut stream| {
        stream.write_all(&asked).await.expect("sent");
        let _greeting = tds_answer(&mut stream).await;
        // A message in two packets, which come in pieces.
        let (one, other) = hello.split_at(20);
        let mut packets = [tds(0x12, one), tds(0x12, other)].concat();
        packets[1] = 0;
        for piece in packets.chunks(7) {
            stream.write_all(piece).await.expect("sent");
            tokio::task::yield_now().await;
        }
        // The refusal is in a packet too: an alert.
        assert_eq!(tds_answer(&mut stream).await.first(), Some(&0x15));
    });
    assert_eq!((&record["protocol"], &record["is_tls"]), (&"tds".into(), &true.into()), "{record}");
    assert!(record["tls_ja3"].is_string() && record["tls_error"].is_string(), "{record}");
}
