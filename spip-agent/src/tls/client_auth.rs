//! Client certificates: asked for where configured, accepted from anyone, recorded.
//!
//! A client has to own the key of the certificate that it shows, otherwise the record would name somebody else. Whether
//! anyone vouches for the certificate, and whether it has expired, makes no difference.

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};
use sha2::{Digest, Sha256};
use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::x509::X509Name;

use super::hidden_name;

/// The most characters of a name that are kept.
const MAX_NAME_CHARS: usize = 512;

/// The certificate of a client, or why there is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientCertificate {
    /// Clients are not asked for one.
    NotAsked,
    /// It was asked and sent none.
    NotSent,
    /// It sent one that cannot be read as X.509.
    Unreadable,
    /// It sent one, and has its key.
    Presented(Box<PresentedCertificate>),
}

/// What a client's certificate says of itself; nobody vouches for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PresentedCertificate {
    /// The subject's name, such as `CN=client.example, O=Example`, at most 512 characters of it.
    pub subject: String,
    /// The issuer's name, in the same way.
    pub issuer: String,
    /// Start of validity, in Unix seconds.
    pub not_before: i64,
    /// End of validity, in Unix seconds.
    pub not_after: i64,
    /// SHA-256 of the certificate, in lower-case hexadecimal.
    pub sha256: String,
}

impl ClientCertificate {
    /// Reads the first certificate of a chain.
    pub(super) fn of_chain(chain: &[CertificateDer<'_>]) -> Self {
        let Some(leaf) = chain.first() else {
            return Self::NotSent;
        };
        let Ok((_, certificate)) = X509Certificate::from_der(leaf) else {
            return Self::Unreadable;
        };
        let validity = certificate.validity();
        Self::Presented(Box::new(PresentedCertificate {
            subject: name(certificate.subject()),
            issuer: name(certificate.issuer()),
            not_before: validity.not_before.timestamp(),
            not_after: validity.not_after.timestamp(),
            sha256: hex::encode(Sha256::digest(leaf)),
        }))
    }
}

fn name(name: &X509Name<'_>) -> String {
    let mut text = name.to_string();
    if let Some((end, _)) = text.char_indices().nth(MAX_NAME_CHARS) {
        text.truncate(end);
    }
    text
}

/// Accepts any certificate from whoever has its key, and clients without one.
#[derive(Debug)]
pub(super) struct AnyClient {
    algorithms: WebPkiSupportedAlgorithms,
}

impl AnyClient {
    pub(super) fn new(provider: &CryptoProvider) -> Self {
        Self { algorithms: provider.signature_verification_algorithms }
    }
}

impl ClientCertVerifier for AnyClient {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        // What a client signs in TLS 1.2 is all that was said, its own hello first.
        let shown = hidden_name::shown(message);
        let message = shown.as_deref().unwrap_or(message);
        verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
