//! FTP (RFC 959, 2228, 2389, 2428, 3659): login, and what is asked for after it.
//!
//! Decides at the end of a line that POP3 does not have (`SYST`, `FEAT`, `PASV`, `AUTH TLS` …). `USER` and `PASS` alone
//! decide nothing, but their credentials are kept.

use super::Protocol;
use super::dialogue::{self, Step};

/// The registry's entry.
pub(super) static PROTOCOL: Protocol = Protocol {
    name: "ftp",
    recognise: |reader| dialogue::decide(reader, step),
    understand: dialogue::understand,
    #[cfg(any(test, feature = "samples"))]
    samples: &[include_bytes!("../fixtures/protocol/curl.ftp"), b"AUTH TLS\r\n", b"USER root\r\nPASS root\r\nSYST\r\n"],
};

fn step(verb: &[u8], arguments: &[u8]) -> Step {
    match verb {
        b"SYST" | b"FEAT" | b"PASV" | b"EPSV" | b"PORT" | b"EPRT" | b"TYPE" | b"CWD" | b"XCWD" | b"CDUP" | b"PWD"
        | b"XPWD" | b"MKD" | b"XMKD" | b"RMD" | b"STOR" | b"STOU" | b"APPE" | b"REST" | b"RNFR" | b"RNTO" | b"ABOR"
        | b"MLSD" | b"MLST" | b"NLST" | b"SIZE" | b"MDTM" | b"SITE" | b"OPTS" | b"PBSZ" | b"PROT" | b"ACCT"
        | b"REIN" | b"STRU" | b"MODE" | b"ALLO" => Step::Decides,
        b"AUTH" if arguments.eq_ignore_ascii_case(b"TLS") || arguments.eq_ignore_ascii_case(b"SSL") => Step::Decides,
        b"USER" | b"PASS" | b"QUIT" | b"NOOP" | b"HELP" | b"LIST" | b"RETR" | b"DELE" | b"STAT" => Step::Shared,
        _ => Step::Refuses,
    }
}

#[cfg(test)]
mod tests {
    use super::super::understand;
    use super::*;

    #[test]
    fn login_and_commands_are_shown() {
        let understanding = understand(PROTOCOL.samples[0], false);
        let details = serde_json::to_string(&understanding.details).expect("json");
        let expected = r#"{"commands":["USER anonymous","PASS ftp@example.com","PWD","CWD pub","EPSV"]}"#;
        assert_eq!(details, expected);
        let credential = understanding.credentials.list.first().expect("a login");
        let expected = (Some("anonymous"), Some("ftp@example.com"));
        assert_eq!((credential.user.as_deref(), credential.secret.as_deref()), expected);
    }

    #[test]
    fn a_password_of_any_bytes_is_kept_without_a_protocol() {
        for bytes in [b"USER a\r\nPASS b\x1b\0".as_slice(), b"USER a\r\nPASS b\x1b\0\r\n"] {
            let credentials = understand(bytes, false).credentials.list;
            let found: Vec<_> = credentials.iter().map(|c| (c.user.as_deref(), c.secret.as_deref())).collect();
            assert_eq!(found, [(Some("a"), Some("b\u{1b}\0"))]);
        }
    }

    #[test]
    fn a_login_that_pop3_has_too_is_kept_without_a_protocol() {
        let understanding = understand(b"USER root\r\nPASS toor\r\n", false);
        assert_eq!(understanding.protocol, None);
        let credential = understanding.credentials.list.first().expect("a login");
        assert_eq!((credential.user.as_deref(), credential.secret.as_deref()), (Some("root"), Some("toor")));
        let irc = understand(b"USER bot 8 * :bot\r\nNICK bot\r\n", false);
        assert_eq!(irc.credentials.list, []);
    }
}
