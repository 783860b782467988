//! Whatever clients do, in whatever order: each leaves exactly one record, and its bytes are what was sent, up to the
//! limit; whether TLS is answered or not, and whatever the sensor has read when the next bytes come.

use std::io::Write;
use std::net::{IpAddr, Shutdown, TcpStream};

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde_json::{Value, json};
use spip_tests::{Agent, Net, SENSOR_V4, SENSOR_V6, payload, reset};

/// Small, so that clients often reach it.
const LIMIT: usize = 2048;

/// Ways in which a client ends.
#[derive(Clone, Copy, Debug)]
enum End {
    Close,
    HalfClose,
    Reset,
}

/// Actions of a client.
#[derive(Clone, Debug)]
enum Step {
    Write(Vec<u8>),
    /// Waits until the sensor has read everything.
    Pause,
}

/// One client: where it goes, what it does step by step, how it leaves.
#[derive(Clone, Debug)]
struct Client {
    v6: bool,
    port: u16,
    steps: Vec<Step>,
    end: End,
}

/// A ClientHello that never gets whole: more is announced than any client here sends.
const BEGUN_HELLO: &[u8] = b"\x16\x03\x01\x3f\xff\x01\x00\x3f\xfb\x03\x03";

fn client() -> impl Strategy<Value = Client> {
    let end = prop_oneof![Just(End::Close), Just(End::HalfClose), Just(End::Reset)];
    let bytes = prop_oneof![3 => vec(any::<u8>(), 0..64), 1 => vec(any::<u8>(), 0..1500)];
    let step = prop_oneof![3 => bytes.prop_map(Step::Write), 1 => Just(Step::Pause)];
    let opening = prop_oneof![
        3 => Just(Vec::new()),
        1 => (1..BEGUN_HELLO.len()).prop_map(|length| BEGUN_HELLO.split_at(length)).prop_map(|(first, rest)| {
            vec![Step::Write(first.to_vec()), Step::Pause, Step::Write(rest.to_vec())]
        }),
    ];
    (any::<bool>(), 1..=u16::MAX, opening, vec(step, 0..6), end).prop_map(|(v6, port, opening, steps, end)| {
        let steps = opening.into_iter().chain(steps).collect();
        Client { v6, port, steps, end }
    })
}

impl Client {
    fn address(&self) -> IpAddr {
        if self.v6 { SENSOR_V6 } else { SENSOR_V4 }
    }

    fn sent(&self) -> Vec<u8> {
        let bytes = self.steps.iter().filter_map(|step| match step {
            Step::Write(bytes) => Some(bytes.as_slice()),
            Step::Pause => None,
        });
        bytes.collect::<Vec<_>>().concat()
    }

    fn act(&self, step: &Step, stream: &mut TcpStream, agent: &Agent) {
        match step {
            // Beyond the limit the sensor may have closed; what was sent until then is what counts.
            Step::Write(bytes) => {
                let _ = stream.write_all(bytes);
            }
            Step::Pause => agent.wait_all_read(),
        }
    }

    /// Returns the mistake in the record, if any.
    fn fault(&self, record: &Value) -> Option<&'static str> {
        let sent = self.sent();
        let kept = payload(record);
        if kept != sent[..sent.len().min(LIMIT)] {
            return Some("the payload is not what was sent");
        }
        if sent.len() < LIMIT && (record["bytes_in"] != sent.len() || record["payload_truncated"] != false) {
            return Some("the bytes are miscounted");
        }
        let reason = &record["close_reason"];
        let expected = match self.end {
            End::Reset => reason == "client_reset",
            // A socket that is closed before it has read an answer resets its connection.
            End::Close if record["bytes_out"] != 0 => reason == "client_closed" || reason == "client_reset",
            End::Close | End::HalfClose => reason == "client_closed",
        };
        (!expected && sent.len() < LIMIT).then_some("the reason is another")
    }
}

/// Lets all clients act, interleaved, and checks the record of each.
fn play(net: &Net, agent: &Agent, clients: &[Client]) -> Result<(), TestCaseError> {
    let mut streams: Vec<_> =
        clients.iter().map(|client| net.client.connect((client.address(), client.port))).collect();
    let ports: Vec<_> =
        streams.iter().map(|stream| stream.local_addr().expect("a connected socket has an address").port()).collect();
    let most = clients.iter().map(|client| client.steps.len()).max().unwrap_or_default();
    for number in 0..most {
        for (client, stream) in clients.iter().zip(&mut streams) {
            if let Some(step) = client.steps.get(number) {
                client.act(step, stream, agent);
            }
        }
    }
    let mut half_closed = Vec::new();
    for (client, stream) in clients.iter().zip(streams) {
        match client.end {
            End::Close => drop(stream),
            End::Reset => reset(stream),
            End::HalfClose => {
                // Also beyond the limit, where the sensor may be gone: it may wait for the rest of a hello.
                let _ = stream.shutdown(Shutdown::Write);
                half_closed.push(stream);
            }
        }
    }
    for (client, port) in clients.iter().zip(ports) {
        let record = agent.expect_one(json!({
            "source_port": port, "destination_ip": client.address(), "destination_port": client.port,
        }));
        prop_assert!(client.fault(&record).is_none(), "{:?}: {client:?}\n{record}", client.fault(&record));
    }
    Ok(())
}

#[test]
fn any_sequence_of_client_actions_leaves_one_record_with_the_bytes_that_were_sent() {
    play_all("off");
}

#[test]
fn any_sequence_of_client_actions_leaves_the_same_record_where_tls_is_answered() {
    play_all("auto");
}

fn play_all(tls: &str) {
    let Some(net) = Net::new() else { return };
    net.redirect();
    let agent = net.agent().set("payload_limit_bytes", LIMIT).set("tls", tls).start();
    let config = Config { cases: 24, max_shrink_iters: 8, failure_persistence: None, ..Config::default() };
    let result = TestRunner::new(config).run(&vec(client(), 1..16), |clients| play(&net, &agent, &clients));
    if let Err(error) = result {
        panic!("{error}");
    }
    let log = agent.stop().log;
    let records = log.sessions().count() as u64;
    assert_eq!(log.connections(json!({})), records, "something was summarised");
    log.expect_sequence();
}
