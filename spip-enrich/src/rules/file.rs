//! Splits the text of a rule file into rules, and a rule into its header and options.

/// The largest rule file that is read: several times the size of all community rules in one file.
pub const FILE_BYTES: u64 = 256 << 20;

/// The longest rule. The longest of the community rules are lists of addresses of about 2 KiB.
pub const RULE_BYTES: usize = 64 * 1024;

/// A rule as it stands in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RuleText<'a> {
    /// The line on which it begins, from 1.
    pub(super) line: usize,
    /// The rule, with continued lines joined.
    pub(super) text: std::borrow::Cow<'a, str>,
}

/// Yields the rules of a file: every line that is neither empty nor a comment. A line that ends with a backslash goes on
/// in the next one.
pub(super) fn rules(text: &str) -> impl Iterator<Item = RuleText<'_>> {
    let mut lines = text.lines().enumerate();
    std::iter::from_fn(move || {
        loop {
            let (index, first) = lines.next()?;
            let start = first.trim();
            if start.is_empty() || start.starts_with('#') {
                continue;
            }
            let Some(begun) = start.strip_suffix('\\') else {
                return Some(RuleText { line: index + 1, text: start.into() });
            };
            let mut joined = begun.to_owned();
            for (_, more) in lines.by_ref() {
                let more = more.trim();
                joined.push_str(more.strip_suffix('\\').unwrap_or(more));
                if !more.ends_with('\\') || joined.len() > RULE_BYTES {
                    break;
                }
            }
            return Some(RuleText { line: index + 1, text: joined.into() });
        }
    })
}

/// The header of a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header<'a> {
    pub(super) action: &'a str,
    pub(super) protocol: &'a str,
    pub(super) source: &'a str,
    pub(super) source_port: &'a str,
    pub(super) direction: &'a str,
    pub(super) destination: &'a str,
    pub(super) destination_port: &'a str,
}

/// Splits a rule into its header and the text between its brackets.
pub(super) fn split(rule: &str) -> Option<(Header<'_>, &str)> {
    let open = rule.find('(')?;
    let options = rule.get(open + 1..)?.trim_end().strip_suffix(')')?;
    let mut words = Words { rest: &rule[..open] };
    let header = Header {
        action: words.next()?,
        protocol: words.next()?,
        source: words.next()?,
        source_port: words.next()?,
        direction: words.next()?,
        destination: words.next()?,
        destination_port: words.next()?,
    };
    words.next().is_none().then_some((header, options))
}

/// Words between white space; what stands in square brackets is one word.
struct Words<'a> {
    rest: &'a str,
}

impl<'a> Iterator for Words<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        let text = self.rest.trim_start();
        if text.is_empty() {
            return None;
        }
        let mut depth = 0usize;
        let end = text
            .char_indices()
            .find(|&(_, character)| {
                match character {
                    '[' => depth += 1,
                    ']' => depth = depth.saturating_sub(1),
                    _ => {}
                }
                depth == 0 && character.is_whitespace()
            })
            .map_or(text.len(), |(at, _)| at);
        self.rest = &text[end..];
        Some(&text[..end])
    }
}

/// Yields name and value of each option. A semicolon ends an option unless a backslash stands before it.
pub(super) fn options(text: &str) -> impl Iterator<Item = (&str, Option<&str>)> {
    let mut rest = text;
    std::iter::from_fn(move || {
        loop {
            let trimmed = rest.trim_start();
            if trimmed.is_empty() {
                return None;
            }
            let bytes = trimmed.as_bytes();
            let end =
                memchr::memchr_iter(b';', bytes).find(|&at| at == 0 || bytes[at - 1] != b'\\').unwrap_or(bytes.len());
            let option = trimmed[..end].trim();
            rest = trimmed.get(end + 1..).unwrap_or_default();
            if option.is_empty() {
                continue;
            }
            return Some(match option.split_once(':') {
                Some((name, value)) => (name.trim(), Some(value.trim())),
                None => (option, None),
            });
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_are_left_out_and_continued_lines_joined() {
        let text = "# no\n\nalert a\n  alert b \\\n  more\\\n end\n#alert c\n";
        let found: Vec<_> = rules(text).map(|rule| (rule.line, rule.text.into_owned())).collect();
        assert_eq!(found, [(3, "alert a".to_owned()), (4, "alert b moreend".to_owned())]);
    }

    #[test]
    fn a_list_in_brackets_is_one_word() {
        let (header, options) =
            split(r#"alert tcp [192.0.2.0/24, !192.0.2.1] any -> $HOME_NET [80, 443] (msg:"a (b)"; sid:1;)"#).unwrap();
        assert_eq!(header.source, "[192.0.2.0/24, !192.0.2.1]");
        assert_eq!(header.destination_port, "[80, 443]");
        assert_eq!(options, r#"msg:"a (b)"; sid:1;"#);
    }

    #[test]
    fn an_escaped_semicolon_does_not_end_an_option() {
        let found: Vec<_> = options(r#"content:"a\;b"; nocase ;; sid: 7"#).collect();
        assert_eq!(found, [("content", Some(r#""a\;b""#)), ("nocase", None), ("sid", Some("7"))]);
    }

    #[test]
    fn what_is_no_rule_is_not_split() {
        for text in ["", "alert", "alert tcp any any -> any any", "alert tcp any any -> any any extra (sid:1;)", "()"] {
            assert_eq!(split(text), None, "{text}");
        }
    }
}
