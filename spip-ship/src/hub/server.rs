//! The texts that a hub consists of: configuration of the servers, their users, the hub's shipper, units, join files.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use super::registry::{Registry, bracketed};
use crate::nats::{subject_of, token_of};

/// Stream and prefix of every hub.
const STREAM: &str = "SPIP";
const PREFIX: &str = "spip.records";

/// Port between the servers of a cluster.
const ROUTES: u16 = 6222;

/// Quotes a text for NATS configuration and TOML: both read JSON's strings.
fn quoted(text: impl std::fmt::Display) -> String {
    serde_json::Value::String(text.to_string()).to_string()
}

/// Returns the configuration of the server `host`.
pub(super) fn configuration(registry: &Registry, node: &Path, host: &str) -> String {
    let file = |name: &str| quoted(node.join(name).display());
    let tls =
        format!("cert_file: {}\n  key_file: {}\n  ca_file: {}", file("server.pem"), file("server.key"), file("ca.pem"));
    let mut text = format!(
        "# NATS server of a spip hub. Written by spip-ship hub init.\n\
         server_name: {}\n\
         port: {}\n\
         pid_file: {}\n\
         # Messages have at most 512 KiB of lines before compression.\n\
         max_payload: 1MB\n\
         max_connections: 65536\n\
         write_deadline: \"10s\"\n\n\
         tls {{\n  {tls}\n  timeout: 10\n}}\n\n\
         # sync_interval: an acknowledged message is on the disk.\n\
         jetstream {{\n  store_dir: {}\n  sync_interval: always\n  max_file_store: {}GB\n}}\n\n\
         include \"users.conf\"\n",
        quoted(host),
        registry.port(),
        quoted(registry.pid_file(host).display()),
        quoted(registry.store(host).display()),
        registry.disk_gb(),
    );
    if registry.hosts().len() > 1 {
        let routes: Vec<_> = registry
            .hosts()
            .iter()
            .filter(|other| *other != host)
            .map(|other| quoted(format!("tls://{}:{ROUTES}", bracketed(other))))
            .collect();
        let _ = write!(
            text,
            "\ncluster {{\n  name: spip\n  port: {ROUTES}\n  tls {{\n  {tls}\n  verify: true\n  timeout: 10\n  }}\n  routes: [{}]\n}}\n",
            routes.join(", ")
        );
    }
    text
}

/// Returns the users: the hub's shipper, and each sensor with the rights of its own subject.
///
/// A server checks the subject to which a user publishes, not the one that it names for the answer, and sends the answer
/// there itself: in one account with the stream, a sensor could have the server purge it, or write to the subject of
/// another sensor. So sensors have an account of their own. It imports two kinds of subjects, and what answers is not
/// forwarded by an import. Not an account for each: a server that reloads does not connect the imports of a new account
/// (2.15.1), of a new user of an old account it does.
pub(super) fn users(registry: &Registry) -> String {
    let last = |subject: &str| format!("$JS.API.DIRECT.GET.{STREAM}.{subject}");
    let every = format!("{PREFIX}.*");
    let (records, last_ones) = (quoted(&every), quoted(last(&every)));
    let mut text = format!(
        "# Users of a spip hub. Written by spip-ship hub add and revoke; changes by hand are lost.\n\
         authorization {{ timeout: 10 }}\naccounts {{\n  hub: {{\n    jetstream: enabled\n    \
         users: [{{ nkey: {}, permissions: {{\n      publish: [\"$JS.API.>\", \"$JS.ACK.>\"], subscribe: [\"_INBOX.>\"] }} }}]\n    \
         exports: [{{ service: {records} }}, {{ service: {last_ones} }}]\n  }}\n  \
         sensors: {{\n    imports: [\n      {{ service: {{ account: hub, subject: {records} }} }},\n      \
         {{ service: {{ account: hub, subject: {last_ones} }} }}\n    ]\n    users: [\n",
        quoted(registry.hub()),
    );
    for (name, public) in registry.sensors() {
        let subject = subject_of(PREFIX, name);
        let _ = writeln!(
            text,
            "      {{ nkey: {}, permissions: {{ # {}\n        publish: [{}, {}], subscribe: [{}] }} }}",
            quoted(public),
            token_of(name),
            quoted(&subject),
            quoted(last(&subject)),
            quoted(format!("_INBOX.spip-{}.>", token_of(name))),
        );
    }
    text.push_str("    ]\n  }\n}\n");
    text
}

/// Returns the configuration of the hub's shipper.
pub(super) fn hub_configuration(registry: &Registry, directory: &Path, keep_hours: u64) -> String {
    let urls: Vec<_> = registry.urls().iter().map(quoted).collect();
    // What the servers may use, less what they need beside messages.
    let max_bytes = registry.disk_gb().saturating_mul(900_000_000);
    format!(
        "# The hub's shipper: from the stream into logs, a directory per sensor. Written by spip-ship hub init.\n\
         state_dir = {}\n\
         metrics = \"127.0.0.1:9466\"\n\n\
         [source]\n\
         kind = \"nats\"\n\
         url = [{}]\n\
         stream = {}\n\
         ca_file = {}\n\
         nkey_file = {}\n\
         # The stream is made with these: sensors wait when max_bytes are full, and replay reaches max_age_hours back.\n\
         replicas = {}\n\
         max_bytes = {max_bytes}\n\
         max_age_hours = {keep_hours}\n\n\
         [[sink]]\n\
         kind = \"files\"\n\
         path = {}\n",
        quoted(registry.data().join("ship").display()),
        urls.join(", "),
        quoted(STREAM),
        quoted(directory.join("ca.pem").display()),
        quoted(directory.join("hub.nkey").display()),
        registry.hosts().len(),
        quoted(registry.data().join("logs").display()),
    )
}

/// Returns the join file of a sensor.
pub(super) fn join_file(registry: &Registry, name: &str, seed: &str, authority: &str) -> String {
    let urls: Vec<_> = registry.urls().iter().map(quoted).collect();
    format!(
        "# Join file of the sensor {}. It holds the key of this sensor: move it there, run `spip-ship join FILE`, remove it.\n\
         version = 1\n\
         name = {}\n\
         url = [{}]\n\
         stream = {}\n\
         subject_prefix = {}\n\
         seed = {}\n\
         ca = '''\n{}'''\n",
        token_of(name),
        quoted(name),
        urls.join(", "),
        quoted(STREAM),
        quoted(PREFIX),
        quoted(seed),
        authority,
    )
}

/// Directories in which packages and releases put the server.
const PROGRAMS: [&str; 4] = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin"];

/// Returns the path of the server's program: the usual one where it is not installed yet.
fn program() -> PathBuf {
    let paths = PROGRAMS.map(|directory| Path::new(directory).join("nats-server"));
    paths.iter().find(|path| path.is_file()).unwrap_or(&paths[3]).clone()
}

/// Returns the unit of the server `host`.
pub(super) fn nats_unit(registry: &Registry, node: &Path, host: &str) -> String {
    format!(
        "[Unit]\nDescription=NATS server of a spip hub\nAfter=network-online.target\nWants=network-online.target\n\n\
         [Service]\nUser=nats\nGroup=nats\n\
         ExecStart={} -c {}/nats.conf\nExecReload=/bin/kill -HUP $MAINPID\n\
         Restart=always\nRestartSec=2s\nLimitNOFILE=200000\nUMask=0027\nNoNewPrivileges=yes\nProtectSystem=strict\n\
         ProtectHome=yes\nPrivateTmp=yes\nPrivateDevices=yes\n{}\nCapabilityBoundingSet=\n\n\
         [Install]\nWantedBy=multi-user.target\n",
        program().display(),
        node.display(),
        writable(&registry.store(host))
    )
}

/// Returns the setting that lets a unit write to its store. The service manager makes a state directory where it is
/// missing, as on the other servers of a cluster.
fn writable(store: &Path) -> String {
    match store.strip_prefix("/var/lib") {
        Ok(below) => format!("StateDirectory={}\nStateDirectoryMode=0750", below.display()),
        Err(_) => format!("ReadWritePaths={}", store.display()),
    }
}

/// Returns the unit of the hub's shipper. Its group reads the logs, as that of the agent does.
pub(super) fn hub_unit(directory: &Path, data: &Path) -> String {
    format!(
        "[Unit]\nDescription=Hub of spip: writes what sensors sent as logs\nAfter=spip-nats.service\n\n\
         [Service]\nType=notify\nUser=spip-ship\nGroup=spip\n\
         ExecStart=/usr/bin/spip-ship --config {}/hub.toml\nExecReload=/bin/kill -HUP $MAINPID\n\
         Restart=always\nRestartSec=5s\nRestartPreventExitStatus=2\nWatchdogSec=120s\nUMask=0027\nNoNewPrivileges=yes\n\
         ProtectSystem=strict\nProtectHome=yes\nPrivateTmp=yes\nPrivateDevices=yes\nReadWritePaths={}/ship {}/logs\n\
         CapabilityBoundingSet=\n\n[Install]\nWantedBy=multi-user.target\n",
        directory.display(),
        data.display(),
        data.display()
    )
}

/// Returns what the operator does next; `left` are commands for users that are missing.
pub(super) fn next_steps(registry: &Registry, directory: &Path, left: &[String]) -> String {
    let (mut text, shown) = (String::new(), directory.display());
    if !left.is_empty() {
        text.push_str(
            "users of the units are missing (the package nats-server makes nats, that of spip makes spip-ship and spip); \
             with these users, run:\n",
        );
        left.iter().for_each(|command| text.push_str(&format!("  {command}\n")));
    }
    if let [_] = registry.hosts() {
        let _ = writeln!(
            text,
            "start the hub: systemctl enable --now {shown}/spip-nats.service {shown}/spip-ship-hub.service"
        );
        let _ = writeln!(text, "or by hand:    nats-server -c {shown}/nats.conf");
        let _ = writeln!(text, "               spip-ship --config {shown}/hub.toml");
    } else {
        let _ = writeln!(
            text,
            "copy {shown}/nodes/HOST to the same path on each server, with its owners, and start there:"
        );
        for host in registry.hosts() {
            let node = registry.node(directory, host);
            let _ = writeln!(text, "  {host}: systemctl enable --now {}/spip-nats.service", node.display());
        }
        let _ = writeln!(text, "start the hub's shipper here: systemctl enable --now {shown}/spip-ship-hub.service");
    }
    let _ = write!(text, "on each sensor: spip-ship join FILE, with its file of {shown}/join");
    text
}
