//! Place of a secret: a file, or a credential of the service manager. Its value is read when it is needed, so that a
//! renewed secret takes effect at the next connection, and never appears in a message.

use std::fmt;
use std::fs::File;
use std::io::Read as _;
use std::path::PathBuf;

use serde::Deserialize;

/// A token, a password or a credentials file is a few kilobytes at most.
const MAX_BYTES: u64 = 64 * 1024;

/// The prefix that names a credential which systemd passes with `LoadCredential=`.
const CREDENTIAL: &str = "credential:";

/// The place of a secret.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(from = "String")]
pub struct Secret(String);

impl From<String> for Secret {
    fn from(place: String) -> Self {
        Self(place)
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Secret {
    /// Returns the file that holds the secret.
    ///
    /// # Errors
    /// A credential of the service manager is named, and there is no service manager.
    pub fn path(&self) -> Result<PathBuf, String> {
        let Some(name) = self.0.strip_prefix(CREDENTIAL) else {
            return Ok(PathBuf::from(&self.0));
        };
        if name.is_empty() || name.contains('/') {
            return Err(format!("{self}: a credential has a name without slashes"));
        }
        let directory = std::env::var_os("CREDENTIALS_DIRECTORY")
            .ok_or_else(|| format!("{self}: no CREDENTIALS_DIRECTORY; set LoadCredential={name}:FILE in the unit"))?;
        Ok(PathBuf::from(directory).join(name))
    }

    /// Reads the secret, without the line feed at its end.
    ///
    /// # Errors
    /// The file cannot be read, is empty, or is no text.
    pub fn read(&self) -> Result<String, String> {
        let path = self.path()?;
        let mut text = String::new();
        File::open(&path)
            .and_then(|file| file.take(MAX_BYTES).read_to_string(&mut text))
            .map_err(|error| format!("cannot read the secret {}: {error}", path.display()))?;
        let trimmed = text.trim_end_matches(['\n', '\r']);
        if trimmed.is_empty() {
            return Err(format!("the secret {} is empty", path.display()));
        }
        Ok(trimmed.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_read_without_its_line_feed_and_an_empty_one_is_refused() {
        let path = std::env::temp_dir().join(format!("spip-ship-secret-{}", std::process::id()));
        std::fs::write(&path, "s3cret\n").expect("a temporary file");
        let secret = Secret(path.display().to_string());
        assert_eq!(secret.read().as_deref(), Ok("s3cret"));
        std::fs::write(&path, "\n").expect("a temporary file");
        assert!(secret.read().expect_err("it is empty").contains("is empty"));
        std::fs::remove_file(&path).expect("it was written");
        assert!(secret.read().expect_err("it is gone").contains("cannot read the secret"));
    }

    #[test]
    fn a_credential_needs_a_service_manager_and_a_plain_name() {
        assert!(Secret("credential:../etc/shadow".to_owned()).path().is_err());
        assert!(Secret("credential:".to_owned()).path().is_err());
    }
}
