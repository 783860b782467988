//! Answers around a handshake: what a client was told before it began one, and what it is told after one that failed.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::*;
use crate::kernel::addr::Destination;
use crate::respond::persona::tests::persona;
use crate::tls::tests::client::Client;
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
