//! The commands that start the sensor and those that undo it, for the operator to read and paste. None is run here.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use super::answers::Answers;
use super::detect::Found;
use super::{Made, validate};
use crate::config::{PublicAddresses, STATE_DIRECTORY};
use crate::confine::sandbox;
use crate::kernel::interfaces;
use crate::respond::persona::Persona;
use crate::tools::shell;
use crate::tools::translated;

/// Directories of a package's unit.
const UNITS: [&str; 3] = ["/etc/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system"];
/// Its name.
const UNIT: &str = "spip-agent";
/// The unit of the page, and the timer of the daily report.
const VIEW: [&str; 2] = ["spip-view.service", "spip-report.timer"];
/// The log that the page of a package follows.
const VIEWED_LOG: &str = "/var/log/spip/spip.jsonl";

/// Units of this machine.
#[derive(Clone, Copy)]
struct Units {
    agent: bool,
    view: bool,
}

impl Units {
    fn installed() -> Self {
        let is_there = |name: &str| UNITS.iter().any(|units| Path::new(units).join(name).exists());
        Self { agent: is_there(&format!("{UNIT}.service")), view: VIEW.iter().all(|name| is_there(name)) }
    }
}

/// `made` is absent where the file went to standard output.
pub(super) fn page(found: &Found, answers: &Answers, made: Option<&Made<'_>>) -> String {
    let mut page = String::new();
    // Writing into a String cannot fail.
    let _ = write(&mut page, found, answers, made, Units::installed());
    page
}

fn write(
    page: &mut String,
    found: &Found,
    answers: &Answers,
    made: Option<&Made<'_>>,
    units: Units,
) -> std::fmt::Result {
    seen(page, found, answers, made)?;
    let file = made.map_or_else(|| "FILE".to_owned(), |made| word(made.file));
    let by_program = answers.steering == "sk_lookup";
    let (before, start) = (before(answers, &file), start(answers, &file, units));
    let width = before.width().max(start.width());
    writeln!(page, "\nNext steps:")?;
    before.write(page, width)?;
    if by_program {
        writeln!(
            page,
            "The start below steers every port that is not left alone: keep this session open, and log in beside it."
        )?;
    }
    start.write(page, width)?;
    writeln!(page, "\nTo undo this:")?;
    let mut back = stop(by_program, units);
    back.add(format!("rm {file}"), "");
    let made = made.map(|made| made.directories.as_slice()).unwrap_or_default();
    let mut stays = Vec::new();
    for left in left_behind(answers) {
        if left.is_below(made) {
            back.add(left.removal(made), left.warning);
        } else {
            stays.push(format!("{} in {}", left.what, left.directory().display()));
        }
    }
    for directory in made {
        back.add(format!("rmdir {}", word(directory)), "");
    }
    if let Some(user) = new_user(answers) {
        back.add(format!("userdel {user}"), "");
    }
    back.write(page, back.width())?;
    if !stays.is_empty() {
        writeln!(page, "Kept until you remove them: {}.", stays.join(", "))?;
    }
    Ok(())
}

/// Files that the agent writes.
struct Left {
    what: &'static str,
    /// The first of them; the names of the others begin with its name.
    file: PathBuf,
    warning: &'static str,
}

impl Left {
    fn directory(&self) -> &Path {
        self.file.parent().unwrap_or(Path::new("/"))
    }

    /// Reports whether they are in directories that were made, and go with them.
    fn is_below(&self, made: &[PathBuf]) -> bool {
        made.iter().any(|directory| self.directory().starts_with(absolute(directory)))
    }

    /// A directory of their own goes with them.
    fn removal(&self, made: &[PathBuf]) -> String {
        if made.iter().any(|directory| absolute(directory) == self.directory()) {
            format!("rm -f {}*", word(&self.file))
        } else {
            // Directories between, if any, are of nothing else.
            let above = |directory: &&Path| made.iter().any(|made| directory.parent() == Some(&absolute(made)));
            let outermost = self.directory().ancestors().find(above).unwrap_or(self.directory());
            format!("rm -rf {}", word(outermost))
        }
    }
}

/// Returns the files that remain after the agent has run.
fn left_behind(answers: &Answers) -> Vec<Left> {
    // A device or a pipe keeps nothing.
    let file = answers.log_file.as_deref().filter(|file| file.is_file() || !file.exists());
    let records = file.map(|file| Left {
        what: "the records",
        file: absolute(file),
        warning: "the records with it: take them elsewhere before",
    });
    let persona =
        Left { what: "the persona", file: Persona::kept_in(Path::new(STATE_DIRECTORY)), warning: "the persona" };
    records.into_iter().chain([persona]).collect()
}

fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

/// The user that has to be made.
fn new_user(answers: &Answers) -> Option<String> {
    answers.user.as_deref().filter(|user| sandbox::find_user(user).is_none()).map(shell::word)
}

fn before(answers: &Answers, file: &str) -> Steps {
    let mut steps = Steps::default();
    if let Some(user) = new_user(answers) {
        steps.add(format!("useradd --system --no-create-home --shell /usr/sbin/nologin {user}"), "");
    }
    let directory = answers.log_file.as_deref().and_then(Path::parent).filter(|path| !path.as_os_str().is_empty());
    if let Some(directory) = directory.filter(|directory| !directory.exists()) {
        let owner = answers.user.as_deref().map(|user| format!("-o {} ", shell::word(user))).unwrap_or_default();
        steps.add(format!("install -d {owner}-m 750 {}", word(directory)), "");
    }
    steps.add(format!("spip-agent doctor --config {file}"), "is this machine ready?");
    steps
}

fn start(answers: &Answers, file: &str, units: Units) -> Steps {
    let mut steps = Steps::default();
    let by_program = answers.steering == "sk_lookup";
    if units.agent {
        steps.add(format!("systemctl enable --now {UNIT}"), "start, now and at each boot");
    } else {
        steps.add(format!("spip-agent --config {file}"), "start (as root; Ctrl-C or SIGTERM stops it)");
    }
    if by_program {
        steps.add(format!("spip-agent status --config {file}"), "what is steered, and what is left alone");
    } else {
        steps.add(format!("spip-agent rules show --config {file}"), "the rules that would redirect every port to it");
        steps.add(format!("spip-agent rules install --config {file}"), "set them up; asks before");
    }
    steps.add(format!("spip-agent doctor --config {file} --probe"), "one connection, and its record");
    if let (true, Some(log)) = (units.view, answers.log_file.as_deref()) {
        if log != Path::new(VIEWED_LOG) {
            steps.add(format!("sed -i {} /etc/spip/view.toml", followed(log)), "the log that the page follows");
        }
        steps.add(format!("systemctl enable --now {}", VIEW.join(" ")), "the page, http://127.0.0.1:8765");
    }
    steps
}

/// Returns the expression for sed that has the page follow `log`, quoted for the shell.
fn followed(log: &Path) -> String {
    let path = toml::Value::from(absolute(log).to_string_lossy().as_ref()).to_string();
    let path = path.replace('\\', r"\\").replace('&', r"\&").replace('|', r"\|");
    shell::word(&format!("s|^log = .*|log = {path}|"))
}

fn stop(by_program: bool, units: Units) -> Steps {
    let mut steps = Steps::default();
    if !by_program {
        steps.add("spip-agent rules remove".to_owned(), "removes exactly what was installed");
    }
    let steering = if by_program { "; steering ends with it" } else { "" };
    if units.view {
        steps.add(format!("systemctl disable --now {}", VIEW.join(" ")), "stop the page, if it was started");
    }
    if units.agent {
        // The socket alone would start the agent again with the next connection.
        steps.add(format!("systemctl disable --now {UNIT}.socket {UNIT}.service"), &format!("stop{steering}"));
    } else {
        steps.add(format!("stop the agent with Ctrl-C or SIGTERM{steering}"), "");
    }
    steps
}

/// Describes the written file, and what to know before the first step.
fn seen(page: &mut String, found: &Found, answers: &Answers, made: Option<&Made<'_>>) -> std::fmt::Result {
    if let Some(Made { file, directories }) = made {
        writeln!(page, "\nWrote {}.", file.display())?;
        for directory in directories.iter().rev() {
            writeln!(page, "  Made its directory {}, too.", directory.display())?;
        }
    }
    for (port, reasons) in &answers.ssh {
        writeln!(page, "  {port:>5} stays yours: {}", reasons.join(", "))?;
    }
    if answers.ssh.is_empty() {
        writeln!(page, "  No sshd was found. If you come in from outside, name its port: --exclude-ports PORT")?;
    }
    for (port, ip, owner) in &found.services {
        if !ip.is_loopback() && *port != answers.port {
            writeln!(page, "  {port:>5} is left alone while it is in use: {owner} listens on {ip}")?;
        }
    }
    if !found.complete {
        writeln!(page, "  Not every process is visible: run this as root to see who listens where.")?;
    }
    let private = translated::private_addresses(interfaces::addresses(), &PublicAddresses::default());
    if let Some(ip) = private.first() {
        writeln!(
            page,
            "  This machine has only private addresses ({ip}). If clients reach it by a public one, name it in the file:"
        )?;
        writeln!(page, "    {}", translated::example(*ip))?;
    }
    for note in validate::notes(answers, found, made.map(|made| made.file)) {
        writeln!(page, "  {note}")?;
    }
    Ok(())
}

fn word(path: &Path) -> String {
    shell::word(&path.to_string_lossy())
}

/// Commands, each with what it is for in a column of its own.
#[derive(Default)]
struct Steps(Vec<(String, String)>);

impl Steps {
    fn add(&mut self, command: String, purpose: &str) {
        self.0.push((command, purpose.to_owned()));
    }

    /// Characters of the longest command that is explained.
    fn width(&self) -> usize {
        let explained = self.0.iter().filter(|(_, purpose)| !purpose.is_empty());
        explained.map(|(command, _)| command.chars().count()).max().unwrap_or_default()
    }

    fn write(&self, page: &mut String, width: usize) -> std::fmt::Result {
        self.0.iter().try_for_each(|(command, purpose)| match purpose.as_str() {
            "" => writeln!(page, "  {command}"),
            _ => writeln!(page, "  {command:<width$}   {purpose}"),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::super::Options;
    use super::super::answers::tests::found;
    use super::*;

    fn shown(options: &Options, file: &str, directories: Vec<PathBuf>) -> String {
        let answers = Answers::proposed(&found(), options).expect("valid");
        let mut page = String::new();
        let made = Made { file: Path::new(file), directories };
        write(&mut page, &found(), &answers, Some(&made), Units { agent: true, view: true }).expect("text");
        page
    }

    #[test]
    fn the_commands_name_the_file_and_come_with_those_that_undo_them() {
        let options = Options { steering: Some("redirect".to_owned()), ..Options::default() };
        let page = shown(&options, "/etc/spip/spip.toml", Vec::new());
        for text in [
            "2222 stays yours: this session",
            "80 is left alone while it is in use: nginx listens on 0.0.0.0",
            "spip-agent rules install --config /etc/spip/spip.toml",
            "systemctl enable --now",
            "To undo this:",
            "spip-agent rules remove",
            "systemctl disable --now spip-agent.socket spip-agent.service",
            "systemctl enable --now spip-view.service spip-report.timer",
        ] {
            assert!(page.contains(text), "{text} is missing in\n{page}");
        }
        let page = shown(&Options::default(), "/etc/spip/spip.toml", Vec::new());
        assert!(page.contains("steering ends with it") && !page.contains("rules install"), "{page}");
    }

    #[test]
    fn what_was_made_is_reported_and_can_be_undone() {
        let options = Options { user: Some("no-such-user".to_owned()), ..Options::default() };
        let page = shown(&options, "/a/b/x.toml", vec!["/a/b".into(), "/a".into()]);
        assert!(page.contains("Made its directory /a, too.\n  Made its directory /a/b, too.\n"), "{page}");
        let back = "  rm /a/b/x.toml\n  rmdir /a/b\n  rmdir /a\n  userdel no-such-user\n\
                    Kept until you remove them: the records in /var/log/spip, the persona in /var/lib/spip.\n";
        assert!(page.ends_with(back), "{page}");
    }

    #[test]
    fn undoing_works_where_the_log_is_below_what_was_made() {
        let back = |log: &str, file: &str, made: &[&str]| {
            let options = Options { log_file: Some(log.into()), user: Some(String::new()), ..Options::default() };
            let page = shown(&options, file, made.iter().map(PathBuf::from).collect());
            let (_, back) = page.split_once("stop; steering ends with it\n").expect("the commands that undo it");
            back.lines().map(|line| line.split("   ").next().unwrap_or_default().trim().to_owned()).collect::<Vec<_>>()
        };
        let stays = "Kept until you remove them: the persona in /var/lib/spip.";
        assert_eq!(
            back("/a/b/log/deep/spip.jsonl", "/a/b/x.toml", &["/a/b", "/a"]),
            ["rm /a/b/x.toml", "rm -rf /a/b/log", "rmdir /a/b", "rmdir /a", stays]
        );
        assert_eq!(
            back("/a/b/spip.jsonl", "/a/b/x.toml", &["/a/b", "/a"]),
            ["rm /a/b/x.toml", "rm -f /a/b/spip.jsonl*", "rmdir /a/b", "rmdir /a", stays]
        );
        assert_eq!(
            back("/var/lib/spip/log/x", "/var/lib/spip/x.toml", &["/var/lib/spip"]),
            [
                "rm /var/lib/spip/x.toml",
                "rm -rf /var/lib/spip/log",
                "rm -f /var/lib/spip/persona.toml*",
                "rmdir /var/lib/spip"
            ]
        );
    }

    #[test]
    fn the_pages_of_the_walk_are_those_that_are_shown() {
        let walk = include_str!("../../../../docs/walk.md");
        for steering in ["redirect", "sk_lookup"] {
            let options =
                Options { steering: Some(steering.to_owned()), user: Some("root".to_owned()), ..Options::default() };
            let answers = Answers::proposed(&found(), &options).expect("valid");
            let made = Made { file: Path::new("/etc/spip/spip.toml"), directories: Vec::new() };
            let mut page = String::new();
            write(&mut page, &found(), &answers, Some(&made), Units { agent: true, view: true }).expect("text");
            let (_, commands) = page.split_once("Next steps:").expect("two parts");
            // The package has made it, unlike this machine.
            let is_made = |line: &&str| !line.contains("install -d ");
            let commands: String = commands.lines().filter(is_made).map(|line| format!("{line}\n")).collect();
            assert!(walk.contains(&commands), "docs/walk.md does not show, of {steering}:\n{commands}");
        }
    }

    #[test]
    fn the_page_follows_the_log_that_was_answered() {
        let file = std::env::temp_dir().join(format!("spip-init-view-{}.toml", std::process::id()));
        for log in ["/srv/spip.jsonl", "/srv/a b/it's|&.jsonl", r"/srv/back\slash.jsonl"] {
            let options = Options { log_file: Some(log.into()), ..Options::default() };
            let page = shown(&options, "/etc/spip/spip.toml", Vec::new());
            let command = page.lines().find(|line| line.contains("sed -i")).expect(log);
            let command = command.trim().replace("/etc/spip/view.toml", &file.to_string_lossy());
            let command = command.split("   ").next().unwrap_or_default();
            std::fs::write(&file, "# The log.\nlog = \"/var/log/spip/spip.jsonl\"\n").expect("written");
            let status = std::process::Command::new("sh").args(["-c", command]).status().expect("a shell");
            assert!(status.success(), "{command}");
            let text = std::fs::read_to_string(&file).expect("there");
            let table: toml::Table = text.parse().unwrap_or_else(|error| panic!("{error}: {text}"));
            assert_eq!(table["log"].as_str(), Some(log), "{command}");
        }
        std::fs::remove_file(&file).expect("ours");
        assert!(!shown(&Options::default(), "/etc/spip/spip.toml", Vec::new()).contains("sed -i"));
    }

    #[test]
    fn what_is_to_be_pasted_is_quoted() {
        let options = Options { log_file: Some("/no such/x;y/spip.jsonl".into()), ..Options::default() };
        let page = shown(&options, "/etc/it's.toml", Vec::new());
        assert!(page.contains("-m 750 '/no such/x;y'\n"), "{page}");
        assert!(page.contains(r"  rm '/etc/it'\''s.toml'") && !page.contains("--config /etc/it's"), "{page}");
    }
}
