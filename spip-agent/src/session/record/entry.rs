//! The way from a session that has ended to the record of it: every fact worked out once, for all formats.

use std::borrow::Cow;
use std::net::SocketAddr;

use sha2::{Digest, Sha256};
use spip_protocol::client_hello::ParseError;
use spip_protocol::ssh::Ssh;
use spip_protocol::{self as protocol, community_id};
use spip_record::entry::{
    Details, Entry, HelloText, Repetition, SshFacts, SynDataFacts, SynFacts, Text, TlsFacts, unix_micros,
};
use spip_record::{CloseReason, DestinationSource, Limit, Transport};

use super::{Sensor, Session};
use crate::process::ports::Ports;
use crate::respond::Conversation;
use crate::tls::{ClientCertificate, Failure, Handshake, HelloFacts, Tls};

/// Ranges of ports that a record of refused connections lists.
const PORT_RANGES: usize = 64;

/// Makes the record of `session`.
#[must_use]
pub fn of<'a>(session: &'a Session, sensor: &'a Sensor) -> Entry<'a> {
    let mut entry = unread(session, sensor);
    if let (Some(tls), Some(facts)) = (&mut entry.tls, session.tls.facts()) {
        let hello = facts.hello();
        tls.malformed = malformed(&facts.handshake, &hello);
        tls.hello = hello.ok().map(HelloText::from);
    }
    let kept = session.payload.kept();
    if !kept.is_empty() {
        understand(&mut entry, kept, session.payload.truncated(), session.talk.as_deref());
    }
    entry
}

/// Makes the record of `session` without reading what its bytes mean.
#[must_use]
pub fn unread<'a>(session: &'a Session, sensor: &'a Sensor) -> Entry<'a> {
    let origin = &session.origin;
    let (source, local) = (origin.client.socket(), origin.destination.socket());
    // A balancer that is believed names what the client asked for.
    let public = sensor.public.of(local.ip()).filter(|_| origin.source != DestinationSource::Proxy);
    let destination = SocketAddr::new(public.unwrap_or(local.ip()), local.port());
    let kept = session.payload.kept();
    let stored = session.stored.as_deref();
    let shown = stored.map_or(kept, |stored| kept.get(..stored.preview).unwrap_or(kept));
    let talk = session.talk.as_deref().filter(|talk| talk.bytes_out() > 0);
    Entry {
        accepted_us: unix_micros(session.accepted.wall),
        first_byte_us: session.first_byte().map(|time| micros(time.as_micros())),
        duration_us: micros(session.duration.as_micros()),
        payload: Cow::Borrowed(shown),
        source,
        destination,
        session_id: session.id,
        name: Cow::Borrowed(&sensor.name),
        run: Some(Cow::Borrowed(sensor.run)),
        transport: Transport::Tcp,
        bytes_in: session.payload.received(),
        bytes_out: session.bytes_out,
        payload_truncated: session.payload.truncated(),
        payload_sha256: match stored {
            Some(stored) => Some(stored.sha256),
            None => (!kept.is_empty()).then(|| Sha256::digest(kept).into()),
        },
        payload_stored: stored.is_some(),
        shortened: Vec::new(),
        close_reason: Cow::Borrowed(session.close_reason.name()),
        limit: match session.close_reason {
            CloseReason::Rejected(limit) => Some(Cow::Borrowed(limit.name())),
            _ => session.payload.starved().then(|| Cow::Borrowed(Limit::Memory.name())),
        },
        repeated: session.repeated.as_deref().map(|repeated| Repetition {
            count: repeated.count,
            first_us: unix_micros(repeated.first),
            last_us: unix_micros(repeated.last),
        }),
        responses: talk
            .map(|talk| talk.responses().iter().map(|name| Cow::Borrowed(*name)).collect())
            .unwrap_or_default(),
        turns: Cow::Borrowed(talk.map_or(&[], Conversation::turns)),
        destination_source: Cow::Borrowed(origin.source.name()),
        destination_conflict: origin.conflict.map(|conflict| Cow::Borrowed(conflict.name())),
        destination_local_ip: public.map(|_| local.ip()),
        proxy: session.proxy.as_deref().map(|facts| Details::Found(facts.clone())),
        challenge: talk.and_then(Conversation::challenge).map(Cow::Borrowed),
        destination_ports: session.repeated.as_deref().map(|repeated| ports(&repeated.ports)).unwrap_or_default(),
        destination_port_count: session
            .repeated
            .as_deref()
            .map(|repeated| repeated.ports.count())
            .filter(|count| *count > 0),
        community_id: Cow::Owned(
            community_id::community_id(sensor.community_id_seed, source, destination).as_str().to_owned(),
        ),
        protocol: None,
        http: None,
        ssh: None,
        details: None,
        credentials: Vec::new(),
        tls: tls_of(&session.tls),
        syn: origin.syn.as_ref().map(|syn| SynFacts::Seen { syn, destination }),
        syn_data: origin.syn.as_ref().filter(|syn| syn.payload_length > 0).map(|syn| SynDataFacts {
            count: None,
            length: syn.payload_length.into(),
            bytes: Cow::Borrowed(origin.syn_data.as_deref().unwrap_or_default()),
        }),
        enrichment: None,
        seq: None,
    }
}

/// Ranges of ports as texts, at most [`PORT_RANGES`] of them.
fn ports(ports: &Ports) -> Vec<Text<'static>> {
    let text = |(from, to)| Cow::Owned(if from == to { format!("{from}") } else { format!("{from}-{to}") });
    ports.ranges().take(PORT_RANGES).map(text).collect()
}

/// Adds what the payload says.
fn understand<'a>(entry: &mut Entry<'a>, kept: &'a [u8], truncated: bool, talk: Option<&Conversation>) {
    let understood = match talk.and_then(Conversation::decided) {
        Some(protocol) => protocol::understand_as(protocol, kept, truncated),
        None => protocol::understand_in(talk.and_then(Conversation::protocol), kept, truncated),
    };
    let name = understood.protocol.unwrap_or(protocol::UNKNOWN);
    entry.protocol = Some(Cow::Borrowed(name));
    entry.http = understood.http;
    entry.ssh = understood.ssh.map(|ssh| {
        let Ssh { client, hassh, hassh_algorithms, .. } = ssh;
        SshFacts { client, hassh: hassh.zip(hassh_algorithms) }
    });
    // HTTP/1 has its facts in `http` alone, so no key is written twice.
    if !understood.details.is_empty() && name != "http" {
        entry.details = Some(Details::Found(understood.details));
    }
    entry.credentials = understood.credentials.list;
    #[cfg(test)]
    super::tests::panic_if_asked(kept);
}

impl From<HelloFacts> for HelloText {
    fn from(facts: HelloFacts) -> Self {
        let HelloFacts { server_name, protocols, protocols_truncated, ja3, ja4, ja4_r, malformed: _ } = facts;
        Self { server_name, protocols, protocols_truncated, ja3: Some(ja3), ja4: Some(ja4), ja4_r: Some(ja4_r) }
    }
}

/// Returns the facts of TLS that need no look into the hello.
fn tls_of(tls: &Tls) -> Option<TlsFacts<'_>> {
    let facts = tls.facts()?;
    let session = match &facts.handshake {
        Handshake::Completed(session) => Some(session),
        Handshake::Off | Handshake::Failed(_) => None,
    };
    Some(TlsFacts {
        client_hello: Cow::Borrowed(&facts.client_hello),
        hello: None,
        malformed: None,
        version: session.map(|session| Cow::Borrowed(session.version)),
        cipher_suite: session.map(|session| Cow::Borrowed(session.cipher_suite.as_str())),
        alpn: session.and_then(|session| session.protocol.as_deref()).map(Cow::Borrowed),
        client_certificate: session.and_then(|session| match &session.client_certificate {
            ClientCertificate::Presented(certificate) => Some(Cow::Borrowed(certificate.as_ref())),
            _ => None,
        }),
        error: facts.failure().map(ToString::to_string),
    })
}

/// Returns the mistake in a hello. One that is not whole, too long to be kept, or of another protocol has its own
/// reason in `tls_error`.
fn malformed<'a>(handshake: &'a Handshake, hello: &Result<HelloFacts, ParseError>) -> Option<Text<'a>> {
    match (handshake, hello) {
        // Its records are broken; what can be read of it past that means nothing.
        (Handshake::Failed(Failure::MalformedHello(reason)), _) => Some(Cow::Borrowed(reason)),
        (_, Ok(hello)) => hello.malformed.map(Cow::Borrowed),
        (Handshake::Failed(Failure::IncompleteHello | Failure::OversizedHello(_) | Failure::Ssl2Hello(_)), Err(_)) => {
            None
        }
        (_, Err(error)) => Some(Cow::Owned(error.to_string())),
    }
}

/// Microseconds of a duration; 585,000 years are enough.
fn micros(value: u128) -> u64 {
    u64::try_from(value).unwrap_or(u64::MAX)
}
