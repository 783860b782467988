//! Regular expressions of rules: PCRE as far as the `regex` crate has it, which finds in linear time.
//!
//! Look-around, back-references and recursion cannot be matched in linear time: rules that need them are skipped. What
//! differs in notation only is translated. Compiling takes memory, so a rule set keeps the text, checks at load time how
//! large the program will be, and a bounded cache ([`Cache`]) compiles what is needed.

mod cache;

use regex_syntax::ParserBuilder;
use regex_syntax::hir::{Hir, HirKind};

use super::buffer::{Buffer, PCRE_FLAGS};
pub(super) use cache::Cache;

/// The longest expression.
const PATTERN_BYTES: usize = 4096;
/// Upper bound of the size of an expression when its repetitions are written out.
const SIZE: u64 = 20_000;
/// The memory that one compiled expression may take: enough for [`SIZE`].
pub(super) const COMPILED_BYTES: usize = 8 << 20;
/// A regular expression of a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pcre {
    /// In the notation of the `regex` crate.
    text: String,
    nocase: bool,
    dot_all: bool,
    multi_line: bool,
    extended: bool,
    ungreedy: bool,
    pub(super) negated: bool,
    pub(super) relative: bool,
    /// The buffer that a flag chooses.
    pub(super) buffer: Option<Buffer>,
    /// A text without which it cannot match.
    pub(super) literal: Vec<u8>,
}

impl Pcre {
    /// Parses the value of `pcre`: `"/expression/flags"`.
    pub(super) fn parse(value: &str) -> Result<Self, String> {
        let (negated, quoted) = match value.strip_prefix('!') {
            Some(rest) => (true, rest.trim_start()),
            None => (false, value),
        };
        let text =
            quoted.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).ok_or("pcre is not between quotes")?;
        let body = text.strip_prefix('/').ok_or("pcre does not begin with a slash")?;
        let (expression, flags) = body.rsplit_once('/').ok_or("pcre has no second slash")?;
        if expression.len() > PATTERN_BYTES {
            return Err("pcre is too long".to_owned());
        }
        let mut pcre = Self {
            text: String::new(),
            nocase: false,
            dot_all: false,
            multi_line: false,
            extended: false,
            ungreedy: false,
            negated,
            relative: false,
            buffer: None,
            literal: Vec::new(),
        };
        let mut anchored = false;
        for flag in flags.chars() {
            match flag {
                'i' => pcre.nocase = true,
                's' => pcre.dot_all = true,
                'm' => pcre.multi_line = true,
                'x' => pcre.extended = true,
                'G' => pcre.ungreedy = true,
                'A' => anchored = true,
                'R' => pcre.relative = true,
                // A dollar at the end of the subject alone, raw bytes, a limit of PCRE's: so it is here in any case.
                'E' | 'B' | 'O' => {}
                flag => match PCRE_FLAGS.iter().find(|(name, _)| *name == flag) {
                    Some((_, buffer)) => pcre.buffer = Some(*buffer),
                    None => return Err(format!("pcre with the flag {flag}")),
                },
            }
        }
        let translated = translate(expression)?;
        pcre.text = if anchored { format!("\\A(?:{translated})") } else { translated };
        let hir = pcre.hir(pcre.nocase).map_err(|error| reason(expression, &error))?;
        if size(&hir) > SIZE {
            return Err("pcre is too large when its repetitions are written out".to_owned());
        }
        // The prefilter ignores case anyway.
        if !negated && let Ok(hir) = pcre.hir(false) {
            pcre.literal = literal(&hir).to_ascii_lowercase();
        }
        Ok(pcre)
    }

    fn hir(&self, nocase: bool) -> Result<Hir, Box<regex_syntax::Error>> {
        ParserBuilder::new()
            .utf8(false)
            .unicode(false)
            .octal(false)
            .nest_limit(64)
            .case_insensitive(nocase)
            .dot_matches_new_line(self.dot_all)
            .multi_line(self.multi_line)
            .ignore_whitespace(self.extended)
            .swap_greed(self.ungreedy)
            .build()
            .parse(&self.text)
            .map_err(Box::new)
    }
}

fn reason(expression: &str, error: &regex_syntax::Error) -> String {
    let unsupported = ["(?=", "(?!", "(?<=", "(?<!"].iter().any(|text| expression.contains(text));
    if unsupported {
        return "pcre with look-around".to_owned();
    }
    let is_reference = expression.as_bytes().windows(2).any(|pair| {
        pair[0] == b'\\' && (pair[1].is_ascii_digit() && pair[1] != b'0' || matches!(pair[1], b'k' | b'g'))
    });
    if is_reference {
        return "pcre with a back-reference".to_owned();
    }
    let kind = match error {
        regex_syntax::Error::Parse(error) => error.kind().to_string(),
        regex_syntax::Error::Translate(error) => error.kind().to_string(),
        _ => "it is not understood".to_owned(),
    };
    format!("pcre: {kind}")
}

/// Rewrites what PCRE and the `regex` crate write differently: a bracket or an operator that is a character in a class,
/// a brace that begins no repetition, `\Z`, `\h`, `\e`, `\/`.
fn translate(expression: &str) -> Result<String, String> {
    let mut out = String::with_capacity(expression.len() + 16);
    let mut rest = expression.chars().peekable();
    let mut in_class = false;
    // How many characters of the class were seen: a bracket that closes it is a character where it stands first.
    let mut class_characters = 0usize;
    while let Some(character) = rest.next() {
        match character {
            '\\' => {
                let escaped = rest.next().ok_or("pcre ends with a backslash")?;
                class_characters += 1;
                match escaped {
                    'Z' if !in_class => out.push_str("\\n?\\z"),
                    'h' => out.push_str(if in_class { " \\t" } else { "[ \\t]" }),
                    'R' if !in_class => out.push_str("(?:\\r\\n|\\n|\\r)"),
                    'e' => out.push_str("\\x1b"),
                    // A backspace in a class, and not a word boundary.
                    'b' if in_class => out.push_str("\\x08"),
                    '0' => {
                        while rest.peek().is_some_and(|next| *next == '0') {
                            rest.next();
                        }
                        out.push_str("\\x00");
                    }
                    escaped if escaped.is_ascii_punctuation() && !"<>".contains(escaped) => {
                        out.push('\\');
                        out.push(escaped);
                    }
                    '<' | '>' | '"' | ' ' => out.push(escaped),
                    escaped => {
                        out.push('\\');
                        out.push(escaped);
                    }
                }
            }
            '[' if !in_class => {
                in_class = true;
                class_characters = 0;
                out.push('[');
                if rest.next_if_eq(&'^').is_some() {
                    out.push('^');
                }
            }
            '[' => {
                class_characters += 1;
                // `[:alpha:]` is the same in both.
                if rest.peek() == Some(&':') && rest.clone().any(|next| next == ']') {
                    out.push('[');
                    for next in rest.by_ref() {
                        out.push(next);
                        if next == ']' {
                            break;
                        }
                    }
                } else {
                    out.push_str("\\[");
                }
            }
            ']' if in_class && class_characters == 0 => {
                class_characters += 1;
                out.push_str("\\]");
            }
            ']' if in_class => {
                in_class = false;
                out.push(']');
            }
            '&' | '~' if in_class => {
                class_characters += 1;
                out.push('\\');
                out.push(character);
            }
            '-' if in_class => {
                class_characters += 1;
                // Two would be a difference of classes.
                let range = !matches!(rest.peek(), Some('-' | ']') | None) && class_characters > 1;
                out.push_str(if range { "-" } else { "\\-" });
            }
            '{' if !in_class && !is_repetition(rest.clone()) => out.push_str("\\{"),
            // What begins no repetition ends none.
            '}' if !in_class && !ends_repetition(&out) => out.push_str("\\}"),
            other => {
                class_characters += 1;
                // Not ASCII: its bytes, because expressions match bytes.
                if other.is_ascii() {
                    out.push(other);
                } else if in_class {
                    return Err("pcre with a class of characters that are not ASCII".to_owned());
                } else {
                    out.push_str("(?:");
                    for byte in other.to_string().bytes() {
                        out.push_str(&format!("\\x{byte:02x}"));
                    }
                    out.push(')');
                }
            }
        }
    }
    Ok(out)
}

/// Reports whether `n}`, `n,}` or `n,m}` follows.
fn is_repetition(rest: impl Iterator<Item = char>) -> bool {
    let (mut digits, mut commas) = (0, 0);
    for character in rest.take(12) {
        match character {
            '0'..='9' => digits += 1,
            ',' if digits > 0 && commas == 0 => commas += 1,
            '}' => return digits > 0,
            _ => return false,
        }
    }
    false
}

fn ends_repetition(out: &str) -> bool {
    out.rfind('{').is_some_and(|at| {
        let escaped = out[..at].ends_with('\\');
        !escaped && out[at + 1..].chars().all(|character| character.is_ascii_digit() || character == ',')
    })
}

/// Returns the size of an expression when its repetitions are written out.
fn size(hir: &Hir) -> u64 {
    match hir.kind() {
        HirKind::Empty | HirKind::Look(_) => 1,
        HirKind::Literal(literal) => literal.0.len() as u64,
        HirKind::Class(_) => 2,
        HirKind::Repetition(repetition) => {
            let times = u64::from(repetition.max.unwrap_or(repetition.min.saturating_add(1)).max(1));
            size(&repetition.sub).saturating_mul(times)
        }
        HirKind::Capture(capture) => size(&capture.sub).saturating_add(2),
        HirKind::Concat(parts) | HirKind::Alternation(parts) => parts.iter().map(size).fold(0, u64::saturating_add),
    }
}

/// Returns the longest text that every match has.
fn literal(hir: &Hir) -> Vec<u8> {
    match hir.kind() {
        HirKind::Literal(literal) => literal.0.to_vec(),
        HirKind::Capture(capture) => literal(&capture.sub),
        HirKind::Repetition(repetition) if repetition.min > 0 => literal(&repetition.sub),
        HirKind::Concat(parts) => parts.iter().map(literal).max_by_key(Vec::len).unwrap_or_default(),
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(value: &str, text: &[u8]) -> bool {
        Cache::default().matches(0, &Pcre::parse(value).unwrap(), text).unwrap()
    }

    #[test]
    fn notation_of_pcre_is_understood() {
        for (value, text, expected) in [
            (r#""/\$\{jndi:/i""#, &b"x${JNDI:ldap"[..], true),
            (r#""/${[a-z]/""#, b"${a", false),
            (r#""/\/a{2,3}\/b\{/""#, b"/aaa/b{", true),
            (r#""/a{x}/""#, b"a{x}", true),
            (r#""/[]a[&&~-]+$/""#, b"]a[&~-", true),
            (r#""/[[:alnum:]_-]{3}/""#, b"a-9", true),
            (r#""/^b/m""#, b"a\nb", true),
            (r#""/^b/""#, b"a\nb", false),
            (r#""/a.b/s""#, b"a\nb", true),
            (r#""/b/A""#, b"ab", false),
            (r#""/\x90{4}\xff/""#, b"\x90\x90\x90\x90\xff", true),
            (r#""/a\Z/""#, b"a\n", true),
            (r#""/[\w\-\.]+\:\<\>/""#, b"a-.:<>", true),
            (r#""/(?P<n>a)(?:b|c)/x""#, b"ac", true),
            (r#""/"\;\s/""#, b"\"; ", true),
            (r#""/é/""#, "é".as_bytes(), true),
        ] {
            assert_eq!(matches(value, text), expected, "{value}");
        }
    }

    #[test]
    fn what_cannot_be_matched_in_linear_time_is_refused_with_its_reason() {
        for (value, reason) in [
            (r#""/a(?!b)/""#, "look-around"),
            (r#""/(a)\1/""#, "back-reference"),
            (r#""/(?:a{1000}){1000}/""#, "too large"),
            (r#""/a/Q""#, "flag Q"),
            (r#""/a""#, "slash"),
            (r#""/(a/""#, "pcre: "),
            (r#"/a/"#, "quotes"),
        ] {
            let error = Pcre::parse(value).unwrap_err();
            assert!(error.contains(reason), "{value}: {error}");
        }
        assert!(Pcre::parse(&format!("\"/{}a{}/\"", "(".repeat(2000), ")".repeat(2000))).is_err());
    }

    #[test]
    fn flags_choose_a_buffer_and_a_literal_is_found() {
        let pcre = Pcre::parse(r#"!"/^\/cgi-bin\/(?:a|b)x+Login[0-9]/Ui""#).unwrap();
        assert!(pcre.negated && pcre.buffer == Some(Buffer::Uri) && pcre.literal.is_empty());
        let pcre = Pcre::parse(r#""/^\/cgi-bin\/(?:a|b)x+Log[0-9]/Ui""#).unwrap();
        assert_eq!(pcre.literal, b"/cgi-bin/");
    }
}
