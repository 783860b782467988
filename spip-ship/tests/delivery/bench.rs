//! `cargo xtask bench ship`: records per second and core into JetStream, memory, and the cost of idling along.
//!
//! The baseline copies the same file through Zstandard into a socket, in one thread: what cannot be saved. The records differ
//! as those of many clients do, because Zstandard is several times faster where lines repeat each other.

use std::fmt::Write as _;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::ops::Range;
use std::process::Child;
use std::thread;
use std::time::{Duration, Instant};

use nix::time::{ClockId, clock_gettime};

use crate::support::{Nats, Place, append, follow, peer, wait_for};

/// Records of the throughput.
const RECORDS: u64 = 600_000;

/// Returns records of clients that have little in common: addresses, identities, payloads, times.
fn varied(numbers: Range<u64>) -> String {
    let mut state = numbers.start.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut random = move || {
        // xorshift64*: the same records in each run.
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        state.wrapping_mul(0x2545_f491_4f6c_dd1d)
    };
    numbers.fold(String::new(), |mut text, seq| {
        let (one, other, address, id) = (random(), random(), random().to_be_bytes(), random());
        let (port, duration) = (random() % 60_000 + 1_024, random() % 2_000_000);
        let _ = writeln!(
            text,
            "{{\"timestamp\":{},\"payload\":\"GET /{one:x} HTTP/1.1\\r\\nHost: {}.{}.{}.{}\\r\\n\\r\\n\",\
             \"payload_hex\":\"474554202f{one:016x}20485454502f312e310d0a{other:016x}\",\"source_ip\":\"{}.{}.{}.{}\",\
             \"source_port\":{port},\"destination_ip\":\"198.51.100.{}\",\"destination_port\":{},\
             \"session_id\":\"{:08x}-0000-4000-8000-{:012x}\",\"is_tls\":false,\"schema\":\"spip/1\",\"name\":\"bench\",\
             \"run\":\"r\",\"time\":\"2026-11-29T09:{:02}:{:02}.{:06}Z\",\"duration_ms\":{},\"duration_us\":{duration},\
             \"bytes_in\":{},\"bytes_out\":0,\"payload_truncated\":false,\"close_reason\":\"client_closed\",\
             \"destination_source\":\"ebpf\",\"community_id\":\"1:{other:016x}{id:010x}=\",\"protocol\":\"http\",\"seq\":{seq}}}",
            1_795_944_926 + seq / 1_000,
            address[0] % 223 + 1,
            address[1],
            address[2],
            address[3],
            address[4] % 223 + 1,
            address[5],
            address[6],
            address[7],
            one % 250,
            other % 65_000,
            one >> 32,
            id >> 16,
            seq / 60_000 % 60,
            seq / 1_000 % 60,
            one % 1_000_000,
            duration / 1_000,
            other % 700,
        );
        text
    })
}

/// Returns the CPU time of a process in seconds, and the most memory that it had, in megabytes.
fn usage(child: &Child) -> (f64, f64) {
    let stat = fs::read_to_string(format!("/proc/{}/stat", child.id())).expect("it runs");
    let fields: Vec<_> = stat.rsplit_once(") ").expect("a name").1.split(' ').collect();
    let ticks: f64 = fields[11].parse::<f64>().expect("user") + fields[12].parse::<f64>().expect("system");
    let status = fs::read_to_string(format!("/proc/{}/status", child.id())).expect("it runs");
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a peak");
    let kilobytes: f64 = peak.trim().trim_end_matches(" kB").parse().expect("a number");
    (ticks / 100.0, kilobytes / 1_000.0)
}

#[test]
#[ignore = "a benchmark: cargo xtask bench ship"]
fn bench_ship() {
    let Some(program) = peer("SPIP_NATS_SERVER") else { return };
    let place = Place::new();
    let server = Nats::start(&program, &place, "");
    let sink = server.sink().replace("batch_bytes = 8192\n", "");
    for chunk in 0..RECORDS / 10_000 {
        append(&place.log(), &varied(1 + chunk * 10_000..10_001 + chunk * 10_000));
    }
    let bytes = fs::metadata(place.log()).expect("a log").len();
    let copied = copy(&place);
    let started = Instant::now();
    let mut shipper = follow(&place.configure(&sink));
    let state = place.path("state/nats.state");
    wait_for("everything is delivered", || {
        fs::read_to_string(&state).ok()?.contains(&format!("\"shipped\":{RECORDS},")).then_some(())
    });
    let wall = started.elapsed().as_secs_f64();
    let (cpu, memory) = usage(&shipper.0);
    println!("{RECORDS} records, {} MB, {} bytes each", bytes / 1_000_000, bytes / RECORDS);
    println!("delivered in {wall:.2} s: {:.0} records/s", RECORDS as f64 / wall);
    println!("CPU {cpu:.2} s: {:.0} records/s a core; {memory:.1} MB at most", RECORDS as f64 / cpu);
    reading(&place);
    println!("copying through zstd into a socket: {copied:.2} s of CPU; ratio {:.2}", cpu / copied);
    // A hundred records a second, in tens.
    let (before, seconds) = (usage(&shipper.0).0, 20);
    for tick in 0..seconds * 10 {
        append(&place.log(), &varied(RECORDS + 1 + tick * 10..RECORDS + 11 + tick * 10));
        thread::sleep(Duration::from_millis(100));
    }
    let share = (usage(&shipper.0).0 - before) / seconds as f64 * 100.0;
    println!("at 100 records/s: {share:.2} % of a core");
    assert!(shipper.terminate().success());
}

/// Reads each line as delivery does, for its identity, and as a whole record: the CPU time of both.
fn reading(place: &Place) {
    let log = fs::read(place.log()).expect("a log");
    let lines: Vec<_> = spip_ship::line::lines(&log).take(100_000).collect();
    let seconds = |read: &dyn Fn(&[u8]) -> bool| {
        let before = own_time();
        assert!(lines.iter().all(|line| read(line)));
        own_time() - before
    };
    let identity = seconds(&|line| spip_record::read::identity(line).is_ok());
    let whole = seconds(&|line| spip_record::read::line(line).is_ok());
    let each = |seconds: f64| seconds * 1e9 / lines.len() as f64;
    println!("reading a line: {:.0} ns for its identity, {:.0} ns as a record", each(identity), each(whole));
}

/// Returns the CPU time of this thread in seconds.
fn own_time() -> f64 {
    Duration::from(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).expect("a clock")).as_secs_f64()
}

/// Copies the log through Zstandard into a socket; returns the CPU time of the thread in seconds.
fn copy(place: &Place) -> f64 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("an address");
    let sink = thread::spawn(move || {
        let (mut client, _) = listener.accept().expect("a client");
        let mut bytes = vec![0; 128 * 1024];
        while client.read(&mut bytes).is_ok_and(|count| count > 0) {}
    });
    let log = place.log();
    let copier = thread::spawn(move || {
        let mut file = fs::File::open(log).expect("a log");
        let socket = TcpStream::connect(address).expect("it listens");
        let mut encoder = zstd::stream::Encoder::new(socket, 1).expect("an encoder");
        let mut bytes = vec![0; 128 * 1024];
        loop {
            let count = file.read(&mut bytes).expect("a log");
            if count == 0 {
                break;
            }
            encoder.write_all(&bytes[..count]).expect("sent");
        }
        encoder.finish().expect("sent");
        own_time()
    });
    let time = copier.join().expect("no panic");
    sink.join().expect("no panic");
    time
}
