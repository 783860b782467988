//! NNTP (RFC 3977, 4643): reading, posting and logging in to a news server.
//!
//! Decides at the end of a line that FTP, POP3, SMTP and IRC do not have: `MODE READER`, `AUTHINFO`, `CAPABILITIES`, a group
//! or an article.

use super::reader::{End, Reader};
use super::text_commands::{self, Step, word};
use super::{Protocol, Understanding};

/// The registry's entry.
pub(super) static PROTOCOL: Protocol = Protocol {
    name: "nntp",
    recognise: |reader| text_commands::decide(reader, step),
    understand,
    #[cfg(any(test, feature = "samples"))]
    samples: &[
        b"MODE READER\r\n",
        b"AUTHINFO USER bob\r\nAUTHINFO PASS secret\r\n",
        b"CAPABILITIES\r\n",
        b"HELP\r\nLIST ACTIVE\r\n",
    ],
};

fn step(verb: &[u8], arguments: &[u8]) -> Step {
    let first = word(arguments).0.to_ascii_uppercase();
    match verb {
        b"MODE" if matches!(first.as_slice(), b"READER" | b"STREAM") && text_commands::count_words(arguments) == 1 => {
            Step::Decides
        }
        b"AUTHINFO" if matches!(first.as_slice(), b"USER" | b"PASS" | b"SASL" | b"GENERIC" | b"SIMPLE") => {
            Step::Decides
        }
        b"CAPABILITIES" if arguments.is_empty() => Step::Decides,
        b"LIST" if matches!(first.as_slice(), b"ACTIVE" | b"NEWSGROUPS" | b"OVERVIEW.FMT" | b"ACTIVE.TIMES") => {
            Step::Decides
        }
        b"NEWGROUPS" | b"NEWNEWS" if text_commands::count_words(arguments) >= 2 => Step::Decides,
        b"XOVER" | b"XHDR" | b"XPAT" | b"LISTGROUP" => Step::Decides,
        b"GROUP" if text_commands::count_words(arguments) == 1 && arguments.contains(&b'.') => Step::Decides,
        b"ARTICLE" | b"HEAD" | b"BODY" | b"IHAVE" | b"CHECK" | b"TAKETHIS" if arguments.starts_with(b"<") => {
            Step::Decides
        }
        b"LIST" | b"HELP" | b"DATE" | b"QUIT" | b"STAT" | b"NEXT" | b"LAST" | b"POST" | b"SLAVE" => Step::Shared,
        _ => Step::Refuses,
    }
}

#[expect(clippy::unnecessary_wraps, reason = "the shape of every protocol's function")]
fn understand<'a>(bytes: &'a [u8], out: &mut Understanding<'a>) -> Result<(), End> {
    let mut reader = Reader::new(bytes);
    let mut user = None;
    let mut commands = Vec::new();
    while let Some(line) = text_commands::next_line(&mut reader) {
        text_commands::keep(&mut commands, line);
        let (verb, arguments) = word(line);
        if !verb.eq_ignore_ascii_case(b"AUTHINFO") {
            continue;
        }
        let (kind, value) = word(arguments);
        if kind.eq_ignore_ascii_case(b"USER") {
            if let Some(earlier) = user.replace(value) {
                out.credentials.add(Some(earlier), None);
            }
        } else if kind.eq_ignore_ascii_case(b"PASS") {
            out.credentials.add(user.take(), Some(value));
        }
    }
    if user.is_some() {
        out.credentials.add(user, None);
    }
    out.details.texts("commands", commands);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::understand;
    use super::*;

    #[test]
    fn a_login_is_read() {
        let understanding = understand(PROTOCOL.samples[1], false);
        let credential = understanding.credentials.list.first().expect("a login");
        assert_eq!((credential.user.as_deref(), credential.secret.as_deref()), (Some("bob"), Some("secret")));
    }

    #[test]
    fn prose_and_the_lines_of_others_are_not_nntp() {
        for line in ["LIST\r\n", "MODE S\r\n", "head of the line\r\n", "group theory\r\n", "MODE READER now\r\n"] {
            assert_ne!(understand(line.as_bytes(), false).protocol, Some("nntp"), "{line}");
        }
    }
}
