//! Makes a sensor a member of a hub: writes configuration, key and certificate authority out of a join file.

use std::fs;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};

use clap::Args;
use serde::Deserialize;

use crate::hub::{Result, make_directory, write};

/// A join file has a few kilobytes.
const MAX_BYTES: u64 = 256 * 1024;

/// The user and the group of the service.
const SERVICE: &str = "spip-ship";

/// Options of `join`.
#[derive(Debug, Args)]
pub struct Options {
    /// The join file, made by `spip-ship hub add` on the hub.
    file: PathBuf,

    /// Directory for ship.toml, ship.nkey and ship-ca.pem.
    #[arg(long, value_name = "DIR", default_value = "/etc/spip")]
    directory: PathBuf,

    /// The log of the agent.
    #[arg(long, value_name = "FILE", default_value = "/var/log/spip/spip.jsonl")]
    log: PathBuf,

    /// Directory of the shipper's state.
    #[arg(long, value_name = "DIR", default_value = "/var/lib/spip-ship")]
    state_dir: PathBuf,

    /// Replace files that are there.
    #[arg(long)]
    force: bool,
}

#[derive(Deserialize)]
struct Join {
    version: u32,
    name: String,
    url: Vec<String>,
    stream: String,
    subject_prefix: String,
    seed: String,
    ca: String,
}

/// Writes the files, and says what comes next.
///
/// # Errors
/// With the file and the remedy.
pub fn run(options: &Options) -> Result<()> {
    let shown = options.file.display();
    let size = fs::metadata(&options.file).map_err(|error| format!("cannot read {shown}: {error}"))?.len();
    if size > MAX_BYTES {
        return Err(format!("{shown} is no join file: it has {size} bytes"));
    }
    let text = fs::read_to_string(&options.file).map_err(|error| format!("cannot read {shown}: {error}"))?;
    // The file holds a key: what the parser quotes must not end up in a message.
    let join: Join = toml::from_str(&text).map_err(|error| format!("{shown} is no join file: {}", error.message()))?;
    if join.version != 1 {
        return Err(format!("{shown} has version {}: install the newer spip-ship", join.version));
    }
    let directory = std::path::absolute(&options.directory).map_err(|error| error.to_string())?;
    let (config, key, authority) =
        (directory.join("ship.toml"), directory.join("ship.nkey"), directory.join("ship-ca.pem"));
    if let Some(there) = [&config, &key, &authority].into_iter().find(|path| path.exists() && !options.force) {
        return Err(format!("{} exists already: --force replaces it", there.display()));
    }
    make_directory(&directory, 0o750)?;
    write(&authority, &join.ca, 0o644)?;
    write(&key, &format!("{}\n", join.seed), 0o640)?;
    let group = nix::unistd::Group::from_name(SERVICE).ok().flatten();
    let is_shared = group.is_some_and(|group| chown(&key, None, Some(group.gid.as_raw())).is_ok());
    if !is_shared {
        // Only the owner, as long as there is no such group.
        write(&key, &format!("{}\n", join.seed), 0o600)?;
    }
    write(&config, &configuration(&join, options, &key, &authority), 0o644)?;
    println!("wrote {}, {}, {}", config.display(), key.display(), authority.display());
    println!("unless this is the host name, set name = {:?} in the agent's configuration", join.name);
    println!("remove {shown}, then: systemctl enable --now spip-ship, or spip-ship --config {}", config.display());
    Ok(())
}

fn configuration(join: &Join, options: &Options, key: &Path, authority: &Path) -> String {
    let quoted = |text: &dyn std::fmt::Display| serde_json::Value::String(text.to_string()).to_string();
    let urls: Vec<_> = join.url.iter().map(|url| quoted(url)).collect();
    format!(
        "# Delivers the records of this sensor to its hub. Written by spip-ship join.\n\
         log = {}\n\
         state_dir = {}\n\
         name = {}\n\n\
         [[sink]]\n\
         kind = \"nats\"\n\
         url = [{}]\n\
         stream = {}\n\
         subject_prefix = {}\n\
         # This key may publish to its own subject and nothing else.\n\
         create_stream = false\n\
         nkey_file = {}\n\
         ca_file = {}\n",
        quoted(&options.log.display()),
        quoted(&options.state_dir.display()),
        quoted(&join.name),
        urls.join(", "),
        quoted(&join.stream),
        quoted(&join.subject_prefix),
        quoted(&key.display()),
        quoted(&authority.display()),
    )
}
