//! Replies stay within their bounds, and are the same however the client's bytes come.

use std::path::Path;
use std::sync::LazyLock;
use std::time::{Duration, SystemTime};

use spip_agent::config::Greeting;
use spip_agent::respond::persona::Persona;
use spip_agent::respond::{self, ALLOWANCE_BYTES, Conversation, Heard, Responder};
use spip_protocol::{Verdict, classify, pause};
use spip_record::turn::LISTED;

/// A payload comes in no more pieces than this: each is answered on its own.
const MAX_PIECES: usize = 64;

static RESPONDER: LazyLock<Responder> = LazyLock::new(|| Responder {
    persona: Persona::from_text("", Path::new("persona.toml")).expect("nothing is replaced"),
    ports: Greeting::ALL.iter().enumerate().map(|(port, (_, dialogue))| (port as u16, *dialogue)).collect(),
    banner_after: Duration::from_millis(1500),
});

/// The port on which a client that says nothing that decides meets this protocol; where none does, one without any.
fn port_of(protocol: &str) -> u16 {
    RESPONDER.ports.iter().find(|(_, dialogue)| dialogue.name() == protocol).map_or(0, |(port, _)| *port)
}

/// A client of this protocol gets the same answers at once and piece by piece, within bounds, read or unread. What the
/// last byte says decides on the pieces.
pub(super) fn respond(protocol: &'static str, bytes: &[u8]) {
    let port = port_of(protocol);
    let shape = bytes.last().copied().unwrap_or_default();
    let client = Client { waits: shape & 0x20 == 0, ..Client::POLITE };
    let whole = talk(port, bytes, bytes.len(), client);
    let size = usize::from(shape & 0x1f) + 1;
    let pieces = talk(port, bytes, size, client);
    // What may be said grows with what was heard, and HTTP closes in time rather than fall silent.
    let is_http = whole.conversation.responses().first().is_some_and(|name| name.starts_with("http_"));
    // A piece that a client may wait behind is answered as what it seems to be, though what follows could contradict.
    let seems = |end: usize| matches!(classify(&bytes[..end]), Verdict::NeedMore) && pause(&bytes[..end]).is_some();
    let is_guessed = (1..).map(|piece| piece * step(bytes, size)).take_while(|end| *end < bytes.len()).any(seems);
    if !is_http && !is_guessed && whole.said.len() as u64 <= ALLOWANCE_BYTES {
        let [one, other] = [&whole.said, &pieces.said].map(|bytes| bytes.escape_ascii().to_string());
        assert_eq!(one, other, "in pieces of {size}");
        assert_eq!(whole.conversation.responses(), pieces.conversation.responses());
    }
    if shape & 0x40 != 0 {
        talk(port, bytes, size, Client { reads: shape & 0x80 == 0, pauses: true, ..client });
    }
}

/// The talk with a client of HTTP that says these bytes, or of whatever they are.
pub(super) fn with(bytes: &[u8]) -> Conversation {
    talk(port_of("http"), bytes, bytes.len(), Client::POLITE).conversation
}

/// A client that has asked for a port.
#[derive(Clone, Copy)]
struct Client {
    /// Is silent at first for long enough to be greeted.
    waits: bool,
    /// Takes what is said.
    reads: bool,
    /// Is silent after each piece for long enough to be spoken to.
    pauses: bool,
}

impl Client {
    const POLITE: Self = Self { waits: true, reads: true, pauses: false };
}

struct Talk {
    conversation: Conversation,
    client: Client,
    said: Vec<u8>,
}

/// The length of a piece: `size`, or more where there would be too many of them.
fn step(bytes: &[u8], size: usize) -> usize {
    size.max(bytes.len().div_ceil(MAX_PIECES)).max(1)
}

fn talk(port: u16, bytes: &[u8], size: usize, client: Client) -> Talk {
    let mut talk = Talk { conversation: Conversation::new(port, [7; 16]), client, said: Vec::new() };
    if client.waits {
        talk.pause(b"");
    }
    let size = step(bytes, size);
    let mut end = 0;
    while end < bytes.len() {
        end = (end + size).min(bytes.len());
        talk.hear(&bytes[..end]);
        if client.pauses {
            talk.pause(&bytes[..end]);
        }
    }
    talk.pause(bytes);
    assert!(talk.conversation.protocol().is_none_or(|protocol| respond::spoken().any(|name| name == protocol.name())));
    talk
}

/// Returns the sensor's view of a conversation after these bytes.
fn heard(kept: &[u8]) -> Heard<'_> {
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
    Heard { kept, received: kept.len() as u64, elapsed: Duration::from_millis(5), now, offers_tls: true }
}

impl Talk {
    fn hear(&mut self, kept: &[u8]) {
        if self.conversation.has_news(kept.len() as u64) {
            self.conversation.hear(&RESPONDER, &heard(kept));
        }
        self.take(kept.len());
    }

    fn pause(&mut self, kept: &[u8]) {
        if self.conversation.awaits_silence(kept.len() as u64) {
            self.conversation.silence(&RESPONDER, &heard(kept));
        }
        self.take(kept.len());
    }

    /// Takes what is to be sent to a client that has sent so much, if that client reads.
    fn take(&mut self, received: usize) {
        let conversation = &mut self.conversation;
        let pending = conversation.pending();
        let all = (self.said.len() + pending.len()) as u64;
        assert!(all <= received as u64 + ALLOWANCE_BYTES, "{received} bytes draw out {all}");
        if self.client.reads {
            self.said.extend_from_slice(pending);
            conversation.sent(usize::MAX, Duration::from_millis(6));
            conversation.flushed();
            assert!(!conversation.is_blocked());
        } else if conversation.is_blocked() {
            assert_eq!(conversation.blocked(Duration::from_millis(7)), Duration::from_millis(7));
        }
        assert!(conversation.responses().len() <= LISTED && conversation.turns().len() <= LISTED);
        assert_eq!(conversation.bytes_out(), self.said.len() as u64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{corpus, targets};

    #[test]
    fn the_corpus_of_every_dialogue_is_answered_in_it() {
        for target in targets() {
            let Some(protocol) = target.name.strip_prefix("respond_") else { continue };
            // What follows the one answer of RDP is inside TLS.
            let least = if protocol == "rdp" { 1 } else { 2 };
            let answered = corpus::of(&target).expect("a corpus").iter().any(|bytes| {
                let talk = talk(port_of(protocol), bytes, bytes.len(), Client::POLITE);
                talk.conversation.responses().iter().filter(|name| name.starts_with(protocol)).count() >= least
            });
            assert!(answered, "{protocol}");
        }
    }
}
