//! Telnet (RFC 854): the options that a client negotiates, and its login dialogue with the negotiation taken out.
//!
//! Decides at the first negotiation (IAC, a verb, an assigned option) and what follows it: another command or text. A client that types without negotiating looks
//! like any other text; when a greeting of Telnet drew it out, the dialogue can still be read as Telnet.

use super::reader::{End, Reader};
use super::value::{LIST_ITEMS, Value};
use super::{Protocol, Understanding};

/// The registry's entry.
pub(super) static PROTOCOL: Protocol = Protocol {
    name: "telnet",
    recognise,
    understand,
    #[cfg(any(test, feature = "samples"))]
    samples: &[
        include_bytes!("../fixtures/protocol/curl.telnet"),
        b"\xff\xfb\x18\xff\xfa\x18\x00IBM-3279-4-E\xff\xf0\xff\xfb\x19\xff\xfd\x19\xff\xfb\x00\xff\xfd\x00",
        b"\xff\xfd\x03\xff\xfb\x18\xff\xfb\x1froot\r\nvizxv\r\n",
    ],
};

/// The longest subnegotiation with which a client may begin.
const SUBNEGOTIATION_BYTES: usize = 256;

/// Bytes with a meaning behind IAC (RFC 854).
mod byte {
    pub(super) const SE: u8 = 240;
    pub(super) const SB: u8 = 250;
    pub(super) const WILL: u8 = 251;
    pub(super) const WONT: u8 = 252;
    pub(super) const DO: u8 = 253;
    pub(super) const DONT: u8 = 254;
    pub(super) const IAC: u8 = 255;
    /// Option terminal type (RFC 1091).
    pub(super) const TERMINAL_TYPE: u8 = 24;
}

fn recognise(reader: &mut Reader<'_>) -> Result<bool, End> {
    let mut ahead = *reader;
    if !negotiates(reader)? {
        return Ok(false);
    }
    if ahead.take(2)?.ends_with(&[byte::SB]) {
        let parameters = reader.until(byte::IAC, SUBNEGOTIATION_BYTES)?;
        return Ok(parameters.is_some() && reader.u8()? == byte::SE);
    }
    // Behind it comes another command or what was typed: the signature of SMB 2 and a character string of two bytes
    // begin like a negotiation.
    Ok(match reader.u8()? {
        byte::IAC => matches!(reader.u8()?, 236..=254),
        b'\t' | b'\n' | b'\r' | 0x1b | 0x7f | b' '..=b'~' => true,
        byte => byte >= 0x80,
    })
}

/// Reports whether a whole command of negotiation comes next: its sender waits for the answer.
pub(super) fn negotiates(reader: &mut Reader<'_>) -> Result<bool, End> {
    if !reader.literal(&[byte::IAC])? {
        return Ok(false);
    }
    let verb = reader.u8()?;
    // Assigned by IANA: 0 to 49, 138 to 140, and the extended list.
    Ok(matches!(verb, byte::SB..=byte::DONT) && matches!(reader.u8()?, 0..=49 | 138..=140 | 255))
}

fn understand(bytes: &[u8], out: &mut Understanding) -> Result<(), End> {
    let mut reader = Reader::new(bytes);
    let mut text = Vec::new();
    let mut options = Vec::new();
    let end = strip(&mut reader, &mut text, &mut options, out);
    out.details.list("options", options);
    // Empty lines before the name only wake a server up; an empty one behind it is an empty password.
    let mut lines = lines(&text).skip_while(|line| line.is_empty());
    if let Some(user) = lines.next() {
        out.credentials.add(Some(user), lines.next());
    }
    let lines = lines.filter(|line| !line.is_empty());
    out.details.texts("commands", lines);
    end
}

/// Returns the typed text line by line. Lines end with CR LF, CR NUL, CR or LF.
fn lines(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = text;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let end = rest.iter().position(|byte| matches!(byte, b'\r' | b'\n' | 0)).unwrap_or(rest.len());
        let (line, after) = rest.split_at_checked(end)?;
        rest = match after {
            [b'\r', b'\n' | 0, after @ ..] | [_, after @ ..] => after,
            [] => after,
        };
        Some(line)
    })
}

/// Separates the text from the negotiation.
fn strip(
    reader: &mut Reader<'_>,
    text: &mut Vec<u8>,
    options: &mut Vec<Value>,
    out: &mut Understanding,
) -> Result<(), End> {
    while !reader.rest().is_empty() {
        let byte = reader.u8()?;
        if byte != byte::IAC {
            text.push(byte);
            continue;
        }
        let verb = match reader.u8()? {
            byte::IAC => {
                text.push(byte::IAC);
                continue;
            }
            byte::SB => {
                subnegotiation(reader, out)?;
                continue;
            }
            byte::WILL => "will",
            byte::WONT => "wont",
            byte::DO => "do",
            byte::DONT => "dont",
            _ => continue,
        };
        let option = reader.u8()?;
        if options.len() <= LIST_ITEMS {
            options.push(Value::Text(format!("{verb} {option}")));
        }
    }
    Ok(())
}

/// Passes over everything up to IAC SE, and keeps the terminal's name.
fn subnegotiation(reader: &mut Reader<'_>, out: &mut Understanding) -> Result<(), End> {
    let option = reader.u8()?;
    let mut value = Vec::new();
    loop {
        match reader.u8()? {
            byte::IAC => match reader.u8()? {
                byte::SE => break,
                byte => value.push(byte),
            },
            byte => value.push(byte),
        }
    }
    // 0 stands before the name that a client is.
    if let (byte::TERMINAL_TYPE, Some((0, name))) = (option, value.split_first())
        && !name.is_empty()
    {
        out.details.text("terminal", name);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::{by_name, understand, understand_as};
    use super::*;

    #[test]
    fn a_login_dialogue_is_read_between_the_negotiation() {
        let understanding = understand(PROTOCOL.samples[0], false);
        let details = serde_json::to_string(&understanding.details).expect("json");
        let expected = concat!(
            r#"{"options":["wont 24","will 31","wont 32","will 0","do 0","will 3","do 3","do 1"],"#,
            r#""commands":["enable","sh"]}"#
        );
        assert_eq!(details, expected);
        let credential = understanding.credentials.list.first().expect("a login");
        assert_eq!((credential.user.as_deref(), credential.secret.as_deref()), (Some("root"), Some("xc3511")));
    }

    #[test]
    fn a_terminal_names_itself() {
        let details = understand(PROTOCOL.samples[1], false).details;
        assert_eq!(details.get("terminal").and_then(Value::as_text), Some("IBM-3279-4-E"));
    }

    #[test]
    fn an_empty_password_is_one() {
        let telnet = by_name("telnet").expect("telnet");
        for bytes in [b"\r\nroot\r\n\r\nsh\r\n".as_slice(), b"root\r\0\r\0sh\r\0", b"root\n\nsh\n"] {
            let understanding = understand_as(telnet, bytes, false);
            let credential = understanding.credentials.list.first().expect("a login");
            assert_eq!((credential.user.as_deref(), credential.secret.as_deref()), (Some("root"), Some("")));
            assert_eq!(serde_json::to_string(&understanding.details).expect("json"), r#"{"commands":["sh"]}"#);
        }
    }

    #[test]
    fn each_end_of_a_line_ends_one_line() {
        let telnet = by_name("telnet").expect("telnet");
        for end in ["\r\n", "\r\0", "\r", "\n", "\0"] {
            let bytes = ["root", "toor", "enable", "sh", ""].join(end);
            let understanding = understand_as(telnet, bytes.as_bytes(), false);
            let credential = understanding.credentials.list.first().expect("a login");
            assert_eq!(
                (credential.user.as_deref(), credential.secret.as_deref()),
                (Some("root"), Some("toor")),
                "{end:?}"
            );
            let details = serde_json::to_string(&understanding.details).expect("json");
            assert_eq!(details, r#"{"commands":["enable","sh"]}"#, "{end:?}");
        }
    }

    #[test]
    fn a_dialogue_without_negotiation_is_read_when_the_greeting_was_telnet() {
        let bytes = b"admin\r\n7ujMko0admin\r\nenable\r\n";
        assert_eq!(understand(bytes, false).protocol, None);
        let understanding = understand_as(by_name("telnet").expect("telnet"), bytes, false);
        assert_eq!(understanding.protocol, Some("telnet"));
        assert_eq!(understanding.credentials.list.first().and_then(|c| c.secret.as_deref()), Some("7ujMko0admin"));
    }
}
