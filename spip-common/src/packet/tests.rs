//! Real SYNs, whole and cut at every byte, and what hostile senders make of them.
//!
//! The first two were sent by Linux 6.18 and taken from the wire; the others are made of them.

use std::vec::Vec;

use super::*;
use std::string::ToString as _;

/// IPv4, from 192.0.2.2 port 17745 to 192.0.2.1 port 8080, with the options of an ordinary Linux client.
const IPV4: &str = "4500003ca2004000400614b8c0000202c0000201\
    4551\
    1f90858d5ae700000000a002faf084320000020405b40402080a41384e0f000000000103030a";

/// IPv6, from 2001:db8::2 port 47586 to 2001:db8::1 port 443, likewise.
const IPV6: &str = "600e3b2d0028064020010db800000000000000000000000220010db8000000000000000000000001\
    b9e201bb95a0525100000000a002fd205ba30000020405a00402080a639fdf07000000000103030a";

/// IPv6 hop-by-hop options (padding), then a routing header with no segments left, then destination options, 16 bytes.
const EXTENSIONS: &[u8] = &[
    43, 0, 1, 4, 0, 0, 0, 0, // hop-by-hop, routing follows
    60, 0, 4, 0, 0, 0, 0, 0, // routing, destination options follow
    6, 1, 1, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, // destination options, TCP follows
];

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex.chars().filter_map(|digit| digit.to_digit(16).map(|digit| digit as u8)).collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

fn ipv4() -> Vec<u8> {
    bytes(IPV4)
}

fn ipv6() -> Vec<u8> {
    bytes(IPV6)
}

/// An IPv6 SYN with extension headers, the first of which is `first`.
fn with_extensions(first: u8, extensions: &[u8]) -> Vec<u8> {
    let mut packet = ipv6();
    packet[6] = first;
    let length = u16::from_be_bytes([packet[4], packet[5]]) + extensions.len() as u16;
    packet[4..6].copy_from_slice(&length.to_be_bytes());
    packet.splice(40..40, extensions.iter().copied());
    packet
}

/// An IPv4 SYN with 12 bytes of IP options.
fn with_ip_options() -> Vec<u8> {
    let mut packet = ipv4();
    packet[0] = 0x48;
    packet[3] += 12;
    packet.splice(20..20, [7, 11, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    packet
}

/// An IPv4 SYN without TCP options, as stateless scanners send it.
fn without_options() -> Vec<u8> {
    let mut packet = ipv4();
    packet.truncate(40);
    packet[3] = 40;
    packet[32] = 0x50;
    packet
}

/// The packet with the right checksum in its IPv4 header, where it has one.
fn sealed(packet: &[u8]) -> Vec<u8> {
    let mut packet = packet.to_vec();
    let header = usize::from(packet.first().map_or(0, |first| first & 0x0f)) * 4;
    if packet.first().is_some_and(|first| first >> 4 == 4) && header >= 20 && packet.len() >= header {
        packet[10..12].copy_from_slice(&[0, 0]);
        let sum: u32 = packet[..header].chunks(2).map(|word| u32::from(word[0]) << 8 | u32::from(word[1])).sum();
        let folded = (sum & 0xffff) + (sum >> 16);
        packet[10..12].copy_from_slice(&(!(folded as u16)).to_be_bytes());
    }
    packet
}

fn parsed(packet: &[u8]) -> Parsed {
    parse(&sealed(packet).as_slice()).expect("an initial SYN")
}

fn refused(packet: &[u8]) -> Refused {
    parse(&sealed(packet).as_slice()).expect_err("no initial SYN")
}

#[test]
fn every_field_of_an_ipv4_syn_is_read() {
    let Parsed { source, syn, wrong_checksum } = parsed(&ipv4());
    assert!(wrong_checksum, "the sender left it to the interface");
    assert_eq!(source, mapped([192, 0, 2, 2]));
    assert_eq!(syn.destination_ip().to_string(), "192.0.2.1");
    assert_eq!((syn.source_port, syn.destination_port), (17745, 8080));
    assert_eq!((syn.sequence, syn.acknowledgement), (0x858d_5ae7, 0));
    assert_eq!((syn.window, syn.urgent), (64240, 0));
    assert_eq!((syn.ip_version, syn.ip_id, syn.ip_length), (4, 0xa200, 60));
    assert_eq!((syn.ttl, syn.tos, syn.ip_flags), (64, 0, Syn::DF));
    assert_eq!((syn.ip_options_len, syn.payload_length), (0, 0));
    assert_eq!((syn.tcp_flags, syn.tcp_reserved), (Syn::SYN, 0));
    assert_eq!(syn.options(), bytes("020405b40402080a41384e0f000000000103030a"));
    assert!(syn.options[20..].iter().all(|&byte| byte == 0));
}

#[test]
fn every_field_of_an_ipv6_syn_is_read() {
    let Parsed { source, syn, .. } = parsed(&ipv6());
    assert_eq!(core::net::Ipv6Addr::from(source).to_string(), "2001:db8::2");
    assert_eq!(syn.destination_ip().to_string(), "2001:db8::1");
    assert_eq!((syn.source_port, syn.destination_port), (47586, 443));
    assert_eq!((syn.sequence, syn.window), (0x95a0_5251, 64800));
    assert_eq!((syn.ip_version, syn.ip_id, syn.ip_length), (6, 0, 80));
    assert_eq!((syn.ttl, syn.tos, syn.flow_label), (64, 0, 0xe3b2d));
    assert_eq!(syn.options(), bytes("020405a00402080a639fdf07000000000103030a"));
}

#[test]
fn the_traffic_class_and_the_flow_label_are_told_apart() {
    let mut packet = ipv6();
    packet[..4].copy_from_slice(&[0x6a, 0xbf, 0xff, 0xff]);
    let syn = parsed(&packet).syn;
    assert_eq!((syn.tos, syn.flow_label), (0xab, 0xf_ffff));
}

#[test]
fn the_key_is_the_source_and_the_sequence_number_that_follows() {
    let mut packet = ipv4();
    packet[24..28].copy_from_slice(&[0xff; 4]);
    let key = parsed(&packet).key();
    assert_eq!((key.source, key.next_sequence), (mapped([192, 0, 2, 2]), 0));
}

#[test]
fn ip_options_are_stepped_over_and_measured() {
    let syn = parsed(&with_ip_options()).syn;
    assert_eq!((syn.ip_options_len, syn.destination_port, syn.options_len), (12, 8080, 20));
}

#[test]
fn extension_headers_are_stepped_over_and_measured() {
    let syn = parsed(&with_extensions(HOP_BY_HOP, EXTENSIONS)).syn;
    assert_eq!((syn.ip_options_len, syn.destination_port, syn.options_len), (32, 443, 20));
    assert_eq!(syn.destination_ip().to_string(), "2001:db8::1");
}

#[test]
fn an_ipv6_packet_in_one_fragment_has_no_more_of_them() {
    for (flags, more) in [(0, 0), (1, Syn::MF)] {
        let syn = parsed(&with_extensions(FRAGMENT, &[6, 0, 0, flags, 0, 0, 0, 7])).syn;
        assert_eq!((syn.ip_flags, syn.ip_options_len, syn.destination_port), (more, 8, 443));
    }
    // The other reserved bits are no flag, and every bit of the position makes it a later fragment.
    assert_eq!(parsed(&with_extensions(FRAGMENT, &[6, 0, 0, 6, 0, 0, 0, 7])).syn.ip_flags, 0);
    assert!(matches!(refused(&with_extensions(FRAGMENT, &[6, 0, 0, 8, 0, 0, 0, 7])), Refused::LaterFragment));
}

#[test]
fn the_length_of_a_long_ipv6_packet_ends_at_what_the_field_holds() {
    let mut packet = ipv6();
    packet.resize(40 + 0xffff, 0);
    for payload in [0xffff - 40, 0xffff - 39, 0xffff_u16] {
        packet[4..6].copy_from_slice(&payload.to_be_bytes());
        let length = parsed(&packet).syn.ip_length;
        assert_eq!(u32::from(length), (u32::from(payload) + 40).min(0xffff), "{payload}");
    }
}

#[test]
fn a_syn_without_options_has_none() {
    let syn = parsed(&without_options()).syn;
    assert_eq!((syn.options_len, syn.ip_length, syn.payload_length), (0, 40, 0));
    assert!(syn.options().is_empty());
}

#[test]
fn forty_bytes_of_options_are_kept_whole() {
    let mut packet = without_options();
    packet[3] = 80;
    packet[32] = 0xf0;
    packet.extend(1..=40);
    let syn = parsed(&packet).syn;
    assert_eq!(syn.options_len, 40);
    assert!(syn.options().iter().copied().eq(1..=40));
}

#[test]
fn a_syn_that_is_cut_anywhere_is_refused_as_truncated() {
    let whole = [ipv4(), with_ip_options(), without_options(), ipv6(), with_extensions(HOP_BY_HOP, EXTENSIONS)];
    for packet in whole {
        for length in 0..packet.len() {
            assert_eq!(refused(&packet[..length]), Refused::Truncated, "{length} of {}", packet.len());
            assert!(parse_headers(&packet[..length], 0).is_err(), "{length} of {}", packet.len());
        }
        parsed(&packet);
    }
}

#[test]
fn padding_of_the_link_layer_is_not_taken_for_data() {
    let mut packet = without_options();
    packet.extend([0; 6]);
    assert_eq!(parsed(&packet).syn.payload_length, 0);
}

#[test]
fn data_in_a_syn_is_counted_and_may_be_missing_in_saved_headers() {
    let mut packet = without_options();
    packet[3] = 45;
    assert_eq!(refused(&packet), Refused::Truncated);
    let saved = parse_headers(&packet, 7).expect("headers are enough");
    packet.extend(*b"hello");
    let whole = parsed(&packet);
    assert_eq!(whole.syn.payload_length, 5);
    assert_eq!(saved.syn.seen_ns, 7);
    assert_eq!(saved.syn, Syn { seen_ns: 7, ..whole.syn });
}

#[test]
fn only_a_syn_without_ack_is_initial() {
    for flags in 0..=u8::MAX {
        let mut packet = ipv4();
        packet[33] = flags;
        match parse(&packet.as_slice()) {
            Ok(parsed) => {
                assert_eq!(flags & 0x12, 0x02);
                assert_eq!(parsed.syn.tcp_flags, flags);
            }
            Err(refused) => {
                assert_ne!(flags & 0x12, 0x02);
                assert_eq!(refused, Refused::NotInitialSyn);
            }
        }
    }
}

#[test]
fn other_protocols_are_ignored_and_not_malformed() {
    let mut packet = ipv4();
    packet[9] = 17;
    assert_eq!(refused(&packet), Refused::NotTcp);
    for next in [17, 50, 51, 58, 59] {
        assert_eq!(refused(&with_extensions(next, &[])), Refused::NotTcp);
    }
    assert_eq!(refused(&[0x50; 60]), Refused::NotIp);
    assert!(!Refused::NotTcp.is_malformed() && !Refused::NotIp.is_malformed());
}

#[test]
fn a_later_fragment_is_ignored_and_a_first_one_is_read() {
    let mut packet = ipv4();
    packet[6..8].copy_from_slice(&[0x20, 0x00]);
    assert_eq!(parsed(&packet).syn.ip_flags, Syn::MF);
    packet[6..8].copy_from_slice(&[0x00, 0x01]);
    assert_eq!(refused(&packet), Refused::LaterFragment);

    let first = with_extensions(FRAGMENT, &[6, 0, 0, 1, 0, 0, 0, 9]);
    assert_eq!(parsed(&first).syn.ip_flags, Syn::MF);
    let later = with_extensions(FRAGMENT, &[6, 0, 0, 9, 0, 0, 0, 9]);
    assert_eq!(refused(&later), Refused::LaterFragment);
    assert!(!Refused::LaterFragment.is_malformed());
}

#[test]
fn lengths_that_cannot_be_are_malformed() {
    let cases: [fn(&mut [u8]); 5] = [
        |packet| packet[0] = 0x44,                       // an IP header shorter than itself
        |packet| packet[32] = 0x40,                      // a TCP header shorter than itself
        |packet| packet[32] = 0xf0,                      // a TCP header beyond the packet
        |packet| packet[2..4].copy_from_slice(&[0, 39]), // a packet shorter than its headers
        |packet| packet[2..4].copy_from_slice(&[0, 0]),  // a packet of no length
    ];
    for (index, change) in cases.into_iter().enumerate() {
        let mut packet = ipv4();
        change(&mut packet);
        assert_eq!(refused(&packet), Refused::Malformed, "case {index}");
    }
    let mut packet = ipv6();
    packet[4..6].copy_from_slice(&[0, 0]);
    assert_eq!(refused(&packet), Refused::Malformed);
}

#[test]
fn a_first_fragment_that_hides_the_flags_names_the_key_that_it_has() {
    let cut_key = |packet: &[u8]| {
        let (mut source, mut syn) = ([0; 16], Syn::ZERO);
        let packet = sealed(packet);
        assert_eq!(read(&packet.as_slice(), packet[0] >> 4, &mut source, &mut syn), Err(Refused::Cut));
        SynKey::of(&source, &syn)
    };
    let key = parsed(&ipv4()).key();
    for bytes in [0, 8, 16] {
        let mut packet = ipv4();
        packet[6..8].copy_from_slice(&[0x20, 0x00]);
        packet.truncate(20 + bytes);
        packet[3] = packet.len() as u8;
        let expected = if bytes < 8 { Refused::Malformed } else { Refused::Cut };
        assert_eq!(refused(&packet), if bytes < 8 { Refused::Truncated } else { expected }, "{bytes}");
        // An Ethernet frame has 46 bytes at least: the padding is not taken for flags.
        packet.resize(46, 0);
        assert_eq!(refused(&packet), expected, "{bytes}, padded");
    }
    // The options are in the next fragment.
    let mut packet = ipv4();
    packet[6..8].copy_from_slice(&[0x20, 0x00]);
    packet.truncate(44);
    packet[3] = 44;
    assert_eq!(cut_key(&packet), key);

    let key = parsed(&ipv6()).key();
    let mut packet = with_extensions(FRAGMENT, &[6, 0, 0, 1, 0, 0, 0, 9]);
    packet.truncate(40 + 8 + 8);
    packet[4..6].copy_from_slice(&[0, 16]);
    assert_eq!(cut_key(&packet), key);
}

#[test]
fn a_fragment_that_is_no_syn_marks_nothing() {
    let mut packet = ipv4();
    packet[6..8].copy_from_slice(&[0x20, 0x00]);
    packet[33] = Syn::ACK;
    assert_eq!(refused(&packet), Refused::NotInitialSyn);
}

#[test]
fn what_the_kernel_refuses_by_its_header_is_refused() {
    let mut packet = sealed(&ipv4());
    packet[8] ^= 1;
    assert_eq!(parse(&packet.as_slice()), Err(Refused::Malformed), "the header does not add up");
    let mut packet = sealed(&with_ip_options());
    packet[22] ^= 1;
    assert_eq!(parse(&packet.as_slice()), Err(Refused::Malformed), "nor with options");

    for address in [8, 24] {
        let mut packet = ipv6();
        packet[address..address + 16].copy_from_slice(&mapped([192, 0, 2, 2]));
        assert_eq!(refused(&packet), Refused::Mapped);
    }
    let late = [HOP_BY_HOP, 0, 1, 4, 0, 0, 0, 0, TCP, 0, 1, 4, 0, 0, 0, 0];
    assert_eq!(refused(&with_extensions(DESTINATION_OPTIONS, &late)), Refused::NotTcp);
}

#[test]
fn a_wrong_checksum_is_noted_where_it_can_be_computed() {
    let whole = [ipv4(), with_ip_options(), without_options(), ipv6(), with_extensions(HOP_BY_HOP, EXTENSIONS)];
    for packet in whole {
        let (start, packet) = summed(&packet);
        assert!(!parsed(&packet).wrong_checksum, "{packet:02x?}");
        for position in start..packet.len() {
            // Neither what makes it a SYN nor how long its header is.
            if ![start + 12, start + 13].contains(&position) {
                let mut changed = packet.clone();
                changed[position] ^= 0x10;
                assert!(parsed(&changed).wrong_checksum, "byte {position}");
            }
        }
    }
    // With data, or more fragments to come, it is not computed.
    let mut packet = without_options();
    packet[3] = 41;
    packet.push(b'x');
    assert!(!parsed(&packet).wrong_checksum);
    let mut packet = ipv4();
    packet[6..8].copy_from_slice(&[0x20, 0x00]);
    assert!(!parsed(&packet).wrong_checksum);
}

/// The packet with the right TCP checksum, and where its TCP header begins.
fn summed(packet: &[u8]) -> (usize, Vec<u8>) {
    let mut packet = packet.to_vec();
    let Parsed { source, syn, .. } = parsed(&packet);
    let start = usize::from(syn.ip_options_len) + if syn.ip_version == 4 { 20 } else { 40 };
    packet[start + 16..start + 18].copy_from_slice(&[0, 0]);
    let addresses = if syn.ip_version == 4 {
        [&source[12..], &syn.destination[12..]].concat()
    } else {
        [source, syn.destination].concat()
    };
    let length = (packet.len() - start) as u32;
    let pseudo = [&addresses[..], &length.to_be_bytes(), &[0, 0, 0, TCP]].concat();
    let words = pseudo.chunks(2).chain(packet[start..].chunks(2));
    let mut sum: u32 = words.map(|word| u32::from(word[0]) << 8 | u32::from(word[1])).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    packet[start + 16..start + 18].copy_from_slice(&(!(sum as u16)).to_be_bytes());
    (start, packet)
}

#[test]
fn a_version_that_contradicts_the_link_layer_is_malformed() {
    let mut syn = Syn::ZERO;
    assert_eq!(read(&ipv6().as_slice(), 4, &mut [0; 16], &mut syn), Err(Refused::Malformed));
    assert_eq!(read(&ipv4().as_slice(), 6, &mut [0; 16], &mut syn), Err(Refused::Malformed));
}

#[test]
fn a_routing_header_that_has_not_reached_its_end_is_not_followed() {
    assert_eq!(refused(&with_extensions(ROUTING, &[6, 0, 4, 1, 0, 0, 0, 0])), Refused::NotTcp);
}

#[test]
fn extension_headers_are_followed_up_to_the_bound_and_no_further() {
    let chain = |count: usize| {
        let mut headers = Vec::new();
        for index in 0..count {
            let next = if index + 1 == count { TCP } else { DESTINATION_OPTIONS };
            headers.extend([next, 0, 1, 4, 0, 0, 0, 0]);
        }
        with_extensions(DESTINATION_OPTIONS, &headers)
    };
    for count in 1..=EXTENSION_HEADERS {
        assert_eq!(usize::from(parsed(&chain(count)).syn.ip_options_len), count * 8);
    }
    assert_eq!(refused(&chain(EXTENSION_HEADERS + 1)), Refused::Malformed);
    // What the kernel has accepted is followed to its end.
    let long = chain(EXTENSION_HEADERS + 1);
    assert_eq!(parse_headers(&long, 0).map(|parsed| parsed.syn.ip_options_len), Ok((EXTENSION_HEADERS + 1) as u16 * 8));
}

#[test]
fn the_longest_extension_headers_do_not_overflow() {
    let mut headers = Vec::new();
    // As many as a packet has room for.
    const HEADERS: usize = 31;
    for index in 0..HEADERS {
        let next = if index + 1 == HEADERS { TCP } else { DESTINATION_OPTIONS };
        let mut header = [0_u8; 2048];
        header[..2].copy_from_slice(&[next, 255]);
        headers.extend(header);
    }
    let syn = parsed(&with_extensions(DESTINATION_OPTIONS, &headers)).syn;
    assert_eq!(usize::from(syn.ip_options_len), HEADERS * 2048);
}

#[test]
fn no_single_byte_makes_the_parser_panic_or_read_outside() {
    for packet in [ipv4(), with_ip_options(), ipv6(), with_extensions(HOP_BY_HOP, EXTENSIONS)] {
        for position in 0..packet.len() {
            for value in 0..=u8::MAX {
                let mut changed = packet.clone();
                changed[position] = value;
                if let Ok(parsed) = parse(&changed.as_slice()) {
                    assert!(usize::from(parsed.syn.options_len) <= 40);
                    assert!(usize::from(parsed.syn.ip_length) <= changed.len());
                }
                let _ = parse_headers(&changed, 0);
            }
        }
    }
}
