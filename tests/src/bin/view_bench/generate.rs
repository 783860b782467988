//! A log as a sensor on the internet writes it: few sources with most connections and very many with one, the well-known
//! ports and a long tail, payloads of which most are known and some have never been seen.
//!
//! Shares follow what operators of large honeypots publish: remote shells and web scans lead, a sixth says nothing, and one
//! payload in twenty is new. Deterministic: the same numbers give the same log.

use std::fmt::Write as _;
use std::io::{BufWriter, Write as _};
use std::path::Path;

use sha2::{Digest, Sha256};

/// 2026-01-01, in microseconds.
const START: u64 = 1_767_225_600_000_000;
const DAY: u64 = 86_400_000_000;

/// One record in this many is a scan.
const SCANS: u64 = 20;

pub(crate) fn start_of(day: u64) -> String {
    time(START + day * DAY)
}

pub(crate) fn end_of(day: u64) -> String {
    time(START + (day + 1) * DAY)
}

pub(crate) struct Generator {
    per_day: u64,
    state: u64,
    seq: u64,
    pub(crate) records: u64,
    pub(crate) sessions: u64,
}

impl Generator {
    pub(crate) fn new(per_day: u64) -> Self {
        Self { per_day, state: 0x9e37_79b9_7f4a_7c15, seq: 0, records: 0, sessions: 0 }
    }

    fn random(&mut self) -> u64 {
        // xorshift64*, Vigna 2016.
        self.state ^= self.state >> 12;
        self.state ^= self.state << 25;
        self.state ^= self.state >> 27;
        self.state.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.random() % bound
    }

    /// A number below `bound` of which small ones are frequent: about as Zipf's law has it.
    fn skewed(&mut self, bound: u64) -> u64 {
        let unit = (self.random() >> 11) as f64 / (1_u64 << 53) as f64;
        ((bound as f64).powf(unit) - 1.0) as u64
    }

    /// Writes the log of a day. Returns its bytes.
    pub(crate) fn day(&mut self, day: u64, path: &Path) -> u64 {
        let mut file = BufWriter::new(std::fs::File::create(path).expect("a log"));
        let mut bytes = 0;
        let mut line = String::new();
        let step = DAY / self.per_day.max(1);
        for index in 0..self.per_day {
            let at = START + day * DAY + index * step + self.below(step.max(1));
            line.clear();
            self.seq += 1;
            self.records += 1;
            if self.below(SCANS) == 0 {
                self.scan(at, &mut line);
            } else {
                self.sessions += 1;
                self.session(day, at, &mut line);
            }
            line.push('\n');
            bytes += line.len() as u64;
            file.write_all(line.as_bytes()).expect("a line is written");
        }
        file.flush().expect("the log is written");
        bytes
    }

    fn source(&mut self, day: u64) -> String {
        // Half of the addresses of a day are gone on the next one.
        let rank = self.skewed(200_000);
        let number = if rank.is_multiple_of(2) { rank } else { rank + day * 400_000 };
        let mixed = number.wrapping_mul(0x9e37_79b1) & 0xffff_ffff;
        format!("{}.{}.{}.{}", 1 + (mixed >> 24) % 222, mixed >> 16 & 255, mixed >> 8 & 255, mixed & 255)
    }

    fn scan(&mut self, at: u64, line: &mut String) {
        let (source, count, port) = (self.source(0), 1 + self.skewed(300), self.port());
        let _ = write!(
            line,
            "{{\"timestamp\":{},\"record_type\":\"scan\",\"schema\":\"spip/1\",\"name\":\"bench\",\"time\":\"{time}\",\"source_ip\":\"{source}\",\
             \"count\":{count},\"first_time\":\"{time}\",\"last_time\":\"{time}\",\"destination_ports\":[\"{port}\"],\"destination_port_count\":1,\
             \"destination_ips\":[\"192.0.2.1\"],\"destination_ip_count\":1,\"source_port_min\":40000,\"source_port_max\":40000,\
             \"tools\":[{{\"tool\":\"masscan\",\"count\":{count}}}],\"syn_variants\":1,\"syn\":{{\"ttl\":240,\"window\":1024,\"options\":[],\
             \"muonfp\":\"1024:::\",\"p0f\":\"4:240+15:0:0:1024,0:::0\",\"tools\":[\"masscan\"]}},\"seq\":{}}}",
            at / 1_000_000,
            self.seq,
            time = time(at)
        );
    }

    fn port(&mut self) -> u64 {
        const KNOWN: &[u64] = &[
            22, 23, 80, 443, 8080, 5555, 6379, 3389, 445, 8443, 2222, 25, 5900, 1433, 3306, 8728, 60023, 81, 9200, 5060,
        ];
        match self.below(10) {
            0 => self.below(65_535) + 1,
            _ => KNOWN[self.skewed(KNOWN.len() as u64) as usize],
        }
    }

    fn session(&mut self, day: u64, at: u64, line: &mut String) {
        let source = self.source(day);
        let mut port = self.port();
        let mut facts = String::new();
        let mut is_tls = false;
        let mut protocol = "unknown";
        let payload: Vec<u8> = match self.below(100) {
            0..=34 => {
                const CLIENTS: &[&str] = &[
                    "SSH-2.0-Go",
                    "SSH-2.0-libssh2_1.10.0",
                    "SSH-2.0-OpenSSH_8.9p1",
                    "SSH-2.0-PUTTY",
                    "SSH-2.0-paramiko_3.4.0",
                ];
                let client = CLIENTS[self.skewed(CLIENTS.len() as u64) as usize];
                protocol = "ssh";
                let hassh = self.skewed(60);
                let _ = write!(
                    facts,
                    ",\"ssh_client\":\"{client}\",\"ssh_hassh\":\"{hassh:032x}\",\"ssh_hassh_algorithms\":\"a;b;c;d\""
                );
                format!("{client}\r\n").into_bytes()
            }
            35..=64 => {
                const AGENTS: &[&str] = &[
                    "Mozilla/5.0 (Windows NT 10.0; Win64; x64)",
                    "curl/7.88.1",
                    "Mozilla/5.0 zgrab/0.x",
                    "python-requests/2.31.0",
                    "Go-http-client/1.1",
                ];
                let agent = AGENTS[self.skewed(AGENTS.len() as u64) as usize];
                let number = self.skewed(3_000);
                let path = if self.below(20) == 0 {
                    format!("/{:x}", self.random())
                } else {
                    format!("/path{number}/index.php?s=/admin")
                };
                protocol = "http";
                let _ = write!(
                    facts,
                    ",\"http\":{{\"method\":\"GET\",\"target\":\"{path}\",\"version\":\"1.1\",\"host\":\"192.0.2.1:{port}\",\"user_agent\":\"{agent}\",\
                     \"headers\":[[\"Host\",\"192.0.2.1:{port}\"],[\"User-Agent\",\"{agent}\"],[\"Accept\",\"*/*\"]],\"body_kept\":0,\"requests\":1}}"
                );
                if port == 443 || port == 8443 {
                    is_tls = true;
                    let ja4 = self.skewed(80);
                    let _ = write!(
                        facts,
                        ",\"tls_ja3\":\"{ja4:032x}\",\"tls_ja4\":\"t13d1516h2_{ja4:012x}_b186095e22b6\",\"tls_client_hello_hex\":\"160301\",\"tls_version\":\"TLSv1.3\""
                    );
                }
                format!("GET {path} HTTP/1.1\r\nHost: 192.0.2.1:{port}\r\nUser-Agent: {agent}\r\nAccept: */*\r\n\r\n")
                    .into_bytes()
            }
            65..=74 => {
                protocol = "telnet";
                port = 23;
                let (user, secret) = (self.skewed(40), self.skewed(3_000));
                let _ = write!(facts, ",\"credentials\":[{{\"user\":\"user{user}\",\"secret\":\"secret{secret}\"}}]");
                format!("user{user}\r\nsecret{secret}\r\nenable\r\nsystem\r\nshell\r\nsh\r\n").into_bytes()
            }
            75..=84 => {
                let number = if self.below(10) == 0 { self.random() } else { self.skewed(400) };
                [b"\x00\x00\x00\x2f\xfeSMB".as_slice(), &number.to_le_bytes()].concat()
            }
            _ => Vec::new(),
        };
        let (one, two) = (self.random(), self.random());
        let text = String::from_utf8_lossy(&payload);
        let text = serde_json::to_string(&text).expect("JSON");
        let (seconds, duration) = (at / 1_000_000, 1_000 + self.skewed(60_000_000));
        let _ = write!(
            line,
            "{{\"timestamp\":{seconds},\"payload\":{text},\"payload_hex\":\"{}\",\"source_ip\":\"{source}\",\"source_port\":{},\
             \"destination_ip\":\"192.0.2.1\",\"destination_port\":{port},\"session_id\":\"{:08x}-{:04x}-4{:03x}-8{:03x}-{:012x}\",\"is_tls\":{is_tls},\
             \"schema\":\"spip/1\",\"name\":\"bench\",\"time\":\"{}\",\"duration_ms\":{},\"duration_us\":{duration},\"bytes_in\":{},\"bytes_out\":0,\
             \"payload_truncated\":false",
            hex::encode(&payload),
            1_024 + self.below(60_000),
            one >> 32,
            one >> 16 & 0xffff,
            one & 0xfff,
            two >> 52,
            two & 0xffff_ffff_ffff,
            time(at),
            duration / 1_000,
            payload.len()
        );
        if !payload.is_empty() {
            let _ = write!(
                line,
                ",\"first_byte_us\":900,\"payload_sha256\":\"{}\",\"protocol\":\"{protocol}\"",
                hex::encode(Sha256::digest(&payload))
            );
        }
        let syn = ["64240:2-4-8-1-3:1460:7", "65535:2-1-3-1-1-4:1460:8", "29200:2-4-8-1-3:1424:10", "1024:2:1460:"]
            [self.skewed(4) as usize];
        let _ = write!(
            line,
            ",\"close_reason\":\"client_closed\",\"destination_source\":\"ebpf\",\"community_id\":\"1:LQU9qZlK+B5F3KDmev6m5PMibrg=\"{facts},\
             \"syn\":{{\"ttl\":52,\"window\":64240,\"mss\":1460,\"options\":[2,4,8,1,3],\"muonfp\":\"{syn}\",\"p0f\":\"4:52+12:0:1460:64240,7:::0\"}},\
             \"seq\":{}}}",
            self.seq
        );
    }
}

/// A time of 2026 in RFC 3339.
fn time(us: u64) -> String {
    const MONTHS: [u64; 12] = [31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let (mut day, rest) = ((us - START) / DAY, (us - START) % DAY);
    let mut month = 0;
    while day >= MONTHS[month] {
        day -= MONTHS[month];
        month += 1;
    }
    let second = rest / 1_000_000;
    format!(
        "2026-{:02}-{:02}T{:02}:{:02}:{:02}.{:06}Z",
        month + 1,
        day + 1,
        second / 3_600,
        second / 60 % 60,
        second % 60,
        rest % 1_000_000
    )
}
