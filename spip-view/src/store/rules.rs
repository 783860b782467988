//! What is known of the rules that matched: class, vulnerabilities, references. One row a rule, written when it first
//! matches in this process and again when its revision is another one.

use std::collections::HashMap;

use rusqlite::{Connection, OptionalExtension as _};
use spip_record::enrichment::Tag;

use super::key::Salt;
use crate::row::Kind;

/// Rules that are remembered; more than all published ones.
const MAX_KNOWN: usize = 100_000;

/// Rules that are in the catalog, with their revision.
#[derive(Debug, Default)]
pub(super) struct Rules {
    known: HashMap<u64, u64>,
}

impl Rules {
    /// Keeps what a tag says of its rule, and names the fact as the rule is named now.
    pub(super) fn keep(&mut self, catalog: &Connection, salt: Salt, tag: &Tag) -> rusqlite::Result<()> {
        if self.known.get(&tag.id) == Some(&tag.rev) {
            return Ok(());
        }
        if self.known.len() >= MAX_KNOWN {
            self.known.clear();
        }
        self.known.insert(tag.id, tag.rev);
        let text = serde_json::to_string(tag).unwrap_or_default();
        // A number of a rule has 32 bits in rule files; the store's are signed.
        let sid = i64::try_from(tag.id).unwrap_or(i64::MAX);
        catalog.prepare_cached("INSERT OR REPLACE INTO rules (sid, tag) VALUES (?, ?)")?.execute((sid, text))?;
        let hash = salt.hash(Kind::Tag, tag.id.to_string().as_bytes());
        catalog.prepare_cached("UPDATE facts SET label = ? WHERE hash = ? AND kind = ?")?.execute((
            super::cut(&tag.name),
            hash,
            Kind::Tag as u8,
        ))?;
        Ok(())
    }
}

/// Reads what is known of a rule.
pub(crate) fn rule(catalog: &Connection, sid: &str) -> rusqlite::Result<Option<Tag>> {
    let Ok(sid) = sid.parse::<i64>() else {
        return Ok(None);
    };
    let text: Option<String> =
        catalog.prepare_cached("SELECT tag FROM rules WHERE sid = ?")?.query_row([sid], |row| row.get(0)).optional()?;
    Ok(text.and_then(|text| serde_json::from_str(&text).ok()))
}
