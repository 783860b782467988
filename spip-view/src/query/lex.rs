//! Splits a query into words, operators and parentheses, each with its place.

use super::Error;

/// Bytes of a query.
const MAX_BYTES: usize = 2_048;

/// A token and where it stands, in characters.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Token {
    pub(super) at: usize,
    pub(super) length: usize,
    pub(super) kind: TokenKind,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum TokenKind {
    Open,
    Close,
    Operator(Operator),
    /// A word; `stars` are the places of unescaped `*` in `bytes`.
    Word {
        bytes: Vec<u8>,
        stars: Vec<usize>,
        is_quoted: bool,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operator {
    Is,
    Contains,
    Above,
    AtLeast,
    Below,
    AtMost,
    IsNot,
}

pub(super) fn tokens(text: &str) -> Result<Vec<Token>, Error> {
    if text.len() > MAX_BYTES {
        return Err(error(0, text.chars().count(), format!("the query is longer than {MAX_BYTES} bytes")));
    }
    let chars: Vec<char> = text.chars().collect();
    let mut tokens = Vec::new();
    let mut at = 0;
    while let Some(c) = chars.get(at).copied() {
        let next = chars.get(at + 1).copied();
        let (kind, length) = match (c, next) {
            (c, _) if c.is_whitespace() => {
                at += 1;
                continue;
            }
            ('(', _) => (TokenKind::Open, 1),
            (')', _) => (TokenKind::Close, 1),
            // Behind an operator a word goes on to the next space: `source:::1`, `path:/a?b=c`.
            (c, _) if c != '"' && matches!(tokens.last(), Some(Token { kind: TokenKind::Operator(_), .. })) => {
                word(&chars, at, true)
            }
            ('>', Some('=')) => (TokenKind::Operator(Operator::AtLeast), 2),
            ('<', Some('=')) => (TokenKind::Operator(Operator::AtMost), 2),
            ('!', Some('=')) => (TokenKind::Operator(Operator::IsNot), 2),
            ('>', _) => (TokenKind::Operator(Operator::Above), 1),
            ('<', _) => (TokenKind::Operator(Operator::Below), 1),
            (':' | '=', _) => (TokenKind::Operator(Operator::Is), 1),
            ('~', _) => (TokenKind::Operator(Operator::Contains), 1),
            ('"', _) => quoted(&chars, at)?,
            _ => word(&chars, at, false),
        };
        tokens.push(Token { at, length, kind });
        at += length;
    }
    Ok(tokens)
}

fn word(chars: &[char], start: usize, is_value: bool) -> (TokenKind, usize) {
    let ends = |c: char| c.is_whitespace() || matches!(c, '(' | ')' | '"') || (!is_value && ":=~<>!".contains(c));
    let mut end = start;
    while chars.get(end).is_some_and(|c| end == start || !ends(*c)) {
        end += 1;
    }
    let (mut bytes, mut stars) = (Vec::new(), Vec::new());
    for c in chars.get(start..end).unwrap_or_default() {
        if *c == '*' {
            stars.push(bytes.len());
        }
        push(&mut bytes, *c);
    }
    (TokenKind::Word { bytes, stars, is_quoted: false }, end - start)
}

fn quoted(chars: &[char], start: usize) -> Result<(TokenKind, usize), Error> {
    let (mut bytes, mut stars) = (Vec::new(), Vec::new());
    let mut at = start + 1;
    loop {
        match chars.get(at) {
            None => return Err(error(start, chars.len() - start, "the quotation has no end: add \"".to_owned())),
            Some('"') => return Ok((TokenKind::Word { bytes, stars, is_quoted: true }, at + 1 - start)),
            Some('\\') => {
                let hex = |at: usize| chars.get(at).and_then(|c| c.to_digit(16)).and_then(|d| u8::try_from(d).ok());
                let byte = match (chars.get(at + 1), hex(at + 2), hex(at + 3)) {
                    (Some('n'), ..) => b'\n',
                    (Some('r'), ..) => b'\r',
                    (Some('t'), ..) => b'\t',
                    (Some(c @ ('"' | '\\' | '*')), ..) => *c as u8,
                    (Some('x'), Some(high), Some(low)) => {
                        at += 2;
                        high << 4 | low
                    }
                    _ => {
                        let message = "unknown escape: \\\\ \\\" \\* \\n \\r \\t \\xNN are known".to_owned();
                        return Err(error(at, 2, message));
                    }
                };
                bytes.push(byte);
                at += 2;
            }
            Some(c) => {
                if *c == '*' {
                    stars.push(bytes.len());
                }
                push(&mut bytes, *c);
                at += 1;
            }
        }
    }
}

fn push(bytes: &mut Vec<u8>, c: char) {
    bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
}

pub(super) fn error(at: usize, length: usize, message: String) -> Error {
    Error { at, length, message }
}
