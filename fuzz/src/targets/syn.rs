//! Options, signature and tools of a SYN.

use spip_common::Syn;
use spip_protocol::syn::{Signature, SynOptions, Tools};

/// The parser that the kernel side runs: it finds a SYN or says why not. What is found has a signature.
pub(super) fn packet(bytes: &[u8]) {
    if let Ok(parsed) = spip_common::parse(&bytes) {
        assert!(parsed.syn.options().len() <= 40);
        let _ip = parsed.syn.destination_ip();
        assert_eq!(parsed.key().source, parsed.source);
        shows(&parsed.syn);
    }
    let _headers = spip_common::parse_headers(bytes, 1);
}

/// Options of a SYN are told in the order in which they were sent.
pub(super) fn syn_options(bytes: &[u8]) {
    let options = SynOptions::parse(bytes);
    assert!(options.kinds().len() <= bytes.len().min(40));
    let mut shown = Vec::new();
    options.muonfp(1024).write_to(&mut shown);
    assert!(shown.is_ascii() && shown.starts_with(b"1024:"), "{}", shown.escape_ascii());
    // The first bytes are options, and what is left of them the rest of the headers.
    let mut syn = Syn::ZERO;
    let (raw, rest) = bytes.split_at(bytes.len().min(40));
    syn.options[..raw.len()].copy_from_slice(raw);
    syn.options_len = raw.len() as u8;
    let number = |at: usize| rest.get(at).copied().unwrap_or_default();
    (syn.ttl, syn.ip_flags, syn.tcp_flags) = (number(1), number(2), number(3));
    syn.window = u16::from_be_bytes([number(4), number(5)]);
    for version in [4, 6] {
        syn.ip_version = version;
        shows(&syn);
    }
}

/// Its signature has all of its parts in characters that need no escape, and its tools are each named once.
fn shows(syn: &Syn) {
    let mut text = Vec::new();
    Signature(syn).write_to(&mut text);
    assert!(text.iter().all(|byte| matches!(byte, b'!'..=b'~') && !matches!(byte, b'"' | b'\\')));
    assert_eq!(text.iter().filter(|byte| **byte == b':').count(), 7, "{}", text.escape_ascii());
    // Forty options of six characters, all quirks, and numbers.
    assert!(text.len() < 512, "{}", text.escape_ascii());
    let tools: Vec<_> = Tools::of(syn).iter().map(|tool| tool.name()).collect();
    assert_eq!(tools.is_empty(), Tools::of(syn).is_empty());
    assert!(tools.iter().enumerate().all(|(at, tool)| !tools[..at].contains(tool)), "{tools:?}");
}
