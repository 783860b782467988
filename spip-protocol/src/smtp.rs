//! SMTP (RFC 5321) and LMTP: greeting, login (RFC 4954), envelope.
//!
//! Decides at the end of a line with `EHLO`, `HELO`, `LHLO`, `MAIL FROM:`, `RCPT TO:`, `VRFY` or `EXPN`; the verbs that
//! other mail protocols have may stand before it.

use super::reader::{End, Reader};
use super::text_commands::{self, Login, Step, word};
use super::value::LIST_ITEMS;
use super::{Protocol, Understanding};

/// The registry's entry.
pub(super) static PROTOCOL: Protocol = Protocol {
    name: "smtp",
    recognise: |reader| text_commands::decide(reader, step),
    understand,
    #[cfg(any(test, feature = "samples"))]
    samples: &[
        include_bytes!("../fixtures/protocol/smtplib-login.smtp"),
        include_bytes!("../fixtures/protocol/smtplib-plain.smtp"),
        b"EHLO\r\n",
    ],
};

fn step(verb: &[u8], arguments: &[u8]) -> Step {
    match verb {
        b"EHLO" | b"HELO" | b"LHLO" | b"VRFY" | b"EXPN" => Step::Decides,
        b"MAIL" | b"RCPT" if address(arguments).is_some() => Step::Decides,
        // That is FTP's request for TLS, and no mechanism of SASL.
        b"AUTH" if arguments.eq_ignore_ascii_case(b"TLS") || arguments.eq_ignore_ascii_case(b"SSL") => Step::Refuses,
        b"AUTH" | b"STARTTLS" | b"NOOP" | b"RSET" | b"QUIT" | b"HELP" => Step::Shared,
        _ => Step::Refuses,
    }
}

/// The address behind `FROM:` or `TO:`, without its brackets.
fn address(arguments: &[u8]) -> Option<&[u8]> {
    let colon = arguments.iter().position(|byte| *byte == b':')?;
    let (name, address) = (arguments.get(..colon)?, arguments.get(colon + 1..)?);
    if !name.eq_ignore_ascii_case(b"FROM") && !name.eq_ignore_ascii_case(b"TO") {
        return None;
    }
    let (address, _parameters) = word(address.trim_ascii());
    Some(address.strip_prefix(b"<").and_then(|address| address.strip_suffix(b">")).unwrap_or(address))
}

fn understand(bytes: &[u8], out: &mut Understanding) -> Result<(), End> {
    let mut reader = Reader::new(bytes);
    let mut login = Login::default();
    let mut commands = Vec::new();
    let mut recipients = Vec::new();
    let mut end = Ok(());
    while let Some(line) = text_commands::next_line(&mut reader) {
        if login.line(line, &mut out.credentials) {
            continue;
        }
        text_commands::keep(&mut commands, line);
        let (verb, arguments) = word(line);
        match verb.to_ascii_uppercase().as_slice() {
            b"EHLO" | b"HELO" | b"LHLO" => out.details.text("helo", arguments),
            b"MAIL" => {
                if let Some(address) = address(arguments) {
                    out.details.text("mail_from", address);
                }
            }
            b"RCPT" if recipients.len() <= LIST_ITEMS => recipients.extend(address(arguments)),
            b"DATA" => {
                end = message(&mut reader, out);
                if end.is_err() {
                    break;
                }
            }
            _ => {}
        }
    }
    login.finish(&mut out.credentials);
    out.details.texts("rcpt_to", recipients);
    out.details.texts("commands", commands);
    end
}

/// Passes over a message up to its full stop, and keeps the subject and how long the first one is.
fn message(reader: &mut Reader<'_>, out: &mut Understanding) -> Result<(), End> {
    const SUBJECT: &[u8] = b"subject:";
    let before = reader.rest().len();
    let mut in_head = true;
    while let Some(line) = text_commands::next_line(reader) {
        if line == b"." {
            out.details.count("message_bytes", before - reader.rest().len());
            return Ok(());
        }
        in_head &= !line.is_empty();
        let (name, value) = line.split_at_checked(SUBJECT.len()).unwrap_or_default();
        if in_head && name.eq_ignore_ascii_case(SUBJECT) {
            out.details.text("subject", value.trim_ascii());
        }
    }
    out.details.count("message_bytes", before);
    if before == 0 { Ok(()) } else { Err(End) }
}

#[cfg(test)]
mod tests {
    use super::super::understand;
    use super::*;

    #[test]
    fn greeting_envelope_and_message_are_shown() {
        let details = understand(PROTOCOL.samples[1], false).details;
        let expected = concat!(
            r#"{"helo":"probe.example","mail_from":"a@example.com","subject":"x","message_bytes":24,"#,
            r#""rcpt_to":["b@example.net"],"commands":["ehlo probe.example","#,
            r#""AUTH PLAIN AHNhbGVzQGV4YW1wbGUuY29tAGxldG1laW4=","mail FROM:<a@example.com>","#,
            r#""rcpt TO:<b@example.net>","data"]}"#
        );
        assert_eq!(serde_json::to_string(&details).expect("json"), expected);
    }

    #[test]
    fn both_forms_of_login_give_the_same_credentials() {
        for sample in &PROTOCOL.samples[..2] {
            let credentials = understand(sample, false).credentials.list;
            let found = credentials.first().map(|c| (c.user.as_deref(), c.secret.as_deref()));
            assert_eq!(found, Some((Some("sales@example.com"), Some("letmein"))));
        }
    }

    #[test]
    fn a_verb_that_others_have_too_decides_nothing() {
        assert_eq!(understand(b"HELP\r\nAUTH LOGIN\r\n", false).protocol, None);
    }
}
