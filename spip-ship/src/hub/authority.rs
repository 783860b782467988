//! The hub's own certificate authority: sensors trust it and nothing else.
//!
//! Certificates are valid for ten years. Only the sensors of this hub trust the authority, and a fleet that falls
//! silent because a certificate ran out is what its operators suffer from; a stolen server key is answered by a new
//! hub.

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};

use super::Result;

/// Validity of all certificates, in years.
const YEARS: i32 = 10;

/// An authority that can issue.
pub(super) struct Authority {
    certificate: String,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate with its key.
pub(super) struct Issued {
    pub(super) certificate: String,
    pub(super) key: String,
}

impl Authority {
    /// Makes a new authority.
    pub(super) fn generate() -> Result<Self> {
        let key = KeyPair::generate().map_err(failed)?;
        let mut params = parameters(Vec::new(), "spip hub")?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = params.self_signed(&key).map_err(failed)?.pem();
        Ok(Self { certificate, issuer: Issuer::new(params, key) })
    }

    /// Returns the certificate as PEM.
    pub(super) fn certificate(&self) -> &str {
        &self.certificate
    }

    /// Returns the private key as PEM.
    pub(super) fn key(&self) -> String {
        self.issuer.key().serialize_pem()
    }

    /// Issues a certificate of the server `host`, which is also a client of the other servers of its cluster.
    pub(super) fn issue(&self, host: &str) -> Result<Issued> {
        let key = KeyPair::generate().map_err(failed)?;
        let mut params = parameters(vec![host.to_owned()], host)?;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        let certificate = params.signed_by(&key, &self.issuer).map_err(failed)?;
        Ok(Issued { certificate: certificate.pem(), key: key.serialize_pem() })
    }
}

fn parameters(names: Vec<String>, common_name: &str) -> Result<CertificateParams> {
    let mut params = CertificateParams::new(names).map_err(failed)?;
    params.distinguished_name.push(DnType::CommonName, common_name.chars().take(64).collect::<String>());
    let year = i32::from(jiff::Timestamp::now().to_zoned(jiff::tz::TimeZone::UTC).year());
    // The first of January of this year, so that a clock that is a little behind accepts it.
    params.not_before = rcgen::date_time_ymd(year, 1, 1);
    params.not_after = rcgen::date_time_ymd(year + YEARS, 1, 1);
    Ok(params)
}

fn failed(error: rcgen::Error) -> String {
    format!("cannot make a certificate: {error}")
}
