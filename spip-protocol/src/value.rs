//! Facts as values that any record format can write: text, numbers, flags, lists, and objects with fixed keys.
//!
//! Keys are `&'static str`, so that nothing of a client's can become one. Text is valid UTF-8 (invalid bytes become
//! U+FFFD) and clipped; lists are clipped; whatever was clipped says so by `truncated`. Numbers stay far below 2^53,
//! because they come from fields of at most 32 bits or from lengths of what was kept.

use std::borrow::Cow;

use serde::ser::{Serialize, SerializeMap, Serializer};

/// The longest text of a fact, in bytes of UTF-8.
pub const TEXT_BYTES: usize = 512;
/// The longest list of a fact.
pub const LIST_ITEMS: usize = 32;

/// One fact.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// Text, valid UTF-8.
    Text(String),
    /// A number below 2^53.
    Number(u64),
    /// Yes or no.
    Flag(bool),
    /// Several facts of one kind, in the order of the wire.
    List(Vec<Value>),
    /// Named facts.
    Object(Object),
}

impl Value {
    /// The text, if it is one.
    #[must_use]
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The number, if it is one.
    #[must_use]
    pub fn as_number(&self) -> Option<u64> {
        match self {
            Self::Number(number) => Some(*number),
            _ => None,
        }
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<u32> for Value {
    fn from(number: u32) -> Self {
        Self::Number(u64::from(number))
    }
}

impl Serialize for Value {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Text(text) => serializer.serialize_str(text),
            Self::Number(number) => serializer.serialize_u64(*number),
            Self::Flag(flag) => serializer.serialize_bool(*flag),
            Self::List(list) => list.serialize(serializer),
            Self::Object(object) => object.serialize(serializer),
        }
    }
}

/// Named facts in a fixed order. A key is written once: the first value stays.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Object {
    facts: Vec<(&'static str, Value)>,
    truncated: bool,
}

impl Object {
    /// Reports whether there is nothing to write.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.facts.is_empty() && !self.truncated
    }

    /// The fact of that name.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.iter().find(|(name, _)| *name == key).map(|(_, value)| value)
    }

    /// All facts in order; `truncated` comes last, where something was clipped.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, &Value)> {
        let truncated = self.truncated.then_some(("truncated", &Value::Flag(true)));
        self.facts.iter().map(|(key, value)| (*key, value)).chain(truncated)
    }

    /// Adds a fact, unless one of that name is there.
    pub(super) fn put(&mut self, key: &'static str, value: Value) {
        if self.facts.iter().all(|(name, _)| *name != key) {
            self.facts.push((key, value));
        }
    }

    /// Adds what the client wrote, as text.
    pub fn text(&mut self, key: &'static str, bytes: &[u8]) {
        let value = self.clipped(bytes);
        self.put(key, value);
    }

    /// Adds bytes as lower-case hexadecimal digits.
    pub(super) fn hex(&mut self, key: &'static str, bytes: &[u8]) {
        let kept = bytes.get(..TEXT_BYTES / 2).unwrap_or(bytes);
        self.truncated |= kept.len() < bytes.len();
        self.put(key, Value::Text(hex::encode(kept)));
    }

    /// Adds a word of this program's own.
    pub fn word(&mut self, key: &'static str, word: &'static str) {
        self.put(key, Value::from(word));
    }

    /// Adds a number.
    pub fn number(&mut self, key: &'static str, number: impl Into<u32>) {
        self.put(key, Value::from(number.into()));
    }

    /// Adds a count or a length of what was kept.
    pub(super) fn count(&mut self, key: &'static str, count: usize) {
        self.put(key, Value::from(u32::try_from(count).unwrap_or(u32::MAX)));
    }

    /// Adds yes or no.
    pub fn flag(&mut self, key: &'static str, flag: bool) {
        self.put(key, Value::Flag(flag));
    }

    /// Adds texts that the client wrote, clipped to [`LIST_ITEMS`]; nothing where there are none.
    pub(super) fn texts<'a>(&mut self, key: &'static str, texts: impl IntoIterator<Item = &'a [u8]>) {
        let values = texts.into_iter().take(LIST_ITEMS + 1).map(|text| self.clipped(text)).collect();
        self.list(key, values);
    }

    /// Adds a list, clipped to [`LIST_ITEMS`]; nothing where it is empty.
    pub(super) fn list(&mut self, key: &'static str, mut values: Vec<Value>) {
        if values.len() > LIST_ITEMS {
            values.truncate(LIST_ITEMS);
            self.truncated = true;
        }
        if !values.is_empty() {
            self.put(key, Value::List(values));
        }
    }

    fn clipped(&mut self, bytes: &[u8]) -> Value {
        let (text, truncated) = clip(bytes, TEXT_BYTES);
        self.truncated |= truncated;
        Value::Text(text.into_owned())
    }
}

impl Serialize for Object {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for (key, value) in self.iter() {
            map.serialize_entry(key, value)?;
        }
        map.end()
    }
}

/// Bytes as text of at most `limit` bytes, and whether something was cut off. Invalid UTF-8 becomes U+FFFD.
pub(super) fn clip(bytes: &[u8], limit: usize) -> (Cow<'_, str>, bool) {
    // Three more bytes than the limit, so that a character that the limit cuts in two is seen whole and left out.
    let window = bytes.get(..limit.saturating_add(3)).unwrap_or(bytes);
    let text = String::from_utf8_lossy(window);
    let end = text.floor_char_boundary(limit);
    let truncated = window.len() < bytes.len() || end < text.len();
    let kept = match text {
        Cow::Borrowed(text) => Cow::Borrowed(&text[..end]),
        Cow::Owned(mut text) => {
            text.truncate(end);
            Cow::Owned(text)
        }
    };
    (kept, truncated)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_clipped_at_a_character_and_says_so() {
        assert_eq!(clip("aä€".as_bytes(), 3), ("aä".into(), true));
        assert_eq!(clip("aä€".as_bytes(), 4), ("aä".into(), true));
        assert_eq!(clip("aä€".as_bytes(), 6), ("aä€".into(), false));
        assert_eq!(clip(b"a\xffb", 8), ("a\u{fffd}b".into(), false));
    }

    #[test]
    fn the_first_value_of_a_key_stays() {
        let mut object = Object::default();
        object.number("n", 1_u8);
        object.number("n", 2_u8);
        assert_eq!(serde_json::to_string(&object).expect("json"), r#"{"n":1}"#);
    }

    #[test]
    fn a_clipped_list_is_marked() {
        let mut object = Object::default();
        object.texts("l", std::iter::repeat_n(b"x".as_slice(), LIST_ITEMS + 1));
        assert_eq!(object.get("truncated"), Some(&Value::Flag(true)));
        assert!(matches!(object.get("l"), Some(Value::List(list)) if list.len() == LIST_ITEMS));
    }

    #[test]
    fn a_character_at_the_limit_is_whole_or_left_out() {
        // The last byte of the limit is the first, the second, the third and the last of a character.
        for (text, kept) in [("aaa😀b", "aaa"), ("aa😀b", "aa"), ("a😀b", "a"), ("😀b", "😀")] {
            assert_eq!(clip(text.as_bytes(), 4), (kept.into(), true), "{text}");
        }
        assert_eq!(clip(b"aaa\xf0\x9f", 4), ("aaa".into(), true));
        assert_eq!(clip(b"aaaa", 4), ("aaaa".into(), false));
        assert_eq!(clip(b"aaaab", 4), ("aaaa".into(), true));
    }
}
