//! The lists in a hello, read where they stand.

use std::fmt;

use super::is_grease;
use super::unread::Unread;

/// A list of 16-bit numbers; an odd last byte does not count.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct U16List<'a>(&'a [u8]);

impl<'a> U16List<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// The numbers, in the order in which they were sent.
    pub fn iter(self) -> impl Iterator<Item = u16> + 'a {
        let (pairs, _) = self.0.as_chunks();
        pairs.iter().map(|pair| u16::from_be_bytes(*pair))
    }

    /// Reports whether a number is in the list.
    #[must_use]
    pub fn contains(self, number: u16) -> bool {
        self.iter().any(|other| other == number)
    }

    /// Reports whether the list is empty.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.0.len() < 2
    }
}

impl fmt::Debug for U16List<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

/// Application protocol names (RFC 7301): byte strings, not text.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct Protocols<'a>(&'a [u8]);

impl<'a> Protocols<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// The names, in the order of preference, also empty ones; a last name that is cut off is left out.
    pub fn iter(self) -> impl Iterator<Item = &'a [u8]> {
        let mut reader = Unread::new(self.0);
        std::iter::from_fn(move || reader.list8())
    }

    /// The names without those that RFC 8701 reserves.
    pub fn iter_without_grease(self) -> impl Iterator<Item = &'a [u8]> {
        self.iter().filter(|name| <[u8; 2]>::try_from(*name).map_or(true, |pair| !is_grease(u16::from_be_bytes(pair))))
    }

    /// Reports whether every name is whole and none is empty.
    pub(super) fn is_exact(self) -> bool {
        let mut reader = Unread::new(self.0);
        while let Some(name) = reader.list8() {
            if name.is_empty() {
                return false;
            }
        }
        // A failed read has consumed the length of the name that is cut off, so what is left says nothing.
        self.iter().map(|name| name.len() + 1).sum::<usize>() == self.0.len()
    }
}

impl fmt::Debug for Protocols<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter().map(|name| name.escape_ascii().to_string())).finish()
    }
}
