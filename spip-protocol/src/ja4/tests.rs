use super::*;
use crate::client_hello::sample::{Hello, vectors};
use crate::client_hello::{Detection, detect, handshake_message};

fn ja4(hello: &Hello) -> Ja4 {
    Ja4::new(&ClientHello::parse(&hello.message()).expect("hello"))
}

/// The first part of a hello with these protocol names, from the fifth character on its end.
fn protocol_characters(names: &[&[u8]]) -> String {
    let hashed = ja4(&Hello::new().protocols(names)).hashed();
    hashed[8..10].to_owned()
}

fn version_characters(hello: &Hello) -> String {
    ja4(hello).hashed()[1..3].to_owned()
}

#[test]
fn every_captured_hello_has_its_published_fingerprint() {
    for vector in vectors() {
        let Detection::ClientHello { length } = detect(&vector.stream) else {
            panic!("no hello in {}", vector.source);
        };
        let message = handshake_message(&vector.stream[..length]);
        let hello = ClientHello::parse(&message).expect("hello");
        assert_eq!(hello.malformed, None, "{}", vector.source);
        assert_eq!(Ja4::new(&hello).hashed(), vector.ja4, "{}", vector.source);
    }
}

#[test]
fn the_example_of_the_specification_comes_out_in_both_forms() {
    let ja4 = ja4(&Hello::new()
        .ciphers(&[
            0x2a2a, 0x1301, 0x1302, 0x1303, 0xc02b, 0xc02f, 0xc02c, 0xc030, 0xcca9, 0xcca8, 0xc013, 0xc014, 0x009c,
            0x009d, 0x002f, 0x0035,
        ])
        .extension(0xdada, &[])
        .extension(0x001b, &[2, 0, 2])
        .server_name(b"example.com")
        .extension(0x0033, &[])
        .protocols(&[b"h2", b"http/1.1"])
        .extension(0x4469, &[])
        .extension(0x0017, &[])
        .extension(0x002d, &[])
        .signature_algorithms(&[0x0403, 0x0804, 0x0401, 0x0503, 0x0805, 0x0501, 0x0806, 0x0601])
        .extension(0x0005, &[])
        .extension(0x0023, &[])
        .extension(0x0012, &[])
        .versions(&[0x3a3a, 0x0304, 0x0303])
        .extension(0xff01, &[0])
        .point_formats(&[0])
        .groups(&[0x4a4a, 29, 23])
        .extension(0x0015, &[0; 16])
        .extension(0x8a8a, &[0]));
    assert_eq!(ja4.hashed(), "t13d1516h2_8daaf6152771_e5627efa2ab1");
    assert_eq!(
        ja4.raw(),
        "t13d1516h2_002f,0035,009c,009d,1301,1302,1303,c013,c014,c02b,c02c,c02f,c030,cca8,cca9_\
         0005,000a,000b,000d,0012,0015,0017,001b,0023,002b,002d,0033,4469,ff01_\
         0403,0804,0401,0503,0805,0501,0806,0601"
    );
}

#[test]
fn without_signature_algorithms_nothing_is_appended() {
    // The hash is the one that the specification gives for this list.
    let mut hello = Hello::new();
    for number in
        [0x0005, 0x000a, 0x000b, 0x000d, 0x0012, 0x0015, 0x0017, 0x001b, 0x0023, 0x002b, 0x002d, 0x0033, 0x4469, 0xff01]
    {
        hello = hello.extension(number, &[]);
    }
    let ja4 = ja4(&hello);
    assert!(ja4.hashed().ends_with("_6d807ffa2a79"), "{}", ja4.hashed());
    assert!(ja4.raw().ends_with(",4469,ff01"), "{}", ja4.raw());
}

#[test]
fn empty_lists_are_zeros() {
    let empty = ja4(&Hello::new());
    assert_eq!(empty.hashed(), "t12i000000_000000000000_000000000000");
    assert_eq!(empty.raw(), "t12i000000__");
    let only_grease = ja4(&Hello::new().ciphers(&[0x0a0a]).extension(0x1a1a, &[]));
    assert_eq!(only_grease.hashed(), "t12i000000_000000000000_000000000000");
    let only_omitted = ja4(&Hello::new().server_name(b"a").protocols(&[b"h2"]));
    assert_eq!(only_omitted.hashed(), "t12d0002h2_000000000000_000000000000");
}

#[test]
fn counts_stop_at_99() {
    let ciphers: Vec<u16> = (1..=150).collect();
    let mut hello = Hello::new().ciphers(&ciphers);
    for number in 0x1000..0x1000 + 120 {
        hello = hello.extension(number, &[]);
    }
    assert!(ja4(&hello).hashed().starts_with("t12i999900_"));
}

#[test]
fn signalling_and_experimental_ciphers_count() {
    let hello = Hello::new().ciphers(&[0x00ff, 0x5600, 0xfe00, 0xfeff]);
    assert!(ja4(&hello).raw().starts_with("t12i040000_00ff,5600,fe00,feff_"));
}

#[test]
fn grease_is_ignored_among_signature_algorithms() {
    let hello = Hello::new().signature_algorithms(&[0x2a2a, 0x0804, 0x0403, 0xeeee]);
    assert_eq!(ja4(&hello).raw(), "t12i000100__000d_0804,0403,eeee");
}

#[test]
fn protocol_names_are_shown_by_first_and_last_character() {
    assert_eq!(protocol_characters(&[b"h2"]), "h2");
    assert_eq!(protocol_characters(&[b"http/1.1", b"h2"]), "h1");
    assert_eq!(protocol_characters(&[b"h"]), "hh");
    assert_eq!(protocol_characters(&[b"http/0.9-Z"]), "hZ");
}

#[test]
fn protocol_names_that_are_no_ascii_letters_or_digits_are_shown_in_hexadecimal() {
    // The examples of the specification.
    assert_eq!(protocol_characters(&[b"\xab"]), "ab");
    assert_eq!(protocol_characters(&[b"\xab\xcd"]), "ad");
    assert_eq!(protocol_characters(&[b"\x30\xab"]), "3b");
    assert_eq!(protocol_characters(&[b"\x30\x31\xab\xcd"]), "3d");
    assert_eq!(protocol_characters(&[b"\x30\xab\xcd\x31"]), "01");
    // Neither space nor underscore nor the neighbours of the ranges get through.
    assert_eq!(protocol_characters(&[b" "]), "20");
    assert_eq!(protocol_characters(&[b"a "]), "60");
    assert_eq!(protocol_characters(&[b"__"]), "5f");
    for byte in *b"/:@[`{" {
        assert_eq!(protocol_characters(&[&[byte]]), format!("{byte:02x}"));
    }
    assert_eq!(protocol_characters(&["é".as_bytes()]), "c9");
}

#[test]
fn no_protocol_name_is_two_zeros() {
    assert_eq!(protocol_characters(&[]), "00");
    assert_eq!(protocol_characters(&[b"", b"h2"]), "00");
    assert!(ja4(&Hello::new()).hashed().starts_with("t12i000000_"));
    let empty_extension = Hello::new().extension(16, &[]);
    assert!(ja4(&empty_extension).hashed().starts_with("t12i000100_"));
}

#[test]
fn a_reserved_protocol_name_is_passed_over() {
    assert_eq!(protocol_characters(&[b"\x0a\x0a", b"h2"]), "h2");
    assert_eq!(protocol_characters(&[b"\xfa\xfa"]), "00");
    assert_eq!(protocol_characters(&[b"\x0a\x1a", b"h2"]), "0a");
}

#[test]
fn the_version_is_the_highest_offered() {
    for (number, characters) in [
        (0x0002, "s2"),
        (0x0300, "s3"),
        (0x0301, "10"),
        (0x0302, "11"),
        (0x0303, "12"),
        (0x0304, "13"),
        (0xfeff, "d1"),
        (0xfefd, "d2"),
        (0xfefc, "d3"),
        (0x0305, "00"),
    ] {
        assert_eq!(version_characters(&Hello::new().version(number)), characters);
        assert_eq!(version_characters(&Hello::new().versions(&[0x0002, number])), characters);
    }
    assert_eq!(version_characters(&Hello::new().versions(&[0xfafa, 0x0302, 0x0303, 0x0301])), "12");
    assert_eq!(version_characters(&Hello::new().versions(&[0xfafa])), "12");
    assert_eq!(version_characters(&Hello::new().versions(&[])), "12");
}

#[test]
fn a_broken_server_name_is_a_server_name() {
    let hello = Hello::new().extension(0, &[0xff]);
    assert!(ja4(&hello).hashed().starts_with("t12d0001"));
}
