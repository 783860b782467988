//! Packets, TCP options, text for the log, and configuration files.

use std::path::Path;

use spip_agent::config::Config;
use spip_agent::json;
use spip_agent::protocol::syn::SynOptions;

/// The parser that the kernel side runs: it finds a SYN or says why not.
pub(super) fn packet(bytes: &[u8]) {
    if let Ok(parsed) = spip_common::parse(&bytes) {
        assert!(parsed.syn.options().len() <= 40);
        let _ip = parsed.syn.destination_ip();
        assert_eq!(parsed.key().source, parsed.source);
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
}

/// Whatever the bytes, a string of JSON comes out that reads back as the same text and moves no terminal.
pub(super) fn text(bytes: &[u8]) {
    let mut line = Vec::new();
    json::lossy_string(&mut line, bytes);
    let written = std::str::from_utf8(&line).expect("text");
    assert!(!written.chars().any(char::is_control), "{written:?}");
    let read: String = serde_json::from_str(written).expect("a JSON string");
    assert_eq!(read, String::from_utf8_lossy(bytes));
}

/// A file is refused with a reason, or loads and survives being shown and read again.
pub(super) fn config(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let path = Path::new("/nowhere/spip.toml");
    match Config::from_str(&text, path) {
        Ok(loaded) => {
            let again = Config::from_str(&loaded.config.to_toml(), path).expect("what is shown loads");
            assert_eq!(again.config, loaded.config);
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}
