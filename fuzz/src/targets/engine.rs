//! A whole handshake, and a whole record.

use std::cell::OnceCell;
use std::net::{Ipv6Addr, SocketAddr};
use std::time::{Duration, SystemTime};

use spip_agent::kernel::addr::{ClientAddr, Destination};
use spip_agent::kernel::origin::Origin;
use spip_agent::log::sensor::Sensor;
use spip_agent::session::budget::Budget;
use spip_agent::session::payload::Payload;
use spip_agent::session::record::{Moment, Session};
use spip_agent::tls::{Facts, Failure, Handshake, Replay, Tls, TlsServer};
use spip_agent::tools::convert;
use spip_protocol::client_hello::{ClientHello, Detection, detect, handshake_message};
use spip_record::{CloseReason, DestinationSource, Format, Tail};
use tokio::io::AsyncReadExt as _;
use tokio::runtime::Runtime;
use uuid::Uuid;

use super::talk;

thread_local! {
    static SERVER: OnceCell<(Runtime, TlsServer)> = const { OnceCell::new() };
}

/// A client that says these bytes and closes: the handshake ends, and what is kept in clear is what was sent.
pub(super) fn tls_handshake(bytes: &[u8]) {
    let Detection::ClientHello { length } = detect(bytes) else { return };
    let message = handshake_message(&bytes[..length]);
    let Ok(hello) = ClientHello::parse(&message) else { return };
    SERVER.with(|server| {
        let (runtime, server) = server.get_or_init(start);
        // Half of what follows the hello was read with it, half comes later.
        let (early, late) = bytes.split_at(length + (bytes.len() - length) / 2);
        let stream = Replay::new(early.to_vec(), length, tokio::io::join(late, tokio::io::sink()));
        let outcome = runtime.block_on(async {
            tokio::time::timeout(Duration::from_secs(60), server.accept(&hello, stream)).await.expect("it ends")
        });
        // Without the client's keys no handshake completes.
        let mut rejected = outcome.expect_err("these bytes know no secret");
        assert!(!matches!(rejected.failure, Failure::Internal(_)), "{}", rejected.failure);
        let mut clear = rejected.stream.go_on_in_clear();
        runtime.block_on(rejected.stream.read_to_end(&mut clear)).expect("bytes in memory");
        assert!(clear.is_empty() || bytes[length..].windows(clear.len()).any(|window| window == clear));
    });
}

pub(super) fn start() -> (Runtime, TlsServer) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    (runtime, TlsServer::new(None, true).expect("a key can be made"))
}

/// A record of a client that sent these bytes is one line of JSON with its documented keys, and bounded; and what the
/// flat one is converted to is what would have been logged.
pub(super) fn record(bytes: &[u8]) {
    let mut payload = Payload::new(1 << 16, Budget::new(1 << 20));
    payload.push(bytes);
    let tls = match detect(bytes) {
        Detection::ClientHello { length } => {
            drop(payload.take_envelope());
            payload.push(&bytes[length..]);
            Tls::Recognised(Box::new(Facts::new(&bytes[..length], Handshake::Failed(Failure::Closed))))
        }
        _ => {
            payload.settle();
            Tls::NotTls
        }
    };
    let sent = payload.kept().to_vec();
    let talk = talk::with(bytes);
    let address = SocketAddr::from((Ipv6Addr::LOCALHOST, 443));
    let session = Session {
        id: Uuid::nil(),
        accepted: Moment::now(),
        duration: Duration::from_millis(1),
        origin: Origin {
            client: ClientAddr::new(address),
            destination: Destination::new(address),
            source: DestinationSource::Socket,
            conflict: None,
            syn: None,
            syn_data: None,
        },
        payload,
        tls,
        bytes_out: 0,
        close_reason: CloseReason::ClientClosed,
        repeated: None,
        stored: None,
        talk: Some(Box::new(talk)),
        proxy: None,
    };
    assert!(session.accepted.wall >= SystemTime::UNIX_EPOCH);
    let line = |format: Format| {
        let sensor = Sensor {
            name: "fuzz".to_owned(),
            run: "0123456789ab",
            community_id_seed: 0,
            format,
            max_line_bytes: 1 << 30,
            public: spip_agent::config::PublicAddresses::default(),
        };
        let mut line = Vec::new();
        sensor.write(&session, usize::MAX, &mut line);
        let mut space = [0; Tail::BYTES];
        line.extend_from_slice(format.tail().write(&mut space, 1));
        (is_line_of(&line, bytes.len()), line)
    };
    let ((value, flat), (_, ecs), (_, eve)) = (line(Format::Flat), line(Format::Ecs), line(Format::Eve));
    for (to, logged) in [(convert::Target::Ecs, ecs), (convert::Target::Eve, eve)] {
        let mut converted = Vec::new();
        assert_eq!(to.line(&flat, &mut converted), Ok(true));
        assert_eq!(converted.escape_ascii().to_string(), logged.escape_ascii().to_string());
    }
    let hex = value["payload_hex"].as_str().expect("a record has payload_hex");
    assert_eq!(hex.len(), 2 * sent.len());
    assert_eq!(value["payload"].as_str(), Some(String::from_utf8_lossy(&sent).replace('\0', "␀").as_str()));
}

/// A whole line of a log, made from so many bytes of a client.
pub(super) fn is_line_of(line: &[u8], bytes: usize) -> serde_json::Value {
    let (end, line) = line.split_last().expect("a line");
    assert_eq!(*end, b'\n');
    assert!(line.iter().all(|byte| (0x20..0x7f).contains(byte) || *byte >= 0x80), "a control character in a line");
    assert!(line.len() < 64 * 1024 + 40 * bytes, "{} bytes for {bytes}", line.len());
    serde_json::from_slice(line).expect("a record is JSON")
}
