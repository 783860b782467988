//! Text for the log, and the files of an operator: configuration, persona, logs that are converted.

use std::path::Path;

use spip_agent::config::Config;
use spip_agent::respond::persona::Persona;
use spip_agent::tools::convert::Target;
use spip_record::json;

use super::engine;

/// Checks that any bytes become a string of JSON that reads back as the same text and controls no terminal.
pub(super) fn text(bytes: &[u8]) {
    let mut line = Vec::new();
    json::lossy_string(&mut line, bytes);
    let written = std::str::from_utf8(&line).expect("text");
    assert!(!written.chars().any(json::is_hidden), "{written:?}");
    let read: String = serde_json::from_str(written).expect("a JSON string");
    assert_eq!(read, String::from_utf8_lossy(bytes).replace('\0', "␀"));
}

/// A file is refused with a reason, or loads and survives being shown and read again.
pub(super) fn config(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let path = Path::new("/nowhere/spip.toml");
    match Config::from_str(&text, path) {
        Ok(loaded) => {
            let again = Config::from_str(&loaded.config.to_toml(), path).expect("what is shown loads");
            assert_eq!(again.config, loaded.config);
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

/// A file is refused with a reason, or every text in it can be sent to clients.
pub(super) fn persona(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    match Persona::from_text(&text, Path::new("/nowhere/persona.toml")) {
        Ok(persona) => {
            for port in [0, 22, 80, 2222, u16::MAX] {
                let face = persona.face(port);
                let lines = [&face.host, &face.kernel, &face.ftp, &face.http, &face.imap, &face.mysql, &face.pop3];
                let more = [&face.postgresql, &face.redis, &face.smtp, &face.ssh, &face.telnet, &face.vnc];
                for line in lines.into_iter().chain(more) {
                    assert!((1..=120).contains(&line.len()) && line.bytes().all(|byte| matches!(byte, b' '..=b'~')));
                }
                assert!((1..=1500).contains(&face.page.len()) && face.page.is_ascii());
                assert!(face.ssh.starts_with("SSH-2.0-") && face.vnc.len() == 7);
            }
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

/// The longest line that is converted here.
const LINE_BYTES: usize = 32 * 1024;

/// A log from anybody: each of its lines is refused with a reason, left out, or becomes a line of the other format that
/// is bounded by its own length.
pub(super) fn convert(bytes: &[u8]) {
    converted(bytes);
}

/// Returns the number of lines of this log that become records of other formats.
fn converted(log: &[u8]) -> usize {
    let mut out = Vec::new();
    let mut records = 0;
    for line in log.split(|byte| *byte == b'\n').filter(|line| line.len() <= LINE_BYTES) {
        let mut seen = [false; 3];
        for (to, seen) in [Target::Ecs, Target::Eve, Target::Zeek].into_iter().zip(&mut seen) {
            out.clear();
            match to.line(line, &mut out) {
                Ok(true) => {
                    engine::is_line_of(&out, line.len());
                    *seen = true;
                }
                Ok(false) => assert!(out.is_empty()),
                Err(reason) => assert!(!reason.is_empty() && out.is_empty()),
            }
        }
        // Zeek's format knows connections alone.
        assert!(seen[0] == seen[1] && seen[0] >= seen[2], "{seen:?}");
        records += usize::from(seen[0]);
    }
    records
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::corpus;

    #[test]
    fn the_corpus_of_logs_is_converted() {
        for (name, records) in [("details", 1), ("http", 1), ("log", 0), ("rejected", 1), ("scan", 1), ("tls", 1)] {
            let bytes = std::fs::read(corpus::directory().join("convert").join(name)).expect("there");
            assert_eq!(converted(&bytes), records, "{name}");
        }
    }
}
