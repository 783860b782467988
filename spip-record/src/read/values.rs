//! Values of a line that are read without more memory than they need: text that the line lends, bytes in hexadecimal, lists
//! of bounded length.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Error as _, IgnoredAny, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use crate::entry::Text;

/// Text of the line itself where nothing in it is escaped.
pub(crate) struct Lent<'a>(pub(crate) Text<'a>);

impl<'de: 'a, 'a> Deserialize<'de> for Lent<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Borrow<'a>(std::marker::PhantomData<&'a ()>);
        impl<'de: 'a, 'a> Visitor<'de> for Borrow<'a> {
            type Value = Lent<'a>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text")
            }
            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Lent<'a>, E> {
                Ok(Lent(Cow::Borrowed(text)))
            }
            fn visit_str<E>(self, text: &str) -> Result<Lent<'a>, E> {
                Ok(Lent(Cow::Owned(text.to_owned())))
            }
        }
        deserializer.deserialize_str(Borrow(std::marker::PhantomData))
    }
}

/// Bytes in hexadecimal.
#[derive(Default)]
pub(crate) struct Hex(pub(crate) Vec<u8>);

impl<'de> Deserialize<'de> for Hex {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Lent(text) = Lent::deserialize(deserializer)?;
        hex::decode(text.as_bytes()).map(Self).map_err(D::Error::custom)
    }
}

/// A list of which at most `N` items are kept, and not one more is built.
#[derive(Debug)]
pub(crate) struct Capped<T, const N: usize>(pub(crate) Vec<T>);

impl<T, const N: usize> Default for Capped<T, N> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<'de, T: Deserialize<'de>, const N: usize> Deserialize<'de> for Capped<T, N> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Items<T, const N: usize>(std::marker::PhantomData<T>);
        impl<'de, T: Deserialize<'de>, const N: usize> Visitor<'de> for Items<T, N> {
            type Value = Capped<T, N>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Capped<T, N>, A::Error> {
                let mut kept = Vec::new();
                while kept.len() < N {
                    match items.next_element()? {
                        Some(item) => kept.push(item),
                        None => return Ok(Capped(kept)),
                    }
                }
                while items.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Capped(kept))
            }
        }
        deserializer.deserialize_seq(Items(std::marker::PhantomData))
    }
}
