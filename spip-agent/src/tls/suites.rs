//! Chooses the order of cipher suites: on a processor with instructions for SHA-256 and none that the library uses for
//! SHA-384, those with AES-128 and SHA-256 come before the client's own favourite.
//!
//! The key schedule of TLS 1.3 hashes a dozen times. Where SHA-384 is computed without hardware, that is an eighth of a
//! handshake. Every suite is served in any case, so a client that offers only others gets one of those.

use rustls::SupportedCipherSuite;
use rustls::crypto::aws_lc_rs::ALL_CIPHER_SUITES;

/// Returns all suites, the preferred ones first.
pub(super) fn served() -> Vec<SupportedCipherSuite> {
    ordered(has_order())
}

/// Reports whether the server's order counts, and not the client's.
pub(super) fn has_order() -> bool {
    // The library computes SHA-384 on x86-64 in vector code, also where the processor has SHA-512 instructions.
    #[cfg(target_arch = "x86_64")]
    return std::arch::is_x86_feature_detected!("sha");
    #[cfg(target_arch = "aarch64")]
    return std::arch::is_aarch64_feature_detected!("sha2") && !std::arch::is_aarch64_feature_detected!("sha3");
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    return false;
}

fn ordered(has_order: bool) -> Vec<SupportedCipherSuite> {
    let mut suites = ALL_CIPHER_SUITES.to_vec();
    if has_order {
        suites.sort_by_key(|suite| !is_fast(*suite));
    }
    suites
}

/// Reports whether a suite needs nothing but AES and SHA-256.
fn is_fast(suite: SupportedCipherSuite) -> bool {
    use rustls::CipherSuite;
    matches!(
        suite.suite(),
        CipherSuite::TLS13_AES_128_GCM_SHA256
            | CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256
            | CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_suite_is_served_in_either_order() {
        let names = |suites: Vec<SupportedCipherSuite>| suites.iter().map(|suite| suite.suite()).collect::<Vec<_>>();
        let (own, library) = (names(ordered(true)), names(ordered(false)));
        assert_eq!(library, names(ALL_CIPHER_SUITES.to_vec()));
        assert_eq!(own.len(), library.len());
        assert!(library.iter().all(|suite| own.contains(suite)));
        assert!(own.iter().take(3).all(|suite| format!("{suite:?}").ends_with("AES_128_GCM_SHA256")), "{own:?}");
    }
}
