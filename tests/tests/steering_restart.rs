//! Steering that outlives the agent (`pin_links`): restarts, crashes, take-over, and what is left when nobody comes.

use std::io::{ErrorKind, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use serde_json::{Value, json};
use spip_tests::{LISTENER, Launch, Net, PATIENCE, SENSOR_V4, half_close, read_to_end};

fn pinned(net: &Net) -> Launch<'_> {
    net.agent().set("ip", "127.0.0.1").set("steering", "sk_lookup").set("pin_links", true)
}

/// Clients that come one after the other, each from two threads, until they are stopped.
struct Clients {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Visits>>,
}

/// What clients have sent, and what went wrong.
#[derive(Default)]
struct Visits {
    sent: Vec<String>,
    failed: Vec<String>,
}

impl Clients {
    fn start(net: &Net) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let threads = (0..2)
            .map(|number| {
                let stopped = Arc::clone(&stop);
                // The thread that enters starts another one, which stays where it was started.
                net.client.enter(|| thread::spawn(move || visits(number, &stopped)))
            })
            .collect();
        Self { stop, threads }
    }

    fn end(self) -> Visits {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = Visits::default();
        for thread in self.threads {
            let visits = thread.join().expect("the clients go on");
            all.sent.extend(visits.sent);
            all.failed.extend(visits.failed);
        }
        all
    }
}

fn visits(thread: u32, stop: &AtomicBool) -> Visits {
    let mut visits = Visits::default();
    let mut number = 0_u32;
    while !stop.load(Ordering::Relaxed) {
        number += 1;
        let name = format!("visit {thread}.{number}");
        match visit(&name, 1000 + u16::try_from(number % 5000).expect("small")) {
            Ok(()) => visits.sent.push(name),
            Err(error) => visits.failed.push(format!("{name}: {error}")),
        }
        thread::sleep(Duration::from_millis(2));
    }
    visits
}

fn visit(name: &str, port: u16) -> std::io::Result<()> {
    let mut stream = TcpStream::connect_timeout(&SocketAddr::new(SENSOR_V4, port), PATIENCE)?;
    stream.write_all(name.as_bytes())?;
    stream.shutdown(std::net::Shutdown::Write)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    std::io::copy(&mut stream, &mut std::io::sink()).map(drop)
}

/// How a connection attempt ends.
fn attempt(net: &Net) -> Result<TcpStream, ErrorKind> {
    net.client.enter(|| TcpStream::connect_timeout(&(SENSOR_V4, 81).into(), PATIENCE)).map_err(|error| error.kind())
}

fn link_pins(net: &Net) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(net.pins()).into_iter().flatten().flatten().map(|entry| entry.path());
    entries.filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("steer_"))).collect()
}

fn network() -> Option<Net> {
    let net = Net::new()?;
    if !net.has_bpffs() {
        eprintln!("skipped: this kernel mounts no BPF file system");
        return None;
    }
    Some(net)
}

/// Asserts that each visit has exactly one record in all of these.
fn expect_each_once(visits: &Visits, records: &[&Value]) {
    assert!(visits.failed.is_empty(), "{} visits failed: {:?}", visits.failed.len(), &visits.failed[..1]);
    assert!(visits.sent.len() > 20, "only {} visits", visits.sent.len());
    let mut found: Vec<&str> = records.iter().filter_map(|record| record["payload"].as_str()).collect();
    let mut sent: Vec<&str> = visits.sent.iter().map(String::as_str).collect();
    found.sort_unstable();
    sent.sort_unstable();
    let missing: Vec<_> = sent.iter().filter(|name| found.binary_search(name).is_err()).take(5).collect();
    assert!(missing.is_empty(), "no record of {missing:?}");
    assert_eq!(found.len(), sent.len(), "records are doubled");
}

#[test]
fn a_new_agent_takes_over_from_one_that_runs_and_no_connection_is_refused() {
    let Some(net) = network() else { return };
    let old = pinned(&net).start();
    let clients = Clients::start(&net);
    thread::sleep(Duration::from_millis(300));
    let new = pinned(&net).start();
    // The old one sees it, records what it has, and ends in order by itself.
    old.wait_message(json!({"message": "another agent has taken over: this one records what it has and stops"}));
    let old = old.wait();
    assert!(old.status.success(), "{}", old.stderr);
    thread::sleep(Duration::from_millis(300));
    let visits = clients.end();
    let new = new.stop();
    let records: Vec<&Value> = old.log.sessions().chain(new.log.sessions()).map(|line| &line.value).collect();
    expect_each_once(&visits, &records);
    assert!(old.log.sessions().count() > 0 && new.log.sessions().count() > 0);
    for record in records {
        assert_eq!(record["destination_source"], "socket", "{record}");
    }
    assert_eq!(link_pins(&net).len(), 1);
}

#[test]
fn after_a_crash_ports_behave_as_before_until_the_next_agent_replaces_the_stale_pin() {
    let Some(net) = network() else { return };
    let _ = pinned(&net).start().kill();
    let stale = link_pins(&net);
    assert_eq!(stale.len(), 1);
    assert_eq!(attempt(&net).err(), Some(ErrorKind::ConnectionRefused));
    // A service that begins now has its port, though nobody keeps exclusions current any more.
    let service = net.sensor.enter(|| TcpListener::bind((Ipv4Addr::UNSPECIFIED, 81))).expect("the port is free");
    attempt(&net).expect("the service listens");
    drop(service);

    let agent = pinned(&net).start();
    assert_eq!(link_pins(&net), stale, "the pin has the same name");
    net.client.deliver((SENSOR_V4, 82), b"after");
    agent.expect_one(json!({"payload": "after", "destination_port": 82, "destination_source": "socket"}));
}

#[test]
fn a_pin_that_is_something_else_is_replaced_too() {
    let Some(net) = network() else { return };
    let _ = pinned(&net).start().kill();
    let pin = link_pins(&net).remove(0);
    std::fs::remove_file(&pin).expect("the pin is ours");
    // The last name of the link is gone, and with it steering.
    assert_eq!(attempt(&net).err(), Some(ErrorKind::ConnectionRefused));
    std::fs::create_dir(&pin).expect("a directory on the BPF file system");
    std::fs::remove_dir(&pin).expect("ours");
    let counters = net.pins().join("COUNTERS");
    std::fs::rename(counters, &pin).expect("a map under the name of the link");
    let agent = pinned(&net).start();
    net.client.deliver((SENSOR_V4, 82), b"mine");
    agent.expect_one(json!({"payload": "mine", "destination_port": 82}));
}

#[test]
fn an_agent_without_pinned_links_takes_the_stale_pin_away() {
    let Some(net) = network() else { return };
    let _ = pinned(&net).start().kill();
    assert_eq!(link_pins(&net).len(), 1);
    let agent = pinned(&net).set("pin_links", false).start();
    assert_eq!(link_pins(&net), Vec::<PathBuf>::new());
    net.client.deliver((SENSOR_V4, 82), b"unpinned");
    agent.expect_one(json!({"payload": "unpinned"}));
    let _ = agent.kill();
    assert_eq!(attempt(&net).err(), Some(ErrorKind::ConnectionRefused));
}

#[test]
fn an_operator_who_removes_the_pin_ends_steering_and_is_told() {
    let Some(net) = network() else { return };
    let agent = pinned(&net).start();
    std::fs::remove_file(link_pins(&net).remove(0)).expect("root may");
    agent.wait_message(json!({
        "message": "the pinned link was removed: nothing is steered any more; restart the agent to steer again",
    }));
    assert_eq!(attempt(&net).err(), Some(ErrorKind::ConnectionRefused));
    assert!(agent.stop().status.success());
}

#[test]
fn with_a_socket_of_the_service_manager_restarts_and_crashes_refuse_nobody() {
    let Some(net) = network() else { return };
    let local = (IpAddr::V4(Ipv4Addr::LOCALHOST), LISTENER);
    let socket = net.sensor.enter(|| TcpListener::bind(local)).expect("the port is free");
    let launch = || pinned(&net).listening(&socket);
    let first = launch().start();
    let clients = Clients::start(&net);
    let mut logs = Vec::new();
    thread::sleep(Duration::from_millis(300));
    logs.push(first.stop().log);
    thread::sleep(Duration::from_millis(300));
    let second = launch().start();
    thread::sleep(Duration::from_millis(300));
    let visits = clients.end();
    // A crash loses what waits to be written, at most 200 ms of records: it comes when all are.
    for thread in 0..2 {
        let last = visits.sent.iter().rfind(|name| name.starts_with(&format!("visit {thread}.")));
        second.expect_one(json!({"payload": last.expect("each thread has been there")}));
    }
    logs.push(second.kill().log);
    let mut waiting = net.connect(83);
    waiting.write_all(b"while nobody was there").expect("the kernel takes bytes");
    half_close(&waiting);
    let third = launch().start();
    third.expect_one(json!({
        "payload": "while nobody was there", "destination_port": 83, "destination_source": "socket",
    }));
    read_to_end(&mut waiting);
    let records: Vec<&Value> = logs.iter().flat_map(|log| log.sessions()).map(|line| &line.value).collect();
    expect_each_once(&visits, &records);
}

#[test]
fn without_a_bpf_file_system_pinned_links_are_an_error_that_names_the_key() {
    let Some(net) = network() else { return };
    let ended = pinned(&net).set("bpf_pin_path", "/proc/spip").run();
    assert_eq!(ended.status.code(), Some(1));
    let text = ended.stderr + &ended.log.text();
    assert!(text.contains("pin_links = true needs bpf_pin_path") && text.contains("mount -t bpf"), "{text}");
}
