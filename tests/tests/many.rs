//! Many sessions at once, and the end of an agent that holds them.

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use serde_json::json;
use spip_tests::{CROWD_V4, LISTENER, Net, SENSOR_V4, eventually, half_close, read_to_end};

/// Connections of a stop; a test process with fewer descriptors opens fewer, and reports it.
const MANY: usize = 10_000;

#[test]
fn a_stop_with_ten_thousand_open_sessions_records_them_all_within_the_drain_limit() {
    let Some(net) = Net::new() else { return };
    net.redirect();
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("a limit");
    let count = MANY.min(usize::try_from(hard).unwrap_or(MANY).saturating_sub(500));
    if count < MANY {
        eprintln!("{count} sessions instead of {MANY}: the limit of descriptors (ulimit -Hn) is {hard}");
    }
    net.sensor.sysctl("core/somaxconn", "16384");
    let agent = net
        .agent()
        .set("max_sessions_per_source", 20_000)
        .set("first_byte_timeout_seconds", 120)
        .set("drain_timeout_seconds", DRAIN.as_secs())
        .start();
    let ports = (0..count).map(|number| 1 + u16::try_from(number).expect("fewer than ports"));
    let streams = net.client.connect_all(ports.map(|port| (None, SocketAddr::new(SENSOR_V4, port))));
    assert_eq!(streams.len(), count);
    agent.wait_open(count);
    agent.wait_all_read();

    let asked = Instant::now();
    let ended = agent.stop();
    let took = asked.elapsed();

    // What cannot be written in time is given up, so every record says that the limit was kept by itself; that the
    // process was not there beyond it is what the clock says.
    assert!(took < DRAIN, "took {took:?}");
    ended.log.expect_count(count, json!({"close_reason": "shutdown"}));
    ended.log.expect_sequence();
}

/// Connections where the limit of descriptors allows them.
const VERY_MANY: usize = 100_000;

#[test]
fn a_hundred_thousand_sessions_are_held_while_others_are_served_and_each_is_recorded() {
    let Some(net) = Net::new() else { return };
    net.redirect();
    if let Err(why) = allow(VERY_MANY) {
        return eprintln!("skipped: {VERY_MANY} sessions need {why}");
    }
    net.add_crowd();
    net.sensor.sysctl("core/somaxconn", "16384");
    let agent = net
        .agent()
        .set("max_sessions_per_source", VERY_MANY)
        .set("first_byte_timeout_seconds", 3_600)
        .set("read_timeout_seconds", 3_600)
        .set("session_timeout_seconds", 3_600)
        .set("drain_timeout_seconds", 600)
        .start();
    let before = agent.resident_bytes();
    // NAT has 64,512 ports for the connections of one address.
    let source = |number: u32| IpAddr::V4(Ipv4Addr::from_bits(CROWD_V4.to_bits() + 1 + number / 10_000));
    let port = |number: u32| 1 + u16::try_from(number % 10_000).expect("fewer than ports");
    let pairs = (0..VERY_MANY as u32)
        .map(|number| (Some(SocketAddr::new(source(number), 0)), SocketAddr::new(SENSOR_V4, port(number))));
    let mut streams = net.client.connect_all(pairs);
    assert_eq!(streams.len(), VERY_MANY);
    agent.wait_open(VERY_MANY);
    eprintln!("{} bytes of memory for each", agent.resident_bytes().saturating_sub(before) / VERY_MANY as u64);

    net.client.deliver((SENSOR_V4, 20_000), b"one more");
    agent.expect_one(json!({"destination_port": 20_000, "payload": "one more"}));
    for mut stream in streams.drain(..1_000) {
        stream.write_all(b"after a long silence").expect("the sensor takes bytes");
        half_close(&stream);
        read_to_end(&mut stream);
    }
    agent.expect_count(1_000, json!({"payload": "after a long silence", "close_reason": "client_closed"}));

    let log = agent.stop().log;
    log.expect_count(VERY_MANY - 1_000, json!({"close_reason": "shutdown", "bytes_in": 0}));
    log.expect_sequence();
}

/// Raises this process's limit of descriptors, which the agent inherits, to one for so many connections, and asks
/// whether the kernel tracks as many; what is missing otherwise.
fn allow(connections: usize) -> Result<(), String> {
    let needed = connections as u64 + 1_000;
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).map_err(|error| error.to_string())?;
    if setrlimit(Resource::RLIMIT_NOFILE, needed.max(hard), needed.max(hard)).is_err() {
        return Err(format!("{needed} descriptors, and the limit (ulimit -Hn) is {hard}"));
    }
    let tracked =
        std::fs::read_to_string("/proc/sys/net/netfilter/nf_conntrack_max").map_err(|error| error.to_string())?;
    match tracked.trim().parse::<u64>() {
        Ok(most) if most >= needed => Ok(()),
        _ => Err(format!("connection tracking of {needed}, and net.netfilter.nf_conntrack_max is {}", tracked.trim())),
    }
}

/// Longer than a busy machine needs, so that only an agent that waits for something else takes longer.
const DRAIN: Duration = Duration::from_secs(25);

#[test]
fn a_restart_behind_a_passed_socket_refuses_no_connection() {
    let Some(net) = Net::new() else { return };
    net.redirect();
    let socket = net.sensor.enter(|| TcpListener::bind(("::", LISTENER)).expect("a free port"));
    let launch = net.agent().listening(&socket);
    let first = launch.clone().start();
    net.client.deliver((SENSOR_V4, 80), b"to the first");
    first.expect_one(json!({"payload": "to the first", "destination_port": 80}));
    let _ = first.stop();

    // No agent accepts now; the kernel completes the connection all the same.
    let mut between = net.connect(81);
    between.write_all(b"in between").expect("the kernel takes bytes");
    half_close(&between);

    let second = launch.start();
    second.expect_one(json!({"payload": "in between", "destination_port": 81}));
    read_to_end(&mut between);
    net.client.deliver((SENSOR_V4, 82), b"to the second");
    second.expect_one(json!({"payload": "to the second", "destination_port": 82}));
    let _ = second.stop();
}

#[test]
fn connections_that_wait_in_the_backlog_at_a_stop_are_recorded_or_refused_but_never_swallowed() {
    let Some(net) = Net::new() else { return };
    net.redirect();
    let agent = net.agent().start();
    // A stopped process accepts nothing: these wait in the backlog, complete, with bytes.
    agent.pause();
    let mut streams = net.client.connect_all((0..50).map(|number| (None, SocketAddr::new(SENSOR_V4, 1000 + number))));
    for stream in &mut streams {
        stream.write_all(b"waiting").expect("the kernel takes bytes");
    }
    eventually("the bytes of all have arrived", || {
        let sockets = net.sensor.shell("cat /proc/thread-self/net/tcp6");
        (sockets.matches(":00000007").count() == 50).then_some(())
    });
    agent.signal(nix::sys::signal::Signal::SIGTERM);
    agent.signal(nix::sys::signal::Signal::SIGCONT);
    let ended = agent.wait();
    assert!(ended.status.success(), "{}", ended.stderr);
    ended.log.expect_count(50, json!({"payload": "waiting"}));
}

#[test]
fn those_who_are_refused_from_the_backlog_at_a_stop_are_counted_too() {
    let Some(net) = Net::new() else { return };
    net.redirect();
    let agent = net.agent().set("max_sessions_per_source", 5).start();
    agent.pause();
    let streams = net.client.connect_all((0..50).map(|number| (None, SocketAddr::new(SENSOR_V4, 1000 + number))));
    assert_eq!(streams.len(), 50);
    agent.signal(nix::sys::signal::Signal::SIGTERM);
    agent.signal(nix::sys::signal::Signal::SIGCONT);
    let ended = agent.wait();
    assert!(ended.status.success(), "{}", ended.stderr);
    assert_eq!(ended.log.connections(json!({"close_reason": "rejected", "limit": "max_sessions_per_source"})), 45);
    assert_eq!(ended.log.connections(json!({})), 50);
    ended.log.expect_sequence();
}
