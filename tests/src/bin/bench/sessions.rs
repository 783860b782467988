//! Short sessions: the agent behind REDIRECT with eBPF on, beside the floor behind the same rules.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use serde_json::json;
use spip_tests::{LISTENER, Net, eventually, read_log};

use crate::load::{self, Load, Outcome};
use crate::process::{Cpu, cpu, memory_kb};

const CONCURRENT: usize = 200;

/// 100 bytes that look like a scanner's request.
const HTTP_LIKE: &[u8] =
    b"GET /login?next=%2F HTTP/1.1\r\nHost: 198.51.100.1\r\nUser-Agent: Mozilla/5.0 zgrab/0.x\r\nAccept: */*\r\n\r\n  ";

struct Round {
    outcome: Outcome,
    cpu: Cpu,
    peak_kb: u64,
    /// Lines in the log for sessions; the floor buffers its own, so it has none to compare.
    records: Option<usize>,
}

impl Round {
    fn micros_per_session(&self, part: impl Fn(Cpu) -> std::time::Duration) -> f64 {
        part(self.cpu).as_secs_f64() * 1e6 / self.outcome.completed.max(1) as f64
    }
}

/// Runs `rounds` rounds of `sessions` sessions each, the floor and the agent in turn, and prints the comparison.
pub(crate) fn run(sessions: usize, rounds: usize) {
    println!("{sessions} sessions of {} bytes a round, {CONCURRENT} at once, behind REDIRECT", HTTP_LIKE.len());
    println!(
        "{:<8}{:>12}{:>12}{:>10}{:>10}{:>9}{:>9}{:>10}{:>10}",
        "", "sessions/s", "CPU µs", "user", "system", "p50 µs", "p99 µs", "peak MB", "records"
    );
    let (mut floors, mut agents) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        floors.push(print("floor", floor(sessions)));
        agents.push(print("agent", agent(sessions)));
    }
    let rate = |rounds: &[Round]| median(rounds.iter().map(|round| round.outcome.rate()).collect());
    let cpu = |rounds: &[Round]| median(rounds.iter().map(|r| r.micros_per_session(Cpu::total)).collect());
    println!(
        "agent to floor, medians: sessions/s {:.2}, CPU per session {:.2}",
        rate(&agents) / rate(&floors),
        cpu(&agents) / cpu(&floors)
    );
    let missing = agents.iter().any(|round| round.records != Some(round.outcome.completed));
    println!("{}", if missing { "NOT every completed session has its record" } else { "every session has its record" });
}

fn print(name: &str, round: Round) -> Round {
    println!(
        "{name:<8}{:>12.0}{:>12.1}{:>10.1}{:>10.1}{:>9}{:>9}{:>10.1}{:>10}",
        round.outcome.rate(),
        round.micros_per_session(Cpu::total),
        round.micros_per_session(|cpu| cpu.user),
        round.micros_per_session(|cpu| cpu.system),
        round.outcome.percentile(0.5),
        round.outcome.percentile(0.99),
        round.peak_kb as f64 / 1e3,
        round.records.map_or_else(|| "-".to_owned(), |records| records.to_string()),
    );
    if round.outcome.failed > 0 {
        println!("        {} sessions failed", round.outcome.failed);
    }
    round
}

fn floor(sessions: usize) -> Round {
    let net = network();
    let log = net.path().join("floor.log");
    let mut child = Floor::start(&net, &log);
    let pid = child.0.id();
    let (outcome, cpu) = measure(&net, pid, sessions);
    let peak_kb = memory_kb(pid, "VmHWM");
    child.stop();
    Round { outcome, cpu, peak_kb, records: None }
}

fn agent(sessions: usize) -> Round {
    let net = network();
    let log = net.path().join("agent.log");
    let agent = net.agent().without_schema().log_to(&log).set("max_sessions_per_source", 100_000).start();
    let pid = agent.pid();
    let (outcome, cpu) = measure(&net, pid, sessions);
    let peak_kb = memory_kb(pid, "VmHWM");
    let _ended = agent.stop();
    let records = read_log(&log).matching(&json!({"bytes_in": HTTP_LIKE.len(), "destination_source": "ebpf"})).len();
    Round { outcome, cpu, peak_kb, records: Some(records) }
}

/// Fresh namespaces, so that connection tracking starts empty.
fn network() -> Net {
    let net = Net::new().expect("the benchmark needs root");
    net.add_crowd();
    net.redirect();
    net
}

fn measure(net: &Net, pid: u32, sessions: usize) -> (Outcome, Cpu) {
    let load = Load { sessions, concurrent: CONCURRENT, payload: HTTP_LIKE.to_vec(), port: None };
    let before = cpu(pid);
    let outcome = net.client.enter(|| load::run(&load));
    (outcome, cpu(pid).since(before))
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// The floor's process, gone with this value.
struct Floor(Child);

impl Floor {
    fn start(net: &Net, log: &std::path::Path) -> Self {
        let program = std::env::current_exe().expect("own path");
        let mut child = net.sensor.enter(|| {
            Command::new(program)
                .args(["floor", &LISTENER.to_string()])
                .arg(log)
                .stdout(Stdio::piped())
                .spawn()
                .expect("the floor starts")
        });
        let stdout = child.stdout.take().expect("piped");
        let line = BufReader::new(stdout).lines().next();
        assert!(matches!(line, Some(Ok(ready)) if ready == "ready"), "the floor listens");
        Self(child)
    }

    fn stop(&mut self) {
        let _ = self.0.kill();
        eventually("the floor ends", || self.0.try_wait().ok().flatten());
    }
}

impl Drop for Floor {
    fn drop(&mut self) {
        let _ = self.0.kill();
    }
}
