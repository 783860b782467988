//! The handshake of a client whose ClientHello was read, and what follows it: the session inside TLS, or in clear where
//! the handshake failed.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use tokio::net::TcpStream;

use super::{Guard, Raw};
use crate::session::deadline::{Step, Timer};
use crate::tls::{Carrier, Facts, Failure, Framing, Handshake, Rejected, Replay, Tls, Unwrapper};
use spip_protocol::client_hello::{ClientHello, Detection, Detector, handshake_message};
use spip_record::CloseReason;

/// Raw bytes that begin with a ClientHello.
pub(super) struct Hello {
    pub(super) raw: Vec<u8>,
    pub(super) length: usize,
    /// Reader of the packets behind `raw`, of a handshake that is in packets.
    pub(super) packets: Option<Box<Unwrapper>>,
}

/// Looks for the ClientHello behind an agreement on TLS.
pub(super) struct Later {
    detector: Detector,
    packets: Option<Unwrapped>,
}

/// The content of packets.
#[derive(Default)]
struct Unwrapped {
    unwrapper: Unwrapper,
    content: Vec<u8>,
    /// Bytes of the stream that the unwrapper was given.
    given: usize,
}

impl Later {
    pub(super) fn new(framing: Framing) -> Self {
        let packets = (framing == Framing::TdsPackets).then(Unwrapped::default);
        Self { detector: Detector::default(), packets }
    }

    /// Classifies all that came behind the agreement.
    pub(super) fn advance(&mut self, bytes: &[u8]) -> Detection {
        let Some(packets) = &mut self.packets else { return self.detector.advance(bytes) };
        packets.unwrapper.unwrap(bytes.get(packets.given..).unwrap_or_default(), &mut packets.content);
        packets.given = bytes.len();
        self.detector.advance(&packets.content)
    }

    /// Returns the bytes that it holds beside those of the payload.
    pub(super) fn held(&self) -> usize {
        self.packets.as_ref().map_or(0, |packets| packets.content.capacity())
    }

    /// Makes the hello of `length` bytes from what came, `envelope`.
    pub(super) fn into_hello(self, envelope: Vec<u8>, length: usize) -> Hello {
        match self.packets {
            None => Hello { raw: envelope, length, packets: None },
            Some(Unwrapped { unwrapper, content, .. }) => {
                Hello { raw: content, length, packets: Some(Box::new(unwrapper)) }
            }
        }
    }
}

/// Completes the handshake and captures what is inside.
pub(super) async fn decrypt(mut guard: Box<Guard>, hello: Hello, stream: TcpStream, mut timer: Timer) {
    let engine = Arc::clone(&guard.engine);
    let Hello { raw, length, packets } = hello;
    // From here on the record has the hello, whatever happens.
    guard.session.tls = Tls::Recognised(Box::new(Facts::new(&raw[..length], Handshake::Failed(Failure::CutShort))));
    // The library tries once to tell a client why it is refused, and the reactor must know by then that this can be
    // sent.
    if let Err(reason) = timer.run(Step::Opening, |context| stream.poll_write_ready(context)).await {
        return guard.fail(unfinished(reason), reason, timer).await;
    }
    let stream = match packets {
        None => Carrier::plain(stream),
        Some(unwrapper) => Carrier::in_packets(stream, *unwrapper),
    };
    let stream = Replay::new(raw, length, stream);
    guard.meter = Some(stream.meter());
    let Some((facts, server)) = guard.session.tls.facts().zip(engine.tls.as_ref()) else {
        return guard.fail(Failure::Internal("no TLS server".to_owned()), CloseReason::Aborted, timer).await;
    };
    let handshake = {
        let message = handshake_message(&facts.client_hello);
        match ClientHello::parse(&message) {
            Ok(hello) => Ok(server.accept(&hello, stream)),
            Err(error) => Err(Rejected { failure: Failure::from(error), stream }),
        }
    };
    let mut handshake = match handshake {
        Ok(handshake) => pin!(handshake),
        // It declares an end, and is no hello up to there: what follows it is kept all the same.
        Err(rejected) => return go_on_in_clear(guard, rejected, timer).await,
    };
    let accepted = poll_fn(|context| {
        let polled = timer.poll(Step::Opening, context, |context| handshake.as_mut().poll(context));
        match guard.account(&timer) {
            Err(reason) if polled.is_pending() => Poll::Ready(Err(reason)),
            _ => polled,
        }
    });
    let mut accepted = match accepted.await {
        Ok(Ok(accepted)) => accepted,
        Ok(Err(rejected)) => return go_on_in_clear(guard, rejected, timer).await,
        Err(reason) => return guard.fail(unfinished(reason), reason, timer).await,
    };
    if let Some(carrier) = accepted.stream.transport() {
        carrier.end_handshake();
    }
    timer.touch();
    let agreed = accepted.session.protocol.as_deref();
    let is_http = agreed.is_some_and(|name| name == "h2" || name.starts_with("http/"));
    if let Some(facts) = guard.session.tls.facts_mut() {
        facts.handshake = Handshake::Completed(accepted.session);
    }
    if guard.engine.responder.is_some() {
        let in_clear = guard.session.payload.received();
        let talk = guard.talk();
        if talk.agreed_on_tls() {
            talk.go_on_in_tls(in_clear);
        } else {
            talk.start_over();
            if is_http {
                talk.wait_for_client();
            }
        }
    }
    let mut rest = None;
    let stream = &mut accepted.stream;
    let end = match poll_fn(|context| guard.poll_exchange(stream, &mut timer, &mut rest, context)).await {
        Raw::Ended(end) => end,
        Raw::Hello(_) => CloseReason::Aborted.into(),
    };
    if let (Some(facts), CloseReason::TlsError, Some(error)) = (guard.session.tls.facts_mut(), end.reason, &end.error) {
        facts.broken = Some(Failure::of_stream(error));
    }
    guard.finish(end.reason, timer).await;
}

/// Returns the failure of a handshake that was under way when the session had to end for `reason`.
fn unfinished(reason: CloseReason) -> Failure {
    match reason {
        CloseReason::FirstByteTimeout | CloseReason::SessionTimeout => Failure::TimedOut,
        _ => Failure::CutShort,
    }
}

/// Ends the session of a client whose handshake failed. A client that goes on in clear has a payload all the same; the
/// sensor hangs up on others, and keeps what is on its way by then.
async fn go_on_in_clear(mut guard: Box<Guard>, rejected: Rejected<Carrier<TcpStream>>, mut timer: Timer) {
    let Rejected { failure, mut stream } = rejected;
    let mut reason = match failure {
        Failure::Closed => CloseReason::ClientClosed,
        Failure::Broken(_) => CloseReason::ClientReset,
        _ => CloseReason::TlsError,
    };
    let clear = stream.go_on_in_clear();
    let hangs_up = clear.is_empty();
    if reason == CloseReason::TlsError || !hangs_up {
        guard.session.payload.push(&clear);
        timer.touch();
        let talk = guard.talk();
        talk.mute();
        if hangs_up {
            talk.give_up();
        }
        let mut rest = None;
        let tail = poll_fn(|context| guard.poll_exchange(&mut stream, &mut timer, &mut rest, context)).await;
        reason = tail.reason_after(reason);
    }
    guard.fail(failure, reason, timer).await;
}
