//! Lines of a bounded length: what is longer is passed over without being held.

use std::io;

use super::input::Input;

/// A buffer that grew beyond this for one line is not kept for the next ones.
const KEPT_BYTES: usize = 1 << 20;

/// What comes next.
#[derive(Debug)]
pub enum Next<'a> {
    /// A line, without its end.
    Line(&'a [u8]),
    /// A line that was too long, passed over.
    TooLong,
    /// Nothing more.
    End,
}

/// The lines of an input.
pub struct Lines {
    input: Input,
    limit: usize,
    line: Vec<u8>,
    number: u64,
}

impl Lines {
    /// Those of `input` that are no longer than `limit`.
    #[must_use]
    pub fn new(input: Input, limit: usize) -> Self {
        Self { input, limit, line: Vec::new(), number: 0 }
    }

    /// The number of the last line, from 1.
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// The next one.
    ///
    /// # Errors
    /// The input cannot be read further.
    pub fn next_line(&mut self) -> io::Result<Next<'_>> {
        self.line.clear();
        self.line.shrink_to(KEPT_BYTES);
        let (mut too_long, mut begun) = (false, false);
        loop {
            let available = match self.input.reader().fill_buf() {
                Ok(available) => available,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            if available.is_empty() {
                break;
            }
            begun = true;
            let end = available.iter().position(|byte| *byte == b'\n');
            let part = available.get(..end.unwrap_or(available.len())).unwrap_or_default();
            too_long |= part.len() > self.limit.saturating_sub(self.line.len());
            if too_long {
                self.line = Vec::new();
            } else {
                self.line.extend_from_slice(part);
            }
            let used = end.map_or(available.len(), |end| end + 1);
            self.input.reader().consume(used);
            if end.is_some() {
                break;
            }
        }
        if !begun {
            return Ok(Next::End);
        }
        self.number += 1;
        Ok(if too_long { Next::TooLong } else { Next::Line(&self.line) })
    }
}
