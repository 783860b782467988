//! Steering that outlives the agent (`pin_links`): restarts, crashes, take-over, and what is left without a successor.

use std::fs::{self, File};
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use serde_json::{Value, json};
use spip_tests::{LISTENER, Launch, Net, PATIENCE, SENSOR_V4, eventually, half_close, read_to_end};

fn pinned(net: &Net) -> Launch<'_> {
    net.agent().set("ip", "127.0.0.1").set("steering", "sk_lookup").set("pin_links", true)
}

/// Clients that come one after the other, each from two threads, until they are stopped.
struct Clients {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Visits>>,
}

/// Records of the clients, and their errors.
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
    // A client is not always as fast as the accept: a stop may come in between.
    thread::sleep(Duration::from_millis(1));
    stream.write_all(name.as_bytes())?;
    stream.shutdown(std::net::Shutdown::Write)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    std::io::copy(&mut stream, &mut std::io::sink()).map(drop)
}

/// Attempts a connection and returns its end.
fn attempt(net: &Net) -> Result<TcpStream, ErrorKind> {
    net.client.enter(|| TcpStream::connect_timeout(&(SENSOR_V4, 81).into(), PATIENCE)).map_err(|error| error.kind())
}

fn link_pins(net: &Net) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(net.pins()).into_iter().flatten().flatten().map(|entry| entry.path());
    entries.filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("steer_"))).collect()
}

/// Waits until an agent has the lock on the directory of pins.
fn wait_pins_taken(net: &Net) {
    eventually("an agent has the directory of pins", || {
        let directory = File::open(net.pins()).expect("there is a directory");
        match Flock::lock(directory, FlockArg::LockExclusiveNonblock) {
            Ok(_) => None,
            Err((_, error)) => (error == Errno::EWOULDBLOCK).then_some(()),
        }
    });
}

/// Returns the output of `spip-agent status --json`.
fn report(launch: &Launch<'_>) -> Value {
    let ended = launch.clone().arguments(&["status", "--config", "{config}", "--json"]).run();
    serde_json::from_str(&ended.log.torn.join("\n")).expect("JSON")
}

/// The page of the metrics, as `stream` answers.
fn metrics(mut stream: impl Read + Write) -> String {
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").expect("the agent takes a request");
    let mut page = String::new();
    stream.read_to_string(&mut page).expect("the agent answers");
    assert!(page.starts_with("HTTP/1.1 200 OK"), "{page}");
    page
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
    old.wait_message(json!({"message": "another agent has taken over: this one records its open sessions and stops"}));
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
fn with_metrics_a_new_agent_takes_over_and_answers_for_itself() {
    let Some(net) = network() else { return };
    let socket = net.path().join("metrics.sock");
    let local: SocketAddr = (Ipv4Addr::LOCALHOST, 9464).into();
    for (address, unix) in [(local.to_string(), false), (socket.to_str().expect("text").to_owned(), true)] {
        let launch = pinned(&net).set("metrics", address.as_str());
        let ask = || match unix {
            true => metrics(UnixStream::connect(&socket).expect("an agent listens")),
            false => metrics(net.sensor.enter(|| TcpStream::connect(local)).expect("an agent listens")),
        };
        let old = launch.clone().start();
        net.client.deliver((SENSOR_V4, 81), b"old");
        old.expect_one(json!({"payload": "old"}));
        let counted = |page: &str, count: u32| {
            let line = format!("spip_sessions_total{{close_reason=\"client_closed\"}} {count}\n");
            assert!(page.contains(&line), "{line} in {page}");
        };
        counted(&ask(), 1);
        let new = launch.start();
        assert!(old.wait().status.success());
        counted(&ask(), 0);
        net.client.deliver((SENSOR_V4, 81), b"new");
        new.expect_one(json!({"payload": "new"}));
        counted(&ask(), 1);
        assert!(new.stop().status.success());
    }
}

#[test]
fn a_new_agent_that_cannot_go_on_takes_nothing_from_the_one_that_runs() {
    let Some(net) = network() else { return };
    let metrics_socket = net.path().join("metrics.sock");
    let launch = pinned(&net).set("metrics", metrics_socket.to_str().expect("text"));
    let old = launch.clone().start();
    net.client.deliver((SENSOR_V4, 81), b"before");
    old.expect_one(json!({"payload": "before"}));
    let link = fs::metadata(link_pins(&net).remove(0)).expect("the link");
    // What is found out before anything is opened, no such user; and by the last steps only, a log out of a user's
    // reach.
    let log = net.path().join("root's own");
    fs::create_dir(&log).expect("the test's directory is its own");
    let unknown = launch.clone().set("user", "no-such-user");
    let out_of_reach = launch.clone().set("user", "nobody").set("sandbox", "required").log_to(&log.join("log"));
    let not_taken = "cannot take over from the running agent";
    for (new, status, why) in [(unknown, 2, ["no such user"; 2]), (out_of_reach, 1, ["cannot write to", not_taken])] {
        let ended = new.run();
        assert_eq!(ended.status.code(), Some(status));
        let text = ended.stderr + &ended.log.text();
        assert!(why.iter().all(|why| text.contains(why)), "{text}");
    }
    let left = fs::metadata(link_pins(&net).remove(0)).expect("the link");
    assert_eq!(std::os::unix::fs::MetadataExt::ino(&left), std::os::unix::fs::MetadataExt::ino(&link));
    net.client.deliver((SENSOR_V4, 82), b"after");
    old.expect_one(json!({"payload": "after"}));
    // Nor the sockets on which it is asked, nor the maps under their names.
    assert_eq!(report(&launch)["agent"]["pid"], old.pid());
    let _ = metrics(UnixStream::connect(&metrics_socket).expect("the agent listens"));
    assert_eq!(report(&launch.clone().set("status_socket", "off"))["steered"]["steered"], 2);
    let names = fs::read_dir(net.pins()).expect("the pins").map(|entry| entry.expect("an entry").file_name());
    let left: Vec<_> = names.filter(|name| name.to_string_lossy().ends_with("_new")).collect();
    assert!(left.is_empty(), "{left:?}");
    let old = old.stop();
    assert!(!old.log.text().contains("another agent has taken over"), "{}", old.log.text());
}

#[test]
fn an_agent_that_has_taken_over_has_the_pins_and_another_one_leaves_them_alone() {
    let Some(net) = network() else { return };
    let old = pinned(&net).start();
    for payload in ["one", "two"] {
        net.client.deliver((SENSOR_V4, 81), payload.as_bytes());
        old.expect_one(json!({"payload": payload}));
    }
    let new = pinned(&net).start();
    assert!(old.wait().status.success());
    net.client.deliver((SENSOR_V4, 81), b"three");
    new.expect_one(json!({"payload": "three"}));
    // Under their names are the maps of the agent that works.
    let report = report(&pinned(&net).set("status_socket", "off"));
    assert_eq!(report["counters_from"], "pins");
    assert_eq!((&report["steered"]["steered"], &report["kernel"]["passive"]), (&json!(1), &json!(1)), "{report}");
    wait_pins_taken(&net);

    // An agent beside it, without a pin of its own, takes away neither link nor steering.
    let links = link_pins(&net);
    let beside = pinned(&net).set("pin_links", false).set("port", 20_001).set("status_socket", "off").start();
    beside.wait_message(json!({"target": "steering", "level": "warn"}));
    assert_eq!(link_pins(&net), links);
    net.client.deliver((SENSOR_V4, 81), b"four");
    new.expect_one(json!({"payload": "four"}));
    assert!(beside.stop().status.success());
    net.client.deliver((SENSOR_V4, 81), b"five");
    new.expect_one(json!({"payload": "five"}));
}

#[test]
fn after_a_crash_ports_behave_as_before_until_the_next_agent_replaces_the_stale_pin() {
    let Some(net) = network() else { return };
    let _ = pinned(&net).start().kill();
    let stale = link_pins(&net);
    assert_eq!(stale.len(), 1);
    assert_eq!(attempt(&net).err(), Some(ErrorKind::ConnectionRefused));
    // A service that begins now has its port, though no agent keeps exclusions current any more.
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
    eventually("nothing is steered", || (attempt(&net).err() == Some(ErrorKind::ConnectionRefused)).then_some(()));
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
    let launch = pinned(&net);
    let agent = launch.clone().start();
    assert_eq!(report(&launch)["agent"]["programs"]["steer"], "attached");
    std::fs::remove_file(link_pins(&net).remove(0)).expect("root may");
    agent.wait_message(json!({
        "message": "the pinned link was removed: steering has ended; restart the agent to steer again",
    }));
    // The kernel detaches the program a little later, when the link is no longer used.
    eventually("nothing is steered", || (attempt(&net).err() == Some(ErrorKind::ConnectionRefused)).then_some(()));
    let says = report(&launch);
    let steer = says["agent"]["programs"]["steer"].as_str().expect("text");
    assert!(steer.starts_with("removed: "), "{says}");
    assert_eq!(says["agent"]["steering"]["pinned_link"], Value::Null, "{says}");
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
