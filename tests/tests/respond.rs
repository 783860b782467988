//! Replies to clients: real ones from packages, and sockets that do what no package does. Each record is compared
//! with what was sent.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use spip_tests::{Agent, Net, PATIENCE, SENSOR_V4, half_close, payload, read_to_end, tiny_window};

/// A network and an agent in it, with the defaults; nothing without root.
fn sensor() -> Option<(Net, Agent)> {
    let net = Net::new()?;
    net.redirect();
    let agent = net.agent().start();
    Some((net, agent))
}

/// Runs a client in the client's namespace, `HOST` being the sensor's address, for at most 20 seconds.
fn run(net: &Net, line: &str) -> Output {
    let line = line.replace("HOST", &SENSOR_V4.to_string());
    net.client.enter(|| {
        let home = net.path().to_owned();
        let mut command = Command::new("timeout");
        command.args(["20", "sh", "-c", &line]).env("HOME", home).env("PGPASSWORD", "sesame");
        command.output().expect("sh starts")
    })
}

/// As [`run`], for a client that must be content; what it printed.
fn content(net: &Net, line: &str) -> String {
    let output = run(net, line);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{line}: {} {}{}", output.status, text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
}

/// Reports whether the client's program is there. Without it a line names the skipped test; under CI that is a failure.
fn has(program: &str) -> bool {
    let found = Command::new("sh").args(["-c", &format!("command -v {program}")]).output().expect("sh starts");
    if !found.status.success() {
        assert!(std::env::var_os("CI").is_none(), "{program} is missing, and CI must not skip it: cargo xtask setup");
        let line = format!("skipped: {program} is missing (cargo xtask setup --for test)\n");
        let _ = std::io::stderr().write_all(line.as_bytes());
    }
    found.status.success()
}

fn read_some(stream: &mut TcpStream) -> String {
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout above zero");
    let mut buffer = [0; 4096];
    let length = stream.read(&mut buffer).expect("the sensor says something");
    String::from_utf8_lossy(&buffer[..length]).into_owned()
}

fn say(stream: &mut TcpStream, text: &str) {
    stream.write_all(text.as_bytes()).expect("the sensor takes bytes");
}

/// Both directions as one text, put together by the turns of the record and what the client saw.
fn assert_turns(record: &Value) {
    let turns = record["turns"].as_array().expect("turns");
    let (mut client, mut server, mut before) = (0, 0, 0);
    for (index, turn) in turns.iter().enumerate() {
        let number = |key: &str| turn[key].as_u64().expect("a number");
        let side = if turn["from"] == "client" { &mut client } else { &mut server };
        assert_eq!(number("offset"), *side, "{record}");
        *side += number("length");
        assert!(number("ms") >= before, "{record}");
        before = number("ms");
        assert!(index == 0 || turns[index - 1]["from"] != turn["from"], "{record}");
    }
    assert_eq!((json!(client), json!(server)), (record["bytes_in"].clone(), record["bytes_out"].clone()), "{record}");
}

#[test]
fn a_silent_client_is_greeted_by_the_port_that_it_asked_for() {
    let Some((net, agent)) = sensor() else { return };
    let cases = [
        (21, "220 (vsFTPd ", "ftp_greeting"),
        (22, "SSH-2.0-OpenSSH_", "ssh_identification"),
        (25, "220 ", "smtp_greeting"),
        (110, "+OK ", "pop3_greeting"),
        (143, "* OK [CAPABILITY ", "imap_greeting"),
        (5900, "RFB 003.008\n", "vnc_greeting"),
    ];
    let started = Instant::now();
    let mut streams: Vec<_> = cases.iter().map(|(port, ..)| net.connect(*port)).collect();
    for (stream, (port, start, name)) in streams.iter_mut().zip(cases) {
        let said = read_some(stream);
        assert!(started.elapsed() >= Duration::from_millis(1_400), "{port} after {:?}", started.elapsed());
        assert!(said.starts_with(start), "{port}: {said}");
        half_close(stream);
        read_to_end(stream);
        let record = agent.expect_one(json!({"destination_port": port, "bytes_in": 0, "responses": [name]}));
        assert_eq!(record["bytes_out"], said.len(), "{record}");
        assert_turns(&record);
    }
    for (port, start) in [(23, &[255, 253][..]), (3306, &[][..])] {
        let mut stream = net.connect(port);
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout above zero");
        let mut bytes = [0; 512];
        let length = stream.read(&mut bytes).expect("a greeting");
        assert!(bytes[..length].starts_with(start) && length > 20, "{port}: {:?}", &bytes[..length]);
    }
}

#[test]
fn a_client_of_tls_or_http_is_never_spoken_to_first() {
    let Some((net, agent)) = sensor() else { return };
    let mut half = net.connect(21);
    say(&mut half, "GET / HTTP/1.1\r\nHost: x\r\n");
    let mut hello = net.connect(22);
    hello.write_all(b"\x16\x03\x01\x02\x00\x01").expect("the sensor takes bytes");
    let mut quiet = net.connect(80);
    for stream in [&mut half, &mut hello, &mut quiet] {
        stream.set_read_timeout(Some(Duration::from_millis(2_500))).expect("a timeout above zero");
        let mut buffer = [0; 16];
        let silence = stream.read(&mut buffer).expect_err("nothing is said");
        assert!(matches!(silence.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut), "{silence}");
    }
    say(&mut half, "\r\n");
    assert!(read_some(&mut half).starts_with("HTTP/1.1 200 OK\r\n"));
    drop((half, hello, quiet));
    agent.expect_one(json!({"destination_port": 21, "protocol": "http", "responses": ["http_page"]}));
    agent.expect_one(json!({"destination_port": 22, "bytes_out": 0, "payload_hex": "160301020001"}));
    agent.expect_one(json!({"destination_port": 80, "bytes_out": 0}));
}

#[test]
fn a_silent_client_inside_tls_is_greeted_too() {
    let Some((net, agent)) = sensor() else { return };
    let line = "(sleep 4; printf 'a1 LOGIN bob secret\\r\\n'; sleep 1; printf 'a2 LOGOUT\\r\\n'; sleep 1) | \
                openssl s_client -quiet -connect HOST:993";
    let said = String::from_utf8_lossy(&run(&net, line).stdout).into_owned();
    assert!(said.starts_with("* OK [CAPABILITY ") && said.contains("a2 OK Logout completed."), "{said}");
    let record = agent.expect_one(json!({
        "destination_port": 993, "is_tls": true, "payload": "a1 LOGIN bob secret\r\na2 LOGOUT\r\n", "protocol": "imap",
        "credentials": [{"user": "bob", "secret": "secret"}], "responses": ["imap_greeting", "imap_login", "imap_farewell"],
        "close_reason": "server_closed",
    }));
    assert_eq!(record["bytes_out"], said.len(), "{record}");
    assert_turns(&record);
}

#[test]
fn curl_is_content_in_every_version_of_http() {
    let Some((net, agent)) = sensor() else { return };
    let form = "-s -o /dev/null -w '%{http_code} %{http_version}'";
    for (line, port, answer, record) in [
        ("http://HOST/", 80, "200 1.1", json!({"protocol": "http", "responses": ["http_page"]})),
        ("-0 http://HOST:81/", 81, "200 1.1", json!({"close_reason": "server_closed"})),
        ("http://HOST:22/no", 22, "404 1.1", json!({"protocol": "http", "responses": ["http_not_found"]})),
        ("--http2-prior-knowledge http://HOST:82/", 82, "200 2", json!({"protocol": "http2"})),
        ("-k https://HOST/", 443, "200 2", json!({"protocol": "http2", "tls_alpn": "h2"})),
        ("-k --http1.1 https://HOST:8443/", 8443, "200 1.1", json!({"protocol": "http", "tls_alpn": "http/1.1"})),
        (
            "-k -X DELETE https://HOST:8444/",
            8444,
            "405 2",
            json!({"responses": ["http2_settings", "http_not_allowed"]}),
        ),
        ("-d user=root http://HOST:83/login", 83, "200 1.1", json!({"http": {"method": "POST", "body_kept": 9}})),
    ] {
        assert_eq!(content(&net, &format!("curl {form} {line}")), answer, "{line}");
        let mut expected = record;
        expected["destination_port"] = json!(port);
        assert_turns(&agent.expect_one(expected));
    }
}

#[test]
fn a_body_that_was_not_kept_whole_is_not_answered() {
    let Some((net, agent)) = sensor() else { return };
    std::fs::write(net.path().join("body"), [b'x'; 200_000]).expect("file");
    let line = format!("curl -s -m 5 -H 'Expect: 100-continue' -d @{}/body http://HOST/", net.path().display());
    assert!(!run(&net, &line).status.success());
    let record = agent.expect_one(json!({"destination_port": 80, "payload_truncated": true}));
    assert_eq!(record["responses"], json!(["http_continue"]), "{record}");
}

#[test]
fn a_page_has_no_address_of_the_visitor_and_is_the_same_for_wget() {
    let Some((net, agent)) = sensor() else { return };
    let page = content(&net, "curl -s -i http://HOST/");
    assert!(!page.contains("198.51.100."), "{page}");
    if has("wget") {
        let body = content(&net, "wget -q -O - http://HOST:8080/");
        assert!(page.ends_with(&body) && body.contains("<form"), "{body}");
        let record = agent.expect_one(json!({"destination_port": 8080, "protocol": "http"}));
        assert!(record["http"]["user_agent"].as_str().expect("an agent").starts_with("Wget/"), "{record}");
    }
    let said = content(
        &net,
        "printf 'GET / HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n' | openssl s_client -quiet -ign_eof -no_ign_eof -connect HOST:4433 2>/dev/null || true",
    );
    let record = agent.expect_one(json!({"destination_port": 4433, "is_tls": true, "protocol": "http"}));
    assert!(said.is_empty() || said.starts_with("HTTP/1.1 200 OK"), "{said}");
    assert_eq!(record["payload"], "GET / HTTP/1.1\r\nHost: x\r\n\r\n");
}

#[test]
fn a_client_that_has_closed_its_half_is_answered() {
    let Some((net, agent)) = sensor() else { return };
    for port in 9_000..9_020 {
        let mut stream = net.connect(port);
        say(&mut stream, "GET / HTTP/1.1\r\nHost: x\r\n\r\n");
        half_close(&stream);
        let said = String::from_utf8(read_to_end(&mut stream)).expect("text");
        assert!(said.starts_with("HTTP/1.1 200 OK\r\n") && said.ends_with("</html>\n"), "{said}");
        let record = agent.expect_one(json!({"destination_port": port, "close_reason": "client_closed"}));
        assert_eq!(record["bytes_out"], said.len());
    }
}

#[test]
fn ssh_shows_its_key_exchange() {
    let Some((net, agent)) = sensor() else { return };
    let _ = run(&net, "ssh -o BatchMode=yes -o StrictHostKeyChecking=no bob@HOST");
    let record = agent.expect_one(json!({
        "destination_port": 22, "protocol": "ssh", "responses": ["ssh_identification", "ssh_kexinit"],
        "close_reason": "server_closed",
    }));
    assert_eq!(record["ssh_hassh"].as_str().map(str::len), Some(32), "{record}");
    assert_turns(&record);
}

#[test]
fn the_published_hassh_of_every_vector_comes_over_a_socket_in_pieces() {
    let Some((net, agent)) = sensor() else { return };
    let vectors: Value =
        serde_json::from_str(include_str!("../../spip-protocol/fixtures/hassh/hassh.json")).expect("vectors");
    for (index, vector) in vectors.as_array().expect("a list").iter().enumerate() {
        let text = |key: &str| vector[key].as_str().expect("text");
        let port = 2_200 + u16::try_from(index).expect("few vectors");
        let mut stream = net.connect(port);
        say(&mut stream, &format!("{}\r\n", text("clientIdentificationString")));
        assert!(read_some(&mut stream).starts_with("SSH-2.0-"));
        for piece in kexinit([text("ckex"), text("ceacts"), text("cmacts"), text("ccacts")]).chunks(1 + index * 97) {
            stream.write_all(piece).expect("the sensor takes bytes");
        }
        half_close(&stream);
        read_to_end(&mut stream);
        let record = agent.expect_one(json!({"destination_port": port, "protocol": "ssh"}));
        assert_eq!(record["ssh_hassh"], vector["hassh"]);
        assert_eq!(record["ssh_hassh_algorithms"], vector["hasshAlgorithms"]);
        assert_eq!(record["ssh_client"], vector["clientIdentificationString"]);
    }
}

/// SSH_MSG_KEXINIT with these lists for key exchange, encryption, MAC and compression.
fn kexinit([exchange, encryption, macs, compression]: [&str; 4]) -> Vec<u8> {
    let mut message = vec![20];
    message.extend_from_slice(&[7; 16]);
    for list in [exchange, "ssh-ed25519", encryption, encryption, macs, macs, compression, compression, "", ""] {
        message.extend_from_slice(&u32::try_from(list.len()).expect("short").to_be_bytes());
        message.extend_from_slice(list.as_bytes());
    }
    message.extend_from_slice(&[0; 5]);
    let mut packet = u32::try_from(message.len() + 5).expect("short").to_be_bytes().to_vec();
    packet.push(4);
    packet.extend(message);
    packet.extend_from_slice(&[0; 4]);
    packet
}

#[test]
fn ftp_smtp_pop3_and_imap_show_their_login_and_first_command() {
    let Some((net, agent)) = sensor() else { return };
    let login = json!([{"user": "bob", "secret": "secret"}]);
    let cases = [
        ("ftp://bob:secret@HOST/", 21, json!({"protocol": "ftp"})),
        ("pop3://bob:secret@HOST/", 110, json!({"protocol": "pop3"})),
        ("'imap://bob:secret@HOST/INBOX;UID=1'", 143, json!({"protocol": "imap"})),
        (
            "smtp://HOST --user bob:secret --mail-from a@example.com --mail-rcpt b@example.org -T /etc/passwd",
            25,
            json!({"protocol": "smtp", "smtp": {"mail_from": "a@example.com", "rcpt_to": ["b@example.org"]}}),
        ),
        (
            "-k smtps://HOST --user bob:secret --mail-from a@example.com --mail-rcpt b@example.org -T /etc/passwd",
            465,
            json!({"protocol": "smtp", "is_tls": true}),
        ),
    ];
    for (line, port, mut expected) in cases {
        let _ = run(&net, &format!("curl -s {line}"));
        expected["destination_port"] = json!(port);
        expected["credentials"] = login.clone();
        expected["close_reason"] = json!("server_closed");
        assert_turns(&agent.expect_one(expected));
    }
    let message =
        agent.log().sessions().find(|line| line.value["destination_port"] == 25).expect("a record").value.clone();
    assert!(String::from_utf8_lossy(&payload(&message)).contains("root:"), "the whole message is drawn out: {message}");
    if has("ftp") {
        let said = run(&net, "printf 'user eve hush\\nls\\nbye\\n' | ftp -n -v HOST 2121");
        let said = String::from_utf8_lossy(&said.stdout).into_owned();
        assert!(said.contains("230 Login successful.") && said.contains("550 Permission denied."), "{said}");
        agent.expect_one(json!({
            "destination_port": 2121, "protocol": "ftp", "credentials": [{"user": "eve", "secret": "hush"}],
        }));
    }
}

#[test]
fn databases_show_their_login_and_first_command() {
    let Some((net, agent)) = sensor() else { return };
    if has("redis-cli") {
        let said = content(&net, "redis-cli -h HOST -a hunter2 info");
        assert!(said.contains("redis_version:"), "{said}");
        agent.expect_one(json!({
            "destination_port": 6379, "redis": {"commands": ["AUTH hunter2", "info"]}, "credentials": [{"secret": "hunter2"}],
        }));
        let said = content(&net, "redis-cli -h HOST -p 6380 set a b || true");
        assert!(said.contains("OOM command not allowed"), "{said}");
        agent.expect_one(json!({"destination_port": 6380, "redis": {"commands": ["set a b"]}}));
    }
    if has("psql") {
        let output = run(&net, "psql -h HOST -U bob -d shop -c 'select 1'");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(said.contains("permission denied"), "{said}");
        let record = agent.expect_one(json!({
            "destination_port": 5432, "credentials": [{"user": "bob", "secret": "sesame"}],
            "postgresql": {"user": "bob", "database": "shop", "query": "select 1"},
        }));
        assert_turns(&record);
    }
    if has("mysql") {
        let output = run(&net, "mysql -h HOST -u bob -psesame -e 'select 1' shop");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(said.contains("1227"), "{said}");
        let record = agent.expect_one(json!({
            "destination_port": 3306, "credentials": [{"user": "bob"}], "mysql": {"user": "bob", "database": "shop"},
        }));
        assert!(String::from_utf8_lossy(&payload(&record)).contains("select 1"), "{record}");
        assert_turns(&record);
    }
}

#[test]
fn a_broker_and_a_share_are_asked_for() {
    let Some((net, agent)) = sensor() else { return };
    if has("mosquitto_pub") {
        content(&net, "mosquitto_pub -h HOST -u bob -P sesame -t door/state -m open -q 1");
        let record = agent.expect_one(json!({
            "destination_port": 1883, "protocol": "mqtt", "credentials": [{"user": "bob", "secret": "sesame"}],
            "responses": ["mqtt_login", "mqtt_answer"],
        }));
        let sent = payload(&record);
        assert!(sent.windows(14).any(|part| part == b"door/state\0\x01op"), "{record}");
    }
    if has("smbclient") {
        let _ = run(&net, "timeout 3 smbclient -N -L HOST");
        let record = agent.expect_one(json!({"destination_port": 445, "protocol": "smb"}));
        // As far as the list of shares, which this server does not give.
        let responses: Vec<_> = record["responses"].as_array().expect("a list").iter().collect();
        for name in ["smb_negotiated", "smb_challenge", "smb_login", "smb_tree"] {
            assert!(responses.iter().any(|response| *response == name), "{name}: {record}");
        }
    }
}

#[test]
fn telnet_shows_login_and_commands() {
    let Some((net, agent)) = sensor() else { return };
    let mut stream = net.connect(23);
    assert!(read_some(&mut stream).ends_with(" login: "));
    say(&mut stream, "root\r\n");
    assert_eq!(read_some(&mut stream), "Password: ");
    say(&mut stream, "vizxv\r\n");
    assert_eq!(read_some(&mut stream), "\r\n# ");
    say(&mut stream, "/bin/busybox MIRAI\r\n");
    assert_eq!(read_some(&mut stream), "-sh: can't fork\r\n# ");
    drop(stream);
    let record = agent.expect_one(json!({
        "destination_port": 23, "protocol": "telnet", "credentials": [{"user": "root", "secret": "vizxv"}],
        "telnet": {"commands": ["/bin/busybox MIRAI"]}, "payload": "root\r\nvizxv\r\n/bin/busybox MIRAI\r\n",
    }));
    assert_turns(&record);
    if has("telnet") {
        let typed = "(sleep 3; echo admin; sleep 1; echo hush; sleep 1; echo exit; sleep 1)";
        let said = String::from_utf8_lossy(&run(&net, &format!("{typed} | telnet HOST 2323")).stdout).into_owned();
        assert!(said.contains("login: ") && said.contains("Password: "), "{said}");
        agent.expect_one(json!({"destination_port": 2323, "credentials": [{"user": "admin", "secret": "hush"}]}));
    }
}

#[test]
fn a_client_that_does_not_read_is_cut_off_and_recorded_whole() {
    let Some(net) = Net::new() else { return };
    net.redirect();
    net.sensor.sysctl("ipv4/tcp_wmem", "4096 4096 4096");
    let agent = net.agent().set("write_timeout_seconds", 1).set("read_timeout_seconds", 60).start();
    let mut stream = tiny_window(&net.client, (SENSOR_V4, 6379));
    let pings = "*1\r\n$4\r\nPING\r\n".repeat(4_000);
    say(&mut stream, &pings);
    let record = agent.expect_one(json!({"destination_port": 6379, "close_reason": "write_timeout"}));
    assert_eq!(payload(&record), pings.as_bytes());
    let out = record["bytes_out"].as_u64().expect("a number");
    assert!(out > 0 && out < 7 * 4_000, "{out}");
}

#[test]
fn the_sensor_says_at_most_two_kilobytes_more_than_it_heard() {
    let Some((net, agent)) = sensor() else { return };
    let mut stream = net.connect(80);
    let mut heard = 0;
    let mut said = 0;
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout above zero");
    for _ in 0..100 {
        if stream.write_all(b"GET / HTTP/1.1\r\n\r\n").is_err() {
            break;
        }
        heard += 18;
        let mut buffer = [0; 8192];
        match stream.read(&mut buffer) {
            Ok(1..) => said += buffer.iter().filter(|byte| **byte != 0).count(),
            _ => break,
        }
    }
    drop(stream);
    let record = agent.expect_one(json!({"destination_port": 80}));
    let number = |key: &str| record[key].as_u64().expect("a number");
    assert!(number("bytes_out") <= number("bytes_in") + 2_048 && said > 0, "{record}");
    assert!(said <= heard + 2_048, "{said} for {heard}");
}

#[test]
fn a_sensor_that_is_told_to_be_silent_says_nothing() {
    let Some(net) = Net::new() else { return };
    net.redirect();
    let agent = net.agent().set("respond", "off").set("banner_after_ms", 100).set("read_timeout_seconds", 2).start();
    let mut stream = net.connect(21);
    say(&mut stream, "EHLO x\r\n");
    assert_eq!(read_to_end(&mut stream), b"");
    let record = agent.expect_one(json!({"destination_port": 21, "bytes_out": 0, "close_reason": "idle_timeout"}));
    // No greeting either, long after a server with greetings has said it.
    let mut silent = net.connect(22);
    silent.set_read_timeout(Some(Duration::from_millis(1_000))).expect("a timeout above zero");
    let silence = silent.read(&mut [0; 16]).expect_err("nothing is said");
    assert!(matches!(silence.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut), "{silence}");
    drop(silent);
    agent.expect_one(
        json!({"destination_port": 22, "bytes_out": 0, "responses": null, "close_reason": "client_closed"}),
    );
    assert_eq!((&record["responses"], &record["turns"]), (&Value::Null, &Value::Null));
    assert!(!net.path().join("state").exists(), "no persona is drawn for nobody");
}

#[test]
fn a_persona_stays_over_a_restart_and_ports_and_texts_can_be_changed() {
    let Some(net) = Net::new() else { return };
    net.redirect();
    let ask = |port| {
        let mut stream = net.connect(port);
        read_some(&mut stream)
    };
    let launch = net.agent().set("banner_after_ms", 100);
    let first = launch.clone().start();
    let greetings = [21, 22, 25, 143].map(ask);
    let _ = first.stop();
    let persona = net.path().join("mine.toml");
    std::fs::write(&persona, "[ports.2022]\nssh = \"SSH-2.0-dropbear_2022.83\"\n").expect("file");
    let second = launch
        .set("persona", persona.to_str().expect("text"))
        .text("[greetings]\n2022 = \"ssh\"\n8023 = \"telnet\"\n")
        .start();
    assert_eq!([21, 22, 25, 143].map(ask), greetings);
    assert_eq!(ask(2022), "SSH-2.0-dropbear_2022.83\r\n");
    assert!(ask(8023).ends_with(" login: "));
    let _ = second.stop();
}

#[test]
fn nmap_finds_ordinary_services_on_thirty_ports() {
    let Some(net) = Net::new() else { return };
    net.redirect();
    let agent = net.agent().start();
    let ports = "21,22,23,25,53,80,81,110,111,135,139,143,443,445,465,587,993,995,1433,1883,3306,3389,5432,5900,6379,8080,\
                 8443,9200,11211,27017";
    let said = net.client.shell(&format!("timeout 600 nmap -n -Pn -sV --version-intensity 4 -p {ports} {SENSOR_V4}"));
    for line in [
        "21/tcp open ftp vsftpd",
        "22/tcp open ssh OpenSSH",
        "25/tcp open smtp Postfix",
        "80/tcp open http nginx",
        "110/tcp open pop3 Dovecot",
        "143/tcp open imap Dovecot",
        "3306/tcp open mysql",
        "23/tcp open telnet BusyBox telnetd",
        "993/tcp open imap Dovecot",
        "995/tcp open pop3 Dovecot",
        "5900/tcp open vnc VNC",
        "6379/tcp open redis Redis",
    ] {
        let words: Vec<_> = said.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
        assert!(words.iter().any(|found| found.starts_with(line)), "no {line} in {said}");
    }
    assert_eq!(said.lines().filter(|line| line.contains("/tcp") && line.contains(" open ")).count(), 30, "{said}");
    let lower = said.to_lowercase();
    for word in ["honeypot", "honeyd", "kippo", "cowrie", "dionaea", "glastopf", "conpot", "amun", "nepenthes"] {
        assert!(!lower.contains(word), "{word} in {said}");
    }
    let log = agent.stop().log;
    assert!(log.sessions().count() >= 30);
}
