//! A cursor over bytes that never reads past their end.

/// The unread bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Unread<'a>(&'a [u8]);

impl<'a> Unread<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn remaining(&self) -> usize {
        self.0.len()
    }

    pub(super) fn rest(self) -> &'a [u8] {
        self.0
    }

    /// Exactly this many bytes, or nothing at all.
    pub(super) fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    /// This many bytes, or as many as there are.
    pub(super) fn take_up_to(&mut self, length: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(length.min(self.0.len()));
        self.0 = rest;
        taken
    }

    pub(super) fn u8(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    pub(super) fn u16(&mut self) -> Option<u16> {
        let (bytes, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u16::from_be_bytes(*bytes))
    }

    pub(super) fn u24(&mut self) -> Option<usize> {
        let ([high, middle, low], rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(usize::from(*high) << 16 | usize::from(*middle) << 8 | usize::from(*low))
    }

    /// A list behind a length of one byte.
    pub(super) fn list8(&mut self) -> Option<&'a [u8]> {
        let length = self.u8()?;
        self.take(usize::from(length))
    }

    /// A list behind a length of two bytes.
    pub(super) fn list16(&mut self) -> Option<&'a [u8]> {
        let length = self.u16()?;
        self.take(usize::from(length))
    }

    /// A list behind a length of one byte as far as it goes, and whether it fills what is left exactly.
    pub(super) fn lenient8(&mut self) -> (&'a [u8], bool) {
        let length = self.u8().map(usize::from);
        self.lenient(length)
    }

    /// A list behind a length of two bytes as far as it goes, and whether it fills what is left exactly.
    pub(super) fn lenient16(&mut self) -> (&'a [u8], bool) {
        let length = self.u16().map(usize::from);
        self.lenient(length)
    }

    fn lenient(&mut self, length: Option<usize>) -> (&'a [u8], bool) {
        let exact = length == Some(self.remaining());
        (self.take_up_to(length.unwrap_or(0)), exact)
    }

    /// The number and the body of an extension.
    pub(super) fn extension(&mut self) -> Option<(u16, &'a [u8])> {
        let number = self.u16()?;
        Some((number, self.list16()?))
    }
}
