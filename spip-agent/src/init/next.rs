//! What to do next, and the way back: commands to be read and pasted, none of which is run here.

use std::fmt::Write as _;
use std::path::Path;

use super::answers::Answers;
use super::found::Found;

/// Where systemd has the unit of a package.
const UNITS: [&str; 3] = ["/etc/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system"];
/// Its name.
const UNIT: &str = "spip-agent";

pub(super) fn page(found: &Found, answers: &Answers, config: &Path) -> String {
    let has_unit = UNITS.iter().any(|units| Path::new(units).join(format!("{UNIT}.service")).exists());
    let mut page = String::new();
    // Writing into a String cannot fail.
    let _ = write(&mut page, found, answers, config, has_unit);
    page
}

fn write(page: &mut String, found: &Found, answers: &Answers, config: &Path, has_unit: bool) -> std::fmt::Result {
    let file = config.display();
    if config != Path::new("FILE") {
        writeln!(page, "\nWrote {file}.")?;
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
    writeln!(page, "\nWhat to do next:")?;
    if let Some(user) =
        answers.user.as_deref().filter(|user| nix::unistd::User::from_name(user).is_ok_and(|user| user.is_none()))
    {
        writeln!(page, "  useradd --system --no-create-home --shell /usr/sbin/nologin {user}")?;
    }
    let directory = answers.log_file.as_deref().and_then(Path::parent).filter(|path| !path.as_os_str().is_empty());
    if let Some(directory) = directory.filter(|directory| !directory.exists()) {
        let owner = answers.user.as_deref().map(|user| format!("-o {user} ")).unwrap_or_default();
        writeln!(page, "  install -d {owner}-m 750 {}", directory.display())?;
    }
    writeln!(page, "  spip-agent doctor --config {file}           is this machine ready?")?;
    let by_program = answers.steering == "sk_lookup";
    if by_program {
        writeln!(
            page,
            "The start below steers every port that is not left alone: keep this session open, and log in beside it."
        )?;
    }
    if has_unit {
        writeln!(page, "  systemctl enable --now {UNIT}                 start, now and at each boot")?;
    } else {
        writeln!(page, "  spip-agent --config {file}                  start (as root; Ctrl-C or SIGTERM stops it)")?;
    }
    if by_program {
        writeln!(page, "  spip-agent status --config {file}           what is steered, and what is left alone")?;
    } else {
        writeln!(page, "  spip-agent rules show --config {file}       the rules that would lead every port to it")?;
        writeln!(page, "  spip-agent rules install --config {file}    set them up; asks before")?;
    }
    writeln!(page, "  spip-agent doctor --config {file} --probe   one connection, and its record")?;
    writeln!(page, "\nThe way back:")?;
    if !by_program {
        writeln!(page, "  spip-agent rules remove                     takes away exactly what was installed")?;
    }
    let steering = if by_program { "; steering ends with it" } else { "" };
    if has_unit {
        writeln!(page, "  systemctl disable --now {UNIT}{steering}")?;
    } else {
        writeln!(page, "  stop the agent with Ctrl-C or SIGTERM{steering}")?;
    }
    writeln!(page, "  rm {file}")
}

#[cfg(test)]
mod tests {
    use super::super::Options;
    use super::super::answers::tests::found;
    use super::*;

    #[test]
    fn the_commands_name_the_file_and_come_with_the_way_back() {
        let found = found();
        let options = Options { steering: Some("redirect".to_owned()), ..Options::default() };
        let answers = Answers::proposed(&found, &options).expect("valid");
        let mut page = String::new();
        write(&mut page, &found, &answers, Path::new("/etc/spip/spip.toml"), true).expect("text");
        for text in [
            "2222 stays yours: this session",
            "80 is left alone while it is in use: nginx listens on 0.0.0.0",
            "spip-agent rules install --config /etc/spip/spip.toml",
            "systemctl enable --now",
            "The way back:",
            "spip-agent rules remove",
        ] {
            assert!(page.contains(text), "{text} is missing in\n{page}");
        }
        let answers = Answers::proposed(&found, &Options::default()).expect("valid");
        let mut page = String::new();
        write(&mut page, &found, &answers, Path::new("/etc/spip/spip.toml"), true).expect("text");
        assert!(page.contains("steering ends with it") && !page.contains("rules install"), "{page}");
    }
}
