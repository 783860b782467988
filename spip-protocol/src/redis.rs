//! Redis: the commands that a client sends, as RESP arrays or as inline lines, and its AUTH.
//!
//! Decides at the length of the first string in an array (`*1␍␊$4␍␊`), or at the end of an inline line that only
//! Redis understands (`CONFIG GET dir`, `SLAVEOF …`); `PING` or `GET key` alone decide nothing.
//! <https://redis.io/docs/latest/develop/reference/protocol-spec/>

use super::reader::{End, Reader};
use super::text_commands;
use super::value::LIST_ITEMS;
use super::{Protocol, Understanding};

/// The registry's entry.
pub(super) static PROTOCOL: Protocol = Protocol {
    name: "redis",
    recognise,
    understand,
    #[cfg(any(test, feature = "samples"))]
    samples: &[
        include_bytes!("../fixtures/protocol/redis-py.redis"),
        include_bytes!("../fixtures/protocol/redis-py3.redis"),
        b"*1\r\n$4\r\ninfo\r\n",
        b"CONFIG SET dir /var/spool/cron/\r\nCONFIG SET dbfilename root\r\nSAVE\r\n",
    ],
};

/// The longest decimal number of a length.
const DIGITS: usize = 10;
/// Strings of a command that are kept.
const ARGUMENTS: usize = 16;
/// Commands that are read for credentials, beyond those that are kept.
const COMMANDS: usize = 4096;

fn recognise(reader: &mut Reader<'_>) -> Result<bool, End> {
    let mut array = *reader;
    if array.u8()? != b'*' {
        return Ok(text_commands::text_line(reader)?.is_some_and(decides));
    }
    let Some(1..) = number(&mut array)? else {
        return Ok(false);
    };
    if !array.literal(b"$")? {
        return Ok(false);
    }
    Ok(matches!(number(&mut array)?, Some(1..)))
}

/// A decimal number and its line end; `None` when it is none.
fn number(reader: &mut Reader<'_>) -> Result<Option<usize>, End> {
    let mut number = 0_usize;
    for digits in 0..=DIGITS {
        let byte = reader.u8()?;
        match byte {
            b'0'..=b'9' => number = number * 10 + usize::from(byte - b'0'),
            b'\r' if digits > 0 => return Ok(reader.literal(b"\n")?.then_some(number)),
            _ => return Ok(None),
        }
    }
    Ok(None)
}

/// Reports whether an inline line can only be one of Redis.
fn decides(line: &[u8]) -> bool {
    let upper = line.to_ascii_uppercase();
    let words: Vec<_> = upper.split(|byte| *byte == b' ').filter(|word| !word.is_empty()).take(5).collect();
    matches!(
        words.as_slice(),
        [b"CONFIG", b"GET" | b"SET" | b"REWRITE" | b"RESETSTAT", ..]
            | [b"SLAVEOF" | b"REPLICAOF", _, _]
            | [b"FLUSHALL" | b"FLUSHDB" | b"DBSIZE" | b"BGSAVE"]
            | [b"CLIENT", b"LIST" | b"GETNAME" | b"SETNAME" | b"SETINFO" | b"KILL", ..]
            | [b"MODULE", b"LOAD" | b"LIST", ..]
            | [b"KEYS", _]
            | [b"HELLO", b"2" | b"3", ..]
            | [b"INFO", b"SERVER" | b"REPLICATION" | b"KEYSPACE" | b"STATS" | b"ALL" | b"EVERYTHING"]
    )
}

fn understand(bytes: &[u8], out: &mut Understanding) -> Result<(), End> {
    let mut reader = Reader::new(bytes);
    let mut kept: Vec<Vec<u8>> = Vec::new();
    let mut end = Ok(());
    for _ in 0..COMMANDS {
        if reader.rest().is_empty() {
            break;
        }
        match command(&mut reader) {
            Ok(Some(words)) => {
                login(&words, out);
                if kept.len() <= LIST_ITEMS {
                    kept.push(words.join(&b' '));
                }
            }
            Ok(None) => break,
            Err(End) => {
                end = Err(End);
                break;
            }
        }
    }
    out.details.texts("commands", kept.iter().map(Vec::as_slice));
    end
}

/// One command's words; `None` at what is neither an array of strings nor a line.
fn command<'a>(reader: &mut Reader<'a>) -> Result<Option<Vec<&'a [u8]>>, End> {
    if reader.rest().first() != Some(&b'*') {
        let Some(line) = text_commands::next_line(reader) else {
            return Ok(None);
        };
        return Ok(Some(line.split(|byte| *byte == b' ').filter(|word| !word.is_empty()).take(ARGUMENTS).collect()));
    }
    reader.take(1)?;
    let Some(count) = number(reader)? else {
        return Ok(None);
    };
    let mut words = Vec::new();
    for _ in 0..count {
        if !reader.literal(b"$")? {
            return Ok(None);
        }
        let Some(length) = number(reader)? else {
            return Ok(None);
        };
        let word = reader.take(length)?;
        if !reader.literal(b"\r\n")? {
            return Ok(None);
        }
        if words.len() < ARGUMENTS {
            words.push(word);
        }
    }
    Ok(Some(words))
}

/// `AUTH secret`, `AUTH user secret`, `HELLO 3 AUTH user secret`.
fn login(words: &[&[u8]], out: &mut Understanding) {
    let is = |word: Option<&&[u8]>, name: &[u8]| word.is_some_and(|word| word.eq_ignore_ascii_case(name));
    if is(words.first(), b"AUTH") {
        match words {
            [_, secret] => out.credentials.add(None, Some(secret)),
            [_, user, secret, ..] => out.credentials.add(Some(user), Some(secret)),
            _ => {}
        }
    } else if is(words.first(), b"HELLO")
        && let Some(at) = words.iter().position(|word| word.eq_ignore_ascii_case(b"AUTH"))
    {
        out.credentials.add(words.get(at + 1).copied(), words.get(at + 2).copied());
    }
}

#[cfg(test)]
mod tests {
    use super::super::understand;
    use super::*;

    #[test]
    fn commands_and_the_login_of_a_client_are_shown() {
        let understanding = understand(PROTOCOL.samples[0], false);
        let details = serde_json::to_string(&understanding.details).expect("json");
        let expected = concat!(
            r#"{"commands":["AUTH default foobared","CLIENT SETINFO LIB-NAME redis-py","#,
            r#""CLIENT SETINFO LIB-VER 8.1.0","PING"]}"#
        );
        assert_eq!(details, expected);
        let credential = understanding.credentials.list.first().expect("a login");
        assert_eq!((credential.user.as_deref(), credential.secret.as_deref()), (Some("default"), Some("foobared")));
    }

    #[test]
    fn a_login_inside_hello_is_found() {
        let credentials = understand(PROTOCOL.samples[1], false).credentials.list;
        let found = credentials.first().map(|c| (c.user.as_deref(), c.secret.as_deref()));
        assert_eq!(found, Some((Some("default"), Some("foobared"))));
    }

    #[test]
    fn an_old_login_has_no_user() {
        let credentials = understand(b"*2\r\n$4\r\nauth\r\n$5\r\n12345\r\n", false).credentials.list;
        let found = credentials.first().map(|c| (c.user.as_deref(), c.secret.as_deref()));
        assert_eq!(found, Some((None, Some("12345"))));
    }

    #[test]
    fn inline_commands_are_read_line_by_line() {
        let details = understand(PROTOCOL.samples[3], false).details;
        let expected = r#"{"commands":["CONFIG SET dir /var/spool/cron/","CONFIG SET dbfilename root","SAVE"]}"#;
        assert_eq!(serde_json::to_string(&details).expect("json"), expected);
        assert_eq!(understand(b"PING\r\n", false).protocol, None);
    }

    #[test]
    fn a_command_that_is_cut_off_is_marked() {
        let details = understand(b"*1\r\n$4\r\nPING\r\n*2\r\n$3\r\nGET\r\n$9\r\nab", false).details;
        let expected = r#"{"commands":["PING"],"incomplete":true}"#;
        assert_eq!(serde_json::to_string(&details).expect("json"), expected);
    }

    #[test]
    fn sixteen_arguments_of_a_command_are_kept_and_the_rest_is_passed_over() {
        let word = |number: usize| format!("$2\r\n{number:02}\r\n");
        let words: String = (0..20).map(word).collect();
        let details = understand(format!("*20\r\n{words}*1\r\n$4\r\nPING\r\n").as_bytes(), false).details;
        let expected = r#"{"commands":["00 01 02 03 04 05 06 07 08 09 10 11 12 13 14 15","PING"]}"#;
        assert_eq!(serde_json::to_string(&details).expect("json"), expected);
        let inline: Vec<_> = (0..20).map(|number| format!("{number:02}")).collect();
        let details = understand(format!("CONFIG GET x\r\n{}\r\n", inline.join(" ")).as_bytes(), false).details;
        let expected = r#"{"commands":["CONFIG GET x","00 01 02 03 04 05 06 07 08 09 10 11 12 13 14 15"]}"#;
        assert_eq!(serde_json::to_string(&details).expect("json"), expected);
    }

    #[test]
    fn a_number_has_ten_digits_at_most_and_one_at_least() {
        let is_redis = |bytes: &str| understand(bytes.as_bytes(), false).protocol == Some("redis");
        assert!(is_redis("*0000000001\r\n$4\r\nPING\r\n"));
        for other in
            ["*00000000001\r\n$4\r\nPING\r\n", "*\r\n$4\r\nPING\r\n", "*0\r\n$4\r\nPING\r\n", "*1\r\n$0\r\n\r\n"]
        {
            assert!(!is_redis(other), "{other:?}");
        }
    }
}
