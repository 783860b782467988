//! TLS: full handshakes of TLS 1.3 for each second of processor time, beside a bare tokio-rustls accept loop with the
//! same certificate, and the memory of idle sessions.
//!
//! Client and server share the machine, and a client's half of a handshake costs about as much as the server's. So
//! what counts is the server's own processor time, which is the same whether the other core is busy or not.

mod client;
mod floor;

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::json;
use spip_tests::{Agent, LISTENER, Net, SENSOR_V4, eventually, read_log};

use crate::process::{Cpu, cpu, memory_kb};

pub(crate) use floor::run as floor;

/// A certificate of each kind, made for the tests of the agent.
const CERTIFICATES: [(&str, &str, &str); 2] =
    [("ECDSA P-256", "ecdsa-chain.crt", "ecdsa-pkcs8.key"), ("RSA-2048", "rsa-chain.crt", "rsa-pkcs8.key")];

/// Clients at once.
const CONCURRENT: usize = 16;

struct Certificate {
    chain: PathBuf,
    key: PathBuf,
}

struct Round {
    handshakes: usize,
    seconds: f64,
    cpu: Cpu,
}

impl Round {
    /// Handshakes for each second of the server's processor time: what one core does.
    fn per_core(&self) -> f64 {
        self.handshakes as f64 / self.cpu.total().as_secs_f64().max(0.01)
    }
}

/// `rounds` rounds of `handshakes` each for every kind of certificate, floor and agent in turn; then `idle` sessions
/// that are held open.
pub(crate) fn run(handshakes: usize, rounds: usize, idle: usize) {
    println!("{handshakes} full handshakes of TLS 1.3 a round, {CONCURRENT} clients, behind REDIRECT");
    println!(
        "{:<14}{:<8}{:>14}{:>16}{:>10}{:>10}{:>10}",
        "", "", "handshakes/s", "per core and s", "CPU µs", "user", "system"
    );
    for (name, chain, key) in CERTIFICATES {
        let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../spip-agent/fixtures/tls");
        let certificate = Certificate { chain: fixtures.join(chain), key: fixtures.join(key) };
        let (mut floors, mut agents) = (Vec::new(), Vec::new());
        for _ in 0..rounds {
            floors.push(print(name, "floor", &floor_round(&certificate, handshakes)));
            agents.push(print(name, "agent", &agent_round(&certificate, handshakes)));
        }
        println!("{name}: agent to floor, medians per core: {:.2}", median(agents) / median(floors));
    }
    measure_idle(idle);
}

fn print(certificate: &str, server: &str, round: &Round) -> f64 {
    let micros = |part: Duration| part.as_secs_f64() * 1e6 / round.handshakes as f64;
    println!(
        "{certificate:<14}{server:<8}{:>14.0}{:>16.0}{:>10.1}{:>10.1}{:>10.1}",
        round.handshakes as f64 / round.seconds,
        round.per_core(),
        micros(round.cpu.total()),
        micros(round.cpu.user),
        micros(round.cpu.system),
    );
    round.per_core()
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn network() -> Net {
    let net = Net::new().expect("the benchmark needs root");
    net.redirect();
    net
}

fn agent(net: &Net, log: &Path, certificate: Option<&Certificate>) -> Agent {
    let mut launch = net
        .agent()
        .log_to(log)
        // As the floor: it decrypts and records, and writes no answer.
        .set("respond", "off")
        .set("max_sessions_per_source", 100_000)
        .set("rate_limit_per_second", 0)
        .set("first_byte_timeout_seconds", 300)
        .set("read_timeout_seconds", 300);
    if let Some(certificate) = certificate {
        // Of its own: root reads no certificate that the owner of a checkout may change.
        let copy = |path: &Path| {
            let copy = net.path().join(path.file_name().expect("a file"));
            std::fs::copy(path, &copy).expect("the directory is the benchmark's own");
            copy.to_str().expect("the paths of the project are text").to_owned()
        };
        launch = launch.set("cert_path", copy(&certificate.chain)).set("key_path", copy(&certificate.key));
    }
    launch.start()
}

fn measure(net: &Net, pid: u32, handshakes: usize) -> Round {
    // What a server does once, for its first clients, is no part of a rate.
    net.client.enter(|| client::handshakes(SENSOR_V4, CONCURRENT, CONCURRENT));
    let before = cpu(pid);
    let elapsed = net.client.enter(|| client::handshakes(SENSOR_V4, handshakes, CONCURRENT));
    Round { handshakes, seconds: elapsed.as_secs_f64(), cpu: cpu(pid).since(before) }
}

fn agent_round(certificate: &Certificate, handshakes: usize) -> Round {
    let net = network();
    let log = net.path().join("agent.log");
    let agent = agent(&net, &log, Some(certificate));
    let round = measure(&net, agent.pid(), handshakes);
    let _ended = agent.stop();
    let records = read_log(&log)
        .matching(&json!({"tls_version": "TLSv1.3", "bytes_in": client::PAYLOAD.len(), "tls_error": null}))
        .len();
    assert_eq!(records, handshakes + CONCURRENT, "every completed handshake has its record");
    round
}

fn floor_round(certificate: &Certificate, handshakes: usize) -> Round {
    let net = network();
    let floor = Floor::start(&net, certificate);
    measure(&net, floor.0.id(), handshakes)
}

/// Idle sessions after a completed handshake, with a certificate that the agent made.
fn measure_idle(sessions: usize) {
    let net = network();
    let log = net.path().join("agent.log");
    let agent = agent(&net, &log, None);
    // The first of them make what all share.
    let warm = net.client.enter(|| client::held(SENSOR_V4, 64));
    let before = memory_kb(agent.pid(), "RssAnon");
    let held = net.client.enter(|| client::held(SENSOR_V4, sessions));
    agent.wait_open(sessions + warm.len());
    agent.wait_all_read();
    let after = memory_kb(agent.pid(), "RssAnon");
    let each = (after.saturating_sub(before)) as f64 * 1024.0 / sessions as f64;
    println!("{sessions} idle TLS sessions: {before} kB before, {after} kB with them, {each:.0} bytes each");
    drop((held, warm));
    let _ended = agent.stop();
}

/// The floor's process, gone with this value.
struct Floor(Child);

impl Floor {
    fn start(net: &Net, certificate: &Certificate) -> Self {
        let program = std::env::current_exe().expect("own path");
        let mut child = net.sensor.enter(|| {
            Command::new(program)
                .args(["tls-floor", &LISTENER.to_string()])
                .args([&certificate.chain, &certificate.key])
                .stdout(Stdio::piped())
                .spawn()
                .expect("the floor starts")
        });
        let stdout = child.stdout.take().expect("piped");
        let line = BufReader::new(stdout).lines().next();
        assert!(matches!(line, Some(Ok(ready)) if ready == "ready"), "the floor listens");
        Self(child)
    }
}

impl Drop for Floor {
    fn drop(&mut self) {
        let _ = self.0.kill();
        eventually("the floor ends", || self.0.try_wait().ok().flatten());
    }
}
