//! Clients that lie about where they came from and went: a SYN that the kernel drops, or answers elsewhere, and the real
//! one with the same sequence number in a form that the packet filter cannot read. What stands in the record is true.

use serde_json::{Value, json};
use spip_tests::ghost::{FAR_V4, FAR_V6, GHOST_V4, GHOST_V6, Ghost};
use spip_tests::{Agent, LISTENER, Net, RawSyn, SENSOR_V4, SENSOR_V6};

/// Maximum segment size, SACK permitted, padding, window scale.
const OPTIONS: [u8; 12] = [2, 4, 0x05, 0xb4, 4, 2, 1, 1, 1, 3, 3, 7];

/// A form in which a SYN goes over the wire.
#[derive(Clone, Copy, Debug)]
enum Form {
    /// As it is.
    Whole,
    /// In two fragments, the first of which has so many bytes of the TCP header.
    Cut(usize),
    /// Behind so many extension headers.
    Extended(usize),
}

/// A net in which ghosts are answered, with packets of up to 9,000 bytes.
fn haunted() -> Option<Net> {
    let net = Net::new()?;
    net.add_ghosts();
    net.sensor.shell("ip link set wire mtu 9000");
    net.client.shell("ip link set wire mtu 9000");
    Some(net)
}

/// The SYN of a ghost to a port of the sensor.
fn real(port: u16, form: Form) -> RawSyn {
    let source_port = 30_000 + port % 10_000;
    let syn = match form {
        Form::Extended(_) => RawSyn::new((GHOST_V6, source_port), (SENSOR_V6, port)),
        Form::Whole | Form::Cut(_) => RawSyn::new((GHOST_V4, source_port), (SENSOR_V4, port)),
    };
    let extensions = if let Form::Extended(count) = form { count } else { 0 };
    RawSyn { window: 64_240, options: OPTIONS.to_vec(), extensions, ..syn }
}

/// A SYN with the sequence number of `real`, to another machine, by another tool.
fn elsewhere(real: &RawSyn) -> RawSyn {
    let far = if real.source.is_ipv4() { FAR_V4 } else { FAR_V6 };
    RawSyn { destination: far, port: 22, source_port: 31_337, extensions: 0, ..another_look(real) }
}

/// A SYN of the same connection as `real`, that looks different.
fn another_look(real: &RawSyn) -> RawSyn {
    RawSyn { ttl: 200, window: 1_024, ip_id: 54_321, options: Vec::new(), ..real.clone() }
}

fn broken(syn: RawSyn) -> RawSyn {
    RawSyn { broken: true, ..syn }
}

fn send(net: &Net, syn: &RawSyn, form: Form) {
    match form {
        Form::Cut(first) => net.client.send_raw(RawSyn { ip_id: 777, ..syn.clone() }.fragments(first).into_iter()),
        Form::Whole | Form::Extended(_) => net.client.send_syns([syn.clone()]),
    }
}

/// Sends a lie and then the truth, and returns the record of the connection.
fn lie(net: &Net, agent: &Agent, lies: &[RawSyn], real: &RawSyn, form: Form) -> Value {
    let ghost = Ghost::new(net, real.clone());
    net.client.send_syns(lies.to_vec());
    send(net, real, form);
    let payload = format!("to {} of {form:?}", real.port);
    ghost.complete(payload.as_bytes());
    let record = agent.expect_one(json!({ "payload": payload }));
    expect_truth(&record, real);
    record
}

/// Expects the facts of the wire, whatever else was sent. Half a SYN that cannot be identified has no `syn`.
fn expect_truth(record: &Value, real: &RawSyn) {
    assert_eq!(record["source_ip"], json!(real.source), "{record}");
    assert_eq!(record["source_port"], json!(real.source_port), "{record}");
    assert_eq!(record["destination_ip"], json!(real.destination), "{record}");
    assert_eq!(record["destination_port"], json!(real.port), "{record}");
    if !record["syn"].is_null() {
        assert_eq!(record["syn"]["ttl"], json!(real.ttl), "{record}");
        assert_eq!(record["syn"]["window"], json!(real.window), "{record}");
        assert_eq!(record["syn"]["options"], json!([2, 4, 1, 1, 1, 3]), "{record}");
        assert_eq!(record["syn"]["tools"], Value::Null, "{record}");
    }
}

#[test]
fn a_syn_that_goes_elsewhere_moves_no_record_behind_rules() {
    let Some(net) = haunted() else { return };
    net.redirect();
    let agent = net.agent().set("ebpf", "required").start();
    let by = |record: &Value| (record["destination_source"].clone(), record["destination_conflict"].clone());
    for (form, port, source, conflict) in [
        (Form::Cut(8), 8_081, "conntrack", json!("ambiguous")),
        (Form::Cut(16), 8_082, "conntrack", json!("ambiguous")),
        // The options are in the second fragment.
        (Form::Cut(24), 8_083, "conntrack", json!("ambiguous")),
        // The filter reads these, and sees by the checksum which of the two is the lie.
        (Form::Whole, 8_084, "ebpf", Value::Null),
        (Form::Extended(9), 8_085, "ebpf", Value::Null),
        (Form::Extended(180), 8_086, "ebpf", Value::Null),
        // It follows no more than these.
        (Form::Extended(500), 8_087, "conntrack", json!("destination")),
    ] {
        let real = real(port, form);
        let record = lie(&net, &agent, &[broken(elsewhere(&real))], &real, form);
        assert_eq!(by(&record), (json!(source), conflict), "{form:?}: {record}");
        assert!(record["syn"].is_object(), "the kernel keeps the SYN: {record}");
    }
    agent.wait_message(json!({"target": "origin", "level": "warn", "reason": "destination"}));
    // A SYN whose checksum is right, to a machine behind this one, is no better.
    for (form, port) in [(Form::Whole, 8_091), (Form::Cut(8), 8_092), (Form::Extended(500), 8_093)] {
        let real = real(port, form);
        let record = lie(&net, &agent, &[elsewhere(&real)], &real, form);
        assert_eq!(record["destination_source"], "conntrack", "{form:?}: {record}");
        assert!(record["destination_conflict"].is_string(), "{form:?}: {record}");
    }
}

#[test]
fn a_syn_that_looks_different_changes_no_fact_of_the_one_that_was_accepted() {
    let Some(net) = haunted() else { return };
    net.redirect();
    let agent = net.agent().set("ebpf", "required").start();
    for (form, port) in [(Form::Cut(8), 8_101), (Form::Whole, 8_102), (Form::Extended(500), 8_103)] {
        let real = real(port, form);
        let lies = [broken(RawSyn { extensions: 0, ..another_look(&real) })];
        let record = lie(&net, &agent, &lies, &real, form);
        assert!(record["syn"].is_object(), "{record}");
    }
}

#[test]
fn a_v4_mapped_source_is_nobodys_witness() {
    let Some(net) = haunted() else { return };
    net.redirect();
    let agent = net.agent().set("ebpf", "required").start();
    let real = real(8_111, Form::Cut(8));
    let std::net::IpAddr::V4(ghost) = GHOST_V4 else { panic!("IPv4") };
    let mapped =
        RawSyn { source: ghost.to_ipv6_mapped().into(), destination: SENSOR_V6, port: 22, ..another_look(&real) };
    lie(&net, &agent, &[mapped], &real, Form::Cut(8));
}

#[test]
fn a_syn_that_takes_the_place_of_an_evicted_one_is_not_believed() {
    let Some(net) = haunted() else { return };
    net.redirect();
    let agent = net.agent().set("ebpf", "required").set("ebpf_syn_entries", 64).start();
    let real = real(8_121, Form::Whole);
    let ghost = Ghost::new(&net, real.clone());
    send(&net, &real, Form::Whole);
    // Half-open SYNs to a machine behind this one push the real one out of the table.
    net.client.send_syns((0..4_000).map(|number: u32| RawSyn { sequence: number, ..elsewhere(&real) }));
    net.client.send_syns([elsewhere(&real)]);
    ghost.complete(b"evicted");
    let record = agent.expect_one(json!({"payload": "evicted"}));
    expect_truth(&record, &real);
    assert_eq!(record["destination_source"], "conntrack", "{record}");
    assert!(record["destination_conflict"].is_string(), "{record}");
}

#[test]
fn under_sk_lookup_the_socket_is_believed_at_the_listeners_own_port_too() {
    let Some(net) = haunted() else { return };
    let agent = net.agent().set("steering", "sk_lookup").set("ebpf", "required").start();
    for (form, port) in
        [(Form::Cut(8), LISTENER), (Form::Whole, 8_131), (Form::Cut(8), 8_132), (Form::Extended(500), 8_133)]
    {
        let real = real(port, form);
        let record = lie(&net, &agent, &[broken(elsewhere(&real))], &real, form);
        assert_ne!(record["destination_source"], "ebpf", "{record}");
        assert!(record["syn"].is_object(), "{record}");
    }
    // At the listener's own port the filter is asked, and another address of this machine is no better than a far one.
    let real = RawSyn { source_port: 30_500, ..real(LISTENER, Form::Extended(500)) };
    let record = lie(&net, &agent, &[broken(elsewhere(&real))], &real, Form::Extended(500));
    assert_eq!(record["destination_conflict"], "destination", "{record}");
}

#[test]
fn where_the_kernel_keeps_no_syn_one_that_may_be_a_lie_is_not_shown() {
    let Some(net) = haunted() else { return };
    net.sensor.sysctl("ipv4/tcp_syncookies", "2");
    let agent = net.agent().set("steering", "sk_lookup").set("ebpf", "required").start();
    // The checksum shows which of two is the lie.
    let whole = real(8_141, Form::Whole);
    let record = lie(&net, &agent, &[broken(another_look(&whole))], &whole, Form::Whole);
    assert_eq!(record["syn"]["ttl"], json!(whole.ttl), "{record}");
    // Two that the kernel answers.
    let whole = real(8_142, Form::Whole);
    let record = lie(&net, &agent, &[another_look(&whole)], &whole, Form::Whole);
    assert_eq!(record["syn"], Value::Null, "{record}");
    // One that the filter cannot read.
    let hidden = real(8_143, Form::Cut(8));
    let record = lie(&net, &agent, &[broken(another_look(&hidden))], &hidden, Form::Cut(8));
    assert_eq!((&record["syn"], &record["destination_conflict"]), (&Value::Null, &json!("ambiguous")), "{record}");
    // One that goes elsewhere.
    let hidden = real(8_144, Form::Extended(500));
    let record = lie(&net, &agent, &[broken(elsewhere(&hidden))], &hidden, Form::Extended(500));
    assert_eq!((&record["syn"], &record["destination_conflict"]), (&Value::Null, &json!("destination")), "{record}");
}

#[test]
fn honest_clients_in_any_form_have_no_conflict() {
    let Some(net) = haunted() else { return };
    net.redirect();
    let agent = net.agent().set("ebpf", "required").start();
    for (form, port) in [(Form::Whole, 8_151), (Form::Extended(1), 8_152), (Form::Extended(100), 8_153)] {
        let record = lie(&net, &agent, &[], &real(port, form), form);
        assert_eq!((&record["destination_source"], &record["destination_conflict"]), (&json!("ebpf"), &Value::Null));
    }
    // A retransmission without options is the same client still.
    let whole = real(8_154, Form::Whole);
    let ghost = Ghost::new(&net, whole.clone());
    net.client.send_syns([whole.clone(), RawSyn { options: OPTIONS[..4].to_vec(), ..whole.clone() }]);
    ghost.complete(b"again");
    let record = agent.expect_one(json!({"payload": "again"}));
    assert_eq!((&record["destination_source"], &record["destination_conflict"]), (&json!("ebpf"), &Value::Null));
}

#[test]
fn no_scan_is_claimed_of_a_syn_that_did_not_arrive() {
    let Some(net) = haunted() else { return };
    net.redirect();
    let agent =
        net.agent().set("ebpf", "required").set("scan_timeout_seconds", 1).set("scan_interval_seconds", 3600).start();
    for (form, port) in [(Form::Cut(8), 8_161), (Form::Cut(16), 8_162), (Form::Extended(500), 8_163)] {
        let real = real(port, form);
        let ghost = Ghost::new(&net, real.clone());
        net.client.send_syns([broken(elsewhere(&real))]);
        send(&net, &real, form);
        // It is answered, so it has arrived.
        ghost.wait_answer();
    }
    // Of what the filter reads, a scan is one, however many headers it has.
    let extended = real(8_164, Form::Extended(180));
    let ghost = Ghost::new(&net, extended.clone());
    net.client.send_syns([broken(elsewhere(&extended)), extended]);
    ghost.wait_answer();

    let log = agent.stop().log;

    let scan = log.expect_one(json!({"record_type": "scan"}));
    assert_eq!((&scan["source_ip"], &scan["destination_ports"]), (&json!(GHOST_V6), &json!(["8164"])), "{scan}");
    assert_eq!(scan["destination_ips"], json!([SENSOR_V6]), "{scan}");
    assert_eq!(scan["syn"]["ttl"], json!(64), "{scan}");
    let counts = log.messages().find(|line| line.value["message"] == "what has become of SYNs");
    let counts = &counts.expect("the agent says what has become of SYNs").value;
    assert_eq!((&counts["contradicted"], &counts["half_open"]), (&json!(3), &json!(1)), "{counts}");
}
