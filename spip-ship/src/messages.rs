//! Messages for the operator, on standard error: for the journal or a terminal.

use std::io::Write as _;

use log::{LevelFilter, Log, Metadata, Record};

/// Letters of a message. Texts of servers and names in records are in it.
const MAX_LETTERS: usize = 4_000;

struct Messages;

impl Log for Messages {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= log::max_level()
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) || !record.target().starts_with("spip") {
            return;
        }
        let level = record.level().as_str().to_ascii_lowercase();
        // Servers' texts end up in messages, and on a terminal a control character is a command.
        let mut text: String = record.args().to_string().chars().take(MAX_LETTERS).flat_map(shown).collect();
        if text.len() >= MAX_LETTERS {
            text.push('…');
        }
        // Standard error that is gone is no reason to stop.
        let _ = writeln!(std::io::stderr(), "{level}: {text}");
    }

    fn flush(&self) {}
}

/// Writes a character so that a terminal shows it and does not obey it.
pub(crate) fn shown(letter: char) -> impl Iterator<Item = char> {
    let is_hidden = letter.is_control()
        || matches!(letter, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}');
    let escaped = is_hidden.then(|| letter.escape_unicode());
    let plain = (!is_hidden).then_some(letter);
    escaped.into_iter().flatten().chain(plain)
}

/// Shows messages of `level` and above.
pub fn show(level: LevelFilter) {
    if log::set_logger(&Messages).is_ok() {
        log::set_max_level(level);
    }
}
