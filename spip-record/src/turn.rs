//! Turns of a talk: who said how much when.

use serde::{Deserialize, Serialize};

/// Turns and names of responses that a record keeps.
pub const LISTED: usize = 64;

/// Something that one side said before the other did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Turn {
    /// Set for the client's turns; written as `client` or `server`.
    #[serde(rename = "from", with = "side")]
    pub is_client: bool,
    /// Offset in all that this side sent.
    pub offset: u64,
    /// Length in bytes.
    pub length: u64,
    /// Time of its first byte, in milliseconds from the accept.
    #[serde(rename = "ms")]
    pub at_ms: u64,
}

/// The side as a word.
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
