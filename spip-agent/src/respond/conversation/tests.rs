//! The budget of a conversation, and its second begin inside TLS.

use super::*;
use crate::respond::tests::{Talk, responder};

/// Says one reply of so many bytes for each byte of the client.
struct Flood(usize);

impl Dialogue for Flood {
    fn hear(&mut self, _: &[u8], _: &Scene<'_>, reply: &mut Reply<'_>) -> usize {
        reply.say("test_flood", &vec![b'x'; self.0]);
        1
    }
}

static FLOOD: Service = Service { protocols: &[], speaks_first: false, begin: || Box::new(Flood(0)) };

/// Says `client` to a flood of replies of `bytes` each, and returns the number of bytes said and whether it went on.
fn said(bytes: usize, client: &[u8]) -> (u64, bool) {
    let mut conversation = Conversation::new(9, [7; 16]);
    conversation.state = State::Talking(&FLOOD, Box::new(Flood(bytes)));
    let heard = Heard {
        kept: client,
        received: client.len() as u64,
        elapsed: Duration::ZERO,
        now: SystemTime::UNIX_EPOCH,
        offers_tls: false,
    };
    conversation.hear(&responder(), &heard);
    (conversation.said, !conversation.closing)
}

#[test]
fn the_sensor_says_2048_bytes_more_than_it_received_and_not_one_more() {
    assert_eq!(said(2_049, b"a"), (2_049, true));
    assert_eq!(said(2_050, b"a"), (0, false));
    // Many replies have the same bound together: 8 of 257 bytes are 2,056.
    assert_eq!(said(257, b"aaaaaaaa"), (2_056, true));
    assert_eq!(said(258, b"aaaaaaaa"), (7 * 258, false));
}

/// Names its replies in turn.
struct Names(bool);

impl Dialogue for Names {
    fn hear(&mut self, heard: &[u8], _: &Scene<'_>, reply: &mut Reply<'_>) -> usize {
        self.0 ^= heard[0] == b'!';
        reply.say(if self.0 { "test_one" } else { "test_other" }, b"x");
        1
    }
}

#[test]
fn replies_are_named_once_in_a_row_and_up_to_the_bound() {
    let named = |client: &str| {
        let mut conversation = Conversation::new(9, [7; 16]);
        conversation.state = State::Talking(&FLOOD, Box::new(Names(true)));
        let heard = Heard {
            kept: client.as_bytes(),
            received: client.len() as u64,
            elapsed: Duration::ZERO,
            now: SystemTime::UNIX_EPOCH,
            offers_tls: false,
        };
        conversation.hear(&responder(), &heard);
        conversation.responses().to_vec()
    };
    assert_eq!(named("aa!aa!"), ["test_one", "test_other", "test_one"]);
    assert_eq!(named(&"!".repeat(LISTED)).len(), LISTED);
    assert_eq!(named(&"!".repeat(LISTED + 1)).len(), LISTED);
}

#[test]
fn a_client_that_was_greeted_and_then_speaks_tls_is_heard_from_its_first_byte_inside() {
    let mut talk = Talk::to(25);
    let greeting = talk.silence();
    assert!(greeting.starts_with("220 "), "{greeting}");
    // A ClientHello, of which the dialogue has taken nothing.
    assert_eq!(talk.says(&[&b"\x16\x03\x01\x02\0"[..], &[1; 300]].concat()), "");
    talk.conversation.start_over();
    talk.client.clear();
    let said = talk.says(b"EHLO a.test\r\n");
    assert!(said.starts_with("250-"), "{said:?}");
    let turns: Vec<_> =
        talk.conversation.turns().iter().map(|turn| (turn.is_client, turn.offset, turn.length)).collect();
    let (greeting, said) = (greeting.len() as u64, said.len() as u64);
    assert_eq!(turns, [(false, 0, greeting), (true, 0, 318), (false, greeting, said)]);
}
