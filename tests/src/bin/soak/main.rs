//! Hours of mixed load in network namespaces: does anything grow, and is every connection recorded?
//!
//! Five hundred sources speak in clear and over TLS, stay silent, dawdle, reset, and scan, at a bounded rate. A reader
//! follows the log across rotations and strikes every connection off that has its record; samples of memory,
//! descriptors and map sizes are taken beside. At the end the agent is stopped, and the verdict is printed: one line for
//! what was sent against what was recorded, one for each thing that may not grow. Started by `cargo xtask soak`.

mod client;
mod load;
mod tally;
mod watch;

use std::process::{Command, ExitCode, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use spip_tests::{LISTENER, Net};

use load::Load;
use tally::Tally;
use watch::{Samples, Watch};

/// Seconds after which the agent gives up on the silent; the load has to know.
const FIRST_BYTE_SECONDS: u64 = 3;
/// After the load has ended, the last records come within the longest timeout.
const PATIENCE: Duration = Duration::from_secs(30);

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let (minutes, rate) = match words.as_slice() {
        [minutes] => (minutes.parse::<f64>().ok(), Some(200)),
        [minutes, "--rate", rate] => (minutes.parse::<f64>().ok(), rate.parse().ok()),
        _ => (None, None),
    };
    let (Some(minutes), Some(rate)) = (minutes, rate) else {
        eprintln!("usage: soak MINUTES [--rate CONNECTIONS_A_SECOND]");
        return ExitCode::from(2);
    };
    let Some(net) = Net::new() else { return ExitCode::FAILURE };
    if soak(&net, Duration::from_secs_f64(60.0 * minutes), rate) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn soak(net: &Net, duration: Duration, rate: u32) -> bool {
    net.add_crowd();
    let log = net.path().join("spip.jsonl");
    let config = net.path().join("soak.toml");
    std::fs::write(&config, configuration(net)).expect("the directory is ours");
    let binary = std::env::var_os("SPIP_AGENT_BIN").expect("cargo xtask soak names the agent");
    let mut agent = net.sensor.enter(|| {
        Command::new(binary)
            .arg("--config")
            .arg(&config)
            .current_dir("/")
            .stdin(Stdio::null())
            .spawn()
            .expect("the agent starts")
    });
    let tally = Arc::new(Tally::default());
    let stop_reading = Arc::new(AtomicBool::new(false));
    let reader = {
        let (tally, stop) = (Arc::clone(&tally), Arc::clone(&stop_reading));
        std::thread::spawn(move || tally::read(&log, &tally, &stop))
    };
    spip_tests::eventually("the agent is ready", || tally.is_ready().then_some(()));

    let watch = Watch::new(net, agent.id());
    let mut samples = Samples::new(duration);
    samples.push(watch.sample(&tally));
    println!("{}", watch::HEADING);
    let load = Load::start(net, &tally, rate, Duration::from_secs(FIRST_BYTE_SECONDS));
    let end = Instant::now() + duration;
    while Instant::now() < end {
        std::thread::sleep(samples.interval().min(end.saturating_duration_since(Instant::now())));
        let sample = watch.sample(&tally);
        println!("{sample}");
        samples.push(sample);
        if let Ok(Some(status)) = agent.try_wait() {
            println!("FAILED: the agent ended with {status}");
            return false;
        }
    }
    load.stop();
    let drained = Instant::now() + PATIENCE;
    while tally.pending() > 0 && Instant::now() < drained {
        std::thread::sleep(Duration::from_millis(100));
    }
    // Sockets that the agent has closed are the kernel's for a moment.
    std::thread::sleep(Duration::from_secs(1));
    let last = watch.sample(&tally);
    println!("{last}  (at rest)");

    let pid = i32::try_from(agent.id()).expect("process numbers are below 2^22");
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::SIGTERM).expect("the agent runs");
    let status = agent.wait().expect("it is our child");
    stop_reading.store(true, Ordering::Relaxed);
    reader.join().expect("the reader ends");

    let mut verdicts = tally.verdicts();
    verdicts.push((status.success(), format!("the agent ended with {status}")));
    verdicts.extend(samples.verdicts(&last));
    println!();
    for (fine, text) in &verdicts {
        println!("{} {text}", if *fine { "ok    " } else { "FAILED" });
    }
    verdicts.iter().all(|(fine, _)| *fine)
}

/// Short timeouts, so that every kind of end comes often, and rotation as often.
fn configuration(net: &Net) -> String {
    let path = |name: &str| format!("{:?}", net.path().join(name).display().to_string());
    format!(
        "ip = \"::\"\nport = {LISTENER}\nsteering = \"sk_lookup\"\nebpf = \"required\"\nbpf_pin_path = {:?}\n\
         status_socket = {}\nstate_dir = {}\nlog_file = {}\nlog_rotate_bytes = 33554432\nlog_keep_files = 3\n\
         first_byte_timeout_seconds = {FIRST_BYTE_SECONDS}\nread_timeout_seconds = 5\nsession_timeout_seconds = 10\n\
         scan_timeout_seconds = 2\nscan_interval_seconds = 10\n",
        net.pins().display().to_string(),
        path("status.sock"),
        path("state"),
        path("spip.jsonl"),
    )
}
