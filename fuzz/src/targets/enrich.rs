//! Rules of an operator, and payloads that they and the starter rules are matched on.

use std::cell::RefCell;
use std::sync::LazyLock;

use spip_enrich::facts::Facts;
use spip_enrich::requests::split;
use spip_enrich::rules::{Builder, Rules, Scratch};
use spip_enrich::{indicators, scanners, starter};

/// Bytes of an input that are taken for a rule.
const RULE_BYTES: usize = 160;

static STARTER: LazyLock<Rules> = LazyLock::new(|| {
    let mut builder = Builder::default();
    builder.text(starter::NAME, starter::RULES).expect("rules of our own");
    builder.build().expect("a set").0
});

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

fn matched(rules: &Rules, payload: &[u8]) {
    let facts = Facts { payload, ..Facts::default() };
    let requests = split(payload);
    let alone = rules.find(&facts, &requests, &mut Scratch::default());
    let found = SCRATCH.with_borrow_mut(|scratch| {
        let found = rules.find(&facts, &requests, scratch);
        // Compiled expressions of one set are of no use to another one.
        if !std::ptr::eq(rules, &raw const *STARTER) {
            *scratch = Scratch::default();
        }
        found
    });
    assert_eq!(found.tags, alone.tags, "what was matched before changes nothing");
}

/// The first line is a rule file, a rule's options, a pattern and an expression; the rest is matched on them.
pub(super) fn rules(bytes: &[u8]) {
    let (first, payload) = match bytes.iter().position(|byte| *byte == b'\n') {
        Some(at) => (&bytes[..at], &bytes[at + 1..]),
        None => (bytes, bytes),
    };
    // A compiled expression may take a thousand times its text, up to a bound of its own, which is the operator's memory and
    // not a client's: the bound on memory here is for payloads.
    let text = String::from_utf8_lossy(first.get(..RULE_BYTES).unwrap_or(first));
    let mut builder = Builder::default();
    for rule in [
        text.to_string(),
        format!("alert tcp any any -> any any ({text} sid:1;)"),
        format!("alert http any any -> any any (http.uri; content:\"{text}\"; sid:2;)"),
        format!("alert tcp any any -> any any (pcre:\"/{text}/i\"; sid:3;)"),
        format!("alert tcp {text} -> any any (content:\"a\"; sid:4;)"),
    ] {
        builder.text("fuzz", &rule).expect("few rules");
    }
    let (rules, report) = builder.build().expect("a set");
    assert_eq!(report.taken, rules.len() as u64);
    matched(&rules, payload);
    let mut lists = scanners::Builder::default();
    if lists.text(std::path::Path::new("fuzz"), &text).is_ok() {
        let _ = lists.build();
    }
}

/// A payload is matched on the starter rules and searched for indicators, each of which is one that can be exported.
pub(super) fn payload(bytes: &[u8]) {
    matched(&STARTER, bytes);
    for indicator in indicators::find(bytes, bytes.len().is_multiple_of(2)) {
        assert!(!indicator.value.chars().any(char::is_control), "{indicator:?}");
        assert!(!indicators::defang(&indicator).contains("http://"), "{indicator:?}");
    }
}
