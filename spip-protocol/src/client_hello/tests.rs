use super::sample::{Hello, in_records, vectors};
use super::*;
use proptest::prelude::*;

/// A hello with everything that is looked into.
fn full() -> Hello {
    Hello::new()
        .ciphers(&[0x1301, 0xc02f])
        .server_name(b"www.example.com")
        .protocols(&[b"h2", b"http/1.1"])
        .groups(&[29, 23])
        .point_formats(&[0, 1])
        .signature_algorithms(&[0x0403, 0x0804])
        .versions(&[0x0304, 0x0303])
        .extension(0xff01, &[0])
}

/// Judges every prefix, both at once and step by step, and checks that no verdict is taken back.
fn judge_every_prefix(stream: &[u8]) -> Detection {
    let mut stepwise = Detector::default();
    let mut before = Detection::Undecided;
    for length in 0..=stream.len() {
        let verdict = detect(&stream[..length]);
        assert_eq!(stepwise.advance(&stream[..length]), verdict, "stepwise, after {length} bytes");
        match before {
            Detection::Undecided => {}
            Detection::Partial => assert!(verdict.is_tls(), "{verdict:?} after {length} bytes"),
            decided => assert_eq!(verdict, decided, "after {length} bytes"),
        }
        before = verdict;
    }
    before
}

#[test]
fn every_prefix_of_every_captured_stream_waits_or_agrees_with_the_whole() {
    for vector in vectors() {
        let verdict = judge_every_prefix(&vector.stream);
        let Detection::ClientHello { length } = verdict else {
            panic!("{verdict:?} for {}", vector.source);
        };
        for prefix in 0..length {
            assert!(detect(&vector.stream[..prefix]).needs_more());
        }
    }
}

#[test]
fn a_hello_is_found_in_records_of_any_size() {
    let hello = full();
    let message = hello.message();
    for content in 1..=message.len() {
        let raw = hello.records(content);
        let with_more = [&raw[..], b"\x14\x03\x03\x00\x01\x01"].concat();
        assert_eq!(judge_every_prefix(&with_more), Detection::ClientHello { length: raw.len() });
        assert_eq!(*handshake_message(&raw), message);
    }
}

#[test]
fn a_hello_that_shares_its_record_ends_where_it_ends() {
    let message = full().message();
    let raw = in_records(&[&message[..], b"more"].concat(), 1 << 14);
    let length = 5 + message.len();
    assert_eq!(judge_every_prefix(&raw), Detection::ClientHello { length });
    assert_eq!(*handshake_message(&raw[..length]), message);
}

#[test]
fn a_lone_first_byte_waits() {
    assert_eq!(detect(b""), Detection::Undecided);
    assert_eq!(detect(b"\x16"), Detection::Undecided);
    assert_eq!(detect(b"\x80"), Detection::Undecided);
}

#[test]
fn other_protocols_are_told_apart_by_their_first_bytes() {
    for (stream, decided_after) in [
        (&b"GET / HTTP/1.1\r\n"[..], 1),
        (b"SSH-2.0-OpenSSH_9.6\r\n", 1),
        (b"\x00\x00\x00\x00", 1),
        // A handshake record that starts with a ServerHello.
        (b"\x16\x03\x03\x00\x31\x02\x00\x00", 6),
        (b"\x16\x00\x00\x00", 2),
        (b"\x16\xfe\xfd\x00\x00\x00", 2),
        (b"\x16\x03\x01\x00\x00\x01", 5),
        (b"\x16\x03\x01\x40\x01\x01", 5),
        // The first record ends before the header of the message does, and something else follows.
        (b"\x16\x03\x01\x00\x02\x01\x00\x17\x03\x03", 8),
        (b"\xc0\x01\x01", 1),
        (b"\x81\x00\x02", 3),
        (b"\xe2\x98\x83", 1),
    ] {
        assert_eq!(judge_every_prefix(stream), Detection::NotTls, "{stream:02x?}");
        assert_eq!(detect(&stream[..decided_after]), Detection::NotTls);
        assert_eq!(detect(&stream[..decided_after - 1]), Detection::Undecided);
    }
}

#[test]
fn a_hello_that_breaks_off_into_something_else_stays_tls() {
    let raw = full().records(20);
    for other in
        [&b"\x15\x03\x01\x00\x02\x02\x28"[..], b"GET /", b"\x16\x02", b"\x16\x03\x01\x00\x00", b"\x16\x03\x01\x40\x01"]
    {
        let stream = [&raw[..50], other].concat();
        assert!(matches!(judge_every_prefix(&stream), Detection::Malformed(_)), "{other:02x?}");
    }
}

#[test]
fn the_longest_hello_fits_and_the_next_does_not() {
    let fixed = Hello::new().extension(0x7777, &[]).message().len();
    let largest = Hello::new().extension(0x7777, &vec![0; MAX_MESSAGE_BYTES - fixed]);
    let raw = largest.records(1 << 14);
    assert_eq!(detect(&raw), Detection::ClientHello { length: raw.len() }, "exactly {MAX_MESSAGE_BYTES} bytes");
    let halves = largest.records(1 << 13);
    assert_eq!(detect(&halves), Detection::ClientHello { length: halves.len() });
    let above = Hello::new().extension(0x7777, &vec![0; MAX_MESSAGE_BYTES - fixed + 1]);
    let declared = MAX_MESSAGE_BYTES + 1;
    let raw = above.records(1 << 14);
    assert_eq!(detect(&raw), Detection::Oversized { declared });
    assert_eq!(detect(&raw[..9]), Detection::Oversized { declared });
    assert_eq!(detect(&raw[..8]), Detection::Undecided);
}

#[test]
fn a_hello_in_wastefully_small_records_is_oversized_before_its_end() {
    let hello = Hello::new().extension(0x7777, &[0; 8000]);
    let declared = hello.message().len();
    let raw = hello.records(1);
    let mut detector = Detector::default();
    let decided = (0..=raw.len()).find(|length| !detector.advance(&raw[..*length]).needs_more());
    let decided = decided.expect("a verdict");
    assert!(decided.abs_diff(MAX_RAW_BYTES) < 6, "after {decided} bytes");
    for length in [decided, decided + 1, raw.len()] {
        let verdict = detect(&raw[..length]);
        assert_eq!(verdict, Detection::Oversized { declared });
    }
}

#[test]
fn ssl_2_hellos_are_recognised_by_their_agreeing_lengths() {
    // As `openssl s_client -ssl2` of OpenSSL 0.9.8 began: three ciphers, no session, a challenge of 16 bytes.
    let mut hello = b"\x80\x22\x01\x00\x02\x00\x09\x00\x00\x00\x10".to_vec();
    hello.extend(b"\x01\x00\x80\x07\x00\xc0\x03\x00\x80");
    hello.extend([7; 16]);
    let length = hello.len();
    hello.extend(b"more");
    let version = Version::SSL_2;
    assert_eq!(judge_every_prefix(&hello), Detection::Sslv2 { length, version });
    assert_eq!(detect(&hello[..11]), Detection::Partial);
    // The same, ready for TLS 1.0.
    hello[3..5].copy_from_slice(&[3, 1]);
    let version = Version::TLS_1_0;
    assert_eq!(judge_every_prefix(&hello), Detection::Sslv2 { length, version });
    for (at, value) in [(1, 0x23), (6, 8), (8, 1), (10, 15), (4, 5), (3, 2), (2, 4)] {
        let mut other = hello.clone();
        other[at] = value;
        assert_eq!(judge_every_prefix(&other), Detection::NotTls, "byte {at}");
    }
}

#[test]
fn every_part_of_a_hello_is_read() {
    let message = full().message();
    let hello = ClientHello::parse(&message).expect("hello");
    assert_eq!(hello.legacy_version, Version::TLS_1_2);
    assert_eq!(hello.highest_version(), Some(Version::TLS_1_3));
    assert!(hello.cipher_suites.iter().eq([0x1301, 0xc02f]));
    assert_eq!(hello.compression_methods, [0]);
    assert!(hello.extensions.numbers().eq([0, 16, 10, 11, 13, 43, 0xff01]));
    assert_eq!(hello.server_name, ServerName::Name(b"www.example.com"));
    assert!(hello.protocols.iter().eq([&b"h2"[..], b"http/1.1"]));
    assert!(hello.groups.iter().eq([29, 23]));
    assert_eq!(hello.point_formats, [0, 1]);
    assert!(hello.signature_algorithms.iter().eq([0x0403, 0x0804]));
    assert!(hello.supported_versions.iter().eq([0x0304, 0x0303]));
    assert_eq!(hello.malformed, None);
}

#[test]
fn a_list_of_versions_that_names_none_offers_none_whatever_the_message_says() {
    for versions in [&[][..], &[0x0a0a, 0x7a7a]] {
        let message = Hello::new().version(0x0303).versions(versions).message();
        let hello = ClientHello::parse(&message).expect("hello");
        assert_eq!((hello.legacy_version, hello.highest_version()), (Version::TLS_1_2, None), "{versions:x?}");
    }
}

#[test]
fn an_ssl_3_hello_without_extensions_is_read() {
    let message = Hello::new().version(0x0300).ciphers(&[4, 5]).message();
    let hello = ClientHello::parse(&message).expect("hello");
    assert_eq!(hello.highest_version(), Some(Version::SSL_3));
    assert_eq!(hello.extensions.numbers().count(), 0);
    assert_eq!(hello.malformed, None);
}

#[test]
fn every_truncation_of_a_message_is_an_error() {
    let message = full().message();
    for length in 0..message.len() {
        assert!(ClientHello::parse(&message[..length]).is_err(), "{length}");
    }
}

#[test]
fn every_truncation_of_a_body_is_read_as_far_as_it_goes() {
    let message = full().message();
    let fixed = Hello::new().ciphers(&[0x1301, 0xc02f]).message().len();
    let whole: Vec<u16> = ClientHello::parse(&message).expect("hello").extensions.numbers().collect();
    for length in 4..message.len() {
        let mut cut = message[..length].to_vec();
        cut[1..4].copy_from_slice(&u32::try_from(length - 4).expect("short").to_be_bytes()[1..]);
        let parsed = ClientHello::parse(&cut);
        assert_eq!(parsed.is_ok(), length >= fixed, "{length}");
        if let Ok(hello) = parsed {
            let numbers: Vec<u16> = hello.extensions.numbers().collect();
            assert!(whole.starts_with(&numbers), "{length}");
            assert_eq!(hello.malformed.is_some(), length > fixed, "{length}");
        }
    }
}

#[test]
fn another_message_is_no_hello() {
    assert_eq!(ClientHello::parse(b"\x02\x00\x00\x00"), Err(ParseError::NotAClientHello(2)));
}

fn name_of(body: &[u8]) -> (Option<Vec<u8>>, bool, bool) {
    let message = Hello::new().extension(0, body).message();
    let hello = ClientHello::parse(&message).expect("hello");
    (
        hello.server_name.bytes().map(<[u8]>::to_vec),
        matches!(hello.server_name, ServerName::Name(_)),
        hello.malformed.is_some(),
    )
}

#[test]
fn broken_server_names_keep_their_bytes() {
    let bytes = |text: &[u8]| Some(text.to_vec());
    // Empty, a lone byte, an empty list, another type, an empty name.
    assert_eq!(name_of(b""), (bytes(b""), false, true));
    assert_eq!(name_of(b"\x07"), (bytes(b"\x07"), false, true));
    assert_eq!(name_of(b"\x00\x00"), (bytes(b""), false, true));
    assert_eq!(name_of(b"\x00\x04\x01\x00\x01a"), (bytes(b"\x01\x00\x01a"), false, true));
    assert_eq!(name_of(b"\x00\x03\x00\x00\x00"), (bytes(b"\x00\x00\x00"), false, true));
    // A list length that lies, a name that is cut off, a second name.
    assert_eq!(name_of(b"\x00\x09\x00\x00\x01a"), (bytes(b"a"), true, true));
    assert_eq!(name_of(b"\x00\x04\x00\x00\x09a"), (bytes(b"a"), false, true));
    assert_eq!(name_of(b"\x00\x08\x00\x00\x01a\x00\x00\x01b"), (bytes(b"a"), true, true));
}

#[test]
fn server_names_are_text_whatever_their_bytes() {
    let message = Hello::new().server_name(b"a\xff\x00\x1b[2J").message();
    let hello = ClientHello::parse(&message).expect("hello");
    assert_eq!(hello.server_name.text().as_deref(), Some("a\u{fffd}\0\u{1b}[2J"));
    assert_eq!(hello.malformed, None);
}

#[test]
fn addresses_in_place_of_names_are_recognised() {
    for (name, address) in [
        (&b"192.0.2.1"[..], Some("192.0.2.1")),
        (b"2001:db8::1", Some("2001:db8::1")),
        (b"example.com", None),
        (b"\xff", None),
    ] {
        assert_eq!(ServerName::Name(name).ip_literal(), address.map(|address| address.parse().expect("address")));
    }
}

#[test]
fn protocols_may_be_cut_off_empty_or_reserved() {
    let names = |body: &[u8]| {
        let message = Hello::new().extension(16, body).message();
        let hello = ClientHello::parse(&message).expect("hello");
        let names: Vec<Vec<u8>> = hello.protocols.iter().map(<[u8]>::to_vec).collect();
        (names, hello.malformed.is_some())
    };
    assert_eq!(names(b"\x00\x03\x02h2"), (vec![b"h2".to_vec()], false));
    assert_eq!(names(b"\x00\x05\x02h2\x09x"), (vec![b"h2".to_vec()], true));
    assert_eq!(names(b"\x00\x04\x00\x02h2"), (vec![vec![], b"h2".to_vec()], true));
    assert_eq!(names(b"\x00\x00"), (vec![], false));
    assert_eq!(names(b"\x00"), (vec![], true));
}

#[test]
fn the_first_of_two_extensions_counts() {
    let message = Hello::new().server_name(b"first").server_name(b"second").message();
    let hello = ClientHello::parse(&message).expect("hello");
    assert_eq!(hello.server_name, ServerName::Name(b"first"));
    assert!(hello.extensions.numbers().eq([0, 0]));
}

#[test]
fn grease_is_sixteen_values() {
    let values: Vec<u16> = (0..=u16::MAX).filter(|value| is_grease(*value)).collect();
    assert_eq!(values.len(), 16);
    assert_eq!((values[0], values[15]), (0x0a0a, 0xfafa));
    assert!(!is_grease(0x0a1a));
}

/// Reads everything there is to read, so that a panic anywhere shows.
fn read_all(stream: &[u8]) {
    let verdict = judge_every_prefix(stream);
    let raw = match verdict {
        Detection::ClientHello { length } => &stream[..length],
        _ => stream,
    };
    let message = handshake_message(raw);
    assert!(message.len() <= raw.len());
    if let Ok(hello) = ClientHello::parse(&message) {
        assert!(hello.protocols.iter().count() <= raw.len());
        assert!(hello.server_name.text().is_none_or(|text| text.len() <= 3 * raw.len()));
        assert!(!format!("{hello:?}").is_empty());
        let ja4 = crate::ja4::Ja4::new(&hello);
        assert_eq!(ja4.hashed().len(), 36);
        assert!(ja4.raw().is_ascii() && ja4.raw().len() <= 36 + 3 * raw.len());
        assert_eq!(crate::ja3::Ja3(&hello).md5().len(), 32);
    }
}

proptest! {
    #[test]
    fn any_bytes_are_judged_once_and_for_all(stream in proptest::collection::vec(any::<u8>(), 0..200)) {
        read_all(&stream);
    }

    #[test]
    fn any_handshake_record_is_judged_once_and_for_all(
        content in proptest::collection::vec(any::<u8>(), 0..200),
        size in 1..60usize,
    ) {
        let message = [&[1, 0, 0, 200][..], &content].concat();
        read_all(&in_records(&message, size));
    }

    #[test]
    fn hellos_with_changed_bytes_are_judged_once_and_for_all(
        vector in 0..7usize,
        size in 1..600usize,
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let stream = &vectors()[vector].stream;
        let Detection::ClientHello { length } = detect(stream) else { panic!("no hello") };
        let mut raw = in_records(&handshake_message(&stream[..length]), size);
        for (index, value) in changes {
            let at = index.index(raw.len());
            raw[at] = value;
        }
        read_all(&raw);
    }
}

#[test]
fn extensions_are_found_where_they_stand() {
    let message = Hello::new().groups(&[29]).server_name(b"a").extension(0, b"again").message();
    let all: Vec<_> = extension_offsets(&message).collect();
    assert_eq!(all.iter().map(|(_, number)| *number).collect::<Vec<_>>(), [extension::SUPPORTED_GROUPS, 0, 0]);
    assert_eq!(message[all[1].0..][..4], [0, 0, 0, 6]);
    assert_eq!(message[all[2].0..][..4], [0, 0, 0, 5]);
    for end in 0..message.len() {
        let starts = all.iter().skip(1).map(|(at, _)| *at).chain([message.len()]);
        let whole = starts.take_while(|next| *next <= end).count();
        assert_eq!(extension_offsets(&message[..end]).collect::<Vec<_>>(), all[..whole]);
    }
}
