//! `exclude_ports`: ports and ranges in any order, overlapping or not, become as few sorted ranges as possible.

use toml::Spanned;
use toml::de::DeValue;

use super::load::Loading;
use super::values::Found;

impl Loading<'_> {
    pub(super) fn exclude_ports(&mut self) -> Vec<(u16, u16)> {
        const ACCEPTED: &str = "must be an array of ports from 1 to 65535 and ranges such as \"8000-8100\"";
        let Some(Found { key, value }) = self.read.take("exclude_ports") else {
            return Vec::new();
        };
        let span = value.span();
        let elements = match value.into_inner() {
            DeValue::Array(elements) => elements,
            other => {
                self.read.refuse_type(&Found { key, value: Spanned::new(span, other) }, "array", ACCEPTED);
                return Vec::new();
            }
        };
        let mut ranges = Vec::new();
        for value in elements {
            let element = Found { key, value };
            if let Some(text) = element.value.get_ref().as_str() {
                match port_range(text) {
                    Some(range) => ranges.push(range),
                    None => self.read.refuse(&element, ACCEPTED),
                }
            } else if let Some(port) = self.read.as_integer(&element, (1, 65_535), ACCEPTED) {
                let port = u16::try_from(port).unwrap_or(u16::MAX);
                ranges.push((port, port));
            }
        }
        merged(ranges)
    }
}

/// `"from-to"`, or one port.
fn port_range(text: &str) -> Option<(u16, u16)> {
    let (from, to) = text.split_once('-').unwrap_or((text, text));
    let port = |text: &str| {
        let text = text.trim();
        text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse::<u16>().ok()).flatten()
    };
    let (from, to) = (port(from)?, port(to)?);
    (0 < from && from <= to).then_some((from, to))
}

/// Reports whether a port is in one of these ranges, whose ends are included.
#[must_use]
pub fn is_among(ranges: &[(u16, u16)], port: u16) -> bool {
    ranges.iter().any(|(from, to)| (*from..=*to).contains(&port))
}

/// The same ports in as few ranges as possible, sorted.
fn merged(mut ranges: Vec<(u16, u16)>) -> Vec<(u16, u16)> {
    ranges.sort_unstable();
    let mut merged: Vec<(u16, u16)> = Vec::new();
    for (from, to) in ranges {
        match merged.last_mut() {
            Some(last) if u32::from(from) <= u32::from(last.1) + 1 => last.1 = last.1.max(to),
            _ => merged.push((from, to)),
        }
    }
    merged
}
