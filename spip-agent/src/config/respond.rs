//! Keys of replies and of payload files.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use toml::de::DeValue;

use super::load::Loading;
use super::{Greeting, PayloadStore, Respond};

/// Default directory of the persona.
pub(crate) const STATE_DIRECTORY: &str = "/var/lib/spip";

/// Ports whose servers are known to everyone, and those beside them that people move them to.
const PORTS: [(u16, Greeting); 35] = [
    (21, Greeting::Ftp),
    (22, Greeting::Ssh),
    (23, Greeting::Telnet),
    (25, Greeting::Smtp),
    (80, Greeting::Http),
    (81, Greeting::Http),
    (110, Greeting::Pop3),
    (143, Greeting::Imap),
    (443, Greeting::Http),
    (465, Greeting::Smtp),
    (587, Greeting::Smtp),
    (990, Greeting::Ftp),
    (992, Greeting::Telnet),
    (993, Greeting::Imap),
    (995, Greeting::Pop3),
    (1883, Greeting::Mqtt),
    (2121, Greeting::Ftp),
    (2222, Greeting::Ssh),
    (2323, Greeting::Telnet),
    (2525, Greeting::Smtp),
    (3306, Greeting::Mysql),
    (5432, Greeting::Postgresql),
    (5900, Greeting::Vnc),
    (5901, Greeting::Vnc),
    (6379, Greeting::Redis),
    (8000, Greeting::Http),
    (8008, Greeting::Http),
    (8080, Greeting::Http),
    (8081, Greeting::Http),
    (8088, Greeting::Http),
    (8443, Greeting::Http),
    (8888, Greeting::Http),
    (9000, Greeting::Http),
    (9090, Greeting::Http),
    (22222, Greeting::Ssh),
];

impl Loading<'_> {
    /// The keys of drawing out.
    pub(super) fn respond(&mut self) -> Respond {
        Respond {
            enabled: self.read.switch("respond"),
            banner_after: Duration::from_millis(self.read.integer("banner_after_ms")),
            ports: self.greetings(),
            persona: self.readable("persona", "TOML").map(|(path, _)| path),
            state_dir: self.path("state_dir").unwrap_or_else(|| PathBuf::from(STATE_DIRECTORY)),
        }
    }

    /// The table, with what the operator changes in it.
    fn greetings(&mut self) -> BTreeMap<u16, Greeting> {
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
            match Greeting::ALL.iter().find(|(name, _)| Some(*name) == word) {
                Some((_, dialogue)) => {
                    ports.insert(port, *dialogue);
                }
                None => {
                    let names: Vec<String> = Greeting::ALL.iter().map(|(name, _)| format!("\"{name}\"")).collect();
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
            min_bytes: self.size("payload_store_min_bytes"),
            max_bytes: self.read.integer("payload_store_max_bytes"),
            preview_bytes: self.size("payload_preview_bytes"),
        }
    }
}
