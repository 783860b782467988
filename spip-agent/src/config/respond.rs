//! Keys of replies and of payload files.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use toml::de::DeValue;

use super::load::{Loading, MAX_BYTES};
use super::{Dialogue, PayloadStore, Respond};

/// Default directory of the persona.
pub(crate) const STATE_DIRECTORY: &str = "/var/lib/spip";

/// Ports whose servers are known to everyone, and those beside them that people move them to.
const PORTS: [(u16, Dialogue); 35] = [
    (21, Dialogue::Ftp),
    (22, Dialogue::Ssh),
    (23, Dialogue::Telnet),
    (25, Dialogue::Smtp),
    (80, Dialogue::Http),
    (81, Dialogue::Http),
    (110, Dialogue::Pop3),
    (143, Dialogue::Imap),
    (443, Dialogue::Http),
    (465, Dialogue::Smtp),
    (587, Dialogue::Smtp),
    (990, Dialogue::Ftp),
    (992, Dialogue::Telnet),
    (993, Dialogue::Imap),
    (995, Dialogue::Pop3),
    (1883, Dialogue::Mqtt),
    (2121, Dialogue::Ftp),
    (2222, Dialogue::Ssh),
    (2323, Dialogue::Telnet),
    (2525, Dialogue::Smtp),
    (3306, Dialogue::Mysql),
    (5432, Dialogue::Postgresql),
    (5900, Dialogue::Vnc),
    (5901, Dialogue::Vnc),
    (6379, Dialogue::Redis),
    (8000, Dialogue::Http),
    (8008, Dialogue::Http),
    (8080, Dialogue::Http),
    (8081, Dialogue::Http),
    (8088, Dialogue::Http),
    (8443, Dialogue::Http),
    (8888, Dialogue::Http),
    (9000, Dialogue::Http),
    (9090, Dialogue::Http),
    (22222, Dialogue::Ssh),
];

/// Longest silence before a greeting: clients do not wait for longer.
const MAX_BANNER_MS: u64 = 60_000;

impl Loading<'_> {
    /// The keys of drawing out.
    pub(super) fn respond(&mut self) -> Respond {
        Respond {
            enabled: self.read.choice("respond", &[("banners", true), ("off", false)], true),
            banner_after: Duration::from_millis(self.read.integer("banner_after_ms", (1, MAX_BANNER_MS), 1_500)),
            ports: self.greetings(),
            persona: self.readable("persona", "TOML").map(|(path, _)| path),
            state_dir: self.path("state_dir").unwrap_or_else(|| PathBuf::from(STATE_DIRECTORY)),
        }
    }

    /// The table, with what the operator changes in it.
    fn greetings(&mut self) -> BTreeMap<u16, Dialogue> {
        const ACCEPTED: &str = "must be a table of ports and dialogues: { 2121 = \"ftp\", 23 = \"off\" }";
        let mut ports = BTreeMap::from(PORTS);
        let Some(found) = self.read.take("greetings") else { return ports };
        let DeValue::Table(table) = found.value.get_ref() else {
            self.read.refuse_type(&found, "table", ACCEPTED);
            return ports;
        };
        for (port, dialogue) in table {
            let key = port.get_ref();
            let at = Some(port.span().start);
            let Some(port) = key.parse::<u16>().ok().filter(|port| *port > 0) else {
                let text = format!("greetings.{}: must be a port from 1 to 65535", super::error::Quoted(key));
                self.read.problem(at, text);
                continue;
            };
            let word = dialogue.get_ref().as_str();
            match Dialogue::ALL.iter().find(|(name, _)| Some(*name) == word) {
                Some((_, dialogue)) => {
                    ports.insert(port, *dialogue);
                }
                None => {
                    let names: Vec<String> = Dialogue::ALL.iter().map(|(name, _)| format!("\"{name}\"")).collect();
                    self.read.problem(at, format!("greetings.{port}: must be one of {}", names.join(", ")));
                }
            }
        }
        ports
    }

    /// Payloads beside the log.
    pub(super) fn payload_store(&mut self) -> PayloadStore {
        PayloadStore {
            directory: self.path("payload_dir"),
            min_bytes: self.size("payload_store_min_bytes", (1, 1 << 30), 4_096),
            max_bytes: self.read.integer("payload_store_max_bytes", (4_096, MAX_BYTES), 1 << 30),
            preview_bytes: self.size("payload_preview_bytes", (0, 1 << 30), 256),
        }
    }
}
