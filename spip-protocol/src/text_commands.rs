//! Shared parts of FTP, SMTP, POP3 and IMAP: lines of text, verbs that several of them have, and logins.
//!
//! `USER`, `PASS`, `NOOP`, `QUIT` and others tell nothing about the protocol: the lines are read on until one says
//! something that only one of them has.

use super::credentials::Credentials;
use super::reader::{End, Reader};
use super::sasl::Exchange;
use super::value::LIST_ITEMS;
use super::{Understanding, later_hello};

/// The longest line that decides; commands of all four are at most 512 bytes by their specifications.
const LINE_BYTES: usize = 1024;
/// Lines that are read before the protocol stays unknown.
const LINES: usize = 16;

/// Verdict of one line about the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Only this protocol has it.
    Decides,
    /// This protocol has it, and others do.
    Shared,
    /// This protocol does not have it.
    Refuses,
}

/// Reads lines until one decides. Each is given as verb in upper case and arguments.
pub(super) fn decide(reader: &mut Reader<'_>, step: fn(&[u8], &[u8]) -> Step) -> Result<bool, End> {
    for _ in 0..LINES {
        let Some(line) = text_line(reader)? else {
            return Ok(false);
        };
        let (verb, arguments) = word(line);
        match step(&verb.to_ascii_uppercase(), arguments) {
            Step::Decides => return Ok(true),
            Step::Shared => {}
            Step::Refuses => return Ok(false),
        }
    }
    Ok(false)
}

/// A line that begins with a letter, a digit or a full stop and has no control characters; `None` as soon as the bytes
/// are none.
pub(super) fn text_line<'a>(reader: &mut Reader<'a>) -> Result<Option<&'a [u8]>, End> {
    let mut ahead = *reader;
    for position in 0..LINE_BYTES {
        match ahead.u8()? {
            b'\n' if position > 0 => return reader.line(LINE_BYTES),
            byte if position == 0 && !byte.is_ascii_alphanumeric() && byte != b'.' => {
                return Ok(None);
            }
            b'\r' | b'\t' => {}
            byte if byte.is_ascii_control() => return Ok(None),
            _ => {}
        }
    }
    Ok(None)
}

/// The first word of a line and what follows it.
pub(super) fn word(line: &[u8]) -> (&[u8], &[u8]) {
    let end = line.iter().position(|byte| *byte == b' ').unwrap_or(line.len());
    let (word, rest) = line.split_at(end);
    (word, rest.trim_ascii())
}

/// Counts what spaces separate.
pub(super) fn count_words(bytes: &[u8]) -> usize {
    bytes.split(|byte| *byte == b' ').filter(|word| !word.is_empty()).count()
}

/// The next line without its end, or what is left; `None` when nothing is. A ClientHello and what it leads to are no
/// lines.
pub(super) fn next_line<'a>(reader: &mut Reader<'a>) -> Option<&'a [u8]> {
    if let Some(length) = later_hello::length(reader.rest()) {
        reader.take(length).ok()?;
    }
    let rest = reader.rest();
    if rest.is_empty() {
        return None;
    }
    match reader.line(usize::MAX) {
        Ok(line) => line,
        Err(End) => reader.take(rest.len()).ok(),
    }
}

/// The commands that are kept: the first [`LIST_ITEMS`], and one more that marks the list as cut.
pub(super) fn keep<'a>(commands: &mut Vec<&'a [u8]>, line: &'a [u8]) {
    if commands.len() <= LIST_ITEMS {
        commands.push(line);
    }
}

/// Follows `USER` and `PASS`, and `AUTH` with the lines that answer the server's challenges.
#[derive(Debug, Default)]
pub(super) struct Login {
    user: Option<Vec<u8>>,
    exchange: Option<Exchange>,
}

impl Login {
    /// Takes a line; whether it is an answer to a challenge and no command.
    pub(super) fn line(&mut self, line: &[u8], credentials: &mut Credentials) -> bool {
        if let Some(exchange) = self.exchange.take() {
            self.exchange = exchange.line(line, credentials);
            return true;
        }
        let (verb, arguments) = word(line);
        if verb.eq_ignore_ascii_case(b"USER") {
            if let Some(user) = self.user.replace(arguments.to_vec()) {
                credentials.add(Some(&user), None);
            }
        } else if verb.eq_ignore_ascii_case(b"PASS") {
            let user = self.user.take();
            credentials.add(user.as_deref(), Some(arguments));
        } else if verb.eq_ignore_ascii_case(b"APOP") {
            credentials.add(Some(word(arguments).0), None);
        } else if verb.eq_ignore_ascii_case(b"AUTH") {
            self.exchange = Exchange::start(arguments, credentials);
        }
        false
    }

    /// Ends where the client's bytes end: a name without a password is still a name.
    pub(super) fn finish(self, credentials: &mut Credentials) {
        if let Some(user) = self.user {
            credentials.add(Some(&user), None);
        }
        if let Some(exchange) = self.exchange {
            exchange.finish(credentials);
        }
    }
}

/// The logins of a client that said `USER` first, where nothing decides between FTP and POP3. A client of IRC says
/// `USER` with four arguments, which is no login.
pub(super) fn undecided_login(bytes: &[u8], credentials: &mut Credentials) {
    let mut reader = Reader::new(bytes);
    let mut login = Login::default();
    // The first line must be text; a password may be anything.
    let mut next = text_line(&mut reader).ok().flatten();
    for position in 0..LINES {
        let Some(line) = next else { break };
        let (verb, arguments) = word(line);
        let is_user = verb.eq_ignore_ascii_case(b"USER");
        if position == 0 && !is_user || is_user && count_words(arguments) > 3 {
            return;
        }
        if is_user || verb.eq_ignore_ascii_case(b"PASS") {
            login.line(line, credentials);
        }
        next = next_line(&mut reader);
    }
    login.finish(credentials);
}

/// The facts of FTP and POP3: logins, and commands that are no answer to a challenge.
#[expect(clippy::unnecessary_wraps, reason = "the shape of every protocol's function")]
pub(super) fn understand<'a>(bytes: &'a [u8], out: &mut Understanding<'a>) -> Result<(), End> {
    let mut reader = Reader::new(bytes);
    let mut login = Login::default();
    let mut commands = Vec::new();
    while let Some(line) = next_line(&mut reader) {
        if !login.line(line, &mut out.credentials) {
            keep(&mut commands, line);
        }
    }
    login.finish(&mut out.credentials);
    out.details.texts("commands", commands);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_text_begins_with_a_letter_a_digit_or_a_full_stop() {
        let line = |bytes: &'static [u8]| text_line(&mut Reader::new(bytes));
        assert_eq!(line(b"A b\tc\r\n"), Ok(Some(&b"A b\tc"[..])));
        for begins in [&b"1\n"[..], b".\n", b"z\n"] {
            assert!(matches!(line(begins), Ok(Some(_))), "{begins:?}");
        }
        for other in [&b"\nA\n"[..], b"\r\nA\n", b" A\n", b"/A\n", b"A\x1b\n", b"A\0\n"] {
            assert_eq!(line(other), Ok(None), "{other:?}");
        }
        assert_eq!(line(b"A"), Err(End));
    }
}
