//! IRC (RFC 2812): registration with nickname and user, and what a bot does then.
//!
//! Decides at the end of a line that neither FTP nor NNTP has: `NICK`, `USER` with its four arguments, `JOIN`, `PRIVMSG`, or
//! the capabilities of IRCv3. `PASS` decides nothing, and nothing else comes before those.

use super::reader::{End, Reader};
use super::text_commands::{self, Step, word};
use super::{Protocol, Understanding};

/// The registry's entry.
pub(super) static PROTOCOL: Protocol = Protocol {
    name: "irc",
    recognise: |reader| text_commands::decide(reader, step),
    understand,
    #[cfg(any(test, feature = "samples"))]
    samples: &[
        b"NICK x\r\nUSER x 0 * :x\r\n",
        b"USER a 0 * :b\r\nMODE a +i\r\n",
        b"PASS secret\r\nNICK bot\r\nUSER bot 8 * :bot\r\nJOIN #c\r\n",
        b"CAP LS 302\r\n",
    ],
};

fn step(verb: &[u8], arguments: &[u8]) -> Step {
    let words = text_commands::count_words(arguments);
    match verb {
        b"NICK" if words == 1 => Step::Decides,
        b"USER" if words >= 4 => Step::Decides,
        b"JOIN" if arguments.starts_with(b"#") || arguments.starts_with(b"&") => Step::Decides,
        b"PRIVMSG" | b"NOTICE" if words >= 2 && arguments.contains(&b':') => Step::Decides,
        b"CAP" => match word(arguments) {
            (b"LS", rest) if rest.is_empty() || rest == b"302" => Step::Decides,
            (b"REQ", rest) if rest.starts_with(b":") => Step::Decides,
            (b"END", b"") => Step::Shared,
            _ => Step::Refuses,
        },
        b"PASS" => Step::Shared,
        _ => Step::Refuses,
    }
}

#[expect(clippy::unnecessary_wraps, reason = "the shape of every protocol's function")]
fn understand<'a>(bytes: &'a [u8], out: &mut Understanding<'a>) -> Result<(), End> {
    let mut reader = Reader::new(bytes);
    let (mut nick, mut secret) = (None, None);
    let mut commands = Vec::new();
    while let Some(line) = text_commands::next_line(&mut reader) {
        text_commands::keep(&mut commands, line);
        let (verb, arguments) = word(line);
        if verb.eq_ignore_ascii_case(b"NICK") && nick.is_none() {
            nick = Some(arguments);
            out.details.text("nick", arguments);
        } else if verb.eq_ignore_ascii_case(b"USER") {
            out.details.text("user", word(arguments).0);
        } else if verb.eq_ignore_ascii_case(b"PASS") && secret.is_none() {
            secret = Some(arguments);
        }
    }
    if secret.is_some() {
        out.credentials.add(nick, secret);
    }
    out.details.texts("commands", commands);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::understand;
    use super::*;

    #[test]
    fn a_bot_shows_its_name_and_the_servers_password() {
        let understanding = understand(PROTOCOL.samples[2], false);
        let details = serde_json::to_string(&understanding.details).expect("json");
        let expected =
            r#"{"nick":"bot","user":"bot","commands":["PASS secret","NICK bot","USER bot 8 * :bot","JOIN #c"]}"#;
        assert_eq!(details, expected);
        let credential = understanding.credentials.list.first().expect("a password");
        assert_eq!((credential.user.as_deref(), credential.secret.as_deref()), (Some("bot"), Some("secret")));
    }

    #[test]
    fn what_munin_and_ftp_say_is_not_irc() {
        for line in ["cap multigraph dirtyconfig\n", "USER root\r\nMODE S\r\n", "MODE a +i\r\n"] {
            assert_ne!(understand(line.as_bytes(), false).protocol, Some("irc"), "{line}");
        }
    }

    #[test]
    fn the_shape_of_its_arguments_decides_a_verb() {
        let lines = [
            ("NICK bot", true),
            ("NICK bot 1", false),
            ("NICK", false),
            ("USER a 8 * :b", true),
            ("USER a 8 *", false),
            ("JOIN #c", true),
            ("JOIN &c", true),
            ("JOIN c", false),
            ("PRIVMSG #c :hello", true),
            ("PRIVMSG #c hello", false),
            ("NOTICE :hello", false),
            ("CAP LS", true),
            ("CAP LS 302", true),
            ("CAP LS 301", false),
            ("CAP REQ :sasl", true),
            ("CAP REQ sasl", false),
        ];
        for (line, decides) in lines {
            let protocol = understand(format!("{line}\r\n").as_bytes(), false).protocol;
            assert_eq!(protocol == Some("irc"), decides, "{line}: {protocol:?}");
        }
    }
}
