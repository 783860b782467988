//! Validates answers: each by itself as soon as it is given, and all of them together before a file is written.
//!
//! What the file may say is the configuration's to judge, and is asked of it. Judged here is what the machine says
//! against an answer. Refused is what could only fail or lock the operator out; what is merely unwise is said beside
//! the file.

use std::net::IpAddr;
use std::path::Path;

use toml::Value;

use super::Error;
use super::answers::{Answers, bounds};
use super::detect::Found;
use crate::config::{Config, ConfigError};
use crate::confine::sandbox;
use crate::log::writer::{self, Log};

/// Longest name that useradd makes.
const LONGEST_USER: usize = 32;

/// Checks that a key of the file takes a value.
pub(super) fn key(key: &str, value: &str) -> Result<(), Error> {
    let line = |name: &str, other: &str| match name == key {
        true => String::new(),
        false => format!("{name} = {other}\n"),
    };
    let text = format!("{}{}{key} = {}\n", line("ip", "\"::\""), line("port", "1"), Value::from(value));
    Config::from_str(&text, Path::new("")).map(drop).map_err(|error| refused(&error))
}

/// The problems of a file that was never written: they name the flags.
pub(super) fn refused(error: &ConfigError) -> Error {
    let ConfigError::Invalid { problems, .. } = error else { return Error::Answer(error.to_string()) };
    let flag = |text: &str| match text.split_once(' ') {
        Some((key, rest)) => format!("--{} {rest}", key.replace('_', "-")),
        None => text.to_owned(),
    };
    Error::Answer(problems.iter().map(|problem| flag(&problem.text)).collect::<Vec<_>>().join("\n"))
}

/// A path that the file can hold, of something that can be a log.
pub(super) fn log_file(path: &Path) -> Result<(), Error> {
    let refused = |why: &str| Err(Error::Answer(format!("--log-file {}: {why}", path.display())));
    match path.to_str() {
        Some(text) => key("log_file", text)?,
        None => return refused("must be UTF-8"),
    }
    // Whether it can be opened is another question for another user.
    if let Err(writer::Error::NotAFile { kind, .. }) = Log::look("log_file", path) {
        return refused(&format!("is {kind}; name a file, such as {}", path.join("spip.jsonl").display()));
    }
    let above = path.ancestors().skip(1).find(|above| above.exists() && !above.is_dir());
    match above {
        Some(above) => refused(&format!("{} is no directory", above.display())),
        None => Ok(()),
    }
}

/// Reports whether the directory of a log holds the configuration, or is above it.
pub(super) fn holds(log: &Path, output: &Path) -> bool {
    let directories: Vec<_> = sandbox::directories_of(log).collect();
    sandbox::is_written_to(output, &directories)
}

/// A user that there is, by name or number, or a name that one can be made with.
pub(super) fn user(name: &str) -> Result<(), Error> {
    if sandbox::find_user(name).is_some() {
        return Ok(());
    }
    if name.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(Error::Answer(format!("--user {name}: there is no user with this number; name one that there is")));
    }
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
    if name.len() > LONGEST_USER || name.starts_with(['-', '.']) || !name.chars().all(is_plain) {
        return Err(Error::Answer(format!(
            "--user {name:?}: must be a user that there is, or a name of at most {LONGEST_USER} letters, digits, '_', '.' \
             and '-', and begin with none of the last two"
        )));
    }
    Ok(())
}

/// A port that is no way in.
pub(super) fn port(port: u16, found: &Found) -> Result<(), Error> {
    let Some(reasons) = found.ssh.get(&port) else { return Ok(()) };
    Err(Error::Answer(format!(
        "--port {port}: by it you come in ({}); choose another one, such as {}",
        reasons.join(", "),
        found.free_port(&[])
    )))
}

/// Ports to leave alone, among which the agent's own cannot be.
pub(super) fn exclude(ranges: &[String], port: u16) -> Result<(), Error> {
    let own = |range: &&String| bounds(range).is_some_and(|(from, to)| (from..=to).contains(&port));
    match ranges.iter().find(own) {
        None => Ok(()),
        Some(range) => Err(Error::Answer(format!(
            "--exclude-ports {}: the agent itself listens on {port}; leave that out, or choose another --port",
            range.trim_matches('"')
        ))),
    }
}

/// Checks that connections from outside reach an address that way.
pub(super) fn steering(steering: &str, ip: IpAddr) -> Result<(), Error> {
    if steering == "redirect" && ip.to_canonical().is_loopback() {
        return Err(Error::Answer(format!(
            "--ip {ip}: rules lead no connection from outside to a loopback address; listen on 0.0.0.0 or ::, or take \
             --steering sk_lookup where the kernel has it"
        )));
    }
    Ok(())
}

/// All answers together.
pub(super) fn all(answers: &Answers, found: &Found) -> Result<(), Error> {
    port(answers.port, found)?;
    exclude(&answers.exclude, answers.port)?;
    steering(&answers.steering, answers.ip)
}

/// Returns notes on answers that work and are unwise, a line each.
pub(super) fn notes(answers: &Answers, found: &Found, output: Option<&Path>) -> Vec<String> {
    let mut notes = Vec::new();
    if let (Some(log), Some(output)) = (&answers.log_file, output)
        && holds(log, output)
    {
        notes.push(
            "The log is beside the configuration, or above it: the agent can write to all that is there, and whoever takes \
             it over could change how it starts next. Better a directory of its own, such as --log-file log/spip.jsonl"
                .into(),
        );
    }
    let file = answers.log_file.as_deref().and_then(|file| std::path::absolute(file).ok());
    if let Some(directory) = file.as_deref().and_then(Path::parent).filter(|path| sandbox::is_shared(path)) {
        notes.push(format!(
            "The log is in {}, which other programs use too: the agent can write to all of it, and the sandbox cannot \
             keep it from that. Better a directory of its own: --log-file /var/log/spip/spip.jsonl",
            directory.display()
        ));
    }
    if answers.steering == "sk_lookup" && found.sk_lookup == Ok(false) {
        notes.push(
            "This kernel cannot steer without rules: the agent will not start with steering = \"sk_lookup\".".into(),
        );
    }
    if let Some((from, to)) = found.outgoing.filter(|(from, to)| (from..=to).contains(&&answers.port)) {
        notes.push(format!(
            "Port {} is one of those by which this machine connects out ({from} to {to}), and may be taken when the agent \
             starts: doctor names the fix.",
            answers.port
        ));
    }
    let conflict = |(port, ip, owner): &&(u16, IpAddr, String)| {
        *port == answers.port
            && (*ip == answers.ip || ip.is_unspecified() || answers.ip.is_unspecified())
            && !["spip-agent", "systemd"].contains(&owner.as_str())
    };
    if let Some((port, ip, owner)) = found.services.iter().find(conflict) {
        notes.push(format!("{owner} listens on {ip}, port {port}: the agent cannot start before it has ended."));
    }
    notes
}

#[cfg(test)]
mod tests {
    use super::super::Options;
    use super::super::answers::tests::found;
    use super::*;

    fn said(result: Result<(), Error>) -> String {
        match result {
            Err(Error::Answer(text)) => text,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_the_file_does_not_take_is_said_of_the_flag() {
        for name in ["a\nb", "\u{1b}", &"n".repeat(256)] {
            let text = said(key("name", name));
            assert!(text.starts_with("--name = ") && text.contains("control characters"), "{text}");
            assert!(!text.contains('\n'), "{text}");
        }
        key("name", "a\"b").expect("a name");
        assert!(said(key("ip", "ff02::1")).starts_with("--ip = "));
    }

    #[test]
    fn a_log_is_a_file_that_is_or_can_be() {
        let directory = std::env::temp_dir();
        let text = said(log_file(&directory));
        assert!(
            text.starts_with(&format!("--log-file {}: is a directory; name a file", directory.display())),
            "{text}"
        );
        let own = std::env::current_exe().expect("this test");
        assert!(said(log_file(&own.join("spip.jsonl"))).contains("is no directory"));
        for path in ["/nonexistent/spip.jsonl", "spip.jsonl", "/dev/null"] {
            log_file(Path::new(path)).expect(path);
        }
    }

    #[test]
    fn a_user_is_one_that_there_is_or_can_be_made() {
        for name in ["root", "0", "no_such-user.1"] {
            user(name).expect(name);
        }
        for name in ["a;rm", "-x", ".x", "a b", "$(id)", "x\ny", &"n".repeat(33)] {
            assert!(said(user(name)).starts_with("--user "), "{name}");
        }
        assert!(said(user("4000000001")).contains("no user with this number"));
    }

    #[test]
    fn the_port_of_sshd_is_not_the_agents() {
        let text = said(port(22, &found()));
        assert!(text.contains("sshd listens on 0.0.0.0") && text.contains("such as 12346"), "{text}");
        port(12_345, &found()).expect("nobody comes in by it");
    }

    #[test]
    fn the_agents_own_port_is_not_left_alone() {
        let text = said(exclude(&["80".to_owned(), "\"8000-8100\"".to_owned()], 8050));
        assert!(text.starts_with("--exclude-ports 8000-8100: the agent itself listens on 8050"), "{text}");
        exclude(&["\"8000-8100\"".to_owned()], 8101).expect("outside");
    }

    #[test]
    fn rules_do_not_lead_to_loopback_and_the_kernel_does() {
        for ip in ["127.0.0.1", "::1", "::ffff:127.0.0.1"] {
            let ip = ip.parse().expect("address");
            assert!(said(steering("redirect", ip)).contains("sk_lookup"));
            steering("sk_lookup", ip).expect("it arrives there");
        }
        steering("redirect", IpAddr::from([192, 0, 2, 1])).expect("an address of its own");
    }

    #[test]
    fn what_is_unwise_is_said() {
        let noted = |options: Options| {
            let found = Found { sk_lookup: Ok(false), ..found() };
            let output = Some(Path::new("/etc/spip/spip.toml"));
            notes(&Answers::proposed(&found, &options).expect("valid"), &found, output).join("\n")
        };
        assert_eq!(noted(Options::default()), "");
        let shared = Options { log_file: Some("/var/log/spip.jsonl".into()), ..Options::default() };
        assert!(noted(shared).contains("The log is in /var/log, which other programs use too"));
        for file in ["/etc/spip/spip.jsonl", "/etc/spip.jsonl"] {
            let beside = Options { log_file: Some(file.into()), ..Options::default() };
            assert!(noted(beside).contains("The log is beside the configuration"), "{file}");
        }
        let steered = Options { steering: Some("sk_lookup".to_owned()), ..Options::default() };
        assert!(noted(steered).contains("will not start"));
        assert!(noted(Options { port: Some(40_000), ..Options::default() }).contains("32768 to 60999"));
        assert!(noted(Options { port: Some(80), ..Options::default() }).contains("nginx listens on 0.0.0.0, port 80"));
    }
}
