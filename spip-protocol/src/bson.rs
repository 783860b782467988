//! Finds single values in BSON (<https://bsonspec.org>), for the facts of MongoDB.
//!
//! Reads elements in order without building anything; a document is never trusted to end where it says.

use super::reader::{End, Reader};

/// Element types that are asked for or whose size must be known.
mod kind {
    pub(super) const DOUBLE: u8 = 0x01;
    pub(super) const STRING: u8 = 0x02;
    pub(super) const DOCUMENT: u8 = 0x03;
    pub(super) const ARRAY: u8 = 0x04;
    pub(super) const BINARY: u8 = 0x05;
    pub(super) const OBJECT_ID: u8 = 0x07;
    pub(super) const BOOLEAN: u8 = 0x08;
    pub(super) const DATE: u8 = 0x09;
    pub(super) const NULL: u8 = 0x0a;
    pub(super) const INT32: u8 = 0x10;
    pub(super) const TIMESTAMP: u8 = 0x11;
    pub(super) const INT64: u8 = 0x12;
    pub(super) const DECIMAL: u8 = 0x13;
}

/// Elements of one document that are looked at.
const ELEMENTS: usize = 64;

/// One element: its name, and its value where that is text, bytes or a document, without lengths and final zeros.
struct Element<'a> {
    name: &'a [u8],
    value: &'a [u8],
}

/// The next element; `None` at the document's end, or at a type that is not known here.
fn element<'a>(reader: &mut Reader<'a>) -> Result<Option<Element<'a>>, End> {
    let kind = reader.u8()?;
    if kind == 0 {
        return Ok(None);
    }
    let name = reader.until(0, usize::MAX)?.unwrap_or_default();
    let length = |reader: &mut Reader<'_>| reader.le32().and_then(|length| usize::try_from(length).map_err(|_| End));
    let value = match kind {
        kind::STRING => {
            let length = length(reader)?;
            let text = reader.take(length)?;
            text.strip_suffix(&[0]).unwrap_or(text)
        }
        kind::DOCUMENT | kind::ARRAY => {
            let length = length(reader)?.checked_sub(4).ok_or(End)?;
            reader.take(length)?
        }
        kind::BINARY => {
            let length = length(reader)?;
            reader.take(1)?;
            reader.take(length)?
        }
        kind::OBJECT_ID => reader.take(12)?,
        kind::BOOLEAN => reader.take(1)?,
        kind::NULL => b"",
        kind::INT32 => reader.take(4)?,
        kind::DOUBLE | kind::DATE | kind::TIMESTAMP | kind::INT64 => reader.take(8)?,
        kind::DECIMAL => reader.take(16)?,
        _ => return Ok(None),
    };
    Ok(Some(Element { name, value }))
}

/// The name of the first element, which for MongoDB is the command. `document` begins with its length.
pub(super) fn first_name(document: &[u8]) -> Option<&[u8]> {
    let mut reader = Reader::new(document.get(4..)?);
    element(&mut reader).ok()?.map(|element| element.name)
}

/// The value at a path of names. `document` begins with its length.
pub(super) fn find<'a>(document: &'a [u8], path: &[&str]) -> Option<&'a [u8]> {
    let mut body = document.get(4..)?;
    let mut path = path.iter();
    let mut wanted = path.next()?;
    let mut reader = Reader::new(body);
    for _ in 0..ELEMENTS {
        let element = element(&mut reader).ok()??;
        if element.name != wanted.as_bytes() {
            continue;
        }
        body = element.value;
        match path.next() {
            None => return Some(body),
            Some(next) => {
                wanted = next;
                reader = Reader::new(body);
            }
        }
    }
    None
}
