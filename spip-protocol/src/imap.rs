//! IMAP (RFC 9051): login in clear or by SASL, and the commands around it.
//!
//! Decides at the end of the first line: a tag that is no verb of FTP, POP3, SMTP or IRC, and a command of IMAP with the
//! arguments that it takes.

use super::reader::{End, Reader};
use super::sasl::Exchange;
use super::text_commands::{self, word};
use super::{Protocol, Understanding};

/// The registry's entry.
pub(super) static PROTOCOL: Protocol = Protocol {
    name: "imap",
    recognise,
    understand,
    #[cfg(any(test, feature = "samples"))]
    samples: &[
        include_bytes!("../fixtures/protocol/imaplib.imap"),
        include_bytes!("../fixtures/protocol/curl.imap"),
        b"a1 LOGIN bob secret\r\n",
        b". LOGIN {3+}\r\nbob {6+}\r\nsecret\r\n",
    ],
};

/// The longest tag that is believed.
const TAG_BYTES: usize = 16;

fn recognise(reader: &mut Reader<'_>) -> Result<bool, End> {
    Ok(text_commands::text_line(reader)?.is_some_and(decides))
}

fn decides(line: &[u8]) -> bool {
    let (tag, rest) = word(line);
    let (command, arguments) = word(rest);
    let fits = tag.len() <= TAG_BYTES && tag.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'.');
    if !fits || is_verb(&tag.to_ascii_uppercase()) {
        return false;
    }
    // Words of everyday lines and of other languages ("EXPLAIN SELECT 1") need a tag as programs make them.
    let is_made = tag.iter().any(u8::is_ascii_digit) || tag.len() <= 2;
    match command.to_ascii_uppercase().as_slice() {
        b"CAPABILITY" | b"STARTTLS" => arguments.is_empty(),
        b"NOOP" | b"LOGOUT" => arguments.is_empty() && tag.iter().any(u8::is_ascii_digit),
        b"LOGIN" => {
            is_made
                && (text_commands::count_words(arguments) == 2
                    || arguments.contains(&b'"')
                    || arguments.starts_with(b"{"))
        }
        b"SELECT" | b"EXAMINE" => is_made && !arguments.is_empty(),
        b"AUTHENTICATE" => is_made && !arguments.is_empty() && text_commands::count_words(arguments) <= 2,
        b"ID" => arguments.starts_with(b"(") || arguments.eq_ignore_ascii_case(b"NIL"),
        _ => false,
    }
}

/// Verbs of others that could be mistaken for a tag.
fn is_verb(word: &[u8]) -> bool {
    matches!(
        word,
        b"USER"
            | b"PASS"
            | b"ACCT"
            | b"QUIT"
            | b"NOOP"
            | b"HELP"
            | b"LIST"
            | b"RETR"
            | b"DELE"
            | b"STAT"
            | b"SITE"
            | b"STOR"
            | b"SIZE"
            | b"CWD"
            | b"EHLO"
            | b"HELO"
            | b"LHLO"
            | b"AUTH"
            | b"MAIL"
            | b"RCPT"
            | b"VRFY"
            | b"EXPN"
            | b"APOP"
            | b"NICK"
            | b"JOIN"
            | b"PING"
            | b"GET"
            | b"SET"
            | b"ECHO"
    )
}

fn understand(bytes: &[u8], out: &mut Understanding) -> Result<(), End> {
    let mut reader = Reader::new(bytes);
    let mut commands = Vec::new();
    let mut exchange: Option<Exchange> = None;
    let mut end = Ok(());
    while let Some(line) = text_commands::next_line(&mut reader) {
        if let Some(running) = exchange.take() {
            exchange = running.line(line, &mut out.credentials);
            continue;
        }
        text_commands::keep(&mut commands, line);
        let (command, arguments) = word(word(line).1);
        if command.eq_ignore_ascii_case(b"AUTHENTICATE") {
            exchange = Exchange::start(arguments, &mut out.credentials);
        } else if command.eq_ignore_ascii_case(b"LOGIN") {
            let mut line = arguments.to_vec();
            end = login(&mut line, &mut reader, out);
            if end.is_err() {
                break;
            }
        }
    }
    if let Some(exchange) = exchange {
        exchange.finish(&mut out.credentials);
    }
    out.details.texts("commands", commands);
    end
}

/// Name and password: atoms, quoted strings, or literals that continue behind the line.
fn login(line: &mut Vec<u8>, reader: &mut Reader<'_>, out: &mut Understanding) -> Result<(), End> {
    let mut strings = Vec::new();
    while strings.len() < 2 {
        let rest = line.trim_ascii_start();
        let Some(first) = rest.first() else { break };
        let (string, after) = match first {
            b'"' => quoted(rest),
            b'{' => {
                let digits: Vec<u8> = rest.iter().skip(1).copied().take_while(u8::is_ascii_digit).take(6).collect();
                let length = String::from_utf8(digits).ok().and_then(|digits| digits.parse::<usize>().ok());
                let Some(length) = length else { break };
                let literal = reader.take(length)?.to_vec();
                let after = text_commands::next_line(reader).unwrap_or_default().to_vec();
                (literal, after)
            }
            _ => {
                let (atom, after) = word(rest);
                (atom.to_vec(), after.to_vec())
            }
        };
        strings.push(string);
        *line = after;
    }
    out.credentials.add(strings.first().map(Vec::as_slice), strings.get(1).map(Vec::as_slice));
    Ok(())
}

/// A quoted string, where a backslash takes the next character as it is, and what follows it.
fn quoted(bytes: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let mut string = Vec::new();
    let mut rest = bytes.get(1..).unwrap_or_default().iter();
    while let Some(byte) = rest.next() {
        match byte {
            b'"' => break,
            b'\\' => string.extend(rest.next()),
            byte => string.push(*byte),
        }
    }
    (string, rest.as_slice().to_vec())
}

#[cfg(test)]
mod tests {
    use super::super::understand;
    use super::*;

    #[test]
    fn every_form_of_login_is_read() {
        let expected = [("bob", "se\"cret"), ("bob", "secret"), ("bob", "secret"), ("bob", "secret")];
        for (sample, (user, secret)) in PROTOCOL.samples.iter().zip(expected) {
            let credentials = understand(sample, false).credentials.list;
            let found = credentials.first().map(|c| (c.user.as_deref(), c.secret.as_deref()));
            assert_eq!(found, Some((Some(user), Some(secret))));
        }
    }

    #[test]
    fn commands_are_shown_and_answers_to_challenges_are_not() {
        let details = understand(PROTOCOL.samples[1], false).details;
        let expected = r#"{"commands":["A001 CAPABILITY","A002 AUTHENTICATE PLAIN","A003 LIST \"INBOX\" *"]}"#;
        assert_eq!(serde_json::to_string(&details).expect("json"), expected);
    }

    #[test]
    fn a_user_called_login_is_no_tag() {
        for line in ["USER login a\r\n", "HELP NOOP\r\n", "x NOOP\r\n", "tag LOGIN\r\n"] {
            assert_eq!(understand(line.as_bytes(), false).protocol, None, "{line}");
        }
    }

    #[test]
    fn the_tag_and_the_shape_of_its_arguments_decide_a_command() {
        let lines = [
            ("a1 CAPABILITY", true),
            ("tag STARTTLS", true),
            ("a1 CAPABILITY x", false),
            ("a1 NOOP", true),
            ("tag LOGOUT", false),
            ("a1 NOOP x", false),
            ("a1 LOGIN a b", true),
            ("tag LOGIN a b", false),
            ("a1 LOGIN a", false),
            ("a1 LOGIN \"a", true),
            ("a1 LOGIN {3}", true),
            ("a1 SELECT INBOX", true),
            ("tag EXAMINE INBOX", false),
            ("a1 SELECT", false),
            ("a1 AUTHENTICATE PLAIN", true),
            ("a1 AUTHENTICATE PLAIN AGE=", true),
            ("a1 AUTHENTICATE", false),
            ("a1 AUTHENTICATE PLAIN a b", false),
            ("a1 ID NIL", true),
            ("tag ID (\"name\" \"x\")", true),
            ("tag ID x", false),
            ("a+b CAPABILITY", false),
            ("a.b CAPABILITY", true),
        ];
        for (line, decides) in lines {
            let protocol = understand(format!("{line}\r\n").as_bytes(), false).protocol;
            assert_eq!(protocol == Some("imap"), decides, "{line}: {protocol:?}");
        }
        for (length, decides) in [(TAG_BYTES, true), (TAG_BYTES + 1, false)] {
            let protocol = understand(format!("{} CAPABILITY\r\n", "a".repeat(length)).as_bytes(), false).protocol;
            assert_eq!(protocol == Some("imap"), decides, "{length}: {protocol:?}");
        }
    }
}
