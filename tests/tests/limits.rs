//! Limits: a source over one is refused, counted and recorded, and no other source notices.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use serde_json::json;
use spip_tests::{CLIENT_V4, CROWD_V6, Net, SENSOR_V4, SENSOR_V6};

/// An address of the crowd: host `host` of the /64 with number `network`.
fn crowd(network: u128, host: u128) -> IpAddr {
    Ipv6Addr::from_bits(CROWD_V6.to_bits() | network << 64 | host).into()
}

#[test]
fn a_source_above_its_rate_is_refused_and_summarised_while_others_are_served() {
    let Some(net) = Net::new() else { return };
    net.redirect();
    net.add_crowd();
    let agent = net
        .agent()
        .set("rate_limit_per_second", 0.01)
        .set("rate_limit_burst", 10)
        .set("rejected_interval_seconds", 1)
        .start();
    let streams = net.client.connect_all((0..200).map(|number| (None, SocketAddr::new(SENSOR_V4, 1000 + number))));
    assert_eq!(streams.len(), 200);
    let other = net.client.connect_from((crowd(1, 1), 0), (SENSOR_V6, 80));
    agent.wait_all_read();
    drop((streams, other));
    agent.expect_one(json!({"source_ip": crowd(1, 1), "close_reason": "client_closed"}));
    agent.expect_count(10, json!({"source_ip": CLIENT_V4, "close_reason": "client_closed"}));

    let log = agent.stop().log;
    assert_eq!(log.connections(json!({"close_reason": "rejected", "limit": "rate_limit", "payload": ""})), 190);
    let summaries = log.matching(&json!({"close_reason": "rejected"}));
    assert!(summaries.len() < 10, "{} lines for 190 refusals", summaries.len());
    for record in summaries {
        assert_eq!(record["source_ip"], json!(CLIENT_V4));
        let (first, last) = (record["first_time"].as_str(), record["last_time"].as_str());
        assert!(record["count"].is_null() || first <= last && first.is_some(), "{record}");
    }
    log.expect_sequence();
}

#[test]
fn sessions_at_once_are_bounded_for_each_ipv4_address() {
    let Some(net) = Net::new() else { return };
    net.redirect();
    let agent = net.agent().set("max_sessions_per_source", 5).set("rejected_interval_seconds", 1).start();
    let held = net.client.connect_all((0..8).map(|number| (None, SocketAddr::new(SENSOR_V4, 1000 + number))));
    agent.wait_open(5);
    drop(held);
    agent.expect_count(5, json!({"close_reason": "client_closed"}));
    // A client that leaves makes room.
    net.client.deliver((SENSOR_V4, 80), b"again");
    agent.expect_one(json!({"payload": "again"}));
    let log = agent.stop().log;
    assert_eq!(log.connections(json!({"close_reason": "rejected", "limit": "max_sessions_per_source"})), 3);
    assert_eq!(log.connections(json!({})), 9);
}

#[test]
fn sessions_at_once_are_bounded_for_each_ipv6_network() {
    let Some(net) = Net::new() else { return };
    net.redirect();
    net.add_crowd();
    let agent = net.agent().set("max_sessions_per_source", 5).set("rejected_interval_seconds", 1).start();
    let to = SocketAddr::new(SENSOR_V6, 80);
    let one_network = (1..=8).map(|host| (Some(SocketAddr::new(crowd(1, host), 0)), to));
    let networks = (2..=4).map(|network| (Some(SocketAddr::new(crowd(network, 1), 0)), to));
    let held = net.client.connect_all(one_network.chain(networks));
    assert_eq!(held.len(), 11);
    agent.wait_open(8);
    drop(held);
    agent.expect_count(8, json!({"close_reason": "client_closed"}));
    for network in 2..=4 {
        agent.expect_one(json!({"source_ip": crowd(network, 1), "close_reason": "client_closed"}));
    }
    let log = agent.stop().log;
    assert_eq!(log.connections(json!({"close_reason": "rejected", "limit": "max_sessions_per_source"})), 3);
}

#[test]
fn a_configured_number_of_sessions_is_held() {
    let Some(net) = Net::new() else { return };
    net.redirect();
    let agent = net.agent().set("max_sessions", 10).set("rejected_interval_seconds", 1).start();
    let held = net.client.connect_all((0..30).map(|number| (None, SocketAddr::new(SENSOR_V4, 1000 + number))));
    assert_eq!(held.len(), 30);
    agent.wait_open(10);
    drop(held);
    agent.wait_open(0);
    let log = agent.stop().log;
    assert_eq!(log.connections(json!({})), 30);
    assert_eq!(log.connections(json!({"limit": "max_sessions"})), 20);
    log.expect_sequence();
}

#[test]
fn a_scan_of_every_port_in_one_breath_is_below_the_default_limits() {
    let Some(net) = Net::new() else { return };
    net.redirect();
    let path = net.path().join("spip.jsonl");
    let agent = net.agent().log_to(&path).start();
    let count = net.client.enter(|| {
        let ports = (1..=u16::MAX).filter(|port| *port != spip_tests::LISTENER);
        // A scanner closes what it has found open before it asks for the next.
        let connect = |port| std::net::TcpStream::connect(SocketAddr::new(SENSOR_V4, port));
        ports.filter_map(|port| connect(port).ok()).count()
    });
    agent.wait_all_read();
    agent.wait_open(0);
    let log = agent.stop().log;
    assert_eq!(count, 65_534);
    assert_eq!(log.connections(json!({})), 65_534);
    assert_eq!(log.connections(json!({"close_reason": "rejected"})), 0);
    log.expect_sequence();
}
