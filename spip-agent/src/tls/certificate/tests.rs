use super::*;
use rustls::crypto::aws_lc_rs::default_provider;
use std::os::unix::fs::MetadataExt as _;
use std::sync::atomic::{AtomicU32, Ordering};

/// The path of a fixture.
pub(in crate::tls) fn fixture(name: &str) -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/tls")).join(name)
}

/// A chain and a key among the fixtures.
pub(in crate::tls) fn files(chain: &str, key: &str) -> CertificateFiles {
    CertificateFiles { chain: own(chain), key: own(key) }
}

/// The path of a fixture that root reads, too: a copy where the tests run as root in a checkout of another user.
fn own(name: &str) -> PathBuf {
    let fixture = fixture(name);
    let own = nix::unistd::geteuid().as_raw();
    if std::fs::metadata(&fixture).map_or(true, |found| found.uid() == own) {
        return fixture;
    }
    let directory = std::env::temp_dir().join(format!("spip-fixtures-{own}"));
    let _ = std::fs::create_dir(&directory);
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let part = directory.join(format!("{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed)));
    std::fs::write(&part, std::fs::read(&fixture).expect("fixture")).expect("copy");
    let copy = directory.join(name);
    std::fs::rename(part, &copy).expect("copy");
    copy
}

/// A directory that goes when the test ends.
pub(in crate::tls) struct Directory(PathBuf);

impl Directory {
    pub(in crate::tls) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("spip-certificates-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir(&path).expect("directory");
        Self(path)
    }

    pub(in crate::tls) fn write(&self, name: &str, content: &[u8]) -> PathBuf {
        let path = self.0.join(name);
        std::fs::write(&path, content).expect("file");
        path
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn refusal(files: &CertificateFiles) -> String {
    load(files, &default_provider()).expect_err("refused").to_string()
}

#[test]
fn keys_are_read_in_every_form() {
    for (chain, key) in [
        ("ecdsa-chain.crt", "ecdsa-sec1.key"),
        ("ecdsa-chain.crt", "ecdsa-pkcs8.key"),
        ("rsa-chain.crt", "rsa-pkcs1.key"),
        ("rsa-chain.crt", "rsa-pkcs8.key"),
    ] {
        let loaded = load(&files(chain, key), &default_provider()).expect(key);
        assert_eq!(loaded.cert.len(), 2, "leaf and root");
        loaded.keys_match().expect("a pair");
    }
}

#[test]
fn a_key_of_another_certificate_is_refused() {
    for key in ["rsa-pkcs8.key", "client.key"] {
        let message = refusal(&files("ecdsa-chain.crt", key));
        assert!(message.contains("does not belong"), "{message}");
        assert!(message.contains(key) && message.contains("ecdsa-chain.crt"));
    }
}

#[test]
fn swapped_files_are_refused_by_what_they_lack() {
    let message = refusal(&files("ecdsa-pkcs8.key", "ecdsa-chain.crt"));
    assert!(message.contains("holds no certificate"), "{message}");
    let message = refusal(&files("ecdsa-chain.crt", "ecdsa-chain.crt"));
    assert!(message.contains("holds no private key"), "{message}");
}

#[test]
fn an_encrypted_key_is_refused_with_the_command_that_decrypts_it() {
    let message = refusal(&files("ecdsa-chain.crt", "encrypted.key"));
    assert!(message.contains("openssl pkey -in"), "{message}");
    let directory = Directory::new();
    let old = b"-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00\n\nAAAA\n-----END RSA PRIVATE KEY-----\n";
    let message = refusal(&CertificateFiles { chain: own("rsa-chain.crt"), key: directory.write("old.key", old) });
    assert!(message.contains("is encrypted"), "{message}");
}

#[test]
fn unreadable_and_endless_files_are_refused() {
    let message = refusal(&files("nothing.crt", "ecdsa-pkcs8.key"));
    assert!(message.contains("cannot read cert_path"), "{message}");
    let message = refusal(&CertificateFiles { chain: PathBuf::from("/dev/zero"), key: own("ecdsa-pkcs8.key") });
    assert!(message.contains("cannot read cert_path /dev/zero"), "{message}");
    let directory = Directory::new();
    let large = directory.write("large.crt", &vec![b'a'; (1 << 20) + 1]);
    let message = refusal(&CertificateFiles { chain: large, key: own("ecdsa-pkcs8.key") });
    assert!(message.contains("larger than 1 MiB"), "{message}");
}

#[test]
fn broken_files_are_refused() {
    let directory = Directory::new();
    let key = own("ecdsa-pkcs8.key");
    for (content, expected) in [
        (&b""[..], "holds no certificate"),
        (b"\xff\xfe\x00", "holds no certificate"),
        (b"-----BEGIN CERTIFICATE-----\n!!!!\n-----END CERTIFICATE-----\n", "broken PEM"),
        (b"-----BEGIN CERTIFICATE-----\nAAAA\n", "broken PEM"),
        (b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "certificate 1 in"),
    ] {
        let message = refusal(&CertificateFiles { chain: directory.write("broken.crt", content), key: key.clone() });
        assert!(message.contains(expected), "{message}");
    }
    let message = refusal(&CertificateFiles {
        chain: own("ecdsa-chain.crt"),
        key: directory.write("broken.key", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"),
    });
    assert!(message.contains("cannot be used"), "{message}");
}
