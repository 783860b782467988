//! Values of the file: from flags, else as found.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};

use super::detect::{Found, LOG_DIRECTORY, USER};
use super::ssh::Ports;
use super::{Error, Options, validate};

/// A file of the log is closed at this size: small enough to be handled, large enough not to be many.
const ROTATE_BYTES: u64 = 256_000_000;
/// All closed files together take no more, however large the disk is.
const MOST_KEPT_BYTES: u64 = 50_000_000_000;

/// The answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Answers {
    /// Name of the sensor; the host name when absent.
    pub(super) name: Option<String>,
    pub(super) ip: IpAddr,
    pub(super) port: u16,
    /// Standard output when absent.
    pub(super) log_file: Option<PathBuf>,
    pub(super) rotate_bytes: u64,
    pub(super) keep_bytes: u64,
    pub(super) user: Option<String>,
    /// `redirect` or `sk_lookup`.
    pub(super) steering: String,
    /// Reason of the proposal.
    pub(super) steering_reason: String,
    /// Ports for connections of this machine, where clients could occupy all of them.
    pub(super) outgoing: Option<String>,
    /// Ports of the operator, with reasons.
    pub(super) ssh: Ports,
    /// Further ports and ranges, as they are to stand in the file.
    pub(super) exclude: Vec<String>,
}

impl Answers {
    /// Proposals: flags first, then what was found.
    pub(super) fn proposed(found: &Found, options: &Options) -> Result<Self, Error> {
        let any = if found.ipv6 { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() };
        let log_file = match options.log_file.as_deref() {
            Some(path) if path == Path::new("-") => None,
            Some(path) => Some(path.to_owned()),
            None if found.is_root => Some(Path::new(LOG_DIRECTORY).join("spip.jsonl")),
            None => Some("spip.jsonl".into()),
        };
        let (steering, reason) = match &found.sk_lookup {
            Ok(true) => ("sk_lookup", "this kernel can steer without rules and connection tracking".to_owned()),
            Ok(false) => ("redirect", "this kernel cannot steer without rules".to_owned()),
            Err(reason) => ("redirect", format!("whether this kernel can steer without rules is unknown: {reason}")),
        };
        let steering = options.steering.clone().unwrap_or_else(|| steering.to_owned());
        let exclude: Vec<_> = options.exclude_ports.iter().map(|text| port_or_range(text)).collect::<Result<_, _>>()?;
        let ranges: Vec<_> = exclude.iter().filter_map(|range| bounds(range)).collect();
        let user = match &options.user {
            Some(user) => Some(user.clone()).filter(|user| !user.is_empty()),
            None => (found.is_root && found.has_user).then(|| USER.to_owned()),
        };
        let proposed = Self {
            name: options.name.clone(),
            ip: options.ip.unwrap_or(any),
            port: options.port.unwrap_or_else(|| found.free_port(&ranges)),
            log_file,
            rotate_bytes: ROTATE_BYTES,
            // Half of what is free leaves room for everything else on the disk; in round numbers.
            keep_bytes: (found.free_bytes / 2 / ROTATE_BYTES * ROTATE_BYTES).clamp(ROTATE_BYTES, MOST_KEPT_BYTES),
            user,
            steering_reason: if options.steering.is_some() { "as it was asked for".to_owned() } else { reason },
            steering,
            outgoing: found.outgoing.map(last_thousand),
            ssh: found.ssh.clone(),
            exclude,
        };
        proposed.judged_alone()?;
        Ok(proposed)
    }

    /// With a log that is not beside the configuration `output`, unless the operator named one: the agent can write to
    /// all that is in the directory of its log.
    pub(super) fn with_log_apart(mut self, output: &Path, options: &Options) -> Self {
        // What goes to standard output comes to be a file here.
        let output = if output == Path::new("-") { Path::new("spip.toml") } else { output };
        if let (Some(log), None) = (&self.log_file, &options.log_file)
            && validate::holds(log, output)
        {
            let name = log.file_name().unwrap_or_default();
            self.log_file = Some(log.with_file_name("log").join(name));
        }
        self
    }

    /// Refuses a wrong flag before any question is asked.
    fn judged_alone(&self) -> Result<(), Error> {
        if let Some(name) = &self.name {
            validate::key("name", name)?;
        }
        validate::key("ip", &self.ip.to_string())?;
        if let Some(file) = &self.log_file {
            validate::log_file(file)?;
        }
        if let Some(user) = &self.user {
            validate::user(user)?;
        }
        Ok(())
    }
}

/// The last thousand ports of a range, or all of it where it has less.
fn last_thousand((from, to): (u16, u16)) -> String {
    format!("\"{}-{to}\"", to.saturating_sub(999).max(from))
}

/// First and last port of what [`port_or_range`] made.
pub(super) fn bounds(range: &str) -> Option<(u16, u16)> {
    let range = range.trim_matches('"');
    let (from, to) = range.split_once('-').unwrap_or((range, range));
    Some((from.parse().ok()?, to.parse().ok()?))
}

/// A port as a number, a range as a quoted text; as TOML has them.
pub(super) fn port_or_range(text: &str) -> Result<String, Error> {
    let refused = || {
        Error::Answer(format!("--exclude-ports {text:?}: must be ports from 1 to 65535 and ranges such as 8000-8100"))
    };
    let port = |text: &str| text.trim().parse::<u16>().ok().filter(|port| *port > 0).ok_or_else(refused);
    match text.split_once('-') {
        None => port(text).map(|port| port.to_string()),
        Some((from, to)) => {
            let (from, to) = (port(from)?, port(to)?);
            if from <= to { Ok(format!("\"{from}-{to}\"")) } else { Err(refused()) }
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::tools::init) fn found() -> Found {
        Found {
            ssh: Ports::from([
                (22, vec!["sshd listens on 0.0.0.0".to_owned()]),
                (2222, vec!["this session".to_owned()]),
            ]),
            services: vec![
                (80, IpAddr::from([0, 0, 0, 0]), "nginx".to_owned()),
                (12_345, IpAddr::from([0, 0, 0, 0]), "nc".to_owned()),
            ],
            complete: true,
            ipv6: true,
            sk_lookup: Ok(true),
            outgoing: Some((32_768, 60_999)),
            free_bytes: 10_000_000_000,
            is_root: true,
            has_user: true,
        }
    }

    #[test]
    fn what_was_found_is_proposed_and_flags_come_first() {
        let proposed = Answers::proposed(&found(), &Options::default()).expect("valid");
        assert_eq!((proposed.ip, proposed.port), (Ipv6Addr::UNSPECIFIED.into(), 12_346));
        assert_eq!(proposed.log_file.as_deref(), Some(Path::new("/var/log/spip/spip.jsonl")));
        assert_eq!((proposed.keep_bytes, proposed.user.as_deref()), (4_864_000_000, Some("spip")));
        assert_eq!((proposed.steering.as_str(), proposed.outgoing.as_deref()), ("sk_lookup", Some("\"60000-60999\"")));
        let old = Found { sk_lookup: Ok(false), ..found() };
        assert_eq!(Answers::proposed(&old, &Options::default()).expect("valid").steering, "redirect");
        let options = Options {
            ip: Some(Ipv4Addr::LOCALHOST.into()),
            port: Some(9),
            log_file: Some("-".into()),
            exclude_ports: vec!["443".to_owned(), "8000-8100".to_owned()],
            ..Options::default()
        };
        let chosen = Answers::proposed(&found(), &options).expect("valid");
        assert_eq!((chosen.ip, chosen.port, chosen.log_file), (Ipv4Addr::LOCALHOST.into(), 9, None));
        assert_eq!(chosen.exclude, ["443", "\"8000-8100\""]);
    }

    #[test]
    fn the_log_that_is_proposed_is_not_beside_the_configuration() {
        let proposed = |is_root, output: &str, log_file: Option<&str>| {
            let options = Options { log_file: log_file.map(PathBuf::from), ..Options::default() };
            let answers = Answers::proposed(&Found { is_root, ..found() }, &options).expect("valid");
            answers.with_log_apart(Path::new(output), &options).log_file.map(|file| file.display().to_string())
        };
        assert_eq!(proposed(true, "/etc/spip/spip.toml", None).as_deref(), Some("/var/log/spip/spip.jsonl"));
        assert_eq!(proposed(true, "/var/log/spip/x/spip.toml", None).as_deref(), Some("/var/log/spip/log/spip.jsonl"));
        for output in ["spip.toml", "below/spip.toml", "-"] {
            assert_eq!(proposed(false, output, None).as_deref(), Some("log/spip.jsonl"), "{output}");
        }
        assert_eq!(proposed(false, "/nonexistent/spip.toml", None).as_deref(), Some("spip.jsonl"));
        assert_eq!(proposed(false, "spip.toml", Some("mine.jsonl")).as_deref(), Some("mine.jsonl"));
        assert_eq!(proposed(true, "/etc/spip/spip.toml", Some("-")), None);
    }

    #[test]
    fn a_port_that_is_none_is_refused() {
        for text in ["0", "65536", "2-1", "x", "", "1-", "-"] {
            assert!(port_or_range(text).is_err(), "{text}");
        }
    }
}
