//! Client certificates: asked for where configured, accepted from anyone, recorded.
//!
//! A client has to own the key of the certificate that it shows, otherwise the record would name another client.
//! Whether anyone vouches for the certificate, and whether it has expired, makes no difference. Neither does its
//! version, or what its extensions demand: the library's own check wants certificates of today's web, so the signature
//! is verified here, with the key as it stands in the certificate.

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms};
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, PeerMisbehaved, SignatureScheme};
use sha2::{Digest, Sha256};
use x509_parser::asn1_rs::Any;
use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::x509::{SubjectPublicKeyInfo, X509Name};

use spip_record::entry::PresentedCertificate;

use super::masked_name;

/// The most characters of a name that are kept.
pub const MAX_NAME_CHARS: usize = 512;

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

impl ClientCertificate {
    /// Reads the first certificate of a chain.
    #[must_use]
    pub fn of_chain(chain: &[CertificateDer<'_>]) -> Self {
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
            not_before: Some(validity.not_before.timestamp()),
            not_after: Some(validity.not_after.timestamp()),
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

/// Accepts any certificate whose key the client has, and clients without one.
#[derive(Debug)]
pub(super) struct AnyClient {
    algorithms: WebPkiSupportedAlgorithms,
}

impl AnyClient {
    pub(super) fn new(provider: &CryptoProvider) -> Self {
        Self { algorithms: provider.signature_verification_algorithms }
    }

    /// Verifies that the owner of the certificate's key has signed `message`, in any version.
    fn verify(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let (_, certificate) = X509Certificate::from_der(certificate).map_err(|_| CertificateError::BadEncoding)?;
        let key = certificate.public_key();
        let kind = key_algorithm(key).ok_or(CertificateError::BadEncoding)?;
        // One scheme may stand for several curves: in TLS 1.2 it names the hash alone.
        let scheme = self.algorithms.mapping.iter().find(|(scheme, _)| *scheme == signed.scheme);
        let fitting = scheme
            .and_then(|(_, algorithms)| algorithms.iter().find(|one| one.public_key_alg_id().as_ref() == kind))
            .ok_or(PeerMisbehaved::SignedHandshakeWithUnadvertisedSigScheme)?;
        fitting
            .verify_signature(&key.subject_public_key.data, message, signed.signature())
            .map_err(|_| CertificateError::BadSignature)?;
        Ok(HandshakeSignatureValid::assertion())
    }
}

/// The algorithm of a key with its parameters, in DER without the outermost header: what the library calls it.
fn key_algorithm<'a>(key: &SubjectPublicKeyInfo<'a>) -> Option<&'a [u8]> {
    let (_, whole) = Any::from_der(key.raw).ok()?;
    let (_, algorithm) = Any::from_der(whole.data).ok()?;
    Some(algorithm.data)
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
        let shown = masked_name::shown(message);
        let message = shown.as_deref().unwrap_or(message);
        self.verify(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verify(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
