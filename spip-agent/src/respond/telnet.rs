//! Telnet, as a small Linux device speaks it: any login is let in, and its shell refuses every command.
//!
//! Nothing that is typed comes back: there is no echo, and the refusals do not name the command.

use super::{Dialogue, Reply, Scene, Service};

pub(super) static SERVICE: Service = Service {
    protocols: &["telnet"],
    speaks_first: true,
    begin: || Box::new(Telnet { next: Next::User, seen: Seen::Text }),
};

/// IAC DO ECHO, IAC DO window size, IAC WILL ECHO, IAC WILL suppress go-ahead: what small devices open with.
const NEGOTIATION: &[u8] = &[255, 253, 1, 255, 253, 31, 255, 251, 1, 255, 251, 3];
const IAC: u8 = 255;
/// The longest line, with the negotiation in it, that is waited for.
const LINE_BYTES: usize = 4 * 1024;

struct Telnet {
    next: Next,
    /// Position in the line after the examined bytes.
    seen: Seen,
}

/// Meaning of the next line.
enum Next {
    User,
    Secret,
    Command,
}

/// Kind of the byte before the next one.
#[derive(Clone, Copy)]
enum Seen {
    Text,
    Return,
    Iac,
    Verb,
    Subnegotiation,
    IacInSubnegotiation,
}

impl Seen {
    /// Takes the next byte; `None` when the line ends with it.
    fn next(self, byte: u8) -> Option<Self> {
        Some(match (self, byte) {
            (Self::Return, _) | (Self::Text, b'\n') => return None,
            (Self::Text, b'\r') => Self::Return,
            (Self::Text, IAC) => Self::Iac,
            (Self::Iac, 250) => Self::Subnegotiation,
            (Self::Iac, 251..=254) => Self::Verb,
            (Self::Subnegotiation, IAC) => Self::IacInSubnegotiation,
            (Self::IacInSubnegotiation, 240) => Self::Text,
            (Self::IacInSubnegotiation, IAC) => Self::IacInSubnegotiation,
            (Self::Subnegotiation | Self::IacInSubnegotiation, _) => Self::Subnegotiation,
            (Self::Text | Self::Iac | Self::Verb, _) => Self::Text,
        })
    }
}

impl Dialogue for Telnet {
    fn greet(&mut self, scene: &Scene<'_>, reply: &mut Reply<'_>) {
        let mut greeting = NEGOTIATION.to_vec();
        greeting.extend_from_slice(scene.face.telnet.as_bytes());
        reply.say("telnet_greeting", &greeting);
    }

    fn is_worth_hearing(&mut self, heard: &[u8], looked: usize) -> bool {
        if looked == 0 {
            self.seen = Seen::Text;
        }
        for byte in heard.get(looked..).unwrap_or_default() {
            match self.seen.next(*byte) {
                Some(seen) => self.seen = seen,
                None => return true,
            }
        }
        heard.len() >= LINE_BYTES
    }

    fn hear(&mut self, heard: &[u8], scene: &Scene<'_>, reply: &mut Reply<'_>) -> usize {
        let Some((text, used)) = typed_line(heard) else {
            if heard.first() == Some(&IAC) {
                reply.understood();
            }
            return 0;
        };
        if text.iter().all(|byte| matches!(byte, b' '..=b'~' | b'\t')) {
            reply.understood();
        }
        match self.next {
            Next::User if text.is_empty() => reply.say("telnet_login", scene.face.telnet.as_bytes()),
            Next::User => {
                self.next = Next::Secret;
                reply.say("telnet_login", b"Password: ");
            }
            Next::Secret => {
                self.next = Next::Command;
                reply.say("telnet_login", b"\r\n# ");
            }
            Next::Command if text.trim_ascii().is_empty() => reply.say("telnet_answer", b"# "),
            Next::Command if matches!(text.trim_ascii(), b"exit" | b"logout" | b"quit") => reply.close(),
            Next::Command => {
                reply.say("telnet_refusal", b"-sh: can't fork\r\n# ");
                reply.count_refusal();
            }
        }
        used
    }
}

/// A line as it was typed, without the negotiation in it, and how many bytes it takes. Lines end with CR LF, CR NUL, CR
/// or LF.
fn typed_line(heard: &[u8]) -> Option<(Vec<u8>, usize)> {
    let mut text = Vec::new();
    let mut at = 0;
    loop {
        if at >= LINE_BYTES {
            return Some((text, at));
        }
        match (*heard.get(at)?, heard.get(at + 1)) {
            (b'\n', _) => return Some((text, at + 1)),
            (b'\r', Some(b'\n' | 0)) => return Some((text, at + 2)),
            (b'\r', Some(_)) => return Some((text, at + 1)),
            (b'\r', None) => return None,
            (IAC, Some(250)) => {
                let rest = heard.get(at..)?;
                match rest.windows(2).position(|pair| pair == [IAC, 240]) {
                    Some(end) => at += end + 2,
                    // It is waited for no longer than for a line.
                    None if heard.len() >= LINE_BYTES => return Some((text, heard.len())),
                    None => return None,
                }
            }
            (IAC, Some(251..=254)) => {
                heard.get(at + 2)?;
                at += 3;
            }
            (IAC, Some(_)) => at += 2,
            (IAC, None) => return None,
            (byte, _) => {
                text.push(byte);
                at += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_without_an_end_is_waited_for_as_long_as_its_bound() {
        let begun = || Telnet { next: Next::User, seen: Seen::Text };
        let long = vec![b'a'; LINE_BYTES];
        for (name, line) in [("typed", long.clone()), ("negotiated", [&[IAC, 250][..], &long[2..]].concat())] {
            let (shorter, last) = (&line[..LINE_BYTES - 1], &line[..]);
            assert_eq!(typed_line(shorter), None, "{name}");
            assert_eq!(typed_line(last).map(|(_, used)| used), Some(LINE_BYTES), "{name}");
            // Byte by byte, only the last one is a reason to look at the line again.
            let mut telnet = begun();
            assert!(!telnet.is_worth_hearing(shorter, 0), "{name}");
            assert!(telnet.is_worth_hearing(last, LINE_BYTES - 1), "{name}");
        }
        // More than the bound in one piece: a line of it is taken.
        assert_eq!(typed_line(&[b'a'; 2 * LINE_BYTES]), Some((long, LINE_BYTES)));
    }

    #[test]
    fn negotiation_is_taken_out_of_what_was_typed() {
        assert_eq!(
            typed_line(b"\xff\xfb\x18\xff\xfa\x18\0xterm\xff\xf0ro\xff\xfd\x01ot\r\0x"),
            Some((b"root".to_vec(), 23))
        );
        assert_eq!(typed_line(b"\xff\xfb\x18ro"), None);
        assert_eq!(typed_line(b"root\r"), None);
    }
}
