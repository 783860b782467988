//! Names exploits and malware by rules in the language of Suricata: the part of it that describes what a client sends.
//!
//! A rule that needs more than a record has (a server's answer, several connections, fields of packets) is skipped with
//! its reason; it is never taken in part, because a rule without one of its conditions names the wrong things.
//! [`docs/enrichment.md`] lists what is taken.
//!
//! A record is matched in two steps. For each buffer (payload, URI, body, …) one Aho–Corasick automaton finds which of
//! the rules' rarest texts occur at all; only those rules are then verified, within a budget of steps for each rule and
//! for each record ([`RULE_STEPS`], [`RECORD_STEPS`]). A record that uses its budget up says so.
//!
//! [`docs/enrichment.md`]: https://docs.suricata.io/en/latest/rules/index.html

mod buffer;
mod bytes;
mod content;
mod file;
mod filter;
mod meta;
mod options;
mod pcre;
mod report;
mod scope;
mod set;
mod uri;
mod verify;

pub use file::{FILE_BYTES, RULE_BYTES};
pub use report::{Report, Skipped};
pub use set::{Builder, Error, Found, RECORD_STEPS, RULE_STEPS, Rules, Scratch};

/// Decodes percent-encoding and pluses, as the transform `url_decode` does.
#[must_use]
pub fn url_decode(bytes: &[u8]) -> Vec<u8> {
    buffer::Transform::UrlDecode.apply(bytes)
}
