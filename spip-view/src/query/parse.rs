//! Parses tokens into an expression: `or` binds least, then `and` (which may be left out), then `not`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::fields::{ANY, FIELDS, Field, Values};
use super::lex::{Operator, Token, TokenKind, error, tokens};
use super::{Error, Expr, Term, Test};

/// Comparisons of a query.
const MAX_TERMS: usize = 64;

/// Parentheses and negations inside each other.
const MAX_DEPTH: usize = 32;

pub(super) fn parse(text: &str) -> Result<Expr, Error> {
    let tokens = tokens(text)?;
    let end = text.chars().count();
    let mut parser = Parser { tokens: &tokens, at: 0, end, terms: 0, depth: 0 };
    let expr = parser.or()?;
    match parser.peek() {
        None => Ok(expr),
        Some(token) => Err(error(token.at, token.length, "a parenthesis that was never opened".to_owned())),
    }
}

struct Parser<'t> {
    tokens: &'t [Token],
    at: usize,
    end: usize,
    terms: usize,
    depth: usize,
}

impl<'t> Parser<'t> {
    fn peek(&self) -> Option<&'t Token> {
        self.tokens.get(self.at)
    }

    /// Takes the next token if it is this keyword, which is a word only where an operator follows.
    fn keyword(&mut self, word: &str) -> bool {
        let is_field = matches!(self.tokens.get(self.at + 1), Some(Token { kind: TokenKind::Operator(_), .. }));
        let found = matches!(
            self.peek(),
            Some(Token { kind: TokenKind::Word { bytes, is_quoted: false, .. }, .. })
                if bytes.eq_ignore_ascii_case(word.as_bytes())
        );
        if found && !is_field {
            self.at += 1;
        }
        found && !is_field
    }

    fn or(&mut self) -> Result<Expr, Error> {
        let mut list = vec![self.and()?];
        while self.keyword("or") {
            list.push(self.and()?);
        }
        Ok(single(list, Expr::Or))
    }

    fn and(&mut self) -> Result<Expr, Error> {
        let mut list = vec![self.not()?];
        loop {
            let joined = self.keyword("and");
            match self.peek() {
                Some(Token { kind: TokenKind::Close, .. }) | None if !joined => break,
                Some(_) if !joined && self.is_or() => break,
                _ => list.push(self.not()?),
            }
        }
        Ok(single(list, Expr::And))
    }

    fn is_or(&mut self) -> bool {
        let at = self.at;
        let found = self.keyword("or");
        self.at = at;
        found
    }

    fn not(&mut self) -> Result<Expr, Error> {
        if !self.keyword("not") {
            return self.primary();
        }
        self.deeper()?;
        let inner = self.not()?;
        self.depth -= 1;
        Ok(Expr::Not(Box::new(inner)))
    }

    fn deeper(&mut self) -> Result<(), Error> {
        self.depth += 1;
        if self.depth <= MAX_DEPTH {
            return Ok(());
        }
        let at = self.peek().map_or(self.end, |token| token.at);
        Err(error(at, 1, format!("more than {MAX_DEPTH} parentheses inside each other")))
    }

    fn primary(&mut self) -> Result<Expr, Error> {
        let Some(token) = self.peek() else {
            return Err(error(self.end, 1, "something is missing: a field such as port:22, or a word".to_owned()));
        };
        self.at += 1;
        match &token.kind {
            TokenKind::Open => {
                self.deeper()?;
                let inner = self.or()?;
                self.depth -= 1;
                match self.peek() {
                    Some(Token { kind: TokenKind::Close, .. }) => self.at += 1,
                    _ => return Err(error(token.at, token.length, "the parenthesis has no end: add )".to_owned())),
                }
                Ok(inner)
            }
            TokenKind::Close => Err(error(token.at, token.length, "nothing stands before this parenthesis".to_owned())),
            TokenKind::Operator(_) => {
                Err(error(token.at, token.length, "a field is missing before this operator: port:22".to_owned()))
            }
            TokenKind::Word { .. } => self.term(token),
        }
    }

    fn term(&mut self, token: &'t Token) -> Result<Expr, Error> {
        self.terms += 1;
        if self.terms > MAX_TERMS {
            return Err(error(token.at, token.length, format!("more than {MAX_TERMS} comparisons")));
        }
        let TokenKind::Word { bytes, is_quoted, .. } = &token.kind else { unreachable_word(token)? };
        let operator = match self.peek() {
            Some(Token { kind: TokenKind::Operator(operator), at, length }) if !is_quoted => {
                self.at += 1;
                Some((*operator, *at, *length))
            }
            _ => None,
        };
        let Some((operator, at, length)) = operator else {
            return Ok(Expr::Term(Term { field: &ANY, test: Test::Contains(bytes.to_ascii_lowercase()) }));
        };
        let name = String::from_utf8_lossy(bytes);
        let field = Field::named(&name).ok_or_else(|| unknown(token, &name))?;
        let Some(value @ Token { kind: TokenKind::Word { .. }, .. }) = self.peek() else {
            let message =
                format!("a value is missing behind {}: for example {}:{}", field.name, field.name, field.example);
            return Err(error(at, length, message));
        };
        self.at += 1;
        let (expected, is_negated) = match operator {
            Operator::IsNot => (Operator::Is, true),
            operator => (operator, false),
        };
        let term = Expr::Term(Term { field, test: test(field, expected, value)? });
        Ok(if is_negated { Expr::Not(Box::new(term)) } else { term })
    }
}

/// Callers pass words only.
fn unreachable_word<T>(token: &Token) -> Result<T, Error> {
    Err(error(token.at, token.length, "a word is missing here".to_owned()))
}

fn single(mut list: Vec<Expr>, many: fn(Vec<Expr>) -> Expr) -> Expr {
    match list.pop() {
        Some(only) if list.is_empty() => only,
        Some(last) => {
            list.push(last);
            many(list)
        }
        None => many(list),
    }
}

fn unknown(token: &Token, name: &str) -> Error {
    let near = FIELDS.iter().find(|field| {
        let name = name.to_ascii_lowercase();
        !name.is_empty()
            && (field.name.starts_with(&name) || name.starts_with(field.name) || field.name.contains(&name))
    });
    let hint = match near {
        Some(field) => format!("did you mean {}?", field.name),
        None => {
            let names: Vec<_> = FIELDS.iter().map(|field| field.name).collect();
            format!("fields are {}; a text with : in it is quoted", names.join(", "))
        }
    };
    error(token.at, token.length, format!("there is no field {name}: {hint}"))
}

fn test(field: &'static Field, operator: Operator, token: &Token) -> Result<Test, Error> {
    let TokenKind::Word { bytes, stars, is_quoted } = &token.kind else { unreachable_word(token)? };
    let text = String::from_utf8_lossy(bytes);
    let refuse = |accepted: &str| Err(error(token.at, token.length, format!("{}: {accepted}", field.name)));
    if operator == Operator::Is && !is_quoted && text == "*" {
        return Ok(Test::Exists);
    }
    let is_ordered = !matches!(operator, Operator::Is | Operator::Contains);
    match field.values {
        Values::Number => match number(&text, operator) {
            Some((from, to)) => Ok(Test::Within(from, to)),
            None => {
                refuse(&format!("takes a number, a range such as 1-1024, or > >= < <= and a number; {text} is none"))
            }
        },
        _ if is_ordered => refuse("has no order: use : or ~"),
        Values::Boolean => match text.to_ascii_lowercase().as_str() {
            "true" | "yes" | "1" => Ok(Test::Is(true)),
            "false" | "no" | "0" => Ok(Test::Is(false)),
            _ => refuse("takes true or false"),
        },
        Values::Transport => match text.to_ascii_lowercase().as_str() {
            "udp" => Ok(Test::Is(true)),
            "tcp" => Ok(Test::Is(false)),
            _ => refuse("takes tcp or udp"),
        },
        Values::Address => match network(&text) {
            Some((first, last)) => Ok(Test::Network(first, last)),
            None => refuse(&format!("takes an address or a prefix such as 198.51.100.0/24; {text} is none")),
        },
        Values::Hex => {
            let digits: String = text.chars().filter(|c| *c != '-').collect::<String>().to_ascii_lowercase();
            let fits = !digits.is_empty() && digits.len() <= 64 && digits.bytes().all(|b| b.is_ascii_hexdigit());
            if fits { Ok(Test::Prefix(digits)) } else { refuse("takes hexadecimal digits") }
        }
        Values::Text(_)
        | Values::Label(_)
        | Values::Mark(_)
        | Values::Payload
        | Values::User
        | Values::Secret
        | Values::Any => {
            if operator == Operator::Contains {
                return Ok(Test::Contains(bytes.to_ascii_lowercase()));
            }
            if stars.is_empty() {
                return Ok(Test::Equals(written(field, bytes)));
            }
            let mut parts = Vec::new();
            let mut from = 0;
            for star in stars {
                parts.push(bytes.get(from..*star).unwrap_or_default().to_ascii_lowercase());
                from = star + 1;
            }
            parts.push(bytes.get(from..).unwrap_or_default().to_ascii_lowercase());
            Ok(Test::Like(parts))
        }
    }
}

/// Returns a value as the store writes it: codes in upper case, numbers of networks without `AS`.
fn written(field: &Field, value: &[u8]) -> Vec<u8> {
    match field.name {
        "country" | "cve" => value.to_ascii_uppercase(),
        "asn" => match value.split_at_checked(2) {
            Some((prefix, number)) if prefix.eq_ignore_ascii_case(b"AS") && number.iter().all(u8::is_ascii_digit) => {
                number.to_vec()
            }
            _ => value.to_vec(),
        },
        _ => value.to_vec(),
    }
}

/// Inclusive bounds.
fn number(text: &str, operator: Operator) -> Option<(u64, u64)> {
    // The store's numbers are signed.
    const MOST: u64 = i64::MAX as u64;
    let number = |text: &str| text.parse::<u64>().ok().filter(|number| *number <= MOST);
    match operator {
        Operator::Is => match text.split_once('-') {
            Some((from, to)) => Some((number(from)?, number(to)?)).filter(|(from, to)| from <= to),
            None => number(text).map(|number| (number, number)),
        },
        // An empty range where nothing can be below or above.
        Operator::Above => number(text).map(|number| (number + 1, MOST)),
        Operator::AtLeast => number(text).map(|number| (number, MOST)),
        Operator::Below => number(text).map(|number| number.checked_sub(1).map_or((1, 0), |last| (0, last))),
        Operator::AtMost => number(text).map(|number| (0, number)),
        Operator::Contains | Operator::IsNot => None,
    }
}

/// The first and the last address of a prefix.
pub(crate) fn network(text: &str) -> Option<(IpAddr, IpAddr)> {
    let (address, length) = match text.split_once('/') {
        Some((address, length)) => (address, Some(length.parse::<u32>().ok()?)),
        None => (text, None),
    };
    match address.parse::<IpAddr>().ok()? {
        IpAddr::V4(address) => {
            let length = length.unwrap_or(32);
            let host = u32::MAX.checked_shr(length).unwrap_or(0);
            let first = (length <= 32).then(|| u32::from(address) & !host)?;
            Some((Ipv4Addr::from(first).into(), Ipv4Addr::from(first | host).into()))
        }
        IpAddr::V6(address) => {
            let length = length.unwrap_or(128);
            let host = u128::MAX.checked_shr(length).unwrap_or(0);
            let first = (length <= 128).then(|| u128::from(address) & !host)?;
            // An IPv4 address in IPv6 form is IPv4 in records.
            if let (Some(v4), 96..) = (Ipv6Addr::from(first).to_ipv4_mapped(), length) {
                let host = u32::MAX.checked_shr(length - 96).unwrap_or(0);
                return Some((v4.into(), Ipv4Addr::from(u32::from(v4) | host).into()));
            }
            Some((Ipv6Addr::from(first).into(), Ipv6Addr::from(first | host).into()))
        }
    }
}
