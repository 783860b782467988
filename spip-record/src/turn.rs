//! Turns of a talk: who said how much when.

use serde::{Deserialize, Serialize};

/// Turns and names of responses that a record keeps.
pub const LISTED: usize = 64;

/// Something that one side said before the other did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Turn {
    /// Whether it was the client; written as `client` or `server`.
    #[serde(rename = "from", with = "side")]
    pub is_client: bool,
    /// Where it begins in all that this side said.
    pub offset: u64,
    /// How many bytes it has.
    pub length: u64,
    /// When its first byte came or went, in milliseconds from the accept.
    #[serde(rename = "ms")]
    pub at_ms: u64,
}

/// Who it was, as a word.
mod side {
    use std::borrow::Cow;

    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
    pub(super) fn serialize<S: Serializer>(is_client: &bool, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(if *is_client { "client" } else { "server" })
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
        match Cow::<str>::deserialize(deserializer)?.as_ref() {
            "client" => Ok(true),
            "server" => Ok(false),
            _ => Err(D::Error::custom("neither client nor server")),
        }
    }
}
