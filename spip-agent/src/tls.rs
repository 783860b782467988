//! The TLS server: completes handshakes, so that the payload can be read.
//!
//! It wants to hear clients, not to protect anything. Hence every suite and group of the provider is served, every
//! server name is answered, the client's favourite application protocol is agreed to, and any client certificate is
//! accepted. What it does not do: resume sessions (each session shows its full handshake, and nothing is kept for
//! clients that left), early data, compression of certificates, and versions before TLS 1.2, which the library
//! lacks; the feature `legacy-tls` asks another one for those.
//!
//! A ClientHello is read by [`spip_protocol::client_hello`] before this module sees it. That makes it possible to
//! choose the answer per client: certificate and application protocol go into a configuration of their own, whose
//! making is a few reference counts beside a signature of a hundred microseconds.

mod carrier;
mod certificate;
mod client_auth;
mod driver;
mod facts;
mod failure;
mod identity;
#[cfg(feature = "legacy-tls")]
mod legacy;
mod masked_name;
mod mint;
mod replay;
mod stream;
mod suites;

pub use carrier::{Carrier, Framing, Unwrapper};
pub use certificate::CertificateError;
pub use client_auth::{ClientCertificate, MAX_NAME_CHARS};
pub use facts::{Facts, Handshake, HelloFacts, Session, Tls};
pub use failure::Failure;
pub use identity::Identity;
pub use replay::{Meter, Replay};
pub use stream::Stream;

use std::sync::{Arc, PoisonError, RwLock};

use rustls::ServerConfig;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::server::{ClientHello as RustlsHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};

use crate::config;
use driver::Driver;
use mint::{CertificateName, KeyKind, Mint};
use spip_protocol::client_hello::{ClientHello, Version, handshake_message};

/// Reasons why there is no TLS server.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// No key could be made for the sensor's own certificates.
    #[error("cannot make a key for minted certificates")]
    Key(#[from] mint::MintError),
    /// The provider and the protocol versions do not fit each other.
    #[error("cannot set up tls")]
    Setup(#[from] rustls::Error),
}

/// Completes handshakes; one for the whole process, shared by all sessions.
#[derive(Debug)]
pub struct TlsServer {
    /// All that does not depend on the client.
    base: ServerConfig,
    /// The same for clients whose server name is hidden from the library.
    base_for_hidden_names: ServerConfig,
    certificates: Certificates,
    asks_client_certificate: bool,
}

/// Sources of certificates.
#[derive(Debug)]
enum Certificates {
    /// The operator's, as it was when it was last read well.
    Given(RwLock<Arc<Identity>>),
    /// Minted for each server name.
    Minted(Arc<Mint>),
}

/// A completed handshake.
#[derive(Debug)]
pub struct Accepted<S> {
    /// The decrypted stream. Boxed, because the library's state is large beside all else that a session holds.
    pub stream: Box<Stream<S>>,
    /// Agreed parameters.
    pub session: Session,
}

/// A handshake that did not complete.
#[derive(Debug)]
pub struct Rejected<S> {
    /// Reason.
    pub failure: Failure,
    /// The stream beneath; the alert that says so to the client, if any, was written already. What the client sent
    /// in clear behind its hello can be had from it.
    pub stream: Replay<S>,
}

/// A server as it will be when what was read for it is taken up; until then nothing has changed.
#[derive(Debug)]
#[must_use]
pub struct Renewal {
    server: Arc<TlsServer>,
    loaded: Option<Identity>,
}

impl Renewal {
    /// From now on new handshakes use what was read; running sessions keep what they have.
    #[must_use]
    pub fn take_up(self) -> Arc<TlsServer> {
        if let (Certificates::Given(current), Some(loaded)) = (&self.server.certificates, self.loaded) {
            *current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(loaded);
        }
        self.server
    }
}

impl From<TlsServer> for Renewal {
    fn from(server: TlsServer) -> Self {
        Self { server: Arc::new(server), loaded: None }
    }
}

/// Reads the operator's certificate and its key.
///
/// Reads files: not for the accept path.
///
/// # Errors
/// They cannot be used.
pub fn read_certificate(files: &config::CertificateFiles) -> Result<Identity, CertificateError> {
    certificate::load(files, &aws_lc_rs::default_provider())
}

impl TlsServer {
    /// Builds the server that shows `certificate`; without one, makes a key for minting. `asks_client_certificate` is
    /// `tls_client_certificates` of the configuration.
    ///
    /// Starts no thread, so that it may run before privileges are dropped.
    ///
    /// # Errors
    /// When the machine gives no randomness.
    pub fn new(certificate: Option<Identity>, asks_client_certificate: bool) -> Result<Self, TlsError> {
        let provider = Arc::new(CryptoProvider {
            cipher_suites: suites::served(),
            kx_groups: aws_lc_rs::ALL_KX_GROUPS.to_vec(),
            ..aws_lc_rs::default_provider()
        });
        let certificates = match certificate {
            Some(certificate) => Certificates::Given(RwLock::new(Arc::new(certificate))),
            None => Certificates::Minted(Arc::new(Mint::new(Arc::clone(&provider))?)),
        };
        Ok(Self {
            base: base(&provider, asks_client_certificate)?,
            base_for_hidden_names: base(&masked_name::provider(&provider), asks_client_certificate)?,
            certificates,
            asks_client_certificate,
        })
    }

    /// Prepares to show what was read of the operator's certificate anew, from [`Renewal::take_up`] on. A server that
    /// mints stays as it is.
    pub fn renew(self: &Arc<Self>, certificate: Option<Identity>) -> Renewal {
        Renewal { server: Arc::clone(self), loaded: certificate }
    }

    /// Completes the handshake of a client whose hello was read, on a stream that repeats this hello from its first
    /// byte (see [`Replay`]). The hello and the bytes behind it may go as soon as this returns its future.
    ///
    /// There is no deadline in here: drop the future when the session's has passed.
    pub fn accept<'a, S>(
        &'a self,
        hello: &ClientHello<'_>,
        mut stream: Replay<S>,
    ) -> impl Future<Output = Result<Accepted<S>, Rejected<S>>> + use<'a, S>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let version = chosen_version(hello);
        let refusal = version.is_none().then(|| {
            let alert = protocol_version_alert(hello.legacy_version);
            (alert, Failure::NoCommonVersion(hello.highest_version()))
        });
        let has_suite = version.is_some_and(|version| self.serves_a_suite_of(hello, version));
        #[cfg(feature = "legacy-tls")]
        let legacy = !has_suite && legacy::may_serve(hello);
        #[cfg(not(feature = "legacy-tls"))]
        let legacy = false;
        #[cfg(feature = "legacy-tls")]
        let kind = match (legacy, legacy::wants_ecdsa(hello)) {
            (true, true) => KeyKind::Ecdsa,
            (true, false) => KeyKind::Rsa,
            (false, _) => KeyKind::for_client(hello),
        };
        #[cfg(not(feature = "legacy-tls"))]
        let kind = KeyKind::for_client(hello);
        let server_name = mint::certificate_name(hello.server_name);
        let protocol = favourite_protocol(hello).map(<[u8]>::to_vec);
        // The other library takes any name, and hashes the hello as it is.
        let hides = !legacy && masked_name::is_needed(hello, &handshake_message(stream.hello()));
        let base = if hides && stream.rewrite_hellos(masked_name::hide, version == Some(Version::TLS_1_3)) {
            &self.base_for_hidden_names
        } else {
            &self.base
        };
        async move {
            #[cfg(feature = "legacy-tls")]
            if legacy {
                return self.accept_legacy(server_name, kind, stream).await;
            }
            if let Some((alert, failure)) = refusal {
                // Whether the client still listens makes no difference to the record.
                let _ = stream.write_all(&alert).await;
                return Err(Rejected { failure, stream });
            }
            let identity = match self.identity(server_name, kind).await {
                Ok(identity) => identity,
                Err(failure) => return Err(Rejected { failure, stream }),
            };
            let config = config_for(base, &identity, protocol);
            // Boxed: the library's state would otherwise count for every session that never speaks TLS.
            match Box::pin(Driver::accept(config, stream)).await {
                Ok(driver) => {
                    let session = self.session(driver.agreed());
                    Ok(Accepted { stream: Box::new(Stream::new(driver)), session })
                }
                Err((error, stream)) => {
                    let failure = match Failure::of_stream(&error) {
                        _ if stream.is_in_clear() => Failure::Violation(IN_CLEAR.to_owned()),
                        // The library looks at groups first, which clients with other suites need not send.
                        Failure::NoCommonGroup | Failure::Incompatible(_) if !has_suite => Failure::NoCommonCipherSuite,
                        other => other,
                    };
                    Err(Rejected { failure, stream })
                }
            }
        }
    }

    /// The certificate to show.
    async fn identity(&self, name: Option<CertificateName>, kind: KeyKind) -> Result<Arc<Identity>, Failure> {
        match &self.certificates {
            Certificates::Given(current) => Ok(Arc::clone(&current.read().unwrap_or_else(PoisonError::into_inner))),
            Certificates::Minted(mint) => {
                mint.certificate(name, kind).await.map_err(|error| Failure::Internal(error.to_string()))
            }
        }
    }

    /// Completes the handshake of a client that the library cannot serve, with the other one.
    #[cfg(feature = "legacy-tls")]
    async fn accept_legacy<S>(
        &self,
        name: Option<CertificateName>,
        kind: KeyKind,
        stream: Replay<S>,
    ) -> Result<Accepted<S>, Rejected<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let identity = match self.identity(name, kind).await {
            Ok(identity) => identity,
            Err(failure) => return Err(Rejected { failure, stream }),
        };
        match Box::pin(legacy::accept(&identity, self.asks_client_certificate, stream)).await {
            Ok((stream, session)) => Ok(Accepted { stream: Box::new(Stream::legacy(stream)), session }),
            Err((_, stream)) if stream.is_in_clear() => {
                Err(Rejected { failure: Failure::Violation(IN_CLEAR.to_owned()), stream })
            }
            Err((failure, stream)) => Err(Rejected { failure, stream }),
        }
    }

    fn serves_a_suite_of(&self, hello: &ClientHello<'_>, version: Version) -> bool {
        let served = &self.base.crypto_provider().cipher_suites;
        let is_of_1_3 = version == Version::TLS_1_3;
        let mut served = served.iter().filter(|suite| suite.tls13().is_some() == is_of_1_3);
        served.any(|suite| hello.cipher_suites.contains(suite.suite().into()))
    }

    fn session(&self, connection: &rustls::CommonState) -> Session {
        Session {
            version: connection.protocol_version().map_or("unknown", facts::version_name),
            cipher_suite: connection
                .negotiated_cipher_suite()
                .map(|suite| facts::iana_name(suite.suite()))
                .unwrap_or_default(),
            protocol: connection.alpn_protocol().map(|name| String::from_utf8_lossy(name).into_owned()),
            client_certificate: if self.asks_client_certificate {
                ClientCertificate::of_chain(connection.peer_certificates().unwrap_or_default())
            } else {
                ClientCertificate::NotAsked
            },
        }
    }
}

/// Builds the configuration of one client from the shared one.
fn config_for(base: &ServerConfig, identity: &Identity, protocol: Option<Vec<u8>>) -> Arc<ServerConfig> {
    let mut config = base.clone();
    config.cert_resolver = Arc::new(Fixed(Some(identity.certified())));
    config.alpn_protocols = Vec::from_iter(protocol);
    Arc::new(config)
}

fn base(provider: &Arc<CryptoProvider>, asks_client_certificate: bool) -> Result<ServerConfig, rustls::Error> {
    let builder = ServerConfig::builder_with_provider(Arc::clone(provider))
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?;
    let builder = if asks_client_certificate {
        builder.with_client_cert_verifier(Arc::new(client_auth::AnyClient::new(provider)))
    } else {
        builder.with_no_client_auth()
    };
    let mut base = builder.with_cert_resolver(Arc::new(Fixed(None)));
    base.session_storage = Arc::new(NoServerSessionStorage {});
    base.send_tls13_tickets = 0;
    base.ignore_client_order = suites::has_order();
    Ok(base)
}

/// Reason of a handshake that went on as something else.
const IN_CLEAR: &str = "bytes in clear instead of a record";

/// The version that the library speaks with this client, if any.
fn chosen_version(hello: &ClientHello<'_>) -> Option<Version> {
    if hello.lists_versions() {
        let offers = |version: &Version| hello.supported_versions.contains(version.0);
        [Version::TLS_1_3, Version::TLS_1_2].into_iter().find(offers)
    } else {
        (hello.legacy_version >= Version::TLS_1_2).then_some(Version::TLS_1_2)
    }
}

/// Builds the answer of a server to a client without any version in common. The library would first complain of
/// extensions that such a client cannot know.
fn protocol_version_alert(version: Version) -> [u8; 7] {
    const ALERT: u8 = 21;
    const FATAL: u8 = 2;
    const PROTOCOL_VERSION: u8 = 70;
    let [major, minor] = version.0.to_be_bytes();
    [ALERT, major, minor, 0, 2, FATAL, PROTOCOL_VERSION]
}

/// Returns the protocol that the client prefers, without the names that RFC 8701 reserves, which servers ignore.
fn favourite_protocol<'a>(hello: &ClientHello<'a>) -> Option<&'a [u8]> {
    hello.protocols.iter_without_grease().find(|name| !name.is_empty())
}

/// The versions that are served, for messages.
fn served_versions() -> String {
    if cfg!(feature = "legacy-tls") {
        format!("{} to {} served", Version::TLS_1_0, Version::TLS_1_3)
    } else {
        format!("{} and {} served", Version::TLS_1_2, Version::TLS_1_3)
    }
}

/// Answers every hello with one certificate, whatever name it asks for.
#[derive(Debug)]
struct Fixed(Option<Arc<CertifiedKey>>);

impl ResolvesServerCert for Fixed {
    fn resolve(&self, _: RustlsHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.clone()
    }
}

#[cfg(test)]
pub(crate) mod tests;
