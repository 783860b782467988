//! Sets a hub up: server configuration for NATS with certificates of its own, a credential per sensor, units, and join files.
//!
//! Everything is written below one directory, and `registry.json` in it is the list from which the servers' users are
//! written each time. A sensor's key may publish to the subject of its name and read that subject's last message, from
//! which delivery resumes: nothing else, no listing, no other sensor. Revoking takes it off the list and has the server read
//! the list again, which ends its connections.

mod authority;
mod owners;
mod registry;
mod server;

use std::fs;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use self::authority::Authority;
pub(crate) use self::owners::make_directory;
use self::registry::Registry;
use crate::sink::files::MAX_TOKEN_BYTES;
use crate::state::write_durably;

/// Result of a hub command; the error is a message.
pub type Result<T> = std::result::Result<T, String>;

/// Commands of the hub.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Write everything that a hub needs: NATS configuration, certificates, users, units, join files.
    Init(Init),
    /// Give a sensor a credential, and write its join file.
    Add(Sensor),
    /// Take a sensor's credential away; its connections end.
    Revoke(Sensor),
    /// List the sensors.
    List {
        /// The directory of the hub.
        #[arg(long, value_name = "DIR", default_value = DIRECTORY)]
        directory: PathBuf,
    },
}

/// Default directory of the hub's files.
const DIRECTORY: &str = "/etc/spip-hub";

/// Options of `hub init`.
#[derive(Debug, Args)]
pub struct Init {
    /// Name or address by which sensors reach the server. Three of them make a cluster.
    #[arg(long = "host", value_name = "HOST", required = true)]
    hosts: Vec<String>,

    /// Port of the servers.
    #[arg(long, default_value_t = 4222)]
    port: u16,

    /// Sensors to add; more with `hub add`.
    #[arg(long = "sensor", value_name = "NAME")]
    sensors: Vec<String>,

    /// Directory to write to.
    #[arg(long, value_name = "DIR", default_value = DIRECTORY)]
    directory: PathBuf,

    /// Directory in which servers store messages, and the hub's shipper its state and logs.
    #[arg(long, value_name = "DIR", default_value = "/var/lib/spip-hub")]
    data: PathBuf,

    /// Disk for messages on each server, in gigabytes. When it is full, sensors wait.
    #[arg(long, value_name = "GB", default_value_t = 50)]
    disk: u64,

    /// Hours for which messages are kept, for replay.
    #[arg(long, value_name = "HOURS", default_value_t = 168)]
    keep_hours: u64,
}

/// A sensor of a hub.
#[derive(Debug, Args)]
pub struct Sensor {
    /// Name of the sensor, as in its records.
    name: String,

    /// The directory of the hub.
    #[arg(long, value_name = "DIR", default_value = DIRECTORY)]
    directory: PathBuf,
}

/// Does what `command` asks for.
///
/// # Errors
/// With the file and the remedy.
pub fn run(command: &Command) -> Result<()> {
    match command {
        Command::Init(init) => initialise(init),
        Command::Add(sensor) => {
            let mut registry = Registry::load(&sensor.directory)?;
            let path = add(&mut registry, &sensor.directory, &sensor.name)?;
            println!("{}", path.display());
            apply(&registry, &sensor.directory)
        }
        Command::Revoke(sensor) => {
            let mut registry = Registry::load(&sensor.directory)?;
            registry.revoke(&sensor.name)?;
            registry.save(&sensor.directory)?;
            let _ = fs::remove_file(join_file(&sensor.directory, &sensor.name));
            println!("{} is revoked", sensor.name);
            apply(&registry, &sensor.directory)
        }
        Command::List { directory } => {
            for (name, added) in Registry::load(directory)?.list() {
                println!("{name}\t{added}");
            }
            Ok(())
        }
    }
}

fn initialise(init: &Init) -> Result<()> {
    let directory = std::path::absolute(&init.directory).map_err(|error| error.to_string())?;
    if registry::path(&directory).exists() {
        return Err(format!(
            "{} is a hub already: use hub add and hub revoke, or remove the directory to begin anew",
            directory.display()
        ));
    }
    if ![1, 3, 5].contains(&init.hosts.len()) {
        return Err("--host once for a single server, or three or five times for a cluster".to_owned());
    }
    let is_host = |host: &String| {
        !host.is_empty() && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-:".contains(&byte))
    };
    if let Some(host) = init.hosts.iter().find(|host| !is_host(host)) {
        return Err(format!("--host {host:?}: a name or an address"));
    }
    make_directory(&directory, 0o755)?;
    make_directory(&directory.join("join"), 0o700)?;
    let authority = Authority::generate()?;
    write(&directory.join("ca.pem"), authority.certificate(), 0o644)?;
    write(&directory.join("ca.key"), &authority.key(), 0o600)?;
    let data = std::path::absolute(&init.data).map_err(|error| error.to_string())?;
    let mut registry = Registry::new(&init.hosts, init.port, &data, init.disk)?;
    for host in &init.hosts {
        let node = registry.node(&directory, host);
        make_directory(&node, 0o755)?;
        let issued = authority.issue(host)?;
        write(&node.join("server.pem"), &issued.certificate, 0o644)?;
        write(&node.join("server.key"), &issued.key, 0o640)?;
        write(&node.join("ca.pem"), authority.certificate(), 0o644)?;
        write(&node.join("nats.conf"), &server::configuration(&registry, &node, host), 0o640)?;
        write(&node.join("spip-nats.service"), &server::nats_unit(&registry, &node, host), 0o644)?;
    }
    write(&directory.join("hub.nkey"), registry.hub_seed(), 0o400)?;
    write(&directory.join("hub.toml"), &server::hub_configuration(&registry, &directory, init.keep_hours), 0o644)?;
    write(&directory.join("spip-ship-hub.service"), &server::hub_unit(&directory, &data), 0o644)?;
    for sensor in &init.sensors {
        add(&mut registry, &directory, sensor)?;
    }
    registry.save(&directory)?;
    for host in &init.hosts {
        write(&registry.node(&directory, host).join("users.conf"), &server::users(&registry), 0o640)?;
    }
    let left = owners::hand_over(&registry, &directory)?;
    println!("{}", server::next_steps(&registry, &directory, &left));
    Ok(())
}

/// Gives a sensor a key and writes its join file.
fn add(registry: &mut Registry, directory: &Path, name: &str) -> Result<PathBuf> {
    if name.is_empty() || name.len() > 128 || name.chars().any(char::is_control) {
        return Err(format!("{name:?}: a name has 1 to 128 characters, none of them a control character"));
    }
    let bytes = crate::nats::token_of(name).len();
    if bytes > MAX_TOKEN_BYTES {
        let message =
            "is too long for the directory of its logs; letters, digits, - and _ take one byte each, others three";
        return Err(format!("{name:?}: {message}, {bytes} in all, {MAX_TOKEN_BYTES} at most"));
    }
    let seed = registry.add(name)?;
    registry.save(directory)?;
    let path = join_file(directory, name);
    let authority = fs::read_to_string(directory.join("ca.pem"))
        .map_err(|error| format!("cannot read {}: {error}", directory.join("ca.pem").display()))?;
    write(&path, &server::join_file(registry, name, &seed, &authority), 0o600)?;
    Ok(path)
}

fn join_file(directory: &Path, name: &str) -> PathBuf {
    directory.join("join").join(format!("{}.join", crate::nats::token_of(name)))
}

/// Writes the users anew and has the servers of this machine read them.
fn apply(registry: &Registry, directory: &Path) -> Result<()> {
    let mut elsewhere = Vec::new();
    for host in registry.hosts() {
        let node = registry.node(directory, host);
        write(&node.join("users.conf"), &server::users(registry), 0o640)?;
        owners::give_users(node.join("users.conf"));
        if !reload(&registry.pid_file(host))? {
            elsewhere.push(node.join("users.conf").display().to_string());
        }
    }
    if !elsewhere.is_empty() {
        println!(
            "not running here: {}; copy to the server's machine and run: systemctl reload spip-nats",
            elsewhere.join(", ")
        );
    }
    Ok(())
}

/// Has the server with this file of its process id read its configuration. Returns whether there is one.
fn reload(pid_file: &Path) -> Result<bool> {
    let Ok(text) = fs::read_to_string(pid_file) else { return Ok(false) };
    let Some(pid) = text.trim().parse().ok().filter(|pid: &i32| *pid > 1) else { return Ok(false) };
    // A number that is left over may be anybody's by now.
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    if !name.starts_with("nats-server") {
        return Ok(false);
    }
    kill(Pid::from_raw(pid), Signal::SIGHUP)
        .map(|()| true)
        .map_err(|error| format!("cannot signal nats-server ({pid}): {error}; run: systemctl reload spip-nats"))
}

pub(crate) fn write(path: &Path, text: &str, mode: u32) -> Result<()> {
    write_durably(path, text.as_bytes(), mode).map_err(|error| format!("cannot write {}: {error}", path.display()))
}
