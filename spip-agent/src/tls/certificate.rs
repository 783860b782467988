//! The operator's certificate: read, and checked so far that a handshake with it can succeed.
//!
//! Any certificate whose key can sign will do, expired or not: an operator may want exactly that. Refused is what
//! could never work: no PEM, a key that is encrypted or of an unknown kind, a key that belongs to another certificate.

use std::io::{self, Read};
use std::path::{Path, PathBuf};

use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::identity::Identity;
use crate::config::CertificateFiles;
use crate::process::walk::read;

/// More than any chain or key needs; `cert_path = "/dev/zero"` is a mistake that must end.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// Reasons why the operator's certificate cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// A file cannot be read.
    #[error("cannot read {key} {}: check the path and its permissions", path.display())]
    Unreadable {
        /// The key in the configuration.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// Error of the system.
        source: io::Error,
    },
    /// A file is too large to be what it should be.
    #[error("{key} {} is larger than 1 MiB: expected a PEM file", path.display())]
    TooLarge {
        /// The key in the configuration.
        key: &'static str,
        /// The file.
        path: PathBuf,
    },
    /// A file is no PEM, or broken inside.
    #[error("{key} {} is broken PEM ({reason}): write it anew", path.display())]
    BrokenPem {
        /// The key in the configuration.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// The mistake in it.
        reason: String,
    },
    /// No certificate in the file.
    #[error("cert_path {} holds no certificate: expected PEM with BEGIN CERTIFICATE, the server's own first", path.display())]
    NoCertificate {
        /// The file.
        path: PathBuf,
    },
    /// A PEM section that is called a certificate is none.
    #[error("certificate {number} in cert_path {} is no X.509 certificate: replace it", path.display())]
    NotACertificate {
        /// Its place in the file, counted from 1.
        number: usize,
        /// The file.
        path: PathBuf,
    },
    /// No private key in the file.
    #[error("key_path {} holds no private key: expected PEM in PKCS#1, SEC1 or PKCS#8 form", path.display())]
    NoKey {
        /// The file.
        path: PathBuf,
    },
    /// The key needs a password.
    #[error("key_path {} is encrypted: decrypt it with openssl pkey -in {} -out FILE", path.display(), path.display())]
    EncryptedKey {
        /// The file.
        path: PathBuf,
    },
    /// A key of a kind that cannot be used.
    #[error("key_path {} holds a key that cannot be used ({reason}): expected RSA of 2048 bits or more, ECDSA or Ed25519", path.display())]
    UnsupportedKey {
        /// The file.
        path: PathBuf,
        /// Error of the library.
        reason: String,
    },
    /// Key and certificate are not a pair.
    #[error("key_path {} does not belong to the first certificate in cert_path {}: put the server's own certificate first, or name its key", key.display(), chain.display())]
    Mismatch {
        /// The file of the chain.
        chain: PathBuf,
        /// The file of the key.
        key: PathBuf,
    },
}

impl CertificateError {
    /// The key of the configuration that names what is wrong.
    #[must_use]
    pub fn key(&self) -> &'static str {
        match self {
            Self::Unreadable { key, .. } | Self::TooLarge { key, .. } | Self::BrokenPem { key, .. } => key,
            Self::NoCertificate { .. } | Self::NotACertificate { .. } => "cert_path",
            Self::NoKey { .. } | Self::EncryptedKey { .. } | Self::UnsupportedKey { .. } | Self::Mismatch { .. } => {
                "key_path"
            }
        }
    }
}

/// Reads chain and key.
pub(super) fn load(files: &CertificateFiles, provider: &CryptoProvider) -> Result<Identity, CertificateError> {
    let chain = chain(&files.chain)?;
    let secret = key(&files.key)?;
    let key = provider
        .key_provider
        .load_private_key(secret.clone_key())
        .map_err(|error| CertificateError::UnsupportedKey { path: files.key.clone(), reason: error.to_string() })?;
    let matches = match (chain.first(), key.public_key()) {
        (Some(leaf), Some(public)) => {
            X509Certificate::from_der(leaf).is_ok_and(|(_, leaf)| leaf.public_key().raw == &*public)
        }
        // A key that does not tell its public half cannot be compared.
        _ => true,
    };
    if !matches {
        return Err(CertificateError::Mismatch { chain: files.chain.clone(), key: files.key.clone() });
    }
    Ok(Identity::new(chain, key, &secret))
}

fn chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, CertificateError> {
    const KEY: &str = "cert_path";
    let bytes = read(KEY, path)?;
    let chain = CertificateDer::pem_slice_iter(&bytes)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| broken(KEY, path, &error))?;
    if chain.is_empty() {
        return Err(CertificateError::NoCertificate { path: path.to_owned() });
    }
    for (index, certificate) in chain.iter().enumerate() {
        let whole = X509Certificate::from_der(certificate).is_ok_and(|(rest, _)| rest.is_empty());
        if !whole {
            return Err(CertificateError::NotACertificate { number: index + 1, path: path.to_owned() });
        }
    }
    Ok(chain)
}

fn key(path: &Path) -> Result<PrivateKeyDer<'static>, CertificateError> {
    const KEY: &str = "key_path";
    let bytes = read(KEY, path)?;
    match PrivateKeyDer::from_pem_slice(&bytes) {
        Ok(key) => Ok(key),
        Err(pem::Error::NoItemsFound) if contains(&bytes, b"BEGIN ENCRYPTED PRIVATE KEY") => {
            Err(CertificateError::EncryptedKey { path: path.to_owned() })
        }
        Err(pem::Error::NoItemsFound) => Err(CertificateError::NoKey { path: path.to_owned() }),
        // The old encryption keeps the label of a plain key and adds headers, which end the base64 early.
        Err(_) if contains(&bytes, b"Proc-Type: 4,ENCRYPTED") => {
            Err(CertificateError::EncryptedKey { path: path.to_owned() })
        }
        Err(error) => Err(broken(KEY, path, &error)),
    }
}

fn contains(bytes: &[u8], label: &[u8]) -> bool {
    bytes.windows(label.len()).any(|window| window == label)
}

fn broken(key: &'static str, path: &Path, error: &pem::Error) -> CertificateError {
    CertificateError::BrokenPem { key, path: path.to_owned(), reason: error.to_string() }
}

fn read(key: &'static str, path: &Path) -> Result<Vec<u8>, CertificateError> {
    let mut bytes = Vec::new();
    read::open(path)
        .and_then(|file| file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes))
        .map_err(|source| CertificateError::Unreadable { key, path: path.to_owned(), source })?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(CertificateError::TooLarge { key, path: path.to_owned() });
    }
    Ok(bytes)
}

#[cfg(test)]
pub(super) mod tests;
