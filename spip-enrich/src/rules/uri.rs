//! Normalises a request's target as Suricata does for `http.uri`: without scheme and host, percent-encoding decoded,
//! backslashes and repeated slashes in the path made one slash, dot segments taken out. `http.uri.raw` is the target as
//! sent.

use std::borrow::Cow;

/// Decodes percent-encoding once; what is none stays as it is. Also takes `%uXXXX`, of which the low byte is kept.
pub(super) fn decode(bytes: &[u8]) -> Cow<'_, [u8]> {
    let Some(first) = memchr::memchr(b'%', bytes) else { return Cow::Borrowed(bytes) };
    let mut out = Vec::with_capacity(bytes.len());
    out.extend_from_slice(&bytes[..first]);
    let mut rest = &bytes[first..];
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte != b'%' {
            out.push(byte);
            continue;
        }
        match after {
            [b'u' | b'U', a, b, c, d, after @ ..] if [a, b, c, d].iter().all(|digit| digit.is_ascii_hexdigit()) => {
                out.push(value(*c) << 4 | value(*d));
                rest = after;
            }
            [high, low, after @ ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                out.push(value(*high) << 4 | value(*low));
                rest = after;
            }
            _ => out.push(byte),
        }
    }
    Cow::Owned(out)
}

fn value(digit: u8) -> u8 {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok()).unwrap_or_default()
}

/// Normalises a target.
pub(super) fn normalise(target: &[u8]) -> Cow<'_, [u8]> {
    let target = relative(target);
    let is_plain = !target.iter().any(|byte| matches!(byte, b'%' | b'\\'))
        && memchr::memmem::find(target, b"//").is_none()
        && memchr::memmem::find(target, b"/.").is_none();
    if is_plain {
        return Cow::Borrowed(target);
    }
    let (path, query) = match memchr::memchr(b'?', target) {
        Some(at) => target.split_at(at),
        None => (target, &[][..]),
    };
    let mut path = decode(path).into_owned();
    for byte in &mut path {
        if *byte == b'\\' {
            *byte = b'/';
        }
    }
    path.dedup_by(|next, before| *next == b'/' && *before == b'/');
    let mut out = without_dots(&path);
    out.extend_from_slice(&decode(query));
    Cow::Owned(out)
}

/// Takes scheme and host off.
fn relative(target: &[u8]) -> &[u8] {
    let Some(at) = memchr::memmem::find(target.get(..16).unwrap_or(target), b"://") else { return target };
    if at == 0 || !target[..at].iter().all(u8::is_ascii_alphabetic) {
        return target;
    }
    let authority = &target[at + 3..];
    match authority.iter().position(|byte| matches!(byte, b'/' | b'?')) {
        Some(end) => &authority[end..],
        None => b"/",
    }
}

/// Removes `.` and `..` segments (RFC 3986, 5.2.4).
fn without_dots(path: &[u8]) -> Vec<u8> {
    let mut out: Vec<u8> = Vec::with_capacity(path.len());
    let mut segments = path.split(|byte| *byte == b'/').peekable();
    let mut first = true;
    while let Some(segment) = segments.next() {
        let last = segments.peek().is_none();
        match segment {
            b"." | b".." => {
                if segment == b".." {
                    let cut = memchr::memrchr(b'/', &out).unwrap_or(0);
                    out.truncate(cut);
                }
                if last {
                    out.push(b'/');
                }
            }
            segment => {
                if !first {
                    out.push(b'/');
                }
                out.extend_from_slice(segment);
            }
        }
        first = false;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_normalised() {
        for (target, expected) in [
            ("/a/b?x=1", "/a/b?x=1"),
            ("/a/%2e%2e/b", "/b"),
            ("/cgi-bin/.%2e/.%2e/bin/sh", "/bin/sh"),
            ("//a///b", "/a/b"),
            ("/a\\..\\b", "/b"),
            ("/?q=%27%20or+1&u=http://x//y", "/?q=' or+1&u=http://x//y"),
            ("http://host:80/a/./b", "/a/b"),
            ("http://host", "/"),
            ("/%u002fetc", "/etc"),
            ("/%zz%4", "/%zz%4"),
            ("/../../x", "/x"),
            ("*", "*"),
            ("", ""),
        ] {
            assert_eq!(normalise(target.as_bytes()), expected.as_bytes(), "{target}");
        }
    }
}
