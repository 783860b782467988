//! FTP (RFC 959, 2228, 2389, 2428, 3659): login, and what is asked for after it.
//!
//! Decides at the end of a line that POP3, IRC and NNTP do not have (`SYST`, `FEAT`, `PASV`, `AUTH TLS` …), with the
//! arguments that FTP gives it: `MODE READER` is NNTP, `MODE bot +i` is IRC, and a line of prose may begin with any verb.
//! `USER` and `PASS` alone decide nothing, but their credentials are kept.

use super::Protocol;
use super::text_commands::{self, Step};

/// The registry's entry.
pub(super) static PROTOCOL: Protocol = Protocol {
    name: "ftp",
    recognise: |reader| text_commands::decide(reader, step),
    understand: text_commands::understand,
    #[cfg(any(test, feature = "samples"))]
    samples: &[include_bytes!("../fixtures/protocol/curl.ftp"), b"AUTH TLS\r\n", b"USER root\r\nPASS root\r\nSYST\r\n"],
};

/// Mechanisms of `AUTH` that no mechanism of SASL has the name of (RFC 2228, RFC 4217).
const MECHANISMS: [&[u8]; 4] = [b"TLS", b"TLS-C", b"TLS-P", b"SSL"];
/// Mechanisms that SASL has, too: the data that follow decide.
const SHARED_MECHANISMS: [&[u8]; 2] = [b"GSSAPI", b"KERBEROS_V4"];

fn step(verb: &[u8], arguments: &[u8]) -> Step {
    let is_one_of = |words: &[&[u8]]| words.iter().any(|word| arguments.eq_ignore_ascii_case(word));
    let is_number = || !arguments.is_empty() && arguments.iter().all(u8::is_ascii_digit);
    let fits = match verb {
        b"SYST" | b"FEAT" | b"PASV" | b"CDUP" | b"XCUP" | b"PWD" | b"XPWD" | b"ABOR" | b"REIN" => arguments.is_empty(),
        b"CWD" | b"XCWD" | b"MKD" | b"XMKD" | b"RMD" | b"XRMD" | b"STOR" | b"APPE" | b"RNFR" | b"RNTO" | b"SIZE"
        | b"MDTM" | b"OPTS" | b"ACCT" => !arguments.is_empty(),
        b"SITE" => arguments.first().is_some_and(u8::is_ascii_alphabetic),
        b"STOU" | b"MLSD" | b"MLST" | b"NLST" => true,
        b"PORT" => is_address(arguments),
        b"EPRT" => arguments.len() > 4 && arguments.first() == arguments.last(),
        b"EPSV" => arguments.is_empty() || is_number() || is_one_of(&[b"ALL"]),
        b"TYPE" => is_one_of(&[b"A", b"I", b"E", b"A N", b"A T", b"A C", b"E N", b"L 8", b"L8"]),
        b"STRU" => is_one_of(&[b"F", b"R", b"P"]),
        b"MODE" => is_one_of(&[b"S", b"B", b"C", b"Z"]),
        b"PROT" => is_one_of(&[b"C", b"S", b"E", b"P"]),
        b"REST" | b"PBSZ" => is_number(),
        b"ALLO" => arguments.first().is_some_and(u8::is_ascii_digit),
        b"AUTH" if is_one_of(&SHARED_MECHANISMS) => return Step::Shared,
        b"AUTH" => is_one_of(&MECHANISMS),
        b"ADAT" => text_commands::count_words(arguments) == 1,
        // The four arguments of IRC are no login.
        b"USER" if text_commands::count_words(arguments) > 3 => return Step::Refuses,
        b"USER" | b"PASS" | b"QUIT" | b"NOOP" | b"HELP" | b"LIST" | b"RETR" | b"DELE" | b"STAT" => return Step::Shared,
        _ => false,
    };
    if fits { Step::Decides } else { Step::Refuses }
}

/// Four bytes of an address and two of a port, in decimal.
fn is_address(arguments: &[u8]) -> bool {
    let mut numbers = arguments.split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
    let is_byte = |number: &[u8]| (1..=3).contains(&number.len()) && number.iter().all(u8::is_ascii_digit);
    numbers.by_ref().take(6).filter(|number| is_byte(number)).count() == 6 && numbers.next().is_none()
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
    fn the_verbs_of_others_and_of_prose_are_not_ftp() {
        let lines: &[&[u8]] = &[
            b"MODE READER\r\n",
            b"USER a 0 * :b\r\nMODE a +i\r\n",
            b"MODE bot +x\r\n",
            b"port MIME formatted messages.\r\n",
            b"TYPE pap PUBLIC \"-//WAPFORUM//DTD PAP 1.0//EN\"\r\n",
            b"SIZE\r\n",
            b"PWD now\r\n",
            b"PORT 1,2,3,4,5\r\n",
        ];
        for line in lines {
            assert_ne!(understand(line, false).protocol, Some("ftp"), "{:?}", String::from_utf8_lossy(line));
        }
        for line in [
            b"PORT 192,0,2,1,4,1\r\n".as_slice(),
            b"mode S\r\n",
            b"AUTH GSSAPI\r\nADAT FgMB\r\n",
            b"EPRT |1|192.0.2.1|6275|\r\n",
        ] {
            assert_eq!(understand(line, false).protocol, Some("ftp"), "{:?}", String::from_utf8_lossy(line));
        }
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

    #[test]
    fn the_shape_of_its_arguments_decides_a_verb() {
        let lines = [
            ("EPSV", true),
            ("EPSV 1", true),
            ("EPSV all", true),
            ("EPSV x", false),
            ("REST 100", true),
            ("REST x", false),
            ("REST", false),
            ("PBSZ 0", true),
            ("TYPE L 8", true),
            ("TYPE B", false),
            ("STRU F", true),
            ("STRU X", false),
            ("PROT P", true),
            ("PROT Q", false),
            ("SITE CHMOD 777 a", true),
            ("SITE", false),
            ("SITE 1", false),
            ("ALLO 5", true),
            ("ALLO x", false),
            ("EPRT |1|192.0.2.1|6275|", true),
            ("EPRT |1|192.0.2.1|6275", false),
            ("EPRT ||||", false),
            ("PORT 192,0,2,1,4,1", true),
            ("PORT 192,0,2,1,4,1,5", false),
            ("PORT 192,0,2,1,4,1000", false),
            ("MKD a", true),
            ("MKD", false),
            ("SYST", true),
            ("SYST x", false),
            ("STOU", true),
            ("NLST x", true),
            ("AUTH TLS", true),
            ("AUTH KERBEROS_V4", false),
            ("AUTH PLAIN", false),
        ];
        for (line, decides) in lines {
            let protocol = understand(format!("{line}\r\n").as_bytes(), false).protocol;
            assert_eq!(protocol == Some("ftp"), decides, "{line}: {protocol:?}");
        }
    }
}
