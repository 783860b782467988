//! The targets, and what has to hold in each beyond the absence of a panic.

mod certificate;
mod engine;
mod enrich;
mod hello;
mod log;
mod others;
mod scans;
mod syn;
mod talk;

use std::borrow::Cow;

use spip_agent::respond;
use spip_protocol::{self as protocol, Protocol, Verdict};

use crate::corpus;

/// One function under test.
pub struct Target {
    /// Its name.
    pub name: Cow<'static, str>,
    /// The directories of the corpus with the inputs that its runs begin with; those of all where there are none.
    pub seeds: Vec<Cow<'static, str>>,
    /// About how many microseconds one input takes in a build without optimisation; a run gives slow targets fewer.
    pub micros: u32,
    run: Run,
}

type Function = fn(&[u8]);

enum Run {
    Function(Function),
    Protocol(&'static Protocol),
    Dialogue(&'static str),
}

impl Target {
    pub(crate) fn function(name: &'static str, micros: u32, seeds: &'static [&'static str], run: Function) -> Self {
        let seeds = seeds.iter().copied().map(Cow::Borrowed).collect();
        Self { name: name.into(), seeds, micros, run: Run::Function(run) }
    }

    /// Runs one input.
    ///
    /// # Panics
    /// When something does not hold: that is a finding.
    pub fn run(&self, bytes: &[u8]) {
        match self.run {
            Run::Function(function) => function(bytes),
            Run::Protocol(protocol) => one_protocol(protocol, bytes),
            Run::Dialogue(protocol) => talk::respond(protocol, bytes),
        }
    }
}

/// All targets: those that are listed here, one for each protocol that the agent knows, and one for each that it
/// speaks.
#[must_use]
pub fn targets() -> Vec<Target> {
    let of = Target::function;
    let functions = [
        of("client_hello", 60, &["client_hello"], hello::client_hello),
        of("tls_handshake", 3000, &["client_hello"], engine::tls_handshake),
        of("client_certificate", 200, &["client_certificate"], certificate::client_certificate),
        of("tls_client_certificate", 10_000, &["client_certificate"], certificate::tls_client_certificate),
        of("record", 1000, &[], engine::record),
        of("classify", 60, &[], classify),
        of("packet", 20, &["packet"], syn::packet),
        of("syn_options", 20, &["syn_options"], syn::syn_options),
        of("scans", 500, &["scans"], scans::scans),
        of("text", 60, &["text"], others::text),
        of("config", 300, &["config"], others::config),
        of("persona", 300, &["persona"], others::persona),
        of("convert", 1000, &["convert"], others::convert),
        of("log", 2000, &["log", "convert"], log::log),
        of("rules", 3000, &["rules"], enrich::rules),
        of("enrich", 3000, &[], enrich::payload),
    ];
    // A target without a corpus of its own begins with all others.
    let own = |name: &'static str| corpus::directory().join(name).is_dir().then_some(Cow::Borrowed(name));
    let protocols = protocol::all().map(|protocol| Target {
        name: protocol.name().into(),
        seeds: own(protocol.name()).into_iter().collect(),
        micros: 60,
        run: Run::Protocol(protocol),
    });
    let dialogues = respond::spoken().map(|protocol| Target {
        name: format!("respond_{protocol}").into(),
        seeds: vec![format!("respond_{protocol}").into(), protocol.into()],
        micros: 300,
        run: Run::Dialogue(protocol),
    });
    functions.into_iter().chain(protocols).chain(dialogues).collect()
}

/// The most that is kept of what one client said, beside its payload.
const MAX_FACTS_BYTES: usize = 256 * 1024;

/// Understands bytes as one protocol, its own or not: a greeting may have told the sensor what to expect.
fn one_protocol(protocol: &'static Protocol, bytes: &[u8]) {
    for truncated in [false, true] {
        let understood = protocol::understand_as(protocol, bytes, truncated);
        assert_eq!(understood.protocol, Some(protocol.name()));
        let details = serde_json::to_vec(&understood.details).expect("facts are JSON");
        let http = format!("{:?}", understood.http);
        assert!(details.len() + http.len() < MAX_FACTS_BYTES, "{} bytes of facts", details.len() + http.len());
    }
}

/// A verdict holds for whatever follows, and is never missing after the bytes that decide at most.
fn classify(bytes: &[u8]) {
    let whole = protocol::classify(bytes);
    for cut in [1, 2, 3, 5, 8, 13, 34, 89, bytes.len() / 2] {
        let verdict = protocol::classify(&bytes[..cut.min(bytes.len())]);
        assert!(verdict == Verdict::NeedMore || verdict == whole, "{verdict:?} at byte {cut}, then {whole:?}");
    }
    assert!(bytes.len() < protocol::CLASSIFY_BYTES || whole != Verdict::NeedMore);
    let understood = protocol::understand(bytes, false);
    if let Verdict::Is(protocol) = whole {
        assert_eq!(understood.protocol, Some(protocol.name()));
    }
}
