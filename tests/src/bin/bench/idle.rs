//! Idle connections: what each costs in memory of the agent.

use std::net::{Ipv4Addr, SocketAddr};

use spip_tests::{CROWD_V4, Net, SENSOR_V4};

use crate::process::memory_kb;

/// Holds `connections` silent connections open and prints what they cost; they are as many as descriptors allow.
pub(crate) fn run(connections: usize) {
    let net = Net::new().expect("the benchmark needs root");
    net.add_crowd();
    net.redirect();
    let log = net.path().join("agent.log");
    let agent = net
        .agent()
        .log_to(&log)
        .set("first_byte_timeout_seconds", 300)
        .set("session_timeout_seconds", 300)
        .set("max_sessions_per_source", 100_000)
        .start();
    let before = memory_kb(agent.pid(), "RssAnon");
    let held = net.client.enter(|| {
        let mut held = Vec::with_capacity(connections);
        for number in 0..connections {
            let source = Ipv4Addr::from(u32::from(CROWD_V4) + 1 + (number % 64) as u32);
            let port = 1_000 + (number % 2_000) as u16;
            let socket =
                socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a descriptor");
            nix::sys::socket::setsockopt(&socket, nix::sys::socket::sockopt::IpBindAddressNoPort, &true)
                .expect("option");
            socket.bind(&SocketAddr::from((source, 0)).into()).expect("an address of the crowd");
            socket.connect(&SocketAddr::from((SENSOR_V4, port)).into()).expect("the sensor answers");
            held.push(socket);
        }
        held
    });
    agent.wait_open(connections);
    let after = memory_kb(agent.pid(), "RssAnon");
    let each = (after.saturating_sub(before)) as f64 * 1024.0 / connections as f64;
    println!("{connections} idle connections: {before} kB before, {after} kB with them, {each:.0} bytes each");
    drop(held);
    let ended = agent.stop();
    println!("agent ended with {:?}", ended.status.code());
}
