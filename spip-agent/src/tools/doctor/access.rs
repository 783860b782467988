//! Access of the agent to its files as its later user: without a capability, and so also as root by owner and
//! mode alone. An access control list may still grant or refuse.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use nix::unistd::{Gid, Uid, User};

use super::{Finding, Subject, Topic};
use crate::config::{Config, SandboxMode};
use crate::confine::sandbox::{self, Files};
use crate::respond::persona::Persona;

/// Directories of systemd's units; the administrator's come first.
const UNITS: [&str; 3] = ["/etc/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system"];

/// Bits of a mode.
const READ: u32 = 0o4;
const WRITE: u32 = 0o2;
const PASS: u32 = 0o1;

/// The user that the agent becomes or stays, and what that one may do.
pub(super) fn finding(subject: &Subject<'_>, config: &Config, path: &Path) -> Finding {
    let topic = Topic::new(
        "privileges.user",
        "after its start the agent writes its logs and reads its files again as this user",
    );
    let starter = starter(subject);
    let who = match (&config.sandbox.user, &starter) {
        (Some(name), starter) => {
            let Some(user) = sandbox::find_user(name) else {
                let remedy =
                    format!("useradd --system --no-create-home --shell /usr/sbin/nologin {name}, or change user");
                return topic.failure(format!("there is no user {name}"), remedy);
            };
            let gives = subject.running.is_none() && starter.as_ref().is_some_and(|starter| starter.uid.is_root());
            Who { gives, ..Who::from(user) }
        }
        (None, _) if config.sandbox.mode == SandboxMode::Off => {
            return topic.ok("user is not set, and sandbox = \"off\": the agent keeps what it is started with");
        }
        (None, Some(_)) => match starter {
            Some(starter) => starter,
            None => return topic.ok("user is not set"),
        },
        (None, None) => {
            return topic.ok("user is not set: the agent keeps its user and gives up its privileges");
        }
    };
    judge(topic, &who, config, &Files::of(config, path))
}

fn judge(topic: Topic, who: &Who, config: &Config, files: &Files) -> Finding {
    let (name, uid) = (&who.name, who.uid);
    let list = |paths: &[&PathBuf]| paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(" ");
    // What the start gives to the user.
    let payloads = config.payload_store.directory.as_ref();
    let given = |path: &PathBuf| {
        let given = files.logs.contains(path)
            || payloads == Some(path)
            || (config.respond.enabled && *path == Persona::kept_in(&config.respond.state_dir));
        given && who.gives
    };
    let refused = |paths: &'_ [PathBuf], bits: u32| -> Vec<PathBuf> {
        paths.iter().filter(|path| !who.may(path, bits, given(path))).cloned().collect()
    };
    let writable = refused(&files.writable, WRITE | PASS);
    let logs = refused(&files.logs, READ | WRITE);
    let read: Vec<_> = files
        .replaced
        .iter()
        .chain(&files.readable)
        .filter(|path| !who.may(path, reading(path), given(path)))
        .collect();
    let written: Vec<_> = writable.iter().chain(&logs).collect();
    if written.is_empty() && read.is_empty() {
        return topic.ok(format!("{name} ({uid}) may write and read again what the configuration names"));
    }
    let mut found = Vec::new();
    let mut remedies = Vec::new();
    if !written.is_empty() {
        found.push(format!("may not write to {}: logs cannot be rotated or opened again", list(&written)));
        remedies.push(format!("chown {name} {}", list(&written)));
    }
    if !read.is_empty() {
        found.push(format!("may not read {}: it is not read again at SIGHUP, or at the next start", list(&read)));
        remedies.push(format!("let {name} read {} and their directories", list(&read)));
    }
    let (found, remedy) = (format!("{name} ({uid}) {}", found.join(", and ")), remedies.join("; "));
    if written.is_empty() && config.sandbox.mode != SandboxMode::Required {
        topic.warning(found, remedy)
    } else {
        topic.failure(found, remedy)
    }
}

/// Returns the mode bits for opening a file by its name in a directory.
fn reading(path: &Path) -> u32 {
    if path.is_dir() { PASS } else { READ }
}

/// Determines who starts the agent here: the user that runs it, else the user of its unit, else root, when root asks.
fn starter(subject: &Subject<'_>) -> Option<Who> {
    if let Some(running) = &subject.running {
        let number = |key: &str| running.status(key)?.split_ascii_whitespace().nth(1)?.parse().ok();
        let uid = Uid::from_raw(number("Uid")?);
        let groups = running.status("Groups").unwrap_or_default();
        let groups = groups.split_ascii_whitespace().filter_map(|group| group.parse().ok()).collect();
        let name = User::from_uid(uid).ok().flatten().map_or_else(|| uid.to_string(), |user| user.name);
        return Some(Who { name, uid, gid: Gid::from_raw(number("Gid")?), groups, gives: false });
    }
    let units = UNITS.iter().map(|units| Path::new(units).join("spip-agent.service"));
    let unit = units.map(std::fs::read_to_string).find_map(Result::ok);
    let of_unit = unit.as_deref().and_then(user_of).and_then(sandbox::find_user);
    let root = || super::is_root().then(|| User::from_uid(Uid::from_raw(0)).ok().flatten()).flatten();
    of_unit.or_else(root).map(Who::from)
}

/// The user of a unit.
fn user_of(unit: &str) -> Option<&str> {
    unit.lines().rev().find_map(|line| line.strip_prefix("User=")).map(str::trim).filter(|user| !user.is_empty())
}

/// The user that opens files.
#[derive(Clone, Debug)]
struct Who {
    name: String,
    uid: Uid,
    gid: Gid,
    /// Beside `gid`.
    groups: Vec<u32>,
    /// Set when the start, as root, gives to this user what root has made.
    gives: bool,
}

impl From<User> for Who {
    fn from(user: User) -> Self {
        Self { name: user.name, uid: user.uid, gid: user.gid, groups: Vec::new(), gives: false }
    }
}

impl Who {
    /// Reports whether this user may access a file in this way; missing files count as accessible. One that is `given`
    /// may be root's.
    fn may(&self, path: &Path, bits: u32, given: bool) -> bool {
        let Ok(path) = path.canonicalize() else { return true };
        let Ok(metadata) = path.metadata() else { return true };
        let passes = |directory: &Path| directory.metadata().is_ok_and(|metadata| self.has(&metadata, PASS));
        path.ancestors().skip(1).all(passes) && (self.has(&metadata, bits) || (given && metadata.uid() == 0))
    }

    fn has(&self, metadata: &Metadata, bits: u32) -> bool {
        let mode = if metadata.uid() == self.uid.as_raw() {
            metadata.mode() >> 6
        } else if metadata.gid() == self.gid.as_raw() || self.groups.contains(&metadata.gid()) {
            metadata.mode() >> 3
        } else {
            metadata.mode()
        };
        mode & bits == bits
    }
}

/// Checks which paths can be written to inside the sandbox beyond those that have to be.
pub(super) fn directories(config: &Config, path: &Path) -> Finding {
    let topic = Topic::new(
        "sandbox.directories",
        "the agent can write to everything in the directories of its logs and payloads; so can an attacker who takes it over",
    );
    match sandbox::complaint(&Files::of(config, path)) {
        None => topic.ok("they hold files of the agent only"),
        Some(found) => {
            let remedy = "set log_file, system_log and payload_dir to directories of their own";
            if config.sandbox.mode == SandboxMode::Required {
                topic.failure(found, remedy)
            } else {
                topic.warning(found, remedy)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt as _, chown};

    use super::super::State;
    use super::*;

    #[test]
    fn all_that_is_written_and_read_again_is_judged_by_owner_and_mode_also_for_root() {
        if !nix::unistd::geteuid().is_root() {
            assert!(std::env::var_os("CI").is_none(), "only root can give files away");
            return eprintln!("skipped: only root can give files away");
        }
        let directory = std::env::temp_dir().join(format!("spip-doctor-access-{}", std::process::id()));
        let at = |name: &str| directory.join(name);
        for name in ["log", "messages", "payloads", "state"] {
            fs::create_dir_all(at(name)).expect("a directory");
            fs::set_permissions(at(name), fs::Permissions::from_mode(0o750)).expect("ours");
        }
        fs::set_permissions(&directory, fs::Permissions::from_mode(0o755)).expect("ours");
        for name in ["spip.toml", "log/spip.jsonl", "state/persona.toml"] {
            fs::write(at(name), "").expect("a file");
        }
        let text = format!(
            "ip = \"::\"\nport = 1\nlog_file = {:?}\nsystem_log = {:?}\npayload_dir = {:?}\nstate_dir = {:?}\n",
            at("log/spip.jsonl"),
            at("messages/x.jsonl"),
            at("payloads"),
            at("state")
        );
        let config = Config::from_str(&text, &at("spip.toml")).expect("valid").config;
        let judged = |uid: u32, gives: bool| {
            let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(uid));
            let who = Who { name: "x".to_owned(), uid, gid, groups: Vec::new(), gives };
            judge(Topic::new("privileges.user", ""), &who, &config, &Files::of(&config, &at("spip.toml")))
        };
        assert_eq!(judged(0, false).state, State::Ok);
        let refused = judged(65_534, true);
        assert_eq!(refused.state, State::Failure);
        let remedy = refused.remedy.expect("a remedy");
        let written =
            [at("log"), at("messages"), at("log/spip.jsonl")].map(|path| path.display().to_string()).join(" ");
        assert!(remedy.starts_with(&format!("chown x {written}; let x read {}", at("state").display())), "{remedy}");
        for name in ["log", "messages", "state"] {
            chown(at(name), Some(65_534), Some(65_534)).expect("root");
        }
        // What root has made is given to the user who is to be; without that, it stays root's.
        assert_eq!(judged(65_534, true).state, State::Ok);
        let found = judged(65_534, false).found;
        assert!(found.contains(&at("payloads").display().to_string()), "{found}");
        // Root has no more rights than others once its capabilities are gone.
        let found = judged(0, false);
        assert_eq!(found.state, State::Failure);
        assert!(found.found.contains(&at("messages").display().to_string()), "{}", found.found);
        fs::remove_dir_all(&directory).expect("ours");
    }

    #[test]
    fn the_last_user_of_a_unit_counts() {
        assert_eq!(user_of("[Service]\nUser=a\nUser=spip\nGroup=x\n"), Some("spip"));
        assert_eq!(user_of("[Service]\nUser=\nExecStart=x\n"), None);
    }
}
