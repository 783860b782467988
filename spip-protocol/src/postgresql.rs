//! PostgreSQL, protocol 3: start-up with user and database, the request for TLS before it, the password after it.
//!
//! Decides at a length that fits the code and the code of a TLS or GSS request or of a cancellation; for a start-up of
//! version 3, whose length and code a Metadata request of Kafka has too, at the name of the first parameter. <https://www.postgresql.org/docs/current/protocol-message-formats.html>

use super::reader::{End, Reader};
use super::value::Value;
use super::{Protocol, Understanding, later_hello};

/// The registry's entry.
pub(super) static PROTOCOL: Protocol = Protocol {
    name: "postgresql",
    recognise,
    understand,
    #[cfg(any(test, feature = "samples"))]
    samples: &[
        include_bytes!("../fixtures/protocol/psql.postgresql"),
        b"\x00\x00\x00\x08\x04\xd2\x16\x2f",
        b"\x00\x00\x00\x10\x04\xd2\x16\x2e\x00\x00\x30\x39\x01\x02\x03\x04",
    ],
};

/// MAX_STARTUP_PACKET_LENGTH of the server.
const STARTUP_BYTES: u32 = 10_000;

/// The longest name of a parameter: NAMEDATALEN of the server.
const PARAMETER_NAME_BYTES: usize = 64;

/// Kinds of first messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Request {
    Startup(u16),
    Tls,
    Gss,
    Cancel,
}

/// Length and code of a message that has no type byte; `None` when it is none.
fn request(reader: &mut Reader<'_>) -> Result<Option<(u32, Request)>, End> {
    if !reader.literal(&[0, 0])? {
        return Ok(None);
    }
    let length = u32::from(reader.be16()?);
    let request = match (reader.be16()?, reader.be16()?) {
        (3, minor @ 0..=2) if (9..=STARTUP_BYTES).contains(&length) => Request::Startup(minor),
        (1234, 5679) if length == 8 => Request::Tls,
        (1234, 5680) if length == 8 => Request::Gss,
        (1234, 5678) if (16..=268).contains(&length) => Request::Cancel,
        _ => return Ok(None),
    };
    Ok(Some((length, request)))
}

fn recognise(reader: &mut Reader<'_>) -> Result<bool, End> {
    match request(reader)? {
        None => Ok(false),
        // The list of parameters is empty, and the message ends.
        Some((9, Request::Startup(_))) => reader.literal(&[0]),
        Some((_, Request::Startup(_))) => parameter_name(reader),
        Some(_) => Ok(true),
    }
}

/// Reads the name of a parameter up to its zero: an identifier, as all that a server accepts are.
fn parameter_name(reader: &mut Reader<'_>) -> Result<bool, End> {
    for position in 0..PARAMETER_NAME_BYTES {
        match reader.u8()? {
            0 => return Ok(position >= 2),
            byte if byte.is_ascii_alphabetic() => {}
            b'_' | b'.' | b'0'..=b'9' if position > 0 => {}
            _ => return Ok(false),
        }
    }
    Ok(false)
}

fn understand(bytes: &[u8], out: &mut Understanding) -> Result<(), End> {
    let mut reader = Reader::new(bytes);
    let mut requests = Vec::new();
    let mut user = None;
    // At most TLS and GSS are asked for before the start-up.
    let mut end = Ok(());
    for _ in 0..4 {
        match request(&mut reader) {
            Ok(Some((_, Request::Tls))) => requests.push(Value::from("tls")),
            Ok(Some((_, Request::Gss))) => requests.push(Value::from("gss")),
            Ok(Some((_, Request::Cancel))) => {
                // The process and its secret follow, and nothing after them.
                out.details.list("requests", vec![Value::from("cancel")]);
                return Ok(());
            }
            Ok(Some((length, Request::Startup(minor)))) => {
                requests.push(Value::from("startup"));
                out.details.text("version", format!("3.{minor}").as_bytes());
                end = startup(&mut reader, length, &mut user, out);
                break;
            }
            Ok(None) => break,
            Err(End) => {
                end = if reader.rest().is_empty() { Ok(()) } else { Err(End) };
                break;
            }
        }
    }
    out.details.list("requests", requests);
    if end.is_ok() && later_hello::length(reader.rest()).is_none() {
        end = messages(&mut reader, user, out);
    }
    // A user without a password in clear is a name all the same.
    if let Some(user) = user
        && out.credentials.list.is_empty()
    {
        out.credentials.add(Some(user), None);
    }
    end
}

/// Names and values, each ended by a zero.
fn startup<'a>(
    reader: &mut Reader<'a>,
    length: u32,
    user: &mut Option<&'a [u8]>,
    out: &mut Understanding,
) -> Result<(), End> {
    let length = usize::try_from(length).map_err(|_| End)?.saturating_sub(8);
    let (mut parameters, whole) = reader.up_to(length);
    while let Ok(Some(name)) = parameters.until(0, length) {
        let Ok(Some(value)) = parameters.until(0, length) else {
            break;
        };
        let key = match name {
            b"user" => "user",
            b"database" => "database",
            b"application_name" => "application_name",
            b"client_encoding" => "client_encoding",
            _ => continue,
        };
        if key == "user" {
            *user = Some(value);
        }
        out.details.text(key, value);
    }
    if whole { Ok(()) } else { Err(End) }
}

/// Reads the messages that an impatient or a trusted client sends next: a password, a query.
fn messages(reader: &mut Reader<'_>, user: Option<&[u8]>, out: &mut Understanding) -> Result<(), End> {
    while !reader.rest().is_empty() {
        let kind = reader.u8()?;
        let length = usize::try_from(reader.be32()?).map_err(|_| End)?;
        let Some(length) = length.checked_sub(4) else {
            break;
        };
        let body = reader.take(length)?;
        let text = body.strip_suffix(&[0]).unwrap_or(body);
        match kind {
            // With MD5 it is a digest of 35 characters, with SCRAM an exchange of messages with a length in them.
            b'p' if !text.contains(&0) && !is_md5(text) => {
                out.credentials.add(user, Some(text));
            }
            b'Q' => out.details.text("query", text),
            _ => {}
        }
    }
    Ok(())
}

fn is_md5(text: &[u8]) -> bool {
    text.len() == 35 && text.starts_with(b"md5")
}

#[cfg(test)]
mod tests {
    use super::super::understand;
    use super::*;

    #[test]
    fn psql_shows_user_database_and_the_password_in_clear() {
        let understanding = understand(PROTOCOL.samples[0], false);
        let details = serde_json::to_string(&understanding.details).expect("json");
        let expected = concat!(
            r#"{"version":"3.0","user":"postgres","database":"billing","application_name":"psql","#,
            r#""requests":["tls","startup"]}"#
        );
        assert_eq!(details, expected);
        let credential = understanding.credentials.list.first().expect("a login");
        assert_eq!((credential.user.as_deref(), credential.secret.as_deref()), (Some("postgres"), Some("hunter2")));
        assert_eq!(understanding.credentials.list.len(), 1);
    }

    #[test]
    fn a_user_whose_password_is_not_sent_is_still_named() {
        let sample = PROTOCOL.samples[0];
        let understanding = understand(&sample[..sample.len() - 13], false);
        let credential = understanding.credentials.list.first().expect("a name");
        assert_eq!((credential.user.as_deref(), credential.secret.as_deref()), (Some("postgres"), None));
        assert_eq!(understanding.details.get("incomplete"), None);
    }

    #[test]
    fn a_cancellation_is_whole_without_messages() {
        let details = understand(PROTOCOL.samples[2], false).details;
        assert_eq!(serde_json::to_string(&details).expect("json"), r#"{"requests":["cancel"]}"#);
    }

    #[test]
    fn a_start_up_that_is_cut_off_is_marked() {
        let details = understand(&PROTOCOL.samples[0][..40], false).details;
        assert_eq!(details.get("incomplete"), Some(&Value::Flag(true)));
        assert_eq!(details.get("user").and_then(|user| user.as_text()), Some("postgres"));
    }

    /// A start-up of version 3.0 with these parameters, and the password behind it.
    fn login(parameters: &[u8], password: &[u8]) -> Vec<u8> {
        let length = |bytes: &[u8], more: usize| u32::try_from(bytes.len() + more).expect("short").to_be_bytes();
        let startup = [&length(parameters, 9), &[0, 3, 0, 0][..], parameters, &[0]].concat();
        [&startup, &b"p"[..], &length(password, 5), password, &[0]].concat()
    }

    #[test]
    fn a_digest_is_no_password_and_a_password_that_begins_like_one_is() {
        let secret = |password: &[u8]| {
            let credentials = understand(&login(b"user\0a\0", password), false).credentials.list;
            credentials.first().map(|one| one.secret.clone()).expect("a name")
        };
        assert_eq!(secret(b"md5aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"), None);
        assert_eq!(secret(b"md5").as_deref(), Some("md5"));
        assert_eq!(secret(&[b'm'; 35]).as_deref(), Some(&*"m".repeat(35)));
        assert_eq!(secret(b"SCRAM-SHA-256\0\0\0\0\x20n,,"), None);
    }

    #[test]
    fn the_name_of_the_first_parameter_decides() {
        let is_postgresql = |name: &str| {
            understand(&login(format!("{name}\0a\0").as_bytes(), b""), false).protocol == Some("postgresql")
        };
        for name in ["user", "db", "a1_.b"] {
            assert!(is_postgresql(name), "{name}");
        }
        for name in ["u", "1a", "_a", "a b", &"a".repeat(PARAMETER_NAME_BYTES)] {
            assert!(!is_postgresql(name), "{name}");
        }
    }
}
