//! IMAP, as Dovecot speaks it: any login is let in, and opening a mailbox is refused.
//!
//! The tag of a command is the one identifier of the client's that comes back, where it is a short word of letters and
//! digits; for any other the server speaks of `*`, as servers do that cannot read a tag.

use super::lines::{command, line, may_end};
use super::{Dialogue, Reply, Scene, Service};

pub(super) static SERVICE: Service =
    Service { protocols: &["imap"], speaks_first: true, begin: || Box::new(Imap::default()) };

const CAPABILITIES: &str = "IMAP4rev1 SASL-IR LOGIN-REFERRALS ID ENABLE IDLE LITERAL+ AUTH=PLAIN AUTH=LOGIN";
const CAPABILITIES_IN: &str = "IMAP4rev1 SASL-IR LOGIN-REFERRALS ID ENABLE IDLE SORT THREAD=REFERENCES UNSELECT \
                               CHILDREN NAMESPACE UIDPLUS LITERAL+ MOVE";
/// The longest tag that is repeated.
const TAG_BYTES: usize = 16;
/// The longest literal that is waited for.
const LITERAL_BYTES: usize = 4 * 1024;

#[derive(Default)]
struct Imap {
    is_in: bool,
    /// The tag of a command that goes on: behind a literal, or with an answer to a challenge.
    continuation: Option<(String, Continuation)>,
}

enum Continuation {
    /// This many bytes of a literal, then the rest of the line.
    Literal(usize),
    /// The name of SASL LOGIN.
    User,
    /// The last message of SASL.
    Last,
}

impl Dialogue for Imap {
    fn greet(&mut self, scene: &Scene<'_>, reply: &mut Reply<'_>) {
        reply.line("imap_greeting", &format!("* OK [CAPABILITY {CAPABILITIES}] {}", scene.face.imap));
    }

    fn is_worth_hearing(&mut self, heard: &[u8], looked: usize) -> bool {
        matches!(self.continuation, Some((_, Continuation::Literal(1..)))) || may_end(heard, looked)
    }

    fn hear(&mut self, heard: &[u8], scene: &Scene<'_>, reply: &mut Reply<'_>) -> usize {
        if let Some((_, Continuation::Literal(left))) = &mut self.continuation
            && *left > 0
        {
            let taken = heard.len().min(*left);
            *left -= taken;
            return taken;
        }
        let Some((text, used)) = line(heard) else { return 0 };
        match self.continuation.take() {
            Some((tag, Continuation::Literal(_))) => {
                // A login by literals: each announces the next one, or the line ends.
                if !self.literal(&tag, text, reply) {
                    self.let_in(&tag, reply);
                }
            }
            Some((tag, _)) if text == b"*" => {
                reply.line("imap_refusal", &format!("{tag} BAD Authentication aborted by client."))
            }
            Some((tag, Continuation::User)) => {
                self.continuation = Some((tag, Continuation::Last));
                reply.line("imap_login", "+ UGFzc3dvcmQ6");
            }
            Some((tag, Continuation::Last)) => self.let_in(&tag, reply),
            None => self.command(text, scene, reply),
        }
        used
    }
}

impl Imap {
    /// Reports whether the line ends with a literal, and then waits for it.
    fn literal(&mut self, tag: &str, text: &[u8], reply: &mut Reply<'_>) -> bool {
        let Some((length, synchronising)) = literal_length(text) else { return false };
        self.continuation = Some((tag.to_owned(), Continuation::Literal(length)));
        if synchronising {
            reply.line("imap_login", "+ OK");
        }
        true
    }

    fn let_in(&mut self, tag: &str, reply: &mut Reply<'_>) {
        self.is_in = true;
        reply.line("imap_login", &format!("{tag} OK [CAPABILITY {CAPABILITIES_IN}] Logged in"));
    }

    fn command(&mut self, text: &[u8], scene: &Scene<'_>, reply: &mut Reply<'_>) {
        let space = text.iter().position(|byte| *byte == b' ').unwrap_or(text.len());
        let (tag, rest) = text.split_at_checked(space).unwrap_or((text, b""));
        let is_tag = !tag.is_empty() && tag.len() <= TAG_BYTES && tag.iter().all(u8::is_ascii_alphanumeric);
        let tag = if is_tag { String::from_utf8_lossy(tag).into_owned() } else { "*".to_owned() };
        let (verb, arguments) = command(rest);
        match verb.as_slice() {
            b"CAPABILITY" => {
                let list = if self.is_in { CAPABILITIES_IN } else { CAPABILITIES };
                reply.understood();
                let tls = if scene.offers_tls && !self.is_in { " STARTTLS" } else { "" };
                reply.line("imap_answer", &format!("* CAPABILITY {list}{tls}\r\n{tag} OK Capability completed."));
            }
            b"STARTTLS" if scene.offers_tls && !self.is_in => {
                reply.understood();
                reply.line("imap_tls", &format!("{tag} OK Begin TLS negotiation now."));
                reply.start_tls();
            }
            b"NOOP" => reply.line("imap_answer", &format!("{tag} OK NOOP completed.")),
            b"ID" => reply.line("imap_answer", &format!("* ID (\"name\" \"Dovecot\")\r\n{tag} OK ID completed.")),
            b"LOGOUT" => {
                reply.understood();
                reply.line("imap_farewell", &format!("* BYE Logging out\r\n{tag} OK Logout completed."));
                reply.close();
            }
            b"LOGIN" if !self.is_in => {
                reply.understood();
                if !self.literal(&tag, arguments, reply) {
                    self.let_in(&tag, reply);
                }
            }
            b"AUTHENTICATE" if !self.is_in => self.authenticate(tag, arguments, reply),
            b"LIST" | b"LSUB" if self.is_in => {
                let list = "* LIST (\\HasNoChildren) \".\" INBOX";
                reply.line("imap_answer", &format!("{list}\r\n{tag} OK List completed."));
            }
            b"SELECT" | b"EXAMINE" | b"STATUS" | b"APPEND" | b"CREATE" if self.is_in => reply.refuse(
                "imap_refusal",
                &format!("{tag} NO [SERVERBUG] Internal error occurred. Refer to server log for more information."),
            ),
            _ if !self.is_in => {
                reply.refuse("imap_refusal", &format!("{tag} BAD Error in IMAP command received by server."));
            }
            _ => reply.refuse("imap_refusal", &format!("{tag} BAD Unknown command.")),
        }
    }

    fn authenticate(&mut self, tag: String, arguments: &[u8], reply: &mut Reply<'_>) {
        reply.understood();
        let (mechanism, initial) = command(arguments);
        match (mechanism.as_slice(), initial.is_empty()) {
            (b"PLAIN", false) => self.let_in(&tag, reply),
            (b"PLAIN", true) => {
                self.continuation = Some((tag, Continuation::Last));
                reply.line("imap_login", "+ ");
            }
            (b"LOGIN", true) => {
                self.continuation = Some((tag, Continuation::User));
                reply.line("imap_login", "+ VXNlcm5hbWU6");
            }
            (b"LOGIN", false) => {
                self.continuation = Some((tag, Continuation::Last));
                reply.line("imap_login", "+ UGFzc3dvcmQ6");
            }
            _ => reply.refuse("imap_refusal", &format!("{tag} NO Unsupported authentication mechanism.")),
        }
    }
}

/// The length of the literal that a line ends with (RFC 9051, section 4.3), and whether the client waits for leave.
fn literal_length(text: &[u8]) -> Option<(usize, bool)> {
    let text = text.strip_suffix(b"}")?;
    let open = text.iter().rposition(|byte| *byte == b'{')?;
    let number = text.get(open + 1..)?;
    let (number, synchronising) = match number.strip_suffix(b"+") {
        Some(number) => (number, false),
        None => (number, true),
    };
    let length = std::str::from_utf8(number).ok()?.parse::<usize>().ok()?;
    (length <= LITERAL_BYTES).then_some((length, synchronising))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_literal_is_announced_by_its_length_at_the_end_of_a_line() {
        assert_eq!(literal_length(b"a LOGIN {5}"), Some((5, true)));
        assert_eq!(literal_length(b"a LOGIN {x} {12+}"), Some((12, false)));
        let bound = |bytes: usize| literal_length(format!("a LOGIN {{{bytes}}}").as_bytes());
        assert_eq!((bound(LITERAL_BYTES), bound(LITERAL_BYTES + 1)), (Some((LITERAL_BYTES, true)), None));
        for text in [&b"a LOGIN"[..], b"a LOGIN {}", b"a LOGIN {+}", b"a LOGIN {x}", b"a LOGIN 5}", b"a LOGIN {5} "] {
            assert_eq!(literal_length(text), None, "{}", text.escape_ascii());
        }
    }
}
