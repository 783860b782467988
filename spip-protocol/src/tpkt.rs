//! The connection request of ISO transport over TCP (RFC 1006, ITU-T X.224), which RDP and S7 both begin with.
//!
//! RDP puts a cookie or a negotiation request after the fixed part, ISO applications put parameters there: what
//! stands there decides between them.

use super::reader::{End, Reader};

/// The longest request that is believed; the length byte of X.224 allows 254 bytes, RDP's cookies stay far below.
const REQUEST_BYTES: u16 = 1024;
/// TPKT header, length indicator and fixed part.
const FIXED_BYTES: u16 = 11;

/// Reads a whole connection request, and gives what follows its fixed part; `None` when the bytes are none.
pub(super) fn connection_request<'a>(reader: &mut Reader<'a>) -> Result<Option<&'a [u8]>, End> {
    if !reader.literal(&[3, 0])? {
        return Ok(None);
    }
    let length = reader.be16()?;
    let indicator = u16::from(reader.u8()?);
    if !(FIXED_BYTES..=REQUEST_BYTES).contains(&length) || indicator < 6 || indicator + 5 > length {
        return Ok(None);
    }
    // Connection request without credit, a destination reference of zero, any source reference, any class.
    if !reader.literal(&[0xe0, 0, 0])? {
        return Ok(None);
    }
    reader.take(3)?;
    reader.take(usize::from(length - FIXED_BYTES)).map(Some)
}

/// The parameters of a request: kind and value of each; `None` when they do not fill it exactly.
pub(super) fn parameters(bytes: &[u8]) -> Option<Vec<(u8, &[u8])>> {
    let mut reader = Reader::new(bytes);
    let mut parameters = Vec::new();
    while !reader.rest().is_empty() {
        let kind = reader.u8().ok()?;
        let length = reader.u8().ok()?;
        parameters.push((kind, reader.take(usize::from(length)).ok()?));
    }
    Some(parameters)
}

/// The transport selectors of the caller and the called, and the size of a TPDU as a power of two.
pub(super) mod parameter {
    pub(in super::super) const TPDU_SIZE: u8 = 0xc0;
    pub(in super::super) const CALLING: u8 = 0xc1;
    pub(in super::super) const CALLED: u8 = 0xc2;
}

/// The value of the first parameter of that kind.
pub(super) fn value<'a>(parameters: &[(u8, &'a [u8])], kind: u8) -> Option<&'a [u8]> {
    parameters.iter().find(|(other, _)| *other == kind).map(|(_, value)| *value)
}
