//! Draws a persona. All versions of one face are those of one release of one distribution, as its updates brought them.

use sha2::{Digest, Sha256};

use super::Face;

/// Versions that belong to one release.
struct Release {
    kernels: &'static [&'static str],
    ftp: &'static str,
    http: &'static str,
    postfix: &'static str,
    mysql: &'static [&'static str],
    postgresql: &'static [&'static str],
    redis: &'static str,
    ssh: &'static [&'static str],
}

const RELEASES: &[Release] = &[
    Release {
        kernels: &["Linux 5.10.0-26-amd64 x86_64", "Linux 5.10.0-28-amd64 x86_64", "Linux 5.10.0-30-amd64 x86_64"],
        ftp: "(vsFTPd 3.0.3)",
        http: "nginx/1.18.0",
        postfix: "ESMTP Postfix (Debian/GNU)",
        mysql: &["5.5.5-10.5.19-MariaDB-0+deb11u2", "5.5.5-10.5.23-MariaDB-0+deb11u1"],
        postgresql: &["13.11 (Debian 13.11-0+deb11u1)", "13.14 (Debian 13.14-0+deb11u1)"],
        redis: "6.0.16",
        ssh: &["SSH-2.0-OpenSSH_8.4p1 Debian-5+deb11u2", "SSH-2.0-OpenSSH_8.4p1 Debian-5+deb11u3"],
    },
    Release {
        kernels: &["Linux 6.1.0-18-amd64 x86_64", "Linux 6.1.0-21-amd64 x86_64", "Linux 6.1.0-26-amd64 x86_64"],
        ftp: "(vsFTPd 3.0.3)",
        http: "nginx/1.22.1",
        postfix: "ESMTP Postfix (Debian/GNU)",
        mysql: &["5.5.5-10.11.4-MariaDB-1~deb12u1", "5.5.5-10.11.6-MariaDB-0+deb12u1"],
        postgresql: &["15.6 (Debian 15.6-0+deb12u1)", "15.8 (Debian 15.8-0+deb12u1)"],
        redis: "7.0.15",
        ssh: &["SSH-2.0-OpenSSH_9.2p1 Debian-2+deb12u2", "SSH-2.0-OpenSSH_9.2p1 Debian-2+deb12u3"],
    },
    Release {
        kernels: &[
            "Linux 5.15.0-91-generic x86_64",
            "Linux 5.15.0-105-generic x86_64",
            "Linux 5.15.0-119-generic x86_64",
        ],
        ftp: "(vsFTPd 3.0.5)",
        http: "nginx/1.18.0 (Ubuntu)",
        postfix: "ESMTP Postfix (Ubuntu)",
        mysql: &["5.5.5-10.6.16-MariaDB-0ubuntu0.22.04.1", "5.5.5-10.6.18-MariaDB-0ubuntu0.22.04.1"],
        postgresql: &["14.11 (Ubuntu 14.11-0ubuntu0.22.04.1)", "14.13 (Ubuntu 14.13-0ubuntu0.22.04.1)"],
        redis: "6.0.16",
        ssh: &[
            "SSH-2.0-OpenSSH_8.9p1 Ubuntu-3ubuntu0.6",
            "SSH-2.0-OpenSSH_8.9p1 Ubuntu-3ubuntu0.7",
            "SSH-2.0-OpenSSH_8.9p1 Ubuntu-3ubuntu0.10",
        ],
    },
    Release {
        kernels: &["Linux 6.8.0-36-generic x86_64", "Linux 6.8.0-41-generic x86_64", "Linux 6.8.0-45-generic x86_64"],
        ftp: "(vsFTPd 3.0.5)",
        http: "nginx/1.24.0 (Ubuntu)",
        postfix: "ESMTP Postfix (Ubuntu)",
        mysql: &["5.5.5-10.11.7-MariaDB-2ubuntu2", "5.5.5-10.11.8-MariaDB-0ubuntu0.24.04.1"],
        postgresql: &["16.3 (Ubuntu 16.3-0ubuntu0.24.04.1)", "16.4 (Ubuntu 16.4-0ubuntu0.24.04.2)"],
        redis: "7.0.15",
        ssh: &["SSH-2.0-OpenSSH_9.6p1 Ubuntu-3ubuntu13.4", "SSH-2.0-OpenSSH_9.6p1 Ubuntu-3ubuntu13.5"],
    },
];

/// Dovecot's own greeting, which few change.
const MAIL: &str = "Dovecot ready.";

/// Titles of the page, each with its button.
const PAGES: &[(&str, &str)] = &[
    ("Sign in", "Sign in"),
    ("Webmail", "Log in"),
    ("Customer portal", "Continue"),
    ("Control panel", "Log in"),
    ("Intranet", "Sign in"),
    ("Backup", "Connect"),
    ("Dashboard", "Sign in"),
    ("File exchange", "Enter"),
];
const COLOURS: &[&str] = &["#f4f5f7", "#eef2f5", "#fafafa", "#e9edf2", "#f0f0ea"];
const HOSTS: &[&str] = &["srv", "vps", "web", "host", "node", "mail", "app", "db"];

/// Makes choices out of a seed, each for a purpose of its own.
struct Draw<'a>(&'a [u8]);

impl Draw<'_> {
    fn number(&self, purpose: &str) -> u32 {
        let digest = Sha256::new_with_prefix(self.0).chain_update(purpose).finalize();
        u32::from_be_bytes([digest[0], digest[1], digest[2], digest[3]])
    }

    fn pick<'t, T: ?Sized>(&self, purpose: &str, of: &[&'t T]) -> &'t T {
        of[self.number(purpose) as usize % of.len()]
    }
}

/// The face that belongs to this seed.
pub(super) fn draw(seed: &[u8; 16]) -> Face {
    let draw = Draw(seed);
    let release = &RELEASES[draw.number("release") as usize % RELEASES.len()];
    let (title, button) = PAGES[draw.number("page") as usize % PAGES.len()];
    let stem = draw.pick("host", HOSTS);
    let number = draw.number("number");
    let host = match draw.number("form") % 3 {
        0 => format!("{stem}{:02}", number % 20 + 1),
        1 => format!("{stem}-{:08x}", number),
        _ => format!("{stem}{}", number % 900_000 + 100_000),
    };
    let pick = |purpose: &str, of: &[&'static str]| draw.pick(purpose, of).to_owned();
    Face {
        kernel: pick("kernel", release.kernels),
        ftp: release.ftp.to_owned(),
        http: release.http.to_owned(),
        imap: MAIL.to_owned(),
        mysql: pick("mysql", release.mysql),
        pop3: MAIL.to_owned(),
        postgresql: pick("postgresql", release.postgresql),
        redis: release.redis.to_owned(),
        smtp: release.postfix.to_owned(),
        ssh: pick("ssh", release.ssh),
        telnet: format!("{host} login: "),
        vnc: "003.008".to_owned(),
        page: page(title, button, draw.pick("colour", COLOURS)),
        host,
    }
}

/// A form for a name and a password: many a client fills it in.
fn page(title: &str, button: &str, colour: &str) -> String {
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<title>{title}</title>\n\
         <style>body{{font-family:sans-serif;background:{colour}}}form{{width:18em;margin:8em auto}}\
         input{{display:block;width:100%;margin:.5em 0}}</style>\n</head>\n<body>\n\
         <form method=\"post\" action=\"/login\">\n<h2>{title}</h2>\n\
         <input name=\"username\" placeholder=\"User name\" autofocus>\n\
         <input name=\"password\" type=\"password\" placeholder=\"Password\">\n\
         <input type=\"submit\" value=\"{button}\">\n</form>\n</body>\n</html>\n"
    )
}
