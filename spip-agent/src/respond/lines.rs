//! Lines of text, as the mail protocols, FTP and Redis speak them.

/// The longest line that is waited for. What is longer is taken in pieces of this size, so that a client that never
/// ends its line cannot have it searched again and again.
pub(super) const LINE_BYTES: usize = 4 * 1024;

/// The next line without its end, and how many bytes it takes; `None` while it has no end.
pub(super) fn line(heard: &[u8]) -> Option<(&[u8], usize)> {
    let window = heard.get(..LINE_BYTES).unwrap_or(heard);
    match window.iter().position(|byte| *byte == b'\n') {
        Some(end) => {
            let line = window.get(..end).unwrap_or_default();
            Some((line.strip_suffix(b"\r").unwrap_or(line), end + 1))
        }
        None if window.len() == LINE_BYTES => Some((window, LINE_BYTES)),
        None => None,
    }
}

/// Reports whether [`line`] may return a line now, after it returned none for the first `looked` bytes.
pub(super) fn may_end(heard: &[u8], looked: usize) -> bool {
    heard.len() >= LINE_BYTES || heard.get(looked..).is_some_and(|new| new.contains(&b'\n'))
}

/// The first word in upper case, and what follows it without the spaces around it.
pub(super) fn command(line: &[u8]) -> (Vec<u8>, &[u8]) {
    let line = line.trim_ascii();
    let end = line.iter().position(|byte| *byte == b' ').unwrap_or(line.len());
    let (word, rest) = line.split_at_checked(end).unwrap_or((line, b""));
    (word.to_ascii_uppercase(), rest.trim_ascii())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_ends_with_a_line_feed_or_with_the_bound() {
        assert_eq!(line(b"NOOP\r\nQUIT"), Some((b"NOOP".as_slice(), 6)));
        assert_eq!(line(b"NOOP"), None);
        assert_eq!(line(&[b'a'; LINE_BYTES + 5]).map(|(_, used)| used), Some(LINE_BYTES));
    }

    #[test]
    fn a_command_is_upper_case_and_its_arguments_are_as_sent() {
        assert_eq!(command(b" user  Bob "), (b"USER".to_vec(), b"Bob".as_slice()));
        assert_eq!(command(b""), (Vec::new(), b"".as_slice()));
    }
}
