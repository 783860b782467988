//! The targets, and what has to hold in each beyond the absence of a panic.

mod engine;
mod hello;
mod others;

use spip_agent::protocol::{self, Protocol, Verdict};

/// One function under test.
pub struct Target {
    /// Its name: that of its directory in the corpus, too.
    pub name: &'static str,
    /// About how many microseconds one input takes in a build without optimisation; a run gives slow targets fewer.
    pub micros: u32,
    run: Run,
}

type Function = fn(&[u8]);

enum Run {
    Function(Function),
    Protocol(&'static Protocol),
}

impl Target {
    #[cfg(test)]
    pub(crate) fn function(name: &'static str, run: fn(&[u8])) -> Self {
        Self { name, micros: 1, run: Run::Function(run) }
    }

    /// Runs one input.
    ///
    /// # Panics
    /// When something does not hold: that is a finding.
    pub fn run(&self, bytes: &[u8]) {
        match self.run {
            Run::Function(function) => function(bytes),
            Run::Protocol(protocol) => one_protocol(protocol, bytes),
        }
    }
}

/// All targets: those that are listed here, and one for each protocol that the agent knows.
#[must_use]
pub fn targets() -> Vec<Target> {
    let functions: [(_, _, Function); 8] = [
        ("client_hello", 60, hello::client_hello),
        ("tls_handshake", 3000, engine::tls_handshake),
        ("record", 400, engine::record),
        ("classify", 60, classify),
        ("packet", 5, others::packet),
        ("syn_options", 5, others::syn_options),
        ("text", 60, others::text),
        ("config", 300, others::config),
    ];
    let functions = functions.into_iter().map(|(name, micros, run)| Target { name, micros, run: Run::Function(run) });
    let protocols =
        protocol::all().map(|protocol| Target { name: protocol.name(), micros: 60, run: Run::Protocol(protocol) });
    functions.chain(protocols).collect()
}

/// The most that is kept of what one client said, beside its payload.
const MAX_FACTS_BYTES: usize = 256 * 1024;

/// What one protocol makes of bytes, its own or not: a greeting may have told the sensor what to expect.
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
