//! Short sessions: the agent with eBPF on, beside the floor. Both behind REDIRECT, or, to compare ways of steering, the
//! agent both ways and the floor twice: behind REDIRECT, and asked directly, without anything in between.
//!
//! Connection tracking gets slower as it fills: ways of steering are compared when it has seen many sessions already.

use std::io::{BufRead, BufReader};
use std::net::{Ipv6Addr, SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};

use serde_json::json;
use socket2::{Domain, Socket, Type};
use spip_tests::{LISTENER, Net, eventually, read_log};

use crate::load::{self, Load, Outcome};
use crate::packets;
use crate::process::{Cpu, cpu, memory_kb};

const CONCURRENT: usize = 200;

/// 100 bytes that look like a scanner's request.
const HTTP_LIKE: &[u8] =
    b"GET /login?next=%2F HTTP/1.1\r\nHost: 198.51.100.1\r\nUser-Agent: Mozilla/5.0 zgrab/0.x\r\nAccept: */*\r\n\r\n  ";

struct Round {
    outcome: Outcome,
    /// Sessions completed before the measurement.
    before: usize,
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
    header();
    let (mut floors, mut agents, mut talking) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..rounds {
        floors.push(print("floor", floor(Way::Redirect, sessions, Client::Sockets)));
        agents.push(print("agent", agent(Way::Redirect, sessions, Client::Sockets, Talk::Silent)));
        talking.push(print("answers", agent(Way::Redirect, sessions, Client::Sockets, Talk::Answers)));
    }
    println!(
        "agent that says nothing, as the floor, to floor, medians: sessions/s {:.2}, CPU per session {:.2}",
        rate(&agents) / rate(&floors),
        cpu_micros(&agents) / cpu_micros(&floors)
    );
    println!(
        "agent that answers each session to one that says nothing, medians: sessions/s {:.2}, CPU per session {:.2}",
        rate(&talking) / rate(&agents),
        cpu_micros(&talking) / cpu_micros(&agents)
    );
    say_missing(agents.iter().chain(&talking));
}

fn header() {
    println!(
        "{:<8}{:>12}{:>12}{:>10}{:>10}{:>9}{:>9}{:>10}{:>10}",
        "", "sessions/s", "CPU µs", "user", "system", "p50 µs", "p99 µs", "peak MB", "records"
    );
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

/// Replies of the agent: on or off.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Talk {
    /// `respond = "off"`: it reads and records, as the floor reads and logs.
    Silent,
    /// Everything on, as it is shipped.
    Answers,
}

/// Programs that make the sessions.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Client {
    /// Sockets, as any client has.
    Sockets,
    /// Packets made by hand, which leave the machine to the sensor; the first `warm` sessions are not measured.
    Packets { warm: usize },
}

/// Ways in which connections reach the process that is measured.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    /// Many ports behind REDIRECT.
    Redirect,
    /// Many ports by `sk_lookup`.
    SkLookup,
    /// Many ports by `sk_lookup`, to one listening socket that all workers share instead of one each.
    OneSocket,
    /// One port, its own.
    Direct,
}

/// Runs `rounds` rounds of each way with `sessions` sessions after `warm` others, and prints the comparison.
pub(crate) fn compare_steering(sessions: usize, warm: usize, rounds: usize) {
    println!(
        "{sessions} sessions of {} bytes a round after {warm} others, {CONCURRENT} at once; floor and agent behind \
         REDIRECT, floor asked directly, agent with sk_lookup, the same with one listening socket for all cores",
        HTTP_LIKE.len()
    );
    header();
    let (mut floors, mut redirects, mut directs) = (Vec::new(), Vec::new(), Vec::new());
    let (mut lookups, mut shared) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        let client = Client::Packets { warm };
        floors.push(print("floor", floor(Way::Redirect, sessions, client)));
        redirects.push(print("redirect", agent(Way::Redirect, sessions, client, Talk::Silent)));
        directs.push(print("direct", floor(Way::Direct, sessions, client)));
        lookups.push(print("lookup", agent(Way::SkLookup, sessions, client, Talk::Silent)));
        shared.push(print("shared", agent(Way::OneSocket, sessions, client, Talk::Silent)));
    }
    println!("sk_lookup to REDIRECT, same agent, medians: sessions/s {:.2}", rate(&lookups) / rate(&redirects));
    println!(
        "sk_lookup to floor, medians: CPU per session {:.2} behind REDIRECT, {:.2} asked directly; sessions/s {:.2}, {:.2}",
        cpu_micros(&lookups) / cpu_micros(&floors),
        cpu_micros(&lookups) / cpu_micros(&directs),
        rate(&lookups) / rate(&floors),
        rate(&lookups) / rate(&directs),
    );
    println!(
        "a socket for each core to one for all, sk_lookup, medians: sessions/s {:.2}, CPU per session {:.2}",
        rate(&lookups) / rate(&shared),
        cpu_micros(&lookups) / cpu_micros(&shared),
    );
    say_missing(redirects.iter().chain(&lookups).chain(&shared));
}

fn say_missing<'r>(mut rounds: impl Iterator<Item = &'r Round>) {
    let missing = rounds.any(|round| round.records < Some(round.outcome.completed + round.before));
    println!("{}", if missing { "NOT every completed session has its record" } else { "every session has its record" });
}

fn floor(way: Way, sessions: usize, client: Client) -> Round {
    let net = network(way, client);
    let log = net.path().join("floor.log");
    let mut child = Floor::start(&net, &log);
    let round = measure(&net, child.0.id(), way, sessions, client);
    child.stop();
    round
}

fn agent(way: Way, sessions: usize, client: Client, talk: Talk) -> Round {
    let net = network(way, client);
    let log = net.path().join("agent.log");
    let launch = net.agent().without_schema().log_to(&log).set("max_sessions_per_source", 100_000);
    let launch = if talk == Talk::Silent { launch.set("respond", "off") } else { launch };
    let socket = net.sensor.enter(|| (way == Way::OneSocket).then(listening));
    let (launch, source) = match way {
        Way::SkLookup => (launch.set("steering", "sk_lookup"), "socket"),
        Way::OneSocket => {
            let socket = socket.as_ref().expect("made for this way");
            (launch.set("steering", "sk_lookup").listening(socket), "socket")
        }
        Way::Redirect | Way::Direct => (launch, "ebpf"),
    };
    let agent = launch.start();
    let round = measure(&net, agent.pid(), way, sessions, client);
    let _ended = agent.stop();
    let records = read_log(&log).matching(&json!({"bytes_in": HTTP_LIKE.len(), "destination_source": source})).len();
    Round { records: Some(records), ..round }
}

/// A socket as the agent makes its own, to be handed over.
fn listening() -> TcpListener {
    let socket = Socket::new(Domain::IPV6, Type::STREAM, None).expect("a socket");
    socket.set_only_v6(false).expect("both families");
    socket.bind(&SocketAddr::from((Ipv6Addr::UNSPECIFIED, LISTENER)).into()).expect("the port is free");
    socket.listen(65_535).expect("a socket listens");
    socket.into()
}

/// Fresh namespaces, so that connection tracking starts empty.
fn network(way: Way, client: Client) -> Net {
    let net = Net::new().expect("the benchmark needs root");
    match client {
        Client::Sockets => net.add_crowd(),
        Client::Packets { .. } => packets::add_sources(&net),
    }
    if way == Way::Redirect {
        net.redirect();
    }
    net
}

fn measure(net: &Net, pid: u32, way: Way, sessions: usize, client: Client) -> Round {
    let port = (way == Way::Direct).then_some(LISTENER);
    let run = |first, sessions| {
        let load = Load { first, sessions, concurrent: CONCURRENT, payload: HTTP_LIKE.to_vec(), port };
        net.client.enter(|| match client {
            Client::Sockets => load::run(&load),
            Client::Packets { .. } => packets::run(&load),
        })
    };
    let warm = if let Client::Packets { warm } = client { warm } else { 0 };
    let before = if warm > 0 { run(0, warm).completed } else { 0 };
    let cpu_before = cpu(pid);
    let outcome = run(warm, sessions);
    let peak_kb = memory_kb(pid, "VmHWM");
    Round { outcome, before, cpu: cpu(pid).since(cpu_before), peak_kb, records: None }
}

fn rate(rounds: &[Round]) -> f64 {
    median(rounds.iter().map(|round| round.outcome.rate()).collect())
}

fn cpu_micros(rounds: &[Round]) -> f64 {
    median(rounds.iter().map(|round| round.micros_per_session(Cpu::total)).collect())
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
