//! Decides about one row in memory. The live stream asks it; the store's conditions are tested against it.

use std::net::IpAddr;

use super::fields::{ANY_MARKS, ANY_TEXTS, Values};
use super::{Expr, Term, Test};
use crate::meaning;
use crate::row::{Kind, Row};

/// Bytes of a payload that are kept for search in the store.
pub const SEARCHED_BYTES: usize = 1_024;

/// Reports whether the row is meant.
#[must_use]
pub fn matches(expr: &Expr, row: &Row) -> bool {
    match expr {
        Expr::And(list) => list.iter().all(|expr| matches(expr, row)),
        Expr::Or(list) => list.iter().any(|expr| matches(expr, row)),
        Expr::Not(inner) => !matches(inner, row),
        Expr::Term(term) => fits(term, row),
    }
}

fn fits(term: &Term, row: &Row) -> bool {
    let test = &term.test;
    match term.field.values {
        Values::Address if term.field.name == "source" => address(test, row.source),
        Values::Address => address(test, row.destination),
        Values::Number => number(test, numeric(term.field.name, row)),
        Values::Boolean if term.field.name == "tls" => boolean(test, row.is_tls),
        Values::Boolean => boolean(test, row.is_truncated),
        Values::Transport => boolean(test, row.is_udp),
        Values::Text(kind) => fact(kind, row).is_some_and(|value| tool_or_text(kind, test, value)),
        Values::Label(kind) => meaning::label(kind, &row.meaning)
            .or_else(|| fact(kind, row).map(str::to_owned))
            .is_some_and(|label| text(test, label.as_bytes())),
        Values::Mark(kind) => marked(kind, test, row),
        Values::Payload => payload(row).is_some_and(|payload| text(test, payload)),
        Values::User => {
            row.credentials.iter().filter_map(|c| c.user.as_deref()).any(|user| text(test, user.as_bytes()))
        }
        Values::Secret => {
            row.credentials.iter().filter_map(|c| c.secret.as_deref()).any(|secret| text(test, secret.as_bytes()))
        }
        Values::Hex if term.field.name == "sha256" => row.sha256.is_some_and(|sha256| prefix(test, &sha256)),
        Values::Hex => prefix(test, &row.session_id),
        Values::Any => {
            payload(row).is_some_and(|payload| text(test, payload))
                || ANY_TEXTS.iter().filter_map(|kind| fact(*kind, row)).any(|value| text(test, value.as_bytes()))
                || ANY_MARKS.iter().any(|kind| marked(*kind, test, row))
                || row
                    .credentials
                    .iter()
                    .flat_map(|c| [c.user.as_deref(), c.secret.as_deref()])
                    .flatten()
                    .any(|value| text(test, value.as_bytes()))
        }
    }
}

fn marked(kind: Kind, test: &Test, row: &Row) -> bool {
    let marks = meaning::marks(&row.meaning);
    marks.iter().filter(|mark| mark.kind == kind).any(|mark| {
        text(test, mark.value.as_bytes()) || mark.label.as_ref().is_some_and(|label| text(test, label.as_bytes()))
    })
}

fn numeric(field: &str, row: &Row) -> u64 {
    match field {
        "port" => row.port.into(),
        "source_port" => row.source_port.into(),
        "bytes_in" => row.bytes_in,
        "bytes_out" => row.bytes_out,
        "duration_ms" => row.duration_us / 1000,
        _ => row.count,
    }
}

fn fact(kind: Kind, row: &Row) -> Option<&str> {
    match kind {
        Kind::Sensor => Some(&row.sensor),
        Kind::Protocol => row.protocol.as_deref(),
        Kind::CloseReason => Some(&row.close_reason),
        Kind::Limit => row.limit.as_deref(),
        Kind::Group => row.group.as_ref().map(|group| group.hash.as_str()),
        kind => row.fact(kind),
    }
}

fn payload(row: &Row) -> Option<&[u8]> {
    row.sha256?;
    Some(row.payload.get(..SEARCHED_BYTES).unwrap_or(&row.payload))
}

fn number(test: &Test, value: u64) -> bool {
    match test {
        Test::Within(from, to) => (*from..=*to).contains(&value),
        test => *test == Test::Exists,
    }
}

fn boolean(test: &Test, value: bool) -> bool {
    match test {
        Test::Is(wanted) => *wanted == value,
        test => *test == Test::Exists,
    }
}

pub(crate) fn address(test: &Test, value: IpAddr) -> bool {
    match test {
        // Addresses of one family are ordered as their numbers are, and every IPv4 address is before every IPv6 address.
        Test::Network(first, last) => (*first..=*last).contains(&value),
        test => *test == Test::Exists,
    }
}

pub(crate) fn prefix(test: &Test, value: &[u8]) -> bool {
    match test {
        Test::Prefix(digits) => {
            let digit =
                |at: usize| value.get(at / 2).map(|byte| if at.is_multiple_of(2) { byte >> 4 } else { byte & 15 });
            digits.chars().enumerate().all(|(at, c)| c.to_digit(16) == digit(at).map(u32::from))
        }
        test => *test == Test::Exists,
    }
}

/// A list of tools fits where one of them does.
pub(crate) fn tool_or_text(kind: Kind, test: &Test, value: &str) -> bool {
    match kind {
        Kind::Tool => value.split(' ').any(|tool| text(test, tool.as_bytes())),
        _ => text(test, value.as_bytes()),
    }
}

/// Reports whether a text fits.
pub(crate) fn text(test: &Test, value: &[u8]) -> bool {
    match test {
        Test::Exists => true,
        Test::Equals(wanted) => wanted == value,
        Test::Contains(wanted) => contains(value, wanted),
        Test::Like(parts) => like(value, parts),
        _ => false,
    }
}

/// Reports whether `value` contains `wanted`, which is in lower case, ignoring the case of ASCII.
fn contains(value: &[u8], wanted: &[u8]) -> bool {
    find(value, wanted).is_some()
}

fn find(value: &[u8], wanted: &[u8]) -> Option<usize> {
    let Some(first) = wanted.first() else {
        return Some(0);
    };
    let upper = first.to_ascii_uppercase();
    let mut from = 0;
    loop {
        let at = from + memchr::memchr2(*first, upper, value.get(from..)?)?;
        let candidate = value.get(at..at + wanted.len())?;
        if candidate.eq_ignore_ascii_case(wanted) {
            return Some(at);
        }
        from = at + 1;
    }
}

/// Parts between stars, in order; the first one at the begin, the last one at the end.
fn like(value: &[u8], parts: &[Vec<u8>]) -> bool {
    let [first, middle @ .., last] = parts else {
        return false;
    };
    let Some((begin, mut rest)) = value.split_at_checked(first.len()) else {
        return false;
    };
    if !begin.eq_ignore_ascii_case(first) {
        return false;
    }
    for part in middle {
        match find(rest, part) {
            Some(at) => rest = rest.get(at + part.len()..).unwrap_or_default(),
            None => return false,
        }
    }
    rest.len() >= last.len() && rest.get(rest.len() - last.len()..).is_some_and(|end| end.eq_ignore_ascii_case(last))
}
