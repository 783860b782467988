//! TLS clients that trust every certificate: the sensor makes one for each name.

use std::sync::Arc;

use rustls::client::Resumption;
use rustls::crypto::CryptoProvider;
use rustls::{ClientConfig, SupportedProtocolVersion};
use spip_tls_client::Trust;

/// A client that remembers no session.
///
/// # Panics
/// When the provider has nothing for these versions.
#[must_use]
pub fn client(provider: CryptoProvider, versions: &[&'static SupportedProtocolVersion]) -> ClientConfig {
    let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(versions)
        .expect("the provider has suites for them")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Trust(true)))
        .with_no_client_auth();
    config.resumption = Resumption::disabled();
    config
}
