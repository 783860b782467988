//! Options that compute with bytes of a buffer: `byte_test`, `byte_jump`, `isdataat`, and sizes.

use super::content::variable;

/// A bound on a size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bound {
    Is(u64),
    IsNot(u64),
    Less(u64),
    More(u64),
    AtMost(u64),
    AtLeast(u64),
    /// Neither end included.
    Between(u64, u64),
}

impl Bound {
    pub(super) fn parse(name: &str, value: &str) -> Result<Self, String> {
        let value = value.split(',').next().unwrap_or_default().trim();
        let number = |text: &str| text.trim().parse::<u64>().map_err(|_| variable(name, text.trim()));
        Ok(if let Some((low, high)) = value.split_once("<>") {
            Self::Between(number(low)?, number(high)?)
        } else if let Some(rest) = value.strip_prefix(">=") {
            Self::AtLeast(number(rest)?)
        } else if let Some(rest) = value.strip_prefix("<=") {
            Self::AtMost(number(rest)?)
        } else if let Some(rest) = value.strip_prefix('>') {
            Self::More(number(rest)?)
        } else if let Some(rest) = value.strip_prefix('<') {
            Self::Less(number(rest)?)
        } else if let Some(rest) = value.strip_prefix('!') {
            Self::IsNot(number(rest)?)
        } else {
            Self::Is(number(value)?)
        })
    }

    pub(super) fn holds(self, size: usize) -> bool {
        let size = size as u64;
        match self {
            Self::Is(bound) => size == bound,
            Self::IsNot(bound) => size != bound,
            Self::Less(bound) => size < bound,
            Self::More(bound) => size > bound,
            Self::AtMost(bound) => size <= bound,
            Self::AtLeast(bound) => size >= bound,
            Self::Between(low, high) => low < size && size < high,
        }
    }
}

/// `isdataat`: whether there is a byte at a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct DataAt {
    negated: bool,
    at: usize,
    pub(super) relative: bool,
}

impl DataAt {
    pub(super) fn parse(value: &str) -> Result<Self, String> {
        let mut parts = value.split(',').map(str::trim);
        let first = parts.next().unwrap_or_default();
        let (negated, number) = first.strip_prefix('!').map_or((false, first), |rest| (true, rest.trim()));
        let at = number.parse().map_err(|_| variable("isdataat", number))?;
        let mut relative = false;
        for part in parts {
            match part {
                "relative" => relative = true,
                "rawbytes" => {}
                other => return Err(format!("isdataat with {other}")),
            }
        }
        Ok(Self { negated, at, relative })
    }

    pub(super) fn holds(self, length: usize, position: usize) -> bool {
        let left = if self.relative { length.saturating_sub(position) } else { length };
        (self.at <= left) != self.negated
    }
}

/// Notation of a number in a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Read {
    count: usize,
    offset: i64,
    relative: bool,
    little: bool,
    /// The base of a number in digits; `None` for a binary one.
    base: Option<u32>,
    mask: u64,
}

impl Read {
    /// Returns the number and the place behind it.
    fn read(&self, buffer: &[u8], position: usize) -> Option<(u64, usize)> {
        let origin = if self.relative { i64::try_from(position).ok()? } else { 0 };
        let start = usize::try_from(origin.checked_add(self.offset)?).ok()?;
        let end = start.checked_add(self.count)?;
        let bytes = buffer.get(start..end)?;
        let (number, end) = match self.base {
            Some(base) => {
                let text = bytes.trim_ascii_start();
                let skipped = bytes.len() - text.len();
                let hexadecimal = text.get(..2).is_some_and(|head| base == 16 && head.eq_ignore_ascii_case(b"0x"));
                let text = if hexadecimal { &text[2..] } else { text };
                let digits = text.iter().take_while(|byte| char::from(**byte).is_digit(base)).count();
                let number = u64::from_str_radix(std::str::from_utf8(&text[..digits]).ok()?, base).ok()?;
                (number, start + skipped + if hexadecimal { 2 } else { 0 } + digits)
            }
            None => {
                let fold = |number: u64, byte: &u8| number << 8 | u64::from(*byte);
                let number = if self.little { bytes.iter().rev().fold(0, fold) } else { bytes.iter().fold(0, fold) };
                (number, end)
            }
        };
        let masked = if self.mask == 0 { number } else { (number & self.mask) >> self.mask.trailing_zeros() };
        Some((masked, end))
    }
}

fn integer(name: &str, text: &str) -> Result<u64, String> {
    let number = match text.strip_prefix("0x").or(text.strip_prefix("0X")) {
        Some(digits) => u64::from_str_radix(digits, 16),
        None => text.parse(),
    };
    number.map_err(|_| variable(name, text))
}

/// Takes the words that say how a number is written. Returns those that say something else.
fn read<'a>(
    name: &str,
    count: &str,
    offset: &str,
    words: impl Iterator<Item = &'a str>,
) -> Result<(Read, Vec<&'a str>), String> {
    let count: usize = count.parse().map_err(|_| variable(name, count))?;
    let offset = offset.parse().map_err(|_| variable(name, offset))?;
    let mut read = Read { count, offset, relative: false, little: false, base: None, mask: 0 };
    let (mut string, mut base, mut others) = (false, 10, Vec::new());
    for word in words {
        match word {
            "relative" => read.relative = true,
            "little" => read.little = true,
            "big" | "" => {}
            "string" => string = true,
            "hex" => base = 16,
            "dec" => base = 10,
            "oct" => base = 8,
            other => match other.strip_prefix("bitmask") {
                Some(mask) => read.mask = integer(name, mask.trim())?,
                None => others.push(other),
            },
        }
    }
    if string {
        read.base = Some(base);
    }
    if count == 0 || count > if string { 23 } else { 8 } {
        return Err(format!("{name} of {count} bytes"));
    }
    Ok((read, others))
}

/// `byte_test`: whether a number in the buffer compares with another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ByteTest {
    read: Read,
    negated: bool,
    operator: Operator,
    value: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operator {
    Less,
    LessOrEqual,
    More,
    MoreOrEqual,
    Equal,
    And,
    Or,
}

impl ByteTest {
    pub(super) fn parse(value: &str) -> Result<Self, String> {
        let name = "byte_test";
        let mut words = value.split(',').map(str::trim);
        let (Some(count), Some(operator), Some(number), Some(offset)) =
            (words.next(), words.next(), words.next(), words.next())
        else {
            return Err(format!("{name} has fewer than four values"));
        };
        let (read, others) = read(name, count, offset, words)?;
        if let Some(other) = others.first() {
            return Err(format!("{name} with {other}"));
        }
        let (negated, operator) = match operator.strip_prefix('!') {
            Some("") => (true, "="),
            Some(rest) => (true, rest.trim()),
            None => (false, operator),
        };
        let operator = match operator {
            "<" => Operator::Less,
            "<=" => Operator::LessOrEqual,
            ">" => Operator::More,
            ">=" => Operator::MoreOrEqual,
            "=" => Operator::Equal,
            "&" => Operator::And,
            "^" => Operator::Or,
            other => return Err(format!("{name} with the operator {other}")),
        };
        Ok(Self { read, negated, operator, value: integer(name, number)? })
    }

    pub(super) fn is_relative(&self) -> bool {
        self.read.relative
    }

    pub(super) fn holds(&self, buffer: &[u8], position: usize) -> bool {
        let Some((number, _)) = self.read.read(buffer, position) else { return false };
        let holds = match self.operator {
            Operator::Less => number < self.value,
            Operator::LessOrEqual => number <= self.value,
            Operator::More => number > self.value,
            Operator::MoreOrEqual => number >= self.value,
            Operator::Equal => number == self.value,
            Operator::And => number & self.value != 0,
            Operator::Or => number ^ self.value != 0,
        };
        holds != self.negated
    }
}

/// `byte_jump`: moves the place from which relative options count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ByteJump {
    read: Read,
    multiplier: u64,
    align: bool,
    from_beginning: bool,
    post_offset: i64,
}

impl ByteJump {
    pub(super) fn parse(value: &str) -> Result<Self, String> {
        let name = "byte_jump";
        let mut words = value.split(',').map(str::trim);
        let (Some(count), Some(offset)) = (words.next(), words.next()) else {
            return Err(format!("{name} has fewer than two values"));
        };
        let (read, others) = read(name, count, offset, words)?;
        let mut jump = Self { read, multiplier: 1, align: false, from_beginning: false, post_offset: 0 };
        for other in others {
            match other.split_once(char::is_whitespace) {
                None if other == "align" => jump.align = true,
                None if other == "from_beginning" => jump.from_beginning = true,
                Some(("multiplier", number)) => jump.multiplier = integer(name, number.trim())?,
                Some(("post_offset", number)) => {
                    jump.post_offset = number.trim().parse().map_err(|_| variable(name, number.trim()))?;
                }
                _ => return Err(format!("{name} with {other}")),
            }
        }
        Ok(jump)
    }

    pub(super) fn is_relative(&self) -> bool {
        self.read.relative
    }

    /// Returns the new place; `None` where it is outside of the buffer.
    pub(super) fn target(&self, buffer: &[u8], position: usize) -> Option<usize> {
        let (number, end) = self.read.read(buffer, position)?;
        let mut jump = number.checked_mul(self.multiplier)?;
        if self.align {
            jump = jump.checked_next_multiple_of(4)?;
        }
        let base = if self.from_beginning { 0 } else { i64::try_from(end).ok()? };
        let target = base.checked_add(i64::try_from(jump).ok()?)?.checked_add(self.post_offset)?;
        usize::try_from(target).ok().filter(|target| *target <= buffer.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_hold_where_they_should() {
        for (text, inside, outside) in
            [("5", 5, 6), ("!5", 6, 5), (">5", 6, 5), ("<5", 4, 5), ("3<>7", 4, 7), (">=5", 5, 4), ("<=5", 5, 6)]
        {
            let bound = Bound::parse("dsize", text).unwrap();
            assert!(bound.holds(inside) && !bound.holds(outside), "{text}");
        }
        for (text, size) in [(">=0", 0), ("<=18446744073709551615", usize::MAX)] {
            assert!(Bound::parse("dsize", text).unwrap().holds(size), "{text}");
        }
        assert!(Bound::parse("dsize", "x").is_err());
    }

    #[test]
    fn numbers_are_compared() {
        let buffer = b"\x00\x10\x20 0x1F;42";
        for (text, expected) in [
            ("2,=,16,0", true),
            ("2,=,0x1000,0,little", true),
            ("2,>,16,0", false),
            ("1,&,0x20,2", true),
            ("1,!&,0x20,2", false),
            ("4,=,31,4,string,hex", true),
            ("2,!,41,9,string,dec", true),
            ("8,=,0,5", false),
            ("1,=,2,2,bitmask 0xF0", true),
        ] {
            assert_eq!(ByteTest::parse(text).unwrap().holds(buffer, 0), expected, "{text}");
        }
        assert!(ByteTest::parse("4,>,length,0").unwrap_err().contains("variable"));
    }

    #[test]
    fn a_jump_stays_in_the_buffer() {
        let buffer = [0, 3, 1, 2, 3, 4, 5];
        assert_eq!(ByteJump::parse("2,0").unwrap().target(&buffer, 0), Some(5));
        assert_eq!(ByteJump::parse("1,0,relative,post_offset -1").unwrap().target(&buffer, 1), Some(4));
        assert_eq!(ByteJump::parse("2,0,align").unwrap().target(&buffer, 0), Some(6));
        assert_eq!(ByteJump::parse("2,0,multiplier 9").unwrap().target(&buffer, 0), None);
        assert_eq!(ByteJump::parse("8,0").unwrap().target(&buffer, 0), None);
        // The end is in the buffer: nothing follows there, as a rule may want it.
        assert_eq!(ByteJump::parse("2,0,post_offset 2").unwrap().target(&buffer, 0), Some(7));
        assert_eq!(ByteJump::parse("2,0,post_offset 3").unwrap().target(&buffer, 0), None);
    }

    #[test]
    fn data_at_a_place_counts_from_the_match() {
        assert!(DataAt::parse("5").unwrap().holds(5, 0));
        assert!(!DataAt::parse("6").unwrap().holds(5, 0));
        assert!(!DataAt::parse("3,relative").unwrap().holds(5, 3));
        assert!(DataAt::parse("!1,relative").unwrap().holds(5, 5));
    }
}
