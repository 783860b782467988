//! POP3 (RFC 1939, 2449, 5034): login by USER and PASS, APOP, or SASL.
//!
//! Decides at the end of a line that neither FTP nor SMTP has: `CAPA`, `STLS`, `UIDL`, `TOP`, `APOP`. `STAT` belongs to
//! FTP as well, so USER, PASS and STAT leave the protocol unknown, with the credentials kept.

use super::Protocol;
use super::text_commands::{self, Step};

/// The registry's entry.
pub(super) static PROTOCOL: Protocol = Protocol {
    name: "pop3",
    recognise: |reader| text_commands::decide(reader, step),
    understand: text_commands::understand,
    #[cfg(any(test, feature = "samples"))]
    samples: &[
        include_bytes!("../fixtures/protocol/curl.pop3"),
        b"USER bob\r\nPASS secret\r\nUIDL\r\n",
        b"APOP mrose c4c9334bac560ecc979e58001b3e22fb\r\n",
    ],
};

fn step(verb: &[u8], arguments: &[u8]) -> Step {
    match verb {
        b"CAPA" | b"STLS" if arguments.is_empty() => Step::Decides,
        b"UIDL" if arguments.iter().all(u8::is_ascii_digit) => Step::Decides,
        // A message and a number of lines.
        b"TOP" if arguments.contains(&b' ') && arguments.iter().all(|byte| byte.is_ascii_digit() || *byte == b' ') => {
            Step::Decides
        }
        // The digest has 32 hexadecimal digits.
        b"APOP" if arguments.rsplit(|byte| *byte == b' ').next().is_some_and(|digest| digest.len() == 32) => {
            Step::Decides
        }
        b"USER" if text_commands::count_words(arguments) > 3 => Step::Refuses,
        // Without arguments it asks for the mechanisms (RFC 5034); FTP's takes one of its own.
        b"AUTH" if arguments.is_empty() => Step::Shared,
        b"USER" | b"PASS" | b"QUIT" | b"NOOP" | b"RSET" | b"LIST" | b"RETR" | b"DELE" | b"STAT" => Step::Shared,
        _ => Step::Refuses,
    }
}

#[cfg(test)]
mod tests {
    use super::super::understand;
    use super::*;

    #[test]
    fn a_login_by_sasl_is_decoded_and_is_no_command() {
        let understanding = understand(PROTOCOL.samples[0], false);
        let details = serde_json::to_string(&understanding.details).expect("json");
        assert_eq!(details, r#"{"commands":["CAPA","AUTH PLAIN","LIST"]}"#);
        let credential = understanding.credentials.list.first().expect("a login");
        assert_eq!((credential.user.as_deref(), credential.secret.as_deref()), (Some("bob"), Some("secret")));
    }

    #[test]
    fn commands_decide_with_arguments_of_their_form_alone() {
        let protocol = |text: &'static str| understand(text.as_bytes(), false).protocol;
        let digest = "c4c9334bac560ecc979e58001b3e22fb";
        for text in ["CAPA\r\n", "STLS\r\n", "UIDL\r\n", "UIDL 12\r\n", "TOP 1 0\r\n", "TOP 12 34\r\n"] {
            assert_eq!(protocol(text), Some("pop3"), "{text}");
        }
        for text in ["CAPA x\r\n", "STLS x\r\n", "UIDL x\r\n", "TOP\r\n", "TOP 1\r\n", "TOP 1 x\r\n", "TOP one 1\r\n"] {
            assert_eq!(protocol(text), None, "{text}");
        }
        for (length, expected) in [(31, None), (32, Some("pop3"))] {
            let text = format!("APOP mrose {}\r\n", &digest[..length]);
            assert_eq!(understand(text.as_bytes(), false).protocol, expected, "{text}");
        }
        // Names of up to three words, then a command that POP3 alone has.
        assert_eq!(protocol("USER a b c\r\nUIDL\r\n"), Some("pop3"));
        assert_eq!(protocol("USER a b c d\r\nUIDL\r\n"), Some("irc"));
        assert_eq!((protocol("AUTH\r\nUIDL\r\n"), protocol("AUTH TLS\r\nUIDL\r\n")), (Some("pop3"), Some("ftp")));
    }

    #[test]
    fn a_session_that_ftp_could_have_too_is_kept_without_a_protocol() {
        let understanding = understand(include_bytes!("../fixtures/protocol/poplib.pop3"), false);
        assert_eq!(understanding.protocol, None);
        assert_eq!(understanding.credentials.list.first().and_then(|c| c.secret.as_deref()), Some("secret"));
    }
}
