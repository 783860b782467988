//! Measures spip-view on generated logs of a realistic mix. Started by `cargo xtask bench view`.
//!
//! A day at a time is generated, loaded by `spip-view load` and removed again, so that ten million sessions need no ten
//! gigabytes. Then the page is served, and every page is asked for, some times each. CPU time and memory are those of the
//! program alone, whatever else the machine does.

mod client;
mod generate;

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::signal::{Signal, kill};
use nix::time::ClockId;
use nix::unistd::Pid;

const USAGE: &str = "usage: view_bench SPIP-VIEW [--sessions N] [--days N] [--rounds N]";

/// Pages without a query, over the last day and over everything.
const PAGES: &[&str] = &[
    "now",
    "new",
    "sources",
    "sources/SOURCE",
    "ports",
    "ports/22",
    "payloads",
    "clients",
    "campaigns",
    "credentials",
    "scans",
    "search",
    "health",
    "sessions/SESSION",
];

/// Pages that have to look at sessions.
const QUERIES: &[&str] = &[
    "search?q=port:22",
    "search?q=source:SOURCE",
    "search?q=payload~wget%20and%20not%20port:80",
    "now?q=protocol:http",
];

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let Some(program) = arguments.first().map(PathBuf::from).filter(|program| program.is_file()) else {
        eprintln!("{USAGE}");
        std::process::exit(2);
    };
    let option = |name: &str, default: u64| {
        let at = arguments.iter().position(|word| word == name);
        at.and_then(|at| arguments.get(at + 1)).map_or(default, |value| value.parse().expect("a number"))
    };
    let (sessions, days, rounds) = (option("--sessions", 1_000_000), option("--days", 3), option("--rounds", 10));
    let directory = std::env::temp_dir().join(format!("spip-view-bench-{}", std::process::id()));
    std::fs::create_dir_all(&directory).expect("a directory");
    let state = directory.join("state");
    load(&program, &directory, &state, sessions, days);
    serve(&program, &directory, &state, days, rounds);
    first_record(&program, &directory);
    std::fs::remove_dir_all(&directory).expect("the directory is removed");
}

fn load(program: &Path, directory: &Path, state: &Path, sessions: u64, days: u64) {
    let mut generator = generate::Generator::new(sessions / days);
    let (mut cpu, mut wall, mut bytes) = (Duration::ZERO, Duration::ZERO, 0);
    for day in 0..days {
        // The store knows a log by its path.
        let log = directory.join(format!("day-{day}.json"));
        bytes += generator.day(day, &log);
        let before = children();
        let started = Instant::now();
        let status = Command::new(program)
            .args(["load", "--keep-days", "400", "--keep-bytes", "1000000000000", "--state-dir"])
            .arg(state)
            .arg(&log)
            .stdout(Stdio::null())
            .status();
        assert!(status.expect("spip-view starts").success(), "spip-view load fails");
        wall += started.elapsed();
        cpu += children() - before;
        std::fs::remove_file(&log).expect("the log is removed");
    }
    let most = getrusage(UsageWho::RUSAGE_CHILDREN).map_or(0, |usage| usage.max_rss());
    let records = generator.records;
    let rate = records as f64 / cpu.as_secs_f64();
    println!("load            {records} records, {:.0} MB of log", bytes as f64 / 1e6);
    println!(
        "  CPU           {:.1} s: {rate:.0} records/s on one core ({:.1} s on the clock)",
        cpu.as_secs_f64(),
        wall.as_secs_f64()
    );
    println!("  memory        {:.0} MB at most", most as f64 / 1e3);
    let (rows, blocks, total) = sizes(state);
    println!(
        "  store         {:.0} MB: {:.0} bytes a session without records, {:.0} with",
        total as f64 / 1e6,
        rows as f64 / generator.sessions as f64,
        (rows + blocks) as f64 / generator.sessions as f64
    );
}

/// Measures on the clock, with a store that is new, how long after a line is written its record is on the page.
fn first_record(program: &Path, directory: &Path) {
    let line = directory.join("line.json");
    generate::Generator::new(1).day(0, &line);
    let line = std::fs::read(&line).expect("a line");
    let mut times = Vec::new();
    for round in 0..5 {
        let own = directory.join(format!("first-{round}"));
        std::fs::create_dir_all(&own).expect("a directory");
        let server = Server::start(program, &own, &own.join("state"));
        let mut log = std::fs::OpenOptions::new().append(true).open(own.join("empty.json")).expect("the log");
        let started = Instant::now();
        log.write_all(&line).expect("the line is written");
        let is_there = || {
            let found = client::json(&server.address, "/api/v1/search?range=all&limit=1");
            found["sessions"].as_array().is_some_and(|sessions| !sessions.is_empty())
        };
        while !is_there() {
            assert!(started.elapsed() < Duration::from_secs(60), "the record does not come");
            std::thread::sleep(Duration::from_millis(2));
        }
        times.push(started.elapsed().as_secs_f64() * 1e3);
    }
    times.sort_by(f64::total_cmp);
    println!("first record    {:.0} ms after it is logged, {:.0} ms at most of 5, on the clock", times[2], times[4]);
}

/// CPU time of the children that have ended.
fn children() -> Duration {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN).expect("usage");
    let time = |value: nix::sys::time::TimeVal| Duration::new(value.tv_sec() as u64, value.tv_usec() as u32 * 1000);
    time(usage.user_time()) + time(usage.system_time())
}

/// Bytes of everything but records, of records, and of all files.
fn sizes(state: &Path) -> (u64, u64, u64) {
    let mut total = 0;
    let mut blocks = 0;
    let days = std::fs::read_dir(state.join("days")).expect("days");
    for path in days.map(|entry| entry.expect("an entry").path()).chain([state.join("catalog.sqlite")]) {
        total += path.metadata().map_or(0, |metadata| metadata.len());
        let is_day = path.extension().is_some_and(|end| end == "sqlite")
            && path.parent().is_some_and(|parent| parent.ends_with("days"));
        if is_day {
            let connection = rusqlite::Connection::open(&path).expect("a day");
            let sum: Option<i64> =
                connection.query_row("SELECT sum(length(lines)) FROM blocks", [], |row| row.get(0)).expect("blocks");
            blocks += sum.unwrap_or(0) as u64;
        }
    }
    (total - blocks, blocks, total)
}

/// A server that ends with the value.
struct Server {
    child: Child,
    address: String,
}

impl Server {
    fn start(program: &Path, directory: &Path, state: &Path) -> Self {
        let log = directory.join("empty.json");
        std::fs::write(&log, "").expect("an empty log");
        let mut child = Command::new(program)
            .arg("--log")
            .arg(&log)
            .args(["--listen", "127.0.0.1:0", "--keep-days", "400", "--keep-bytes", "1000000000000", "--state-dir"])
            .arg(state)
            .stdout(Stdio::piped())
            .spawn()
            .expect("spip-view starts");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("its output")).read_line(&mut line).expect("a line");
        let address = line.split("http://").nth(1).expect("an address").trim().trim_end_matches('/').to_owned();
        Self { child, address }
    }

    /// CPU time of the server so far, of all threads.
    fn cpu_ms(&self) -> f64 {
        let clock = ClockId::pid_cpu_clock_id(Pid::from_raw(self.child.id() as i32)).expect("a clock");
        let time = Duration::from(clock.now().expect("its time"));
        time.as_secs_f64() * 1e3
    }

    fn memory_mb(&self) -> f64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("its status");
        let line = status.lines().find(|line| line.starts_with("VmHWM:")).expect("VmHWM");
        let kb: f64 = line.split_whitespace().nth(1).expect("a number").parse().expect("a number");
        kb / 1e3
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = kill(Pid::from_raw(self.child.id() as i32), Signal::SIGTERM);
        let _ = self.child.wait();
    }
}

fn serve(program: &Path, directory: &Path, state: &Path, days: u64, rounds: u64) {
    let server = Server::start(program, directory, state);
    let last = generate::end_of(days - 1);
    let newest = client::json(
        &server.address,
        &format!("/api/v1/search?from={}&to={last}&limit=1", generate::start_of(days - 1)),
    );
    let session = newest["sessions"][0]["id"].as_str().expect("a session").to_owned();
    let top = client::json(
        &server.address,
        &format!("/api/v1/sources?from={}&to={last}&limit=1", generate::start_of(days - 1)),
    );
    let source = top["sources"][0]["source"].as_str().expect("a source").to_owned();
    println!("\npage, CPU time                              last day: median, 95 %     {days} days: median, 95 %");
    let mut pages_mb = 0.0;
    for (index, page) in PAGES.iter().chain(QUERIES).enumerate() {
        if index == PAGES.len() {
            pages_mb = server.memory_mb();
        }
        let page = page.replace("SOURCE", &source).replace("SESSION", &session);
        let mut line = format!("{page:<42}");
        for from in [generate::start_of(days - 1), generate::start_of(0)] {
            let separator = if page.contains('?') { '&' } else { '?' };
            let path = format!("/{page}{separator}from={from}&to={last}").replace("/now", "/");
            let mut times: Vec<f64> = (0..rounds.max(1)).map(|_| client::cpu(&server, &path)).collect();
            times.sort_by(f64::total_cmp);
            let at =
                |share: f64| times.get(((times.len() - 1) as f64 * share).round() as usize).copied().unwrap_or(0.0);
            line.push_str(&format!("{:>14.1} ms {:>8.1} ms", at(0.5), at(0.95)));
        }
        println!("{line}");
    }
    println!(
        "memory          {pages_mb:.0} MB at most while serving pages without a query, {:.0} MB with queries",
        server.memory_mb()
    );
}
