//! The list of a hub's servers and sensors, from which everything else is written.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use nkeys::KeyPair;
use serde::{Deserialize, Serialize};

use super::{Result, write};

/// The list.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Registry {
    version: u32,
    hosts: Vec<String>,
    port: u16,
    data: PathBuf,
    disk_gb: u64,
    /// Public key of the hub's own shipper.
    hub: String,
    #[serde(skip)]
    hub_seed: String,
    sensors: BTreeMap<String, Entry>,
}

/// A sensor.
#[derive(Debug, Serialize, Deserialize)]
struct Entry {
    /// Its public key. The seed is in the join file only.
    public: String,
    /// Time at which the sensor was added.
    added: String,
}

/// Returns the file of the list.
pub(super) fn path(directory: &Path) -> PathBuf {
    directory.join("registry.json")
}

fn key() -> Result<(String, String)> {
    let pair = KeyPair::new_user();
    let seed = pair.seed().map_err(|error| format!("cannot make a key: {error}"))?;
    Ok((pair.public_key(), seed))
}

impl Registry {
    pub(super) fn new(hosts: &[String], port: u16, data: &Path, disk_gb: u64) -> Result<Self> {
        let (hub, hub_seed) = key()?;
        let sensors = BTreeMap::new();
        Ok(Self { version: 1, hosts: hosts.to_vec(), port, data: data.to_owned(), disk_gb, hub, hub_seed, sensors })
    }

    pub(super) fn load(directory: &Path) -> Result<Self> {
        let path = path(directory);
        let bytes =
            fs::read(&path).map_err(|error| format!("cannot read {}: {error}; hub init makes it", path.display()))?;
        let registry: Self =
            serde_json::from_slice(&bytes).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
        match registry.version {
            1 => Ok(registry),
            other => Err(format!("{} has version {other}: run the newer spip-ship", path.display())),
        }
    }

    pub(super) fn save(&self, directory: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(self).map_err(|error| error.to_string())?;
        write(&path(directory), &text, 0o640)
    }

    /// Adds a sensor and returns the seed of its key.
    pub(super) fn add(&mut self, name: &str) -> Result<String> {
        if self.sensors.contains_key(name) {
            return Err(format!("{name} has a credential already: revoke it first to give it a new one"));
        }
        let (public, seed) = key()?;
        let added = jiff::Timestamp::now().to_string();
        self.sensors.insert(name.to_owned(), Entry { public, added });
        Ok(seed)
    }

    pub(super) fn revoke(&mut self, name: &str) -> Result<()> {
        match self.sensors.remove(name) {
            Some(_) => Ok(()),
            None => Err(format!("there is no sensor {name:?}; hub list shows them")),
        }
    }

    pub(super) fn list(&self) -> impl Iterator<Item = (&str, &str)> {
        self.sensors.iter().map(|(name, entry)| (name.as_str(), entry.added.as_str()))
    }

    /// Iterates over names and public keys.
    pub(super) fn sensors(&self) -> impl Iterator<Item = (&str, &str)> {
        self.sensors.iter().map(|(name, entry)| (name.as_str(), entry.public.as_str()))
    }

    pub(super) fn hosts(&self) -> &[String] {
        &self.hosts
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }

    pub(super) fn data(&self) -> &Path {
        &self.data
    }

    pub(super) fn disk_gb(&self) -> u64 {
        self.disk_gb
    }

    pub(super) fn hub(&self) -> &str {
        &self.hub
    }

    pub(super) fn hub_seed(&self) -> &str {
        &self.hub_seed
    }

    /// Returns the directory of a server's files.
    pub(super) fn node(&self, directory: &Path, host: &str) -> PathBuf {
        if self.hosts.len() == 1 { directory.to_owned() } else { directory.join("nodes").join(host) }
    }

    /// Returns where a server stores its messages.
    pub(super) fn store(&self, host: &str) -> PathBuf {
        if self.hosts.len() == 1 { self.data.join("nats") } else { self.data.join("nats").join(host) }
    }

    pub(super) fn pid_file(&self, host: &str) -> PathBuf {
        self.store(host).join("nats.pid")
    }

    /// Returns the servers' URLs.
    pub(super) fn urls(&self) -> Vec<String> {
        self.hosts.iter().map(|host| format!("tls://{}:{}", bracketed(host), self.port)).collect()
    }
}

/// Returns a host as it stands in a URL.
pub(super) fn bracketed(host: &str) -> String {
    if host.contains(':') { format!("[{host}]") } else { host.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_one_credential_until_it_is_revoked() {
        let mut registry = Registry::new(&["h".to_owned()], 4222, Path::new("/data"), 1).expect("a key");
        let seed = registry.add("one").expect("a new name");
        let public = |registry: &Registry| registry.sensors().map(|(_, public)| public.to_owned()).collect::<Vec<_>>();
        let first = public(&registry);
        assert_eq!(first, [KeyPair::from_seed(&seed).expect("a seed").public_key()]);
        let error = registry.add("one").expect_err("it has a credential");
        assert!(error.starts_with("one has a credential already"), "{error}");
        assert_eq!(public(&registry), first, "the credential stays");
        registry.revoke("one").expect("it has one");
        assert_eq!(public(&registry), Vec::<String>::new());
        assert!(registry.revoke("one").expect_err("it has none").contains("hub list"));
        registry.add("one").expect("the name is free");
        assert_ne!(public(&registry), first, "the revoked credential does not come back");
    }
}
