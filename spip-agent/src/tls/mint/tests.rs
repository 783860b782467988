use super::*;
use crate::tls::tests::run;
use rustls::crypto::aws_lc_rs::default_provider;
use spip_protocol::client_hello::ServerName;
use spip_protocol::client_hello::sample::Hello;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

fn mint() -> Arc<Mint> {
    Arc::new(Mint::new(Arc::new(default_provider())).expect("mint"))
}

fn name(text: &str) -> Option<CertificateName> {
    Some(certificate_name(ServerName::Name(text.as_bytes())).expect("name"))
}

fn der(certificate: &Identity) -> &[u8] {
    &certificate.cert[0]
}

#[test]
fn a_certificate_looks_like_a_small_servers() {
    let mint = mint();
    for kind in [KeyKind::Ecdsa, KeyKind::Rsa] {
        let minted = mint.mint(kind, name("www.example.com").as_ref(), now()).expect("minted");
        minted.certificate.keys_match().expect("a pair");
        let der = der(&minted.certificate);
        let (rest, certificate) = X509Certificate::from_der(der).expect("certificate");
        assert!(rest.is_empty());
        assert_eq!(certificate.subject().to_string(), "CN=www.example.com");
        assert_eq!(certificate.issuer(), certificate.subject());
        assert!(certificate.validity().is_valid());
        let names = certificate.subject_alternative_name().expect("readable").expect("present");
        assert_eq!(names.value.general_names, [GeneralName::DNSName("www.example.com")]);
        assert_eq!(certificate.raw_serial().len(), 20);
        let text = String::from_utf8_lossy(der).to_lowercase();
        assert!(!text.contains("rcgen") && !text.contains("spip"));
    }
}

#[test]
fn a_name_that_was_forgotten_has_the_same_certificate_again() {
    let mint = mint();
    let minted = |name: &str| {
        let name = certificate_name(ServerName::Name(name.as_bytes()));
        let minted = mint.mint(KeyKind::Rsa, name.as_ref(), now());
        der(&minted.expect("minted").certificate).to_vec()
    };
    assert_eq!(minted("a.example"), minted("A.example."));
    assert_ne!(minted("a.example"), minted("b.example"));
    assert_eq!(minted(""), minted("not a name"));
}

#[test]
fn each_name_has_a_key_of_its_own_and_the_same_again() {
    let mint = mint();
    let keys = |kind, name_of: &dyn Fn(usize) -> String| -> Vec<Vec<u8>> {
        let minted = (0..40).map(|number| mint.mint(kind, name(&name_of(number)).as_ref(), now()).expect("minted"));
        let key = |minted: Minted| {
            let (_, certificate) = X509Certificate::from_der(der(&minted.certificate)).expect("certificate");
            minted.certificate.keys_match().expect("a pair");
            certificate.public_key().subject_public_key.data.to_vec()
        };
        minted.map(key).collect()
    };
    let named = |number: usize| format!("{number}.example");
    let distinct = |keys: &[Vec<u8>]| keys.iter().collect::<std::collections::HashSet<_>>().len();
    let first = keys(KeyKind::Ecdsa, &named);
    assert_eq!(distinct(&first), 40);
    assert_eq!(keys(KeyKind::Ecdsa, &named), first);
    let rsa = keys(KeyKind::Rsa, &named);
    assert!((2..=RSA_KEYS).contains(&distinct(&rsa)), "names share a few keys of RSA");
    assert_eq!(keys(KeyKind::Rsa, &named), rsa);
    // Another process has others.
    let other = Mint::new(Arc::new(default_provider())).expect("mint");
    let other = other.mint(KeyKind::Ecdsa, name("0.example").as_ref(), now()).expect("minted");
    let (_, certificate) = X509Certificate::from_der(der(&other.certificate)).expect("certificate");
    assert_ne!(*certificate.public_key().subject_public_key.data, *first[0]);
}

#[test]
fn addresses_and_long_names_are_carried_too() {
    let mint = mint();
    let long = format!("{}.example", "a".repeat(63)).repeat(3);
    for (text, subject) in [("192.0.2.1", "CN=192.0.2.1"), ("2001:db8::1", "CN=2001:db8::1"), (long.as_str(), "")] {
        let minted = mint.mint(KeyKind::Ecdsa, name(text).as_ref(), now());
        let minted = minted.expect("minted").certificate;
        let (_, certificate) = X509Certificate::from_der(der(&minted)).expect("certificate");
        assert_eq!(certificate.subject().to_string(), subject);
    }
}

#[test]
fn validity_holds_now_and_is_renewed() {
    let started = Duration::from_secs(20_000 * DAY);
    for seed in 0..=255u8 {
        let digest = [seed; 32];
        for days in [0, 1, 100, 364, 365, 366, 3000] {
            let now = started + Duration::from_secs(days * DAY);
            let (start, end) = validity(&digest, started, now);
            assert!(start <= now && now < end, "seed {seed}, day {days}");
            assert_eq!(end - start, LIFETIME);
        }
    }
}

#[test]
fn an_expired_certificate_is_not_served_again() {
    let mint = mint();
    let key = (KeyKind::Ecdsa, name("a.example"));
    let mut minted = mint.mint(key.0, key.1.as_ref(), now()).expect("minted");
    minted.expires = now();
    mint.cache.lock().expect("lock").put(key.clone(), minted);
    assert!(mint.kept(&key).is_none());
}

#[test]
fn a_flood_of_names_is_bounded_in_signatures_and_memory() {
    run(async {
        let mint = mint();
        let default = mint.certificate(None, KeyKind::Ecdsa).await.expect("default");
        let flood = 4 * CACHED.get();
        let begun = Instant::now();
        let mut own = 0;
        for number in 0..flood {
            let name = name(&format!("{number}.example"));
            let certificate = mint.certificate(name, KeyKind::Ecdsa).await.expect("served");
            own += usize::from(!Arc::ptr_eq(&certificate, &default));
        }
        let allowed = RATE.burst + RATE.per_second * begun.elapsed().as_secs_f64();
        assert!(own as f64 >= RATE.burst, "{own} names had a certificate of their own");
        assert!(own as f64 <= allowed + 1.0, "{own} minted, {allowed} allowed");
        assert!(mint.cache.lock().expect("lock").len() <= CACHED.get());
    });
}

#[test]
fn the_cache_forgets_the_least_recently_used() {
    let mint = mint();
    for number in 0..=CACHED.get() {
        let minted =
            Minted { certificate: mint.kept(&(KeyKind::Ecdsa, None)).expect("default"), expires: now() + LIFETIME };
        let key = (KeyKind::Ecdsa, name(&format!("{number}.example")));
        mint.cache.lock().expect("lock").put(key, minted);
    }
    assert_eq!(mint.cache.lock().expect("lock").len(), CACHED.get());
    assert!(mint.kept(&(KeyKind::Ecdsa, name("1.example"))).is_none());
}

#[test]
fn many_who_ask_for_one_new_name_get_one_certificate() {
    run(async {
        let mint = mint();
        let tasks: Vec<_> = (0..50)
            .map(|_| {
                let mint = Arc::clone(&mint);
                tokio::spawn(async move { mint.certificate(name("a.example"), KeyKind::Ecdsa).await })
            })
            .collect();
        let mut certificates = Vec::new();
        for task in tasks {
            certificates.push(task.await.expect("task").expect("certificate"));
        }
        assert!(certificates.iter().all(|other| Arc::ptr_eq(other, &certificates[0])));
    });
}

#[test]
fn a_client_of_tls_1_2_is_shown_no_key_of_a_group_that_it_does_not_take() {
    let hello = || Hello::new().ciphers(&[0xc02b, 0xc02f, 0x1301]).signature_algorithms(&[0x0403, 0x0804]);
    for (hello, kind) in [
        (hello(), KeyKind::Ecdsa),
        (hello().groups(&[0x001d, 0x0017]), KeyKind::Ecdsa),
        (hello().groups(&[0x001d]), KeyKind::Rsa),
        (hello().groups(&[0x0018]), KeyKind::Rsa),
        (hello().groups(&[0x001d]).versions(&[0x0303]), KeyKind::Rsa),
        (hello().groups(&[0x001d]).versions(&[0x0304, 0x0303]), KeyKind::Ecdsa),
    ] {
        let message = hello.message();
        assert_eq!(KeyKind::for_client(&ClientHello::parse(&message).expect("hello")), kind, "{hello:?}");
    }
}
