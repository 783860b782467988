//! Android Debug Bridge over TCP: botnets open it to run shell commands on phones and boxes.
//!
//! Decides at the header of 24 bytes: `CNXN` and its complement; on the port of the server, at `host:` behind a length. Commands that a client sends without waiting follow as
//! `OPEN` messages. <https://android.googlesource.com/platform/packages/modules/adb/+/HEAD/protocol.txt>

use super::reader::{End, Reader};
use super::value::LIST_ITEMS;
use super::{Protocol, Understanding};

/// The registry's entry.
pub(super) static PROTOCOL: Protocol = Protocol {
    name: "adb",
    recognise,
    understand,
    #[cfg(any(test, feature = "samples"))]
    samples: &[
        b"CNXN\x00\x00\x00\x01\x00\x10\x00\x00\x07\x00\x00\x00\x32\x02\x00\x00\xbc\xb1\xa7\xb1host::\x00",
        b"CNXN\x00\x00\x00\x01\x00\x10\x00\x00\x07\x00\x00\x00\x32\x02\x00\x00\xbc\xb1\xa7\xb1host::\x00OPEN\x01\x00\x00\x00\x00\x00\x00\x00\x09\x00\x00\x00\x25\x03\x00\x00\xb0\xaf\xba\xb1shell:id\x00",
    ],
};

fn recognise(reader: &mut Reader<'_>) -> Result<bool, End> {
    let mut host = *reader;
    if host.u8()?.is_ascii_hexdigit() && host.array::<3>()?.iter().all(u8::is_ascii_hexdigit) {
        // The adb server of a developer's machine: a length and a service of the host.
        return host.one_of(&[b"host:", b"host-"]);
    }
    if !reader.literal(b"CNXN")? {
        return Ok(false);
    }
    reader.take(16)?;
    reader.literal(&[!b'C', !b'N', !b'X', !b'N'])
}

fn understand(bytes: &[u8], out: &mut Understanding) -> Result<(), End> {
    let mut reader = Reader::new(bytes);
    let mut services = Vec::new();
    let end = messages(&mut reader, out, &mut services);
    out.details.texts("services", services);
    end
}

fn messages<'a>(reader: &mut Reader<'a>, out: &mut Understanding, services: &mut Vec<&'a [u8]>) -> Result<(), End> {
    while !reader.rest().is_empty() && services.len() <= LIST_ITEMS {
        let command = reader.take(4)?;
        let (first, second, length) = (reader.le32()?, reader.le32()?, reader.le32()?);
        reader.take(8)?;
        let payload = reader.take(usize::try_from(length).map_err(|_| End)?)?;
        let text = payload.strip_suffix(&[0]).unwrap_or(payload);
        match command {
            b"CNXN" => {
                out.details.text("version", format!("{first:08x}").as_bytes());
                out.details.number("max_payload", second);
                out.details.text("identity", text);
            }
            b"OPEN" => services.push(text),
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::understand;
    use super::*;

    #[test]
    fn a_shell_command_that_follows_at_once_is_shown() {
        let details = understand(PROTOCOL.samples[1], false).details;
        let expected = r#"{"version":"01000000","max_payload":4096,"identity":"host::","services":["shell:id"]}"#;
        assert_eq!(serde_json::to_string(&details).expect("json"), expected);
    }
}
