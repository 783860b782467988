//! Cost of a record in each format: everything between the end of a session and the log's queue, with
//! the payload understood, hashed and told.
//!
//! Needs no namespaces: the encoders are called as the agent calls them. Formats take turns within each round, and the
//! fastest round of each counts: whatever else the machine does can only add to it.

use std::hint::black_box;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use spip_agent::kernel::addr::{ClientAddr, Destination};
use spip_agent::kernel::origin::Origin;
use spip_agent::log::sensor::Sensor;
use spip_agent::session::budget::Budget;
use spip_agent::session::payload::Payload;
use spip_agent::session::record::{Moment, Session};
use spip_agent::tls::{self, ClientCertificate, Facts, Handshake, Tls};
use spip_record::{CloseReason, DestinationSource, Format};

const FORMATS: [(&str, Format); 3] = [("flat", Format::Flat), ("ecs", Format::Ecs), ("eve", Format::Eve)];

const HTTP: &[u8] = b"GET /login?next=%2F HTTP/1.1\r\nHost: 198.51.100.1\r\nUser-Agent: Mozilla/5.0 zgrab/0.x\r\n\
    Accept: */*\r\nAccept-Encoding: gzip\r\nConnection: close\r\n\r\n";

/// Prints nanoseconds and bytes a record, and each format beside flat.
pub(crate) fn run(rounds: usize) {
    const RECORDS: u32 = 2_000;
    println!("{RECORDS} records a round, the fastest of {rounds} rounds");
    println!(
        "{:<10}{:>12}{:>12}{:>12}{:>10}{:>10}{:>10}{:>10}{:>10}",
        "", "flat ns", "ecs ns", "eve ns", "ecs/flat", "eve/flat", "flat B", "ecs B", "eve B"
    );
    let mut sums = [0.0; 3];
    for (name, session) in sessions() {
        let mut times: [Vec<f64>; 3] = Default::default();
        let mut bytes = [0; 3];
        for _ in 0..rounds {
            for (place, (_, format)) in FORMATS.into_iter().enumerate() {
                let sensor = Sensor {
                    name: "sensor-7".to_owned(),
                    run: "0123456789ab",
                    community_id_seed: 0,
                    format,
                    max_line_bytes: 1 << 24,
                    public: spip_agent::config::PublicAddresses::default(),
                };
                let mut line = Vec::with_capacity(64 << 10);
                let start = Instant::now();
                for _ in 0..RECORDS {
                    line.clear();
                    sensor.write(black_box(&session), usize::MAX, &mut line);
                    black_box(&line);
                }
                times[place].push(start.elapsed().as_nanos() as f64 / f64::from(RECORDS));
                bytes[place] = line.len();
            }
        }
        let [flat, ecs, eve] = times.map(fastest);
        for (sum, time) in sums.iter_mut().zip([flat, ecs, eve]) {
            *sum += time;
        }
        let [flat_bytes, ecs_bytes, eve_bytes] = bytes;
        println!(
            "{name:<10}{flat:>12.0}{ecs:>12.0}{eve:>12.0}{:>10.2}{:>10.2}{flat_bytes:>10}{ecs_bytes:>10}{eve_bytes:>10}",
            ecs / flat,
            eve / flat
        );
    }
    let [flat, ecs, eve] = sums;
    println!("{:<10}{flat:>12.0}{ecs:>12.0}{eve:>12.0}{:>10.2}{:>10.2}", "all", ecs / flat, eve / flat);
}

fn fastest(times: Vec<f64>) -> f64 {
    times.into_iter().fold(f64::INFINITY, f64::min)
}

fn sessions() -> Vec<(&'static str, Session)> {
    let vectors: Vec<serde_json::Value> =
        serde_json::from_str(include_str!("../../../../spip-protocol/fixtures/ja4.json")).expect("a fixture");
    let hello = vectors[0]["client_hello_records_hex"].as_str().expect("text");
    let hello = hex::decode(hello).expect("hexadecimal");
    let mut inside_tls = session(HTTP);
    inside_tls.tls = Tls::Recognised(Box::new(Facts::new(
        &hello,
        Handshake::Completed(tls::Session {
            version: "TLSv1.3",
            cipher_suite: "TLS_AES_128_GCM_SHA256".to_owned(),
            protocol: Some("http/1.1".to_owned()),
            client_certificate: ClientCertificate::NotAsked,
        }),
    )));
    let ssh = include_bytes!("../../../../spip-protocol/fixtures/protocol/openssh.ssh");
    vec![
        ("silent", session(b"")),
        ("http", session(HTTP)),
        ("redis", session(b"*1\r\n$4\r\nPING\r\n")),
        ("ssh", session(ssh)),
        ("tls", inside_tls),
        ("4 KiB", session(&[b'x'; 4096])),
    ]
}

fn session(bytes: &[u8]) -> Session {
    let mut payload = Payload::new(65_536, Budget::new(1 << 20));
    payload.push(bytes);
    payload.settle();
    let address = |text: &str| text.parse::<SocketAddr>().expect("an address");
    Session {
        id: "8c5f2c9e-62b4-4f3c-9d5e-0f6d1f8f2a11".parse().expect("a UUID"),
        accepted: Moment::now(),
        duration: Duration::from_micros(12_345),
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
        bytes_out: 0,
        stored: None,
        talk: None,
        proxy: None,
        close_reason: CloseReason::ClientClosed,
        repeated: None,
    }
}
