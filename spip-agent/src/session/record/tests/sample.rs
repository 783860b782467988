//! Sessions for tests: the bytes of real clients from the fixtures, and every outcome that a record can have.

use std::net::SocketAddr;
use std::sync::LazyLock;
use std::time::Duration;

use spip_common::Syn;
use uuid::Uuid;

use crate::config::{Greeting, PublicAddresses};
use crate::kernel::addr::{ClientAddr, Destination};
use crate::kernel::origin::Origin;
use crate::log::sensor::Sensor;
use crate::process::ports::Ports;
use crate::respond::{Conversation, Heard, Responder};
use crate::session::budget::Budget;
use crate::session::payload::{GUARANTEED_BYTES, Payload};
use crate::session::record::{Moment, Repeated, Session, Stored};
use crate::tls::{self, ClientCertificate, Facts, Failure, Handshake, Tls};
use spip_protocol as protocol;
use spip_protocol::client_hello::sample::{Hello, vectors};
use spip_record::Limit;
use spip_record::entry::PresentedCertificate;
use spip_record::{CloseReason, Conflict, DestinationSource, Format};

/// A session and what it is there for.
pub(crate) struct Sample {
    pub(crate) name: String,
    pub(crate) session: Session,
}

pub(crate) fn sensor(format: Format) -> Sensor {
    Sensor {
        name: "sensor \"7\"".to_owned(),
        run: "0123456789ab",
        community_id_seed: 3,
        format,
        max_line_bytes: 1 << 30,
        public: PublicAddresses::new([("10.0.0.0/24", "198.51.100.0/24")]),
    }
}

pub(crate) fn any_sensor() -> &'static Sensor {
    static SENSOR: LazyLock<Sensor> = LazyLock::new(|| sensor(Format::Flat));
    &SENSOR
}

pub(crate) fn of_payload(bytes: &[u8]) -> Session {
    of_payload_within(bytes, usize::MAX >> 8)
}

/// A session of which at most `limit` bytes were kept.
pub(crate) fn of_payload_within(bytes: &[u8], limit: usize) -> Session {
    let accepted = Moment::now();
    let mut payload = Payload::new(limit, Budget::new(usize::MAX >> 8));
    payload.push(bytes);
    payload.settle();
    let address = |text: &str| text.parse::<SocketAddr>().expect("an address");
    Session {
        id: Uuid::new_v4(),
        accepted,
        duration: Duration::from_micros(1_234_567),
        origin: Origin {
            client: ClientAddr::new(address("192.0.2.7:40000")),
            destination: Destination::new(address("198.51.100.9:8080")),
            source: DestinationSource::Ebpf,
            conflict: None,
            syn: None,
            syn_data: None,
        },
        payload,
        tls: Tls::NotTls,
        bytes_out: 42,
        stored: None,
        talk: None,
        close_reason: CloseReason::ClientClosed,
        proxy: None,
        repeated: None,
    }
}

/// A client that asks for a server of that name, and its handshake fails.
pub(crate) fn hello_for(name: &[u8]) -> Session {
    let mut session = of_payload(b"");
    let hello =
        Hello::new().ciphers(&[0x1301]).server_name(name).protocols(&[&name[..name.len().min(9)]]).records(16_384);
    session.tls = Tls::Recognised(Box::new(Facts::new(&hello, Handshake::Failed(Failure::Alert(48)))));
    session
}

/// Bytes of real clients, all close reasons, and all that TLS can come to.
pub(crate) fn samples() -> Vec<Sample> {
    let clients = protocol::samples().map(|(name, bytes)| Sample { name: name.to_owned(), session: of_payload(bytes) });
    let mut samples: Vec<_> = clients.collect();
    for (name, bytes) in [
        ("nothing", &b""[..]),
        ("unknown", b"\x00\x01\x02"),
        ("telnet", b"\xff\xfd\x03root\r\nxc3511\r\n"),
        ("basic", b"GET /a?b=c#d HTTP/1.1\r\nHost: h:8080\r\nReferer: http://r/\r\nAuthorization: Basic YWRtaW46YWRtaW4=\r\n\r\n"),
        ("absolute", b"GET http://u:p@www.example.org:8080/ip?x HTTP/1.1\r\nHost: 198.51.100.9\r\n\r\n"),
        (
            "long",
            b"GET / HTTP/1.1\r\nxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\
              xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx: y\r\n\r\n",
        ),
        ("tunnel", b"CONNECT www.example.org:443 HTTP/1.1\r\nHost: \r\n\r\n"),
        ("mail", b"EHLO probe.example\r\nMAIL FROM:<a@example.com>\r\nRCPT TO:<b@example.net>\r\nDATA\r\nSubject: x\r\n\r\n.\r\n"),
        ("pipelined", b"POST /x HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabcGET /y HTTP/1.1\r\n\r\nrest"),
    ] {
        samples.push(Sample { name: name.to_owned(), session: of_payload(bytes) });
    }
    samples.push(Sample { name: "talk".to_owned(), session: talk() });
    samples.extend(in_front());
    samples.extend(ended());
    samples.extend(encrypted());
    samples.extend(with_syn_data());
    samples
}

/// Returns clients whose SYN had data: with its bytes and a Fast Open cookie, and without either.
fn with_syn_data() -> [Sample; 2] {
    let bytes = b"GET / HTTP/1.0\r\n\r\n\0";
    let mut known = of_payload(&bytes[..18]);
    known.origin.syn = Some(syn_with_cookie());
    known.origin.syn_data = Some(bytes.as_slice().into());
    let mut unknown = of_payload(b"");
    unknown.origin.syn = Some(Syn { payload_length: 1_280, ..syn() });
    [("data with the SYN", known), ("data with the SYN that is not known", unknown)]
        .map(|(name, session)| Sample { name: name.to_owned(), session })
}

/// A greeting, a login without anything that decides, its answer; and a payload that has a file of its own.
fn talk() -> Session {
    let mut session = of_payload(b"USER root\r\nPASS toor\r\n");
    let responder = Responder {
        persona: crate::respond::persona::tests::persona(),
        ports: [(8080, Greeting::Ftp)].into(),
        banner_after: Duration::from_millis(1_500),
    };
    let mut talk = Conversation::new(8080, [1; 16]);
    let silent = Heard {
        kept: b"",
        received: 0,
        elapsed: Duration::from_millis(1_500),
        now: session.accepted.wall,
        offers_tls: false,
    };
    talk.silence(&responder, &silent);
    talk.sent(talk.pending().len(), Duration::from_millis(1_501));
    let (kept, received) = (session.payload.kept(), session.payload.received());
    talk.hear(&responder, &Heard { kept, received, elapsed: Duration::from_millis(1_700), ..silent });
    talk.sent(talk.pending().len(), Duration::from_millis(1_702));
    session.bytes_out = talk.bytes_out();
    session.talk = Some(Box::new(talk));
    session.stored = Some(Box::new(Stored { sha256: [0xab; 32], preview: 4 }));
    session
}

/// Returns samples with load balancers and translation in front of the machine, and with a challenge.
fn in_front() -> [Sample; 3] {
    let mut translated = of_payload(b"");
    translated.origin.destination = Destination::new("10.0.0.9:8080".parse().expect("an address"));
    let mut proxied = of_payload(b"GET / HTTP/1.1\r\n\r\n");
    proxied.origin.source = DestinationSource::Proxy;
    let parsed = protocol::proxy::parse(b"PROXY TCP4 192.0.2.7 198.51.100.9 40000 8080\r\n");
    let protocol::proxy::Parsed::Header(header) = parsed else { panic!("a header") };
    proxied.proxy = Some(Box::new(header.facts));
    let mut challenged = of_payload(b"RFB 003.008\n\x02");
    let responder = Responder {
        persona: crate::respond::persona::tests::persona(),
        ports: [].into(),
        banner_after: Duration::from_millis(1_500),
    };
    let mut talk = Conversation::new(8080, [1; 16]);
    let (kept, received) = (challenged.payload.kept(), challenged.payload.received());
    let (elapsed, now) = (Duration::from_millis(3), challenged.accepted.wall);
    talk.hear(&responder, &Heard { kept, received, elapsed, now, offers_tls: false });
    talk.sent(talk.pending().len(), elapsed);
    challenged.bytes_out = talk.bytes_out();
    challenged.talk = Some(Box::new(talk));
    [("translated", translated), ("proxied", proxied), ("challenged", challenged)]
        .map(|(name, session)| Sample { name: name.to_owned(), session })
}

fn ended() -> Vec<Sample> {
    let reasons = [
        CloseReason::ClientClosed,
        CloseReason::ClientReset,
        CloseReason::FirstByteTimeout,
        CloseReason::IdleTimeout,
        CloseReason::SessionTimeout,
        CloseReason::PayloadLimit,
        CloseReason::ServerClosed,
        CloseReason::WriteTimeout,
        CloseReason::TlsError,
        CloseReason::Rejected(Limit::Rate),
        CloseReason::Shutdown,
        CloseReason::Aborted,
    ];
    let mut samples = Vec::new();
    for close_reason in reasons {
        let mut session = of_payload_within(b"abcdef", 3);
        session.close_reason = close_reason;
        session.origin.client = ClientAddr::new("[2001:db8::1]:1".parse().expect("an address"));
        session.origin.destination = Destination::new("[2001:db8::2]:65535".parse().expect("an address"));
        session.origin.syn = Some(syn());
        samples.push(Sample { name: close_reason.name().to_owned(), session });
    }
    let mut session = of_payload(b"");
    session.payload = Payload::new(10_000, Budget::new(300));
    // All that is guaranteed is taken.
    assert!(session.payload.charge_others(GUARANTEED_BYTES));
    session.payload.push(&[b'x'; 200]);
    session.payload.push(&[b'y'; 5_000]);
    session.payload.settle();
    session.origin.syn = Some(Syn { ip_version: 4, ttl: 57, window: 1_024, ip_id: 54_321, ..Syn::ZERO });
    samples.push(Sample { name: "starved".to_owned(), session });
    let mut session = of_payload(b"");
    session.close_reason = CloseReason::Rejected(Limit::Sessions);
    let first = session.accepted.wall;
    let mut ports = Ports::default();
    [22, 80, 81, 82].iter().for_each(|port| ports.insert(*port));
    session.repeated = Some(Box::new(Repeated { count: 12, first, last: first + Duration::from_millis(900), ports }));
    session.origin.source = DestinationSource::Socket;
    samples.push(Sample { name: "repeated".to_owned(), session });
    for conflict in [Conflict::Ambiguous, Conflict::Destination, Conflict::Syn] {
        let mut session = of_payload(b"");
        session.origin.source = DestinationSource::Conntrack;
        session.origin.conflict = Some(conflict);
        samples.push(Sample { name: format!("conflict: {}", conflict.name()), session });
    }
    let mut session = of_payload(b"");
    session.close_reason = CloseReason::Rejected(Limit::Sessions);
    let nobody: SocketAddr = ([0; 4], 0).into();
    session.origin.client = ClientAddr::new(nobody);
    session.origin.destination = Destination::new(nobody);
    session.repeated = Some(Box::new(Repeated { count: 12, first, last: first, ports: Ports::default() }));
    samples.push(Sample { name: "of many sources".to_owned(), session });
    samples
}

fn encrypted() -> Vec<Sample> {
    let mut samples = Vec::new();
    let mut add = |name: &str, payload: &[u8], hello: &[u8], handshake: Handshake| {
        let mut session = of_payload(payload);
        session.tls = Tls::Recognised(Box::new(Facts::new(hello, handshake)));
        samples.push(Sample { name: name.to_owned(), session });
    };
    let completed = |client_certificate| {
        Handshake::Completed(tls::Session {
            version: "TLSv1.3",
            cipher_suite: "TLS_AES_128_GCM_SHA256".to_owned(),
            protocol: Some("h2".to_owned()),
            client_certificate,
        })
    };
    for vector in vectors() {
        add(
            &vector.source,
            b"GET / HTTP/1.1\r\nHost: h\r\n\r\n",
            &vector.stream,
            completed(ClientCertificate::NotAsked),
        );
    }
    let hello = Hello::new().ciphers(&[0x1301]).server_name(b"www.example.org").protocols(&[b"h2"]).records(16_384);
    let certificate = PresentedCertificate {
        subject: "CN=client \"x\"".to_owned(),
        issuer: "CN=ca".to_owned(),
        not_before: Some(1_600_000_000),
        // 99991231235959Z: it never expires.
        not_after: Some(253_402_300_799),
        sha256: "ab".repeat(32),
    };
    add("certificate", b"x", &hello, completed(ClientCertificate::Presented(Box::new(certificate))));
    add("nothing inside", b"", &hello, completed(ClientCertificate::NotSent));
    add("failed", b"", &hello, Handshake::Failed(Failure::Alert(48)));
    add("off", &hello, &hello, Handshake::Off);
    let names: Vec<[u8; 1]> = (0..65).map(|name| [name]).collect();
    let names: Vec<&[u8]> = names.iter().map(<[u8; 1]>::as_slice).collect();
    for (name, names) in [("many protocols", &names[..]), ("as many protocols as are listed", &names[..64])] {
        let hello = Hello::new().ciphers(&[0x1301]).protocols(names).records(16_384);
        add(name, b"", &hello, Handshake::Failed(Failure::Alert(48)));
    }
    let cut = Hello::new().ciphers(&[0x1301]).extension(0, &[0, 12, 0, 0, 9, b'w', b'w', b'w']).records(16_384);
    add("malformed", b"", &cut, completed(ClientCertificate::NotAsked));
    add("malformed and off", &cut, &cut, Handshake::Off);
    let address = Hello::new().ciphers(&[0x1301]).server_name(b"2001:db8::99").records(16_384);
    add("address", b"", &address, Handshake::Failed(Failure::Alert(48)));
    let garbage = Hello::new().ciphers(&[0x1301]).server_name(b"a b\xff").records(16_384);
    add("garbage", b"", &garbage, Handshake::Failed(Failure::Alert(48)));
    add("torn", b"", &hello[..20], Handshake::Failed(Failure::IncompleteHello));
    samples
}

/// As [`large`], for those who want to see what is left then.
pub(crate) fn shortened() -> Vec<Sample> {
    large().into_iter().map(|sample| Sample { name: format!("shortened {}", sample.name), ..sample }).collect()
}

/// Sessions whose whole records are longer than bounds allow, each for another reason.
pub(crate) fn large() -> Vec<Sample> {
    let mut samples = Vec::new();
    let mut add = |name: &str, session: Session| samples.push(Sample { name: name.to_owned(), session });
    add("controls", of_payload(&[1; 100_000]));
    add("text", of_payload(&[b'x'; 60_000]));
    let mut session = of_payload(&[1; 100_000]);
    session.stored = Some(Box::new(Stored { sha256: [0xab; 32], preview: 60_000 }));
    add("stored", session);
    let headers = (0..100).map(|n| format!("H{n}: {}\r\n", "\u{1b}".repeat(150))).collect::<String>();
    let target = "\u{202e}".repeat(1300);
    let requests = (0..17).map(|_| format!("GET /{target} HTTP/1.1\r\n{headers}\r\n")).collect::<String>();
    add("headers", of_payload(requests.as_bytes()));
    let mut session = of_payload(b"");
    let hello = Hello::new().ciphers(&[0x1301; 4000]).server_name(&[b'x'; 4000]).records(16_384);
    session.tls = Tls::Recognised(Box::new(Facts::new(&hello, Handshake::Failed(Failure::Alert(48)))));
    add("hello", session);
    samples
}

/// One with all options that are told.
/// A SYN with 19 bytes of data and a Fast Open cookie.
pub(crate) fn syn_with_cookie() -> Syn {
    let mut syn = Syn { payload_length: 19, options_len: 12, ..syn() };
    let options = [34, 10, 0x9f, 0x8e, 0x7d, 0x6c, 0x5b, 0x4a, 0x39, 0x21, 1, 1];
    syn.options[..12].copy_from_slice(&options);
    syn
}

pub(crate) fn syn() -> Syn {
    let mut syn = Syn { ttl: 64, window: 64_240, options_len: 20, ip_version: 4, ..Syn::ZERO };
    let options = [2, 4, 0x05, 0xb4, 4, 2, 8, 10, 1, 2, 3, 4, 0, 0, 0, 0, 1, 3, 3, 7];
    syn.options[..20].copy_from_slice(&options);
    syn
}
