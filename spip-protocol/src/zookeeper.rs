//! ZooKeeper: its commands of four letters, and the request to connect.
//!
//! Decides at the whole request to connect. A command is four letters without an end, so it counts only where nothing or a
//! line end follows (see [`super::pause`]). <https://zookeeper.apache.org/doc/current/zookeeperAdmin.html#sc_4lw>

use super::reader::{End, Reader};
use super::{Protocol, Understanding};

/// The registry's entry.
pub(super) static PROTOCOL: Protocol = Protocol {
    name: "zookeeper",
    recognise,
    understand,
    #[cfg(any(test, feature = "samples"))]
    samples: &[
        b"ruok",
        b"envi\r\nquit\r\n",
        b"\x00\x00\x00\x2d\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x75\x30\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x10\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00",
    ],
};

/// Commands that are no word of another protocol; `stat`, `conf` and `dump` are.
const COMMANDS: [&[u8]; 12] =
    [b"ruok", b"envi", b"srvr", b"mntr", b"isro", b"wchs", b"wchc", b"wchp", b"crst", b"srst", b"gtmk", b"stmk"];

fn recognise(reader: &mut Reader<'_>) -> Result<bool, End> {
    let mut command = *reader;
    if command.u8()?.is_ascii_lowercase() {
        return Ok(asks(reader)? && matches!(reader.u8()?, b'\r' | b'\n'));
    }
    connects(reader)
}

/// Reports whether a whole command comes next: its sender waits for the answer.
pub(super) fn asks(reader: &mut Reader<'_>) -> Result<bool, End> {
    reader.one_of(&COMMANDS)
}

/// ConnectRequest: protocol 0, the last change seen, a timeout, a session and its password of 16 bytes; since version
/// 3.4 a flag for read-only.
fn connects(reader: &mut Reader<'_>) -> Result<bool, End> {
    let length = reader.be32()?;
    if !matches!(length, 44 | 45) || reader.be32()? != 0 {
        return Ok(false);
    }
    reader.take(8)?;
    let timeout = reader.be32()?;
    reader.take(8)?;
    Ok((1..=86_400_000).contains(&timeout) && reader.be32()? == 16)
}

fn understand(bytes: &[u8], out: &mut Understanding) -> Result<(), End> {
    if bytes.first().is_some_and(u8::is_ascii_lowercase) {
        out.details.text("command", Reader::new(bytes).take(4)?);
    }
    Ok(())
}
