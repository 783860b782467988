//! Certificates for whatever name a client asks for.
//!
//! They look like what thousands of small servers show: self-signed for the name, a year long, started some months
//! ago, with the extensions and the serial number of `openssl req -x509`. Everything about a certificate follows from
//! its name and a secret of this process, so that a name that is asked for again has the same certificate even after
//! it fell out of the cache.
//!
//! Names are a client's, and signatures cost time. As many as [`RATE`] allows are minted, one at a time, on the
//! runtime's threads for blocking work; over that rate a client gets the certificate for no name at all, which
//! exists already. Clients that take no ECDSA get RSA; its key is made when the first of them comes.

mod name;

pub(super) use name::{CertificateName, certificate_name};

use std::fmt;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use lru::LruCache;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, KeyPair, PKCS_ECDSA_P256_SHA256,
    PKCS_RSA_SHA256, SerialNumber,
};
use rustls::SignatureScheme;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::sign::SigningKey;
use sha2::{Digest, Sha256};
use tokio::sync::Semaphore;

use super::identity::Identity;
use crate::process::rate::{Bucket, Rate};
use spip_protocol::client_hello::{ClientHello, Version, extension};

/// Certificates that are kept; each takes about a kilobyte.
const CACHED: NonZeroUsize = NonZeroUsize::new(1024).expect("not zero");
/// Certificates that are minted: 30 a second in the long run, 60 at once after a quiet time. An RSA signature takes about a
/// millisecond: 3 % of one core.
const RATE: Rate = Rate { per_second: 30.0, burst: 60.0 };
/// Lifetime of a certificate; the default of many instructions on the web.
const LIFETIME: Duration = Duration::from_secs(365 * DAY);
const DAY: u64 = 24 * 60 * 60;

/// Reasons why no certificate could be made.
#[derive(Debug, thiserror::Error)]
pub enum MintError {
    /// The machine gives no random numbers.
    #[error("no random numbers from the system")]
    Random,
    /// The key could not be made, or did not sign.
    #[error(transparent)]
    Certificate(#[from] rcgen::Error),
    /// The library does not take the key.
    #[error(transparent)]
    Key(#[from] rustls::Error),
    /// The runtime is shutting down.
    #[error("the runtime is shutting down")]
    ShuttingDown,
}

/// The kind of key in a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum KeyKind {
    /// ECDSA with P-256: small and quick.
    Ecdsa,
    /// RSA with 2048 bits.
    Rsa,
}

impl KeyKind {
    /// The kind that a client takes, ECDSA first.
    pub(super) fn for_client(hello: &ClientHello<'_>) -> Self {
        /// The ECDHE_ECDSA suites that the library has for TLS 1.2 (RFC 5289, RFC 7905).
        const ECDSA_SUITES: [u16; 3] = [0xc02b, 0xc02c, 0xcca9];
        const P_256: u16 = 0x0017;
        let signs = hello.signature_algorithms.contains(SignatureScheme::ECDSA_NISTP256_SHA256.into());
        // Suites of TLS 1.3 leave the kind of key open. Those of TLS 1.2 name it, and the list of groups holds for the
        // key of the certificate too (RFC 8422, section 5.1).
        let suits = hello.supported_versions.contains(Version::TLS_1_3.0)
            || ECDSA_SUITES.iter().any(|suite| hello.cipher_suites.contains(*suite))
                && (!hello.extensions.contains(extension::SUPPORTED_GROUPS) || hello.groups.contains(P_256));
        if signs && suits { Self::Ecdsa } else { Self::Rsa }
    }
}

/// Makes and keeps certificates.
pub(super) struct Mint {
    provider: Arc<CryptoProvider>,
    secret: [u8; 32],
    /// Start of all validities.
    started: Duration,
    ecdsa: Key,
    rsa: OnceLock<Key>,
    cache: Mutex<LruCache<(KeyKind, Option<CertificateName>), Minted>>,
    bucket: Mutex<Bucket>,
    /// One at a time: minting never takes more than one core.
    turn: Arc<Semaphore>,
}

/// A key in the forms in which it is needed.
struct Key {
    signs_certificates: KeyPair,
    signs_handshakes: Arc<dyn SigningKey>,
    secret: PrivateKeyDer<'static>,
}

#[derive(Clone)]
struct Minted {
    certificate: Arc<Identity>,
    /// End of validity, since the Unix epoch.
    expires: Duration,
}

impl Mint {
    pub(super) fn new(provider: Arc<CryptoProvider>) -> Result<Self, MintError> {
        let mut secret = [0; 32];
        provider.secure_random.fill(&mut secret).map_err(|_| MintError::Random)?;
        let mint = Self {
            ecdsa: Key::generate(KeyKind::Ecdsa, &provider)?,
            rsa: OnceLock::new(),
            secret,
            started: now(),
            cache: Mutex::new(LruCache::new(CACHED)),
            bucket: Mutex::new(Bucket::full(RATE, Instant::now())),
            turn: Arc::new(Semaphore::new(1)),
            provider,
        };
        mint.mint_and_keep(KeyKind::Ecdsa, None)?;
        Ok(mint)
    }

    /// The certificate for a name, or for clients that ask for none.
    ///
    /// Waits for the minting of new ones. Over the rate a named client gets the certificate for no name.
    pub(super) async fn certificate(
        self: &Arc<Self>,
        name: Option<CertificateName>,
        kind: KeyKind,
    ) -> Result<Arc<Identity>, MintError> {
        let key = (kind, name);
        if let Some(certificate) = self.kept(&key) {
            return Ok(certificate);
        }
        let key = if self.may_mint() { key } else { (kind, None) };
        if let Some(certificate) = self.kept(&key) {
            return Ok(certificate);
        }
        let turn = Arc::clone(&self.turn).acquire_owned().await;
        let turn = turn.map_err(|_| MintError::ShuttingDown)?;
        // Others may have asked for the same name and had their turn.
        if let Some(certificate) = self.kept(&key) {
            return Ok(certificate);
        }
        let mint = Arc::clone(self);
        tokio::task::spawn_blocking(move || {
            let _turn = turn;
            mint.mint_and_keep(key.0, key.1)
        })
        .await
        .map_err(|_| MintError::ShuttingDown)?
    }

    fn may_mint(&self) -> bool {
        self.bucket.lock().unwrap_or_else(PoisonError::into_inner).take(RATE, Instant::now())
    }

    fn kept(&self, key: &(KeyKind, Option<CertificateName>)) -> Option<Arc<Identity>> {
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        let minted = cache.get(key).filter(|minted| now() < minted.expires)?;
        Some(Arc::clone(&minted.certificate))
    }

    fn mint_and_keep(&self, kind: KeyKind, name: Option<CertificateName>) -> Result<Arc<Identity>, MintError> {
        let minted = self.mint(kind, name.as_ref(), now())?;
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        cache.put((kind, name), minted.clone());
        Ok(minted.certificate)
    }

    fn mint(&self, kind: KeyKind, name: Option<&CertificateName>, now: Duration) -> Result<Minted, MintError> {
        // Name of a server without one.
        let text = name.map_or("localhost", CertificateName::as_str);
        let digest: [u8; 32] =
            Sha256::new().chain_update(self.secret).chain_update([kind as u8]).chain_update(text).finalize().into();
        let (start, expires) = validity(&digest, self.started, now);
        let epoch = rcgen::date_time_ymd(1970, 1, 1);
        let mut params = CertificateParams::new([text.to_owned()])?;
        params.not_before = epoch + start;
        params.not_after = epoch + expires;
        params.serial_number = Some(serial(&digest));
        params.distinguished_name = DistinguishedName::new();
        // RFC 5280, appendix A.1: ub-common-name. A longer one stands in the alternative names only.
        if text.len() <= 64 {
            params.distinguished_name.push(DnType::CommonName, text);
        }
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.use_authority_key_identifier_extension = true;
        let key = self.key(kind)?;
        let certificate = params.self_signed(&key.signs_certificates)?;
        Ok(Minted {
            certificate: Arc::new(Identity::new(
                vec![certificate.into()],
                Arc::clone(&key.signs_handshakes),
                &key.secret,
            )),
            expires,
        })
    }

    fn key(&self, kind: KeyKind) -> Result<&Key, MintError> {
        match (kind, self.rsa.get()) {
            (KeyKind::Ecdsa, _) => Ok(&self.ecdsa),
            (KeyKind::Rsa, Some(key)) => Ok(key),
            (KeyKind::Rsa, None) => {
                let key = Key::generate(KeyKind::Rsa, &self.provider)?;
                Ok(self.rsa.get_or_init(|| key))
            }
        }
    }
}

impl fmt::Debug for Mint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Neither secret nor keys belong into a message.
        f.debug_struct("Mint").finish_non_exhaustive()
    }
}

impl Key {
    fn generate(kind: KeyKind, provider: &CryptoProvider) -> Result<Self, MintError> {
        let pair = KeyPair::generate_for(match kind {
            KeyKind::Ecdsa => &PKCS_ECDSA_P256_SHA256,
            KeyKind::Rsa => &PKCS_RSA_SHA256,
        })?;
        let secret = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(pair.serialize_der()));
        let signs_handshakes = provider.key_provider.load_private_key(secret.clone_key())?;
        Ok(Self { signs_certificates: pair, signs_handshakes, secret })
    }
}

/// Start and end of the validity that holds `now`: some time within the ten months before the process started, and
/// a whole number of lifetimes later for a process that runs that long.
fn validity(digest: &[u8; 32], started: Duration, now: Duration) -> (Duration, Duration) {
    let [a, b, c, d, ..] = *digest;
    let age = Duration::from_secs(DAY + u64::from(u32::from_be_bytes([a, b, c, d])) % (300 * DAY));
    let first = started.saturating_sub(age);
    let renewals = now.saturating_sub(first).as_secs() / LIFETIME.as_secs();
    let start = Duration::from_secs(first.as_secs() + renewals * LIFETIME.as_secs());
    (start, start + LIFETIME)
}

/// Twenty bytes, positive: what `openssl` draws at random.
fn serial(digest: &[u8; 32]) -> SerialNumber {
    let mut bytes = [0; 20];
    bytes.copy_from_slice(&digest[12..]);
    bytes[0] = bytes[0] & 0x7f | 0x10;
    SerialNumber::from_slice(&bytes)
}

/// Time since the Unix epoch.
fn now() -> Duration {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}

#[cfg(test)]
mod tests;
