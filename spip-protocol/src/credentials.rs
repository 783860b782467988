//! Names and secrets that clients send in clear.
//!
//! A side that the protocol does not carry, or that the client has not sent, is absent; an empty password that was
//! sent is an empty text. What a client repeats is kept once.

use serde::{Deserialize, Serialize};

use super::value::clip;

/// Upper bound of credentials per record.
pub const CREDENTIALS: usize = 16;
/// The longest name or secret, in bytes of UTF-8.
pub const CREDENTIAL_BYTES: usize = 256;

/// A name, a secret, or both.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Credential {
    /// Name of the user, as the client sent it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// The password or token that it sent in clear.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret: Option<String>,
}

/// The credentials of one connection, in the order of the wire.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Credentials {
    /// At most [`CREDENTIALS`], all different.
    pub list: Vec<Credential>,
    /// Set when there were more, or a longer name or secret than [`CREDENTIAL_BYTES`].
    pub truncated: bool,
}

impl Credentials {
    /// Keeps what the client sent; two absent sides are nothing.
    pub(super) fn add(&mut self, user: Option<&[u8]>, secret: Option<&[u8]>) {
        if user.is_none() && secret.is_none() {
            return;
        }
        let mut clipped = false;
        let mut text = |bytes: &[u8]| {
            let (text, cut) = clip(bytes, CREDENTIAL_BYTES);
            clipped |= cut;
            text.into_owned()
        };
        let credential = Credential { user: user.map(&mut text), secret: secret.map(&mut text) };
        if self.list.contains(&credential) {
            return;
        }
        if self.list.len() == CREDENTIALS {
            self.truncated = true;
            return;
        }
        self.truncated |= clipped;
        self.list.push(credential);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repeated_login_is_kept_once() {
        let mut credentials = Credentials::default();
        credentials.add(Some(b"root"), Some(b""));
        credentials.add(Some(b"root"), Some(b""));
        credentials.add(None, None);
        let json = serde_json::to_string(&credentials.list).expect("json");
        assert_eq!(json, r#"[{"user":"root","secret":""}]"#);
    }

    #[test]
    fn a_side_that_is_too_long_is_cut_and_marked() {
        for (length, is_cut) in [(CREDENTIAL_BYTES, false), (CREDENTIAL_BYTES + 1, true)] {
            let long = vec![b'a'; length];
            for (user, secret) in [(Some(&long[..]), None), (Some(&b"root"[..]), Some(&long[..]))] {
                let mut credentials = Credentials::default();
                credentials.add(user, secret);
                let Credential { user, secret } = &credentials.list[0];
                assert_eq!(secret.as_ref().or(user.as_ref()).map(String::len), Some(CREDENTIAL_BYTES));
                assert_eq!(credentials.truncated, is_cut, "{length}");
            }
        }
    }

    #[test]
    fn more_than_the_limit_is_cut_and_marked() {
        let mut credentials = Credentials::default();
        for number in 0..=CREDENTIALS {
            credentials.add(Some(number.to_string().as_bytes()), None);
        }
        assert_eq!(credentials.list.len(), CREDENTIALS);
        assert!(credentials.truncated);
    }
}
