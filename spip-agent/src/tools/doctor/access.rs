//! Access of the agent to its files as its later user, asked of the kernel in a child that has become that user and has
//! dropped its capabilities, as the start does.

use std::path::Path;

use nix::unistd::{Gid, Uid, User, getuid};

use super::process::Running;
use super::{Finding, Subject, Topic};
use crate::config::{Config, SandboxMode};
use crate::confine::sandbox::{self, Files, Refused, Starter};

/// Directories of systemd's units; the administrator's come first.
const UNITS: [&str; 3] = ["/etc/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system"];

/// The user that the agent becomes or stays, and what that one may do.
pub(super) fn finding(subject: &Subject<'_>, config: &Config, path: &Path) -> Finding {
    let topic = Topic::new(
        "privileges.user",
        "after its start the agent writes its logs and reads its files again as this user",
    );
    let mut starter = match &subject.running {
        Some(running) => starter_of(running),
        None => user_of_unit().map(Starter::from),
    };
    match &config.sandbox.user {
        Some(name) if sandbox::find_user(name).is_none() => {
            let remedy = format!("useradd --system --no-create-home --shell /usr/sbin/nologin {name}, or change user");
            return topic.failure(format!("there is no user {name}"), remedy);
        }
        // The one that runs may be that user already, and may have been started with another.
        Some(_) if subject.running.is_some() => starter = None,
        Some(_) => {}
        None if config.sandbox.mode == SandboxMode::Off => {
            return topic.ok("user is not set, and sandbox = \"off\": the agent keeps what it is started with");
        }
        None if starter.is_none() && !super::is_root() => {
            return topic.ok("user is not set: the agent keeps its user and gives up its privileges");
        }
        None => {}
    }
    let gives = subject.running.is_none() && starter.as_ref().map_or(getuid(), |starter| starter.uid).is_root();
    judge(topic, config, &Files::of(config, path), starter.as_ref(), gives)
}

fn judge(topic: Topic, config: &Config, files: &Files, starter: Option<&Starter>, gives: bool) -> Finding {
    let Refused { user, reasons, writes } = match sandbox::refused_files(&config.sandbox, files, starter, gives) {
        Ok(refused) => refused,
        Err(reason) if !super::is_root() => return topic.skipped(format!("{reason}; run as root")),
        Err(reason) => return topic.failure(reason, "start the agent as root, or leave user out"),
    };
    if reasons.is_empty() {
        return topic.ok(format!("{user} may write and read again what the configuration names"));
    }
    let (found, remedies): (Vec<_>, Vec<_>) = reasons.into_iter().unzip();
    let (found, remedy) = (format!("{user} {}", found.join(", and ")), remedies.join("; "));
    if writes || config.sandbox.mode == SandboxMode::Required {
        topic.failure(found, remedy)
    } else {
        topic.warning(found, remedy)
    }
}

/// Returns the user and groups that a running agent has.
fn starter_of(running: &Running) -> Option<Starter> {
    let number = |key: &str| running.status(key)?.split_ascii_whitespace().nth(1)?.parse().ok();
    let groups = running.status("Groups").unwrap_or_default();
    let groups = groups.split_ascii_whitespace().filter_map(|group| group.parse().ok());
    Some(Starter {
        uid: Uid::from_raw(number("Uid")?),
        gid: Gid::from_raw(number("Gid")?),
        groups: groups.map(Gid::from_raw).collect(),
    })
}

/// Returns the user as which the service manager starts the agent, where its unit says so.
pub(super) fn user_of_unit() -> Option<User> {
    let units = UNITS.iter().map(|units| Path::new(units).join("spip-agent.service"));
    let unit = units.map(std::fs::read_to_string).find_map(Result::ok);
    unit.as_deref().and_then(named_user).and_then(sandbox::find_user)
}

/// The user of a unit.
fn named_user(unit: &str) -> Option<&str> {
    unit.lines().rev().find_map(|line| line.strip_prefix("User=")).map(str::trim).filter(|user| !user.is_empty())
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
    fn all_that_is_written_and_read_again_is_asked_for_with_the_rights_that_stay_also_for_root() {
        if !super::super::is_root() {
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
        let judged = |user: &str, gives: bool| {
            let text = format!(
                "ip = \"::\"\nport = 1\nlog_file = {:?}\nsystem_log = {:?}\npayload_dir = {:?}\nstate_dir = {:?}\n{user}",
                at("log/spip.jsonl"),
                at("messages/x.jsonl"),
                at("payloads"),
                at("state")
            );
            let config = Config::from_str(&text, &at("spip.toml")).expect("valid").config;
            judge(Topic::new("privileges.user", ""), &config, &Files::of(&config, &at("spip.toml")), None, gives)
        };
        let (root, other) = ("", "user = \"65534\"");
        assert_eq!(judged(root, false).state, State::Ok);
        let refused = judged(other, true);
        assert_eq!(refused.state, State::Failure, "{refused:?}");
        // What root has made is given to the user, but not the directories on the way to it.
        for (path, is_refused) in
            [("log", true), ("log/spip.jsonl", true), ("state/persona.toml", true), ("payloads", false)]
        {
            let path = at(path).display().to_string();
            let is_named = refused.found.split([' ', ',']).any(|word| word == path);
            assert_eq!(is_named, is_refused, "{path}: {}", refused.found);
        }
        for name in ["log", "messages", "state"] {
            chown(at(name), Some(65_534), Some(65_534)).expect("root");
        }
        assert_eq!(judged(other, true).state, State::Ok);
        let found = judged(other, false).found;
        assert!(found.contains(&at("payloads").display().to_string()), "{found}");
        // Root has no more rights than others once its capabilities are gone.
        let found = judged(root, false);
        assert_eq!(found.state, State::Failure);
        assert!(found.found.contains(&at("messages").display().to_string()), "{}", found.found);
        let owner = fs::metadata(at("log/spip.jsonl")).map(|file| std::os::unix::fs::MetadataExt::uid(&file));
        assert_eq!(owner.ok(), Some(0), "nothing was given");
        fs::remove_dir_all(&directory).expect("ours");
    }

    #[test]
    fn the_last_user_of_a_unit_counts() {
        assert_eq!(named_user("[Service]\nUser=a\nUser=spip\nGroup=x\n"), Some("spip"));
        assert_eq!(named_user("[Service]\nUser=\nExecStart=x\n"), None);
    }
}
