//! The program as tests start and ask it, and lines of a log.

use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A directory that vanishes with the value.
pub(crate) struct Scratch(pub(crate) PathBuf);

impl Scratch {
    pub(crate) fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("spip-view-test-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The program; killed when the value goes.
pub(crate) struct View {
    pub(crate) child: Child,
    address: String,
}

impl View {
    pub(crate) fn start(arguments: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_spip-view"));
        Self::of(command.args(arguments).args(["--listen", "127.0.0.1:0"]).stdin(Stdio::null()))
    }

    /// Starts a command that ends in the program.
    pub(crate) fn of(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.split("http://").nth(1).expect("an address").trim().trim_end_matches('/').to_owned();
        Self { child, address }
    }

    pub(crate) fn get(&self, path: &str) -> serde_json::Value {
        serde_json::from_str(&self.text(path)).unwrap()
    }

    /// Returns the body of an answer.
    pub(crate) fn text(&self, path: &str) -> String {
        let mut stream = std::net::TcpStream::connect(&self.address).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", self.address).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 200"), "{path}: {answer}");
        body.to_owned()
    }

    pub(crate) fn sessions(&self) -> u64 {
        self.get("/api/v1/search?range=all&limit=1")["total"]["value"].as_u64().unwrap()
    }

    pub(crate) fn wait_for(&self, sessions: u64) {
        let until = Instant::now() + Duration::from_secs(60);
        while self.sessions() != sessions {
            assert!(
                Instant::now() < until,
                "{} of {sessions} sessions; {}",
                self.sessions(),
                self.get("/api/v1/health")
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for View {
    fn drop(&mut self) {
        // SIGKILL: nothing can be tidied up.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Lines of sessions `from..to`, over two days, five sources and ten ports.
pub(crate) fn lines(from: u64, to: u64, run: Option<&str>) -> String {
    let mut out = String::new();
    for seq in from..to {
        let second = 1_767_225_600 + seq * 60;
        let (day, rest) = ((second - 1_767_225_600) / 86_400, second % 86_400);
        let time = format!("2026-01-{:02}T{:02}:{:02}:{:02}.000000Z", day + 1, rest / 3600, rest / 60 % 60, rest % 60);
        let run = run.map_or_else(String::new, |run| format!("\"run\":\"{run}\","));
        writeln!(
            out,
            "{{\"timestamp\":{second},\"payload\":\"hi {seq}\",\"payload_hex\":\"{}\",\"source_ip\":\"198.51.100.{}\",\"source_port\":40000,\
             \"destination_ip\":\"192.0.2.1\",\"destination_port\":{},\"session_id\":\"8c5f2c9e-1122-4344-8556-{seq:012x}\",\"is_tls\":false,\
             \"schema\":\"spip/1\",\"name\":\"test\",{run}\"time\":\"{time}\",\"duration_ms\":1,\"duration_us\":1000,\"bytes_in\":5,\"bytes_out\":0,\
             \"payload_truncated\":false,\"payload_sha256\":\"{seq:064x}\",\"close_reason\":\"client_closed\",\"destination_source\":\"ebpf\",\
             \"community_id\":\"1:LQU9qZlK+B5F3KDmev6m5PMibrg=\",\"protocol\":\"unknown\",\"seq\":{seq}}}",
            hex(format!("hi {seq}").as_bytes()),
            seq % 5,
            seq % 10 + 1,
        )
        .unwrap();
    }
    out
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(crate) fn append(path: &Path, text: &str) {
    let mut file = std::fs::OpenOptions::new().create(true).append(true).open(path).unwrap();
    file.write_all(text.as_bytes()).unwrap();
}

pub(crate) fn report(arguments: &[&str]) -> serde_json::Value {
    let output =
        Command::new(env!("CARGO_BIN_EXE_spip-view")).arg("report").args(arguments).arg("--json").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}
