//! NATS servers of a test: one, or a cluster of three, and what their stream holds.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use base64::Engine as _;
use spip_ship::config::NatsAccess;
use spip_ship::nats::Connection;

use super::{Place, Process, count, free_port, wait_for};
use crate::network::Network;

/// A NATS server with JetStream.
pub(crate) struct Nats {
    program: PathBuf,
    directory: PathBuf,
    pub(crate) port: u16,
    process: Option<Process>,
    more: String,
}

impl Nats {
    pub(crate) fn start(program: &Path, place: &Place, more: &str) -> Self {
        let mut server = Self {
            program: program.to_owned(),
            directory: place.path("nats"),
            port: free_port(),
            process: None,
            more: more.to_owned(),
        };
        server.run();
        server
    }

    pub(crate) fn run(&mut self) {
        fs::create_dir_all(&self.directory).expect("a temporary directory");
        let file = self.directory.join("nats.conf");
        let text = format!(
            "listen: \"127.0.0.1:{}\"\njetstream {{ store_dir: {:?}, sync_interval: always }}\n{}",
            self.port, self.directory, self.more
        );
        fs::write(&file, text).expect("a writable directory");
        let output = fs::File::create(self.directory.join("output")).expect("a writable directory");
        let child = Command::new(&self.program)
            .arg("-c")
            .arg(&file)
            .stdout(Stdio::null())
            .stderr(output)
            .spawn()
            .expect("the server starts");
        self.process = Some(Process(child));
        wait_for("the server listens", || TcpStream::connect(("127.0.0.1", self.port)).ok());
    }

    pub(crate) fn kill(&mut self) {
        if let Some(process) = &mut self.process {
            process.kill();
        }
    }

    pub(crate) fn sink(&self) -> String {
        sink_at(self.port)
    }

    /// Returns every message of the stream `SPIP`: subject, headers and lines.
    pub(crate) fn messages(&self) -> Vec<Message> {
        messages(access(self.port))
    }

    /// Changes what is set of the stream `SPIP`.
    pub(crate) fn update_stream(&self, changes: &serde_json::Value) {
        let runtime = runtime();
        let mut connection = Connection::new(access(self.port), runtime.handle().clone(), None);
        let info: serde_json::Value = connection.api("STREAM.INFO.SPIP", &serde_json::Value::Null).expect("a stream");
        let mut config = info["config"].clone();
        for (key, value) in changes.as_object().expect("an object") {
            config[key] = value.clone();
        }
        let _: serde_json::Value = connection.api("STREAM.UPDATE.SPIP", &config).expect("changed");
    }

    /// Removes a message of the stream.
    pub(crate) fn delete(&self, seq: u64) {
        let runtime = runtime();
        let mut connection = Connection::new(access(self.port), runtime.handle().clone(), None);
        let _: serde_json::Value =
            connection.api("STREAM.MSG.DELETE.SPIP", &serde_json::json!({ "seq": seq })).expect("removed");
    }

    /// Removes the last message of the stream, as a server does that loses power before it wrote it.
    pub(crate) fn delete_last(&self) {
        let runtime = runtime();
        let mut connection = Connection::new(access(self.port), runtime.handle().clone(), None);
        let info: serde_json::Value = connection.api("STREAM.INFO.SPIP", &serde_json::Value::Null).expect("a stream");
        let seq = info["state"]["last_seq"].clone();
        let _: serde_json::Value =
            connection.api("STREAM.MSG.DELETE.SPIP", &serde_json::json!({ "seq": seq })).expect("removed");
    }

    /// Counts what is stored, if there is a stream yet.
    pub(crate) fn stored_or_nothing(&self) -> BTreeMap<(String, String, u64), u32> {
        let runtime = runtime();
        let mut connection = Connection::new(access(self.port), runtime.handle().clone(), None);
        match connection.api::<serde_json::Value>("STREAM.INFO.SPIP", &serde_json::Value::Null) {
            Ok(info) if info["state"]["last_seq"].as_u64() > Some(0) => self.stored(),
            _ => BTreeMap::new(),
        }
    }

    /// Counts what is stored: how often each (`name`, `run`, `seq`).
    pub(crate) fn stored(&self) -> BTreeMap<(String, String, u64), u32> {
        let mut counts = BTreeMap::new();
        for message in self.messages() {
            count(&message.lines, &mut counts);
        }
        counts
    }
}

/// Three NATS servers that keep every message three times, each on its host.
pub(crate) struct Cluster {
    /// The program of each member.
    programs: [PathBuf; 3],
    directory: PathBuf,
    network: Arc<Network>,
    /// For clients, and for the other servers.
    ports: Vec<(u16, u16)>,
    members: Vec<Option<Process>>,
}

impl Cluster {
    pub(crate) fn start(programs: [PathBuf; 3], place: &Place, network: Arc<Network>) -> Self {
        let mut cluster = Self {
            programs,
            directory: place.path("cluster"),
            network,
            ports: (0..3).map(|_| (free_port(), free_port())).collect(),
            members: vec![None, None, None],
        };
        (0..3).for_each(|member| cluster.run(member));
        wait_for("the cluster has a leader", || {
            cluster.ask(0, |connection| connection.api::<serde_json::Value>("INFO", &serde_json::Value::Null).ok())
        });
        cluster
    }

    /// Runs `act` with a connection to a member, on its host.
    fn ask<T: Send>(&self, member: usize, act: impl FnOnce(&mut Connection) -> T + Send) -> T {
        self.network.servers[member].enter(|| {
            let runtime = runtime();
            act(&mut Connection::new(self.access(member), runtime.handle().clone(), None))
        })
    }

    fn access(&self, member: usize) -> NatsAccess {
        NatsAccess { urls: vec![format!("nats://{}", self.address(member))], ..access(0) }
    }

    pub(crate) fn address(&self, member: usize) -> SocketAddr {
        (self.network.servers[member].address, self.ports[member].0).into()
    }

    pub(crate) fn urls(&self) -> Vec<String> {
        (0..3).map(|member| format!("nats://{}", self.address(member))).collect()
    }

    pub(crate) fn run(&mut self, member: usize) {
        let directory = self.directory.join(member.to_string());
        fs::create_dir_all(&directory).expect("a temporary directory");
        let hosts = self.network.servers.iter().zip(&self.ports);
        let routes: Vec<_> = hosts.map(|(host, (_, route))| format!("nats://{}:{route}", host.address)).collect();
        let (host, (port, route)) = (&self.network.servers[member], self.ports[member]);
        let address = host.address;
        let text = format!(
            "server_name: n{member}\nlisten: \"{address}:{port}\"\njetstream {{ store_dir: {directory:?}, sync_interval: always }}\n\
             cluster {{ name: c, listen: \"{address}:{route}\", routes: {routes:?} }}\n"
        );
        let file = directory.join("nats.conf");
        fs::write(&file, text).expect("a writable directory");
        let output = fs::OpenOptions::new().append(true).create(true).open(directory.join("output"));
        let output = output.expect("a writable directory");
        let mut command = Command::new(&self.programs[member]);
        command.arg("-c").arg(&file).stdout(Stdio::null()).stderr(output);
        self.members[member] = Some(host.enter(|| {
            let server = Process(command.spawn().expect("the server starts"));
            wait_for("the server listens", || TcpStream::connect((address, port)).ok());
            server
        }));
    }

    pub(crate) fn kill(&mut self, member: usize) {
        self.members[member] = None;
    }

    /// Lets the stream take nothing more, or everything again. Reports whether `member` could: one that is electing a leader
    /// cannot.
    pub(crate) fn fill_stream(&self, member: usize, is_full: bool) -> bool {
        self.ask(member, |connection| {
            let info = connection.api::<serde_json::Value>("STREAM.INFO.SPIP", &serde_json::Value::Null);
            let Ok(info) = info else { return false };
            let mut config = info["config"].clone();
            config["max_msgs"] = if is_full { info["state"]["messages"].clone() } else { serde_json::json!(-1) };
            // 0 would be no bound.
            config["max_msgs"] != 0 && connection.api::<serde_json::Value>("STREAM.UPDATE.SPIP", &config).is_ok()
        })
    }

    /// Lists the messages of `sensor` that repeat a record, each with the one that had it before: sequence, time and headers.
    pub(crate) fn repeated(&self, sensor: &str) -> String {
        let mut first = BTreeMap::new();
        let mut text = String::new();
        let messages = self.network.servers[0].enter(|| messages(self.access(0)));
        for (at, message) in messages.iter().enumerate() {
            if message.subject != format!("spip.records.{sensor}") {
                continue;
            }
            let mut counts = BTreeMap::new();
            count(&message.lines, &mut counts);
            let earlier = counts.keys().filter_map(|key| first.get(key).copied()).min();
            if let Some(earlier) = earlier {
                let show = |at: usize| {
                    let Message { seq, time, headers, .. } = &messages[at];
                    format!("{seq} {time}\n    {}\n", headers.trim().replace("\r\n", "\n    "))
                };
                let _ = writeln!(text, "stored: {}repeated: {}", show(earlier), show(at));
            }
            counts.into_keys().for_each(|key| {
                first.entry(key).or_insert(at);
            });
        }
        text
    }
}

pub(crate) fn sink_at(port: u16) -> String {
    format!("[[sink]]\nkind = \"nats\"\nurl = \"nats://127.0.0.1:{port}\"\nstream = \"SPIP\"\nbatch_bytes = 8192\n")
}

pub(crate) fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime")
}

pub(crate) fn access(port: u16) -> NatsAccess {
    NatsAccess {
        urls: vec![format!("nats://127.0.0.1:{port}")],
        stream: "SPIP".to_owned(),
        subject_prefix: "spip.records".to_owned(),
        domain: None,
        credentials: None,
        nkey: None,
        user: None,
        password: None,
        token: None,
        ca: None,
        certificate: None,
    }
}

pub(crate) struct Message {
    pub(crate) seq: u64,
    pub(crate) time: String,
    pub(crate) subject: String,
    pub(crate) headers: String,
    pub(crate) lines: String,
}

fn messages(access: NatsAccess) -> Vec<Message> {
    let runtime = runtime();
    let mut connection = Connection::new(access, runtime.handle().clone(), None);
    let info: serde_json::Value = connection.api("STREAM.INFO.SPIP", &serde_json::Value::Null).expect("a stream");
    let last = info["state"]["last_seq"].as_u64().expect("a number");
    let first = info["state"]["first_seq"].as_u64().expect("a number");
    (first..=last).filter_map(|seq| message(&mut connection, seq)).collect()
}

fn message(connection: &mut Connection, seq: u64) -> Option<Message> {
    let answer: serde_json::Value = match connection.api("STREAM.MSG.GET.SPIP", &serde_json::json!({ "seq": seq })) {
        Ok(answer) => answer,
        // Removed: the number stays free.
        Err(spip_ship::nats::Error::Api(error)) if error.err_code == 10043 || error.err_code == 10037 => return None,
        Err(error) => panic!("message {seq}: {error}"),
    };
    let message = &answer["message"];
    let decode = |key: &str| {
        let text = message[key].as_str().unwrap_or_default();
        base64::engine::general_purpose::STANDARD.decode(text).expect("base64")
    };
    let headers = String::from_utf8(decode("hdrs")).expect("UTF-8");
    let payload = decode("data");
    let payload = if headers.contains("Content-Encoding: zstd") {
        zstd::decode_all(payload.as_slice()).expect("zstd")
    } else {
        payload
    };
    Some(Message {
        seq,
        time: message["time"].as_str().unwrap_or_default().to_owned(),
        subject: message["subject"].as_str().expect("a subject").to_owned(),
        headers,
        lines: String::from_utf8(payload).expect("UTF-8"),
    })
}
