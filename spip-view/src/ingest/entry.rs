//! From what `spip-record` read to what the store takes.

use spip_record::enrichment::Enrichment;
use spip_record::entry::SynFacts;
use spip_record::read::Json;
use spip_record::{Entry, ScanEntry, Transport};

use super::normalise;
use crate::meaning;
use crate::moment::{Moment, SECOND};
use crate::row::{Credential, Kind, MessageRow, Row, ScanRow};

/// Header names of a fingerprint.
const HEADERS: usize = 32;

/// Makes the row of a session.
#[must_use]
pub(super) fn row(entry: &Entry<'_>, meaning: Enrichment) -> Row {
    let mut facts = Vec::new();
    let mut add = |kind, text: Option<&str>| {
        facts.extend(text.filter(|text| !text.is_empty()).map(|text| (kind, text.to_owned())))
    };
    if let Some(http) = &entry.http {
        let target = http.target.as_deref().unwrap_or_default();
        add(
            Kind::Path,
            Some(&format!("{} {target}", http.method.as_deref().unwrap_or_default())).map(|text| text.trim()),
        );
        add(Kind::UserAgent, http.user_agent.as_deref());
        add(Kind::Host, http.host.as_deref());
        let frames = entry.details.as_ref().and_then(|details| details.text("fingerprint"));
        let names = || {
            let names: Vec<String> =
                http.headers.iter().take(HEADERS).map(|(name, _)| name.to_ascii_lowercase()).collect();
            names.join(",")
        };
        add(Kind::HttpFingerprint, frames.map_or_else(|| Some(names()), |text| Some(text.to_owned())).as_deref());
    }
    if let Some(ssh) = &entry.ssh {
        add(Kind::SshClient, Some(&ssh.client));
        add(Kind::Hassh, ssh.hassh.as_ref().map(|(hassh, _)| hassh.as_str()));
    }
    if let Some(hello) = entry.tls.as_ref().and_then(|tls| tls.hello.as_ref()) {
        add(Kind::ServerName, hello.server_name.as_deref());
        add(Kind::Ja3, hello.ja3.as_deref());
        add(Kind::Ja4, hello.ja4.as_deref());
    }
    if let Some(SynFacts::Read(syn)) = &entry.syn {
        add(Kind::Syn, syn.get("muonfp").and_then(Json::as_text));
        add(Kind::Tool, texts(syn.get("tools")).as_deref());
    }
    facts.extend(meaning::places(&meaning).into_iter().filter_map(|(kind, text)| Some((kind, text?))));
    let text = |text: &Option<std::borrow::Cow<'_, str>>| text.as_deref().map(str::to_owned);
    let payload = entry.payload.to_vec();
    Row {
        time: Moment(entry.accepted_us),
        duration_us: entry.duration_us,
        source: entry.source.ip(),
        source_port: entry.source.port(),
        destination: entry.destination.ip(),
        port: entry.destination.port(),
        is_udp: entry.transport == Transport::Udp,
        session_id: entry.session_id.into_bytes(),
        sensor: entry.name.to_string(),
        run: text(&entry.run),
        seq: entry.seq,
        is_tls: entry.is_tls(),
        bytes_in: entry.bytes_in,
        bytes_out: entry.bytes_out,
        is_truncated: entry.payload_truncated,
        close_reason: entry.close_reason.to_string(),
        limit: text(&entry.limit),
        count: entry.repeated.map_or(1, |repeated| repeated.count),
        protocol: text(&entry.protocol),
        sha256: entry.payload_sha256,
        group: entry.payload_sha256.map(|_| normalise::group(&payload)),
        payload,
        facts,
        credentials: entry
            .credentials
            .iter()
            .map(|credential| Credential { user: credential.user.clone(), secret: credential.secret.clone() })
            .collect(),
        meaning,
    }
}

/// Makes the row of a scan.
#[must_use]
pub(super) fn scan(entry: &ScanEntry<'_>, meaning: Enrichment) -> ScanRow {
    let shown = entry.shown.as_ref();
    let tools: Vec<&str> =
        shown.map_or(Vec::new(), |shown| shown.tools.iter().map(|(tool, _)| tool.as_ref()).collect());
    let syn = shown.and_then(|shown| match &shown.syn {
        Some(SynFacts::Read(syn)) => syn.get("muonfp").and_then(Json::as_text).map(str::to_owned),
        _ => None,
    });
    ScanRow {
        time: Moment(entry.first_us),
        last: Moment(entry.last_us),
        source: entry.source,
        sensor: entry.name.to_string(),
        run: entry.run.as_deref().map(str::to_owned),
        seq: entry.seq,
        count: entry.count,
        undecided: entry.undecided,
        ports: shown.map_or_else(Vec::new, |shown| shown.ports.clone()),
        port_count: shown.map_or(0, |shown| shown.port_count),
        destinations: shown.map_or_else(Vec::new, |shown| shown.addresses.clone()),
        destination_count: shown.map_or(0, |shown| shown.address_count),
        tools: (!tools.is_empty()).then(|| tools.join(" ")),
        syn,
        meaning,
    }
}

/// Makes the row of a message of the agent; nothing of what is none.
#[must_use]
pub(super) fn message(line: &[u8]) -> Option<MessageRow> {
    let value = spip_record::read::any(line).ok()?;
    let text = |key: &str| value.get(key).and_then(Json::as_text).map(|text| crate::store::cut(text).to_owned());
    let seconds = match value.get("timestamp") {
        Some(Json::Number(number)) => number.as_i64()?,
        _ => return None,
    };
    Some(MessageRow {
        time: Moment(seconds.checked_mul(SECOND)?),
        level: text("level")?,
        message: text("message")?,
        target: text("target").unwrap_or_default(),
    })
}

/// The texts of a list, separated by spaces.
fn texts(value: Option<&Json>) -> Option<String> {
    match value {
        Some(Json::List(list)) => {
            let texts: Vec<&str> = list.iter().filter_map(Json::as_text).collect();
            Some(texts.join(" "))
        }
        _ => None,
    }
}
