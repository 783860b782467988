//! Certificates for whatever name a client asks for.
//!
//! They look like what thousands of small servers show: self-signed for the name, a year long, started some months
//! ago, with the extensions and the serial number of `openssl req -x509`. Everything about a certificate follows from
//! its name and a secret of this process, so that a name that is asked for again has the same certificate even after
//! it fell out of the cache.
//!
//! Names are a client's, and signatures cost time. As many as [`RATE`] allows are minted, one at a time, on the
//! runtime's threads for blocking work; over that rate a client gets the certificate for no name at all, which
//! exists already. Clients that take no ECDSA get RSA.
//!
//! Each name has an ECDSA key of its own, which follows from the name and the secret, too: two names that show one key are one
//! sensor. An RSA key takes a tenth of a second to make, so names share [`RSA_KEYS`] of them, each made when the first name
//! that it is for comes.

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
/// RSA keys that names share: each costs about 100 ms once, and 2 kB.
const RSA_KEYS: usize = 8;
/// PKCS #8 (RFC 5208) of a key of P-256 (RFC 5915) up to its 32 bytes, without the public key, which follows from them.
const PKCS8_P256: [u8; 35] = [
    0x30, 0x41, 0x02, 0x01, 0x00, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a,
    0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x04, 0x27, 0x30, 0x25, 0x02, 0x01, 0x01, 0x04, 0x20,
];
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
    rsa: [OnceLock<Arc<Key>>; RSA_KEYS],
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
            rsa: Default::default(),
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
        let key = self.key(kind, &digest)?;
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

    /// The key of the name that `digest` stands for.
    fn key(&self, kind: KeyKind, digest: &[u8; 32]) -> Result<Arc<Key>, MintError> {
        if kind == KeyKind::Ecdsa {
            return Ok(Arc::new(Key::ecdsa(&self.secret, digest, &self.provider)?));
        }
        // The last byte decides on nothing else that is shown.
        let slot = &self.rsa[usize::from(digest[31]) % RSA_KEYS];
        match slot.get() {
            Some(key) => Ok(Arc::clone(key)),
            None => {
                let key = Key::new(KeyPair::generate_for(&PKCS_RSA_SHA256)?, &self.provider)?;
                Ok(Arc::clone(slot.get_or_init(|| Arc::new(key))))
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
    fn new(pair: KeyPair, provider: &CryptoProvider) -> Result<Self, MintError> {
        let secret = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(pair.serialize_der()));
        let signs_handshakes = provider.key_provider.load_private_key(secret.clone_key())?;
        Ok(Self { signs_certificates: pair, signs_handshakes, secret })
    }

    /// The ECDSA key that follows from the secret of the process and what stands for a name.
    fn ecdsa(secret: &[u8; 32], digest: &[u8; 32], provider: &CryptoProvider) -> Result<Self, MintError> {
        /// One hash in 2^32 is no key of P-256; as many in a row do not occur.
        const ATTEMPTS: u8 = 8;
        let mut attempt = 0;
        loop {
            let number = Sha256::new().chain_update(b"key").chain_update(secret).chain_update(digest);
            let mut der = PKCS8_P256.to_vec();
            der.extend(number.chain_update([attempt]).finalize());
            let der = PrivatePkcs8KeyDer::from(der);
            match KeyPair::from_pkcs8_der_and_sign_algo(&der, &PKCS_ECDSA_P256_SHA256) {
                Ok(pair) => return Self::new(pair, provider),
                Err(error) if attempt == ATTEMPTS => return Err(error.into()),
                Err(_) => attempt += 1,
            }
        }
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
