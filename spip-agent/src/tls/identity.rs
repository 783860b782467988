//! A certificate with its key, as those need it who show it.

use std::ops::Deref;
use std::sync::Arc;

use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::{CertifiedKey, SigningKey};

/// A chain and its key.
#[derive(Debug)]
pub struct Identity {
    certified: Arc<CertifiedKey>,
    /// The key once more: the other library cannot use it in the form that the first one has made of it.
    #[cfg(feature = "legacy-tls")]
    key: PrivateKeyDer<'static>,
}

impl Identity {
    /// `signing` is what the library has made of `key`.
    #[cfg_attr(not(feature = "legacy-tls"), expect(unused_variables, reason = "only another library needs it"))]
    pub(super) fn new(
        chain: Vec<CertificateDer<'static>>,
        signing: Arc<dyn SigningKey>,
        key: &PrivateKeyDer<'_>,
    ) -> Self {
        Self {
            certified: Arc::new(CertifiedKey::new(chain, signing)),
            #[cfg(feature = "legacy-tls")]
            key: key.clone_key(),
        }
    }

    /// As the library wants it.
    pub(super) fn certified(&self) -> Arc<CertifiedKey> {
        Arc::clone(&self.certified)
    }

    /// The key in DER.
    #[cfg(feature = "legacy-tls")]
    pub(super) fn key(&self) -> &[u8] {
        self.key.secret_der()
    }
}

impl Deref for Identity {
    type Target = CertifiedKey;

    fn deref(&self) -> &CertifiedKey {
        &self.certified
    }
}
