//! Names of sensors as tokens of subjects.
//!
//! A subject's tokens are separated by dots and cannot hold blanks, `*` or `>`. Letters, digits, `-` and `_` stand for
//! themselves, and every other byte is `%` and two hexadecimal digits, as in a URL: `sensor-7.example.org` is
//! `sensor-7%2Eexample%2Eorg`. Two names never have the same token.

use std::fmt::Write as _;

/// Returns the token of a sensor.
#[must_use]
pub fn token_of(sensor: &str) -> String {
    // A token cannot be empty; this one is no encoding of a name.
    if sensor.is_empty() {
        return "%".to_owned();
    }
    sensor.bytes().fold(String::with_capacity(sensor.len()), |mut token, byte| {
        if byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_' {
            token.push(byte.into());
        } else {
            let _ = write!(token, "%{byte:02X}");
        }
        token
    })
}

/// Returns the subject of a sensor.
#[must_use]
pub fn subject_of(prefix: &str, sensor: &str) -> String {
    format!("{prefix}.{}", token_of(sensor))
}

/// Returns the sensor of a subject; `None` where it is no subject of a sensor.
#[must_use]
pub fn sensor_of(prefix: &str, subject: &str) -> Option<String> {
    let token = subject.strip_prefix(prefix)?.strip_prefix('.')?;
    if token == "%" {
        return Some(String::new());
    }
    let mut bytes = Vec::with_capacity(token.len());
    let mut rest = token.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let digits = [rest.next()?, rest.next()?];
            bytes.push(u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?);
        } else {
            bytes.push(byte);
        }
    }
    let sensor = String::from_utf8(bytes).ok()?;
    // Only the one token that the name has: others would be a second subject of the same sensor.
    (token_of(&sensor) == token).then_some(sensor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_has_a_token_of_its_own_and_comes_back() {
        for name in ["sensor-7", "a.b", "", " ", "*", ">", "%", "%2E", "ü", "a\nb", "A_b"] {
            let subject = subject_of("spip.records", name);
            let token = subject.strip_prefix("spip.records.").expect("the prefix");
            assert!(!token.is_empty() && !token.contains(['.', ' ', '*', '>', '\n']), "{token}");
            assert_eq!(sensor_of("spip.records", &subject).as_deref(), Some(name));
        }
        assert_eq!(subject_of("spip.records", "s.example"), "spip.records.s%2Eexample");
    }

    #[test]
    fn other_subjects_are_no_sensors() {
        for subject in [
            "spip.records",
            "spip.records.",
            "spip.recordsx.a",
            "spip.records.a.b",
            "spip.records.%2e",
            "spip.records.%zz",
            "spip.records.%41",
            "spip.records.%FF",
        ] {
            assert_eq!(sensor_of("spip.records", subject), None, "{subject}");
        }
    }
}
