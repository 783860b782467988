//! Programs that come from the system's packages: which command needs which, and what they are called.
//!
//! Installed by itself is only what the called command needs, and only through apt, where the names are
//! certain and an installation can be kept from removing anything. For other systems the exact command is
//! printed: a wrong guess there costs more than a line to paste.

use std::process::Command;

use anyhow::Result;

use super::{Missing, Need};
use crate::privilege::{self, Root};
use crate::process;
use crate::report;

/// A program and the packages that bring it, in the order of [`MANAGERS`].
struct Tool {
    program: &'static str,
    /// Where the packages bring more than the program: a check of it all by `program` with these arguments.
    check: &'static [&'static str],
    /// The first command that needs it; later ones in [`Need`] include it.
    needs: &'static [Need],
    /// Without an optional one something named here is left out, and nothing fails.
    without: Option<&'static str>,
    packages: [&'static str; 5],
}

const fn tool(program: &'static str, needs: &'static [Need], packages: [&'static str; 5]) -> Tool {
    Tool { program, check: &[], needs, without: None, packages }
}

const fn checked(
    program: &'static str,
    check: &'static [&'static str],
    needs: &'static [Need],
    packages: [&'static str; 5],
) -> Tool {
    Tool { program, check, needs, without: None, packages }
}

const fn optional(
    program: &'static str,
    needs: &'static [Need],
    without: &'static str,
    packages: [&'static str; 5],
) -> Tool {
    Tool { program, check: &[], needs, without: Some(without), packages }
}

/// Package managers by their program, and the command that installs what follows.
const MANAGERS: [(&str, &str); 5] = [
    ("apt-get", "apt-get install --no-remove"),
    ("dnf", "dnf install"),
    ("pacman", "pacman -S --needed"),
    ("apk", "apk add"),
    ("zypper", "zypper install"),
];

const APT: usize = 0;

/// Crates with C inside are compiled by the userspace build and by its clippy alike.
const ALL: &[Need] = &[Need::Build, Need::Demo, Need::Test, Need::Soak, Need::Lint, Need::Fuzz];
const NAMESPACES: &[Need] = &[Need::Demo, Need::Test, Need::Soak];
const MAPS: &[Need] = &[Need::Test, Need::Soak];
const TEST: &[Need] = &[Need::Test];
/// Both compile the agent with the feature `legacy-tls` too.
const LEGACY: &[Need] = &[Need::Test, Need::Lint];
/// pkg-config's question whether OpenSSL can be compiled against.
pub(crate) const HAS_OPENSSL: [&str; 2] = ["--atleast-version=1.1.1", "openssl"];
const BROWSER: &str = "tests of pages in a browser";
const SERVERS: &str = "tests of deliveries to a NATS server and to ClickHouse";
const REAL_CLIENTS: &str = "tests of what this client is told";

const TOOLS: [Tool; 29] = [
    tool("cc", ALL, ["gcc libc6-dev", "gcc", "gcc", "build-base", "gcc"]),
    optional("c++", &[Need::Fuzz], "inputs chosen by coverage", ["g++", "gcc-c++", "gcc", "g++", "gcc-c++"]),
    checked(
        "pkg-config",
        &HAS_OPENSSL,
        LEGACY,
        [
            "pkg-config libssl-dev",
            "pkgconf-pkg-config openssl-devel",
            "pkgconf openssl",
            "pkgconf openssl-dev",
            "pkgconf-pkg-config libopenssl-devel",
        ],
    ),
    tool("ip", NAMESPACES, ["iproute2", "iproute", "iproute2", "iproute2", "iproute2"]),
    tool("iptables", NAMESPACES, ["iptables", "iptables-nft", "iptables-nft", "iptables", "iptables"]),
    tool("ip6tables", NAMESPACES, ["iptables", "iptables-nft", "iptables-nft", "iptables", "iptables"]),
    tool("nsenter", NAMESPACES, ["util-linux", "util-linux-core", "util-linux", "util-linux-misc", "util-linux"]),
    tool("curl", NAMESPACES, ["curl ca-certificates", "curl", "curl", "curl", "curl"]),
    tool("openssl", TEST, ["openssl"; 5]),
    tool("nc", TEST, ["netcat-openbsd", "nmap-ncat", "openbsd-netcat", "netcat-openbsd", "netcat-openbsd"]),
    tool("nmap", TEST, ["nmap"; 5]),
    tool("ssh", TEST, ["openssh-client", "openssh-clients", "openssh", "openssh-client-default", "openssh-clients"]),
    tool("python3", TEST, ["python3", "python3", "python", "python3", "python3"]),
    tool("jq", TEST, ["jq"; 5]),
    tool("xxd", TEST, ["xxd", "vim-common", "vim", "xxd", "vim"]),
    optional("wget", TEST, REAL_CLIENTS, ["wget"; 5]),
    optional("ftp", TEST, REAL_CLIENTS, ["tnftp", "ftp", "inetutils", "tnftp", "tnftp"]),
    optional("telnet", TEST, REAL_CLIENTS, ["inetutils-telnet", "telnet", "inetutils", "busybox-extras", "telnet"]),
    optional("redis-cli", TEST, REAL_CLIENTS, ["redis-tools", "valkey-compat-redis", "valkey", "redis", "redis"]),
    optional(
        "psql",
        TEST,
        REAL_CLIENTS,
        ["postgresql-client", "postgresql", "postgresql-libs", "postgresql-client", "postgresql"],
    ),
    optional(
        "mysql",
        TEST,
        REAL_CLIENTS,
        ["default-mysql-client", "mariadb", "mariadb-clients", "mariadb-client", "mariadb-client"],
    ),
    optional(
        "smbclient",
        TEST,
        REAL_CLIENTS,
        ["smbclient", "samba-client", "smbclient", "samba-client", "samba-client"],
    ),
    optional(
        "mosquitto_pub",
        TEST,
        REAL_CLIENTS,
        ["mosquitto-clients", "mosquitto", "mosquitto", "mosquitto-clients", "mosquitto-clients"],
    ),
    optional(
        "bpftool",
        MAPS,
        "looks at maps from outside, which a soak cannot do without,",
        ["bpftool", "bpftool", "bpf", "bpftool", "bpftool"],
    ),
    optional(
        "promtool",
        TEST,
        "tests of the alert rules, and a scrape by Prometheus,",
        ["prometheus", "golang-github-prometheus", "prometheus", "prometheus", "golang-github-prometheus-prometheus"],
    ),
    Tool {
        program: "python3",
        check: &["-c", "import ensurepip, venv"],
        needs: TEST,
        without: Some(SERVERS),
        packages: ["python3 python3-venv", "python3", "python", "python3", "python3"],
    },
    optional("chromium", TEST, BROWSER, ["chromium"; 5]),
    optional(
        "chromedriver",
        TEST,
        BROWSER,
        ["chromium-driver", "chromedriver", "chromium", "chromium-chromedriver", "chromedriver"],
    ),
    // Alpine has none.
    optional("systemd-analyze", TEST, "tests of the unit", ["systemd"; 5]),
];

/// Makes the programs for `need` available where that is possible; what is not comes back.
pub(crate) fn ready(need: Need, root: Root, install: bool) -> Result<Vec<Missing>> {
    let mut missing = absent(need);
    if install && !missing.is_empty() && process::find(MANAGERS[APT].0).is_some() {
        if root.is_unattended() {
            install_by_apt(&missing, root)?;
            missing = absent(need);
        } else {
            report::note("packages are not installed: neither root nor passwordless sudo");
        }
    }
    let (optional, required): (Vec<&Tool>, Vec<&Tool>) = missing.into_iter().partition(|tool| tool.without.is_some());
    for tool in optional {
        report::note(format!(
            "{} is missing, so {} are left out ({})",
            tool.program,
            tool.without.unwrap_or_default(),
            remedy(&[tool])
        ));
    }
    if required.is_empty() {
        return Ok(Vec::new());
    }
    let programs: Vec<&str> = required.iter().map(|tool| tool.program).collect();
    Ok(vec![Missing {
        what: programs.join(", "),
        why: "not found on PATH or in the system folders".to_owned(),
        remedy: remedy(&required),
    }])
}

fn absent(need: Need) -> Vec<&'static Tool> {
    TOOLS.iter().filter(|tool| tool.needs.contains(&need)).filter(|tool| !tool.is_there()).collect()
}

impl Tool {
    fn is_there(&self) -> bool {
        process::find(self.program)
            .is_some_and(|program| self.check.is_empty() || process::succeeds(Command::new(program).args(self.check)))
    }
}

/// Required packages in one step, which fails as a whole; optional ones by themselves, as a release of the
/// distribution may lack them.
fn install_by_apt(missing: &[&Tool], root: Root) -> Result<()> {
    let packages = |wanted: bool| {
        let tools = missing.iter().filter(|tool| tool.without.is_some() == wanted);
        unique_packages(tools.copied(), APT)
    };
    let required = packages(false);
    if !required.is_empty()
        && let Err(error) = apt_install(&required, root)
    {
        // Not the end: what is still missing is listed together with everything else.
        report::note(format!("{error:#}"));
    }
    for package in packages(true) {
        if let Err(error) = apt_install(&[package], root) {
            report::note(format!("{error:#}"));
        }
    }
    Ok(())
}

/// Installs packages by apt without removing any; updates its lists first where they do not know one.
pub(crate) fn apt_install(packages: &[&str], root: Root) -> Result<()> {
    if !packages.iter().all(|package| apt_knows(package)) {
        process::run(&mut apt(root, &["update"]))?;
    }
    let install = ["install", "--yes", "--no-remove", "--no-install-recommends"];
    let arguments: Vec<&str> = install.iter().chain(packages).copied().collect();
    process::run(&mut apt(root, &arguments)).or_else(|_| {
        // Lists that are older than the archive name files that are gone.
        process::run(&mut apt(root, &["update"]))?;
        process::run(&mut apt(root, &arguments))
    })
}

/// Whether apt's lists offer this package.
pub(crate) fn apt_knows(package: &str) -> bool {
    process::output(Command::new("apt-cache").args(["policy", package])).is_ok_and(|policy| {
        policy.lines().any(|line| line.trim().starts_with("Candidate:") && !line.contains("(none)"))
    })
}

/// apt's lists, brought up to date.
pub(crate) fn apt_update(root: Root) -> Result<()> {
    process::run(&mut apt(root, &["update"]))
}

fn apt(root: Root, arguments: &[&str]) -> Command {
    let environment = [("DEBIAN_FRONTEND", "noninteractive".into()), ("PATH", process::full_path())];
    // Callers ask `Root::is_unattended` first; without rights apt says itself what it lacks.
    let mut command = root.command("apt-get", &environment).unwrap_or_else(|| Command::new("apt-get"));
    command.args(["--quiet", "-o", "Dpkg::Use-Pty=0"]).args(arguments);
    command
}

/// The command that installs these tools on this system.
fn remedy(tools: &[&Tool]) -> String {
    let manager = MANAGERS.iter().position(|(program, _)| process::find(program).is_some());
    match manager {
        Some(index) => {
            let packages = unique_packages(tools.iter().copied(), index).join(" ");
            privilege::as_typed(&format!("{} {packages}", MANAGERS[index].1))
        }
        None => format!(
            "install the packages that bring them; Debian calls them {}",
            unique_packages(tools.iter().copied(), APT).join(" ")
        ),
    }
}

fn unique_packages<'a>(tools: impl Iterator<Item = &'a Tool>, manager: usize) -> Vec<&'static str> {
    let mut packages: Vec<&str> = Vec::new();
    for package in tools.flat_map(|tool| tool.packages[manager].split(' ')) {
        if !packages.contains(&package) {
            packages.push(package);
        }
    }
    packages
}

#[cfg(test)]
mod tests {
    use super::*;

    fn programs(need: Need) -> Vec<&'static str> {
        TOOLS.iter().filter(|tool| tool.needs.contains(&need)).map(|tool| tool.program).collect()
    }

    #[test]
    fn a_build_needs_no_network_tools() {
        assert_eq!(programs(Need::Build), ["cc"]);
        assert_eq!(programs(Need::Lint), ["cc", "pkg-config"]);
        assert_eq!(programs(Need::Fuzz), ["cc", "c++"]);
    }

    #[test]
    fn a_tool_that_fails_its_check_is_missing() {
        let packages = ["x"; 5];
        assert!(tool("true", TEST, packages).is_there());
        assert!(checked("test", &["1", "=", "1"], TEST, packages).is_there());
        assert!(!checked("test", &["1", "=", "2"], TEST, packages).is_there());
        assert!(!tool("no-such-program", TEST, packages).is_there());
    }

    #[test]
    fn the_tests_need_all_that_the_demo_needs() {
        let test = programs(Need::Test);
        for program in programs(Need::Demo) {
            assert!(test.contains(&program), "{program}");
        }
    }

    #[test]
    fn a_soak_needs_no_clients_of_the_tests_but_a_look_at_maps() {
        let soak = programs(Need::Soak);
        assert!(soak.contains(&"bpftool") && soak.contains(&"ip") && !soak.contains(&"nmap"), "{soak:?}");
    }

    #[test]
    fn a_package_that_brings_two_programs_is_named_once() {
        let tools = TOOLS.iter().filter(|tool| tool.program.ends_with("tables"));
        assert_eq!(unique_packages(tools, APT), ["iptables"]);
    }

    #[test]
    fn every_tool_has_a_package_on_every_system() {
        for tool in &TOOLS {
            assert!(tool.packages.iter().all(|package| !package.is_empty()), "{}", tool.program);
        }
    }
}
