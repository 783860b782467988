//! One session: the conversation as it went, what it shows of the client, the raw record, and what the source did around it.

use maud::{Markup, html};

use super::credentials::attempts;
use super::parts::{fact, facts, number, port, sessions, source, time};
use super::payloads::{both, dump, named};
use super::shown_lines;
use super::tags::of_session;
use crate::data::Top;
use crate::data::session::{SessionPage, TurnPart};
use crate::filter::Filter;
use crate::row::Kind;

pub(super) fn draw(page: &SessionPage, filter: &Filter) -> Markup {
    let line = &page.session;
    let port_text = if line.transport == "udp" { format!("{}/udp", line.port) } else { line.port.to_string() };
    html! {
        h1 { (source(line.source, filter)) " to port " (port(&port_text, filter)) }
        p {
            (time(line.time)) " to " (time(page.ended)) " · " (number(line.duration_us / 1000)) " ms"
            @if let Some(first) = page.first_byte_us { " · first byte after " (first / 1000) " ms" }
            @if let Some(sha256) = &page.sha256 { " · " (fact(Kind::Payload, sha256, Some("the same payload elsewhere"), filter)) }
        }
        table.facts {
            tbody {
                (named("from", &format!("{} port {}", line.source, line.source_port)))
                (named("to", &format!("{} port {} ({}, known by {})", line.destination, line.port, line.transport, page.destination_source)))
                (named("spoke", &format!("{}{}", line.protocol.as_deref().unwrap_or("unknown"), if line.is_tls { " inside TLS" } else { "" })))
                (named("ended by", &line.close_reason))
                @if line.count > 1 { (named("stands for", &format!("{} connections", line.count))) }
                (named("bytes", &format!("{} received, {} sent", line.bytes_in, page.bytes_out)))
                (named("sensor", &line.sensor))
                (named("session", &page.session_id))
                (named("Community ID", &page.community_id))
            }
        }
        @if !page.tags.is_empty() { h2 { "Tags" } (of_session(&page.tags, filter)) }
        @if !page.indicators.is_empty() { h2 { "Indicators" } (indicators(&page.indicators, filter)) }
        h2 { "Conversation" }
        @if page.turns.is_empty() { p.empty { "Neither side said anything." } }
        @for turn in &page.turns { (one_turn(turn)) }
        @if page.is_truncated { p.note { "The client sent more than was kept." } }
        @if !page.credentials.is_empty() { h2 { "Credentials" } (attempts(&page.credentials, filter)) }
        h2 { "Facts" }
        (facts(&page.facts, filter))
        @if !page.payload_hex.is_empty() { (both(&page.payload_text, &page.payload_hex)) }
        @if let Some(curl) = &page.curl {
            h2.row { "The request as a command " button type="button" data-copy="curl" { "Copy" } }
            pre #curl { (shown_lines(curl)) }
        }
        @if let Some(dump) = &page.dump {
            h2.row { "For Wireshark " button type="button" data-copy="dump" { "Copy" } }
            details {
                summary { "what the client sent, packet by packet" }
                p.note { code { "text2pcap -D -t ISO " @if line.transport == "udp" { "-u " } @else { "-T " } (line.source_port) "," (line.port) " dump.txt session.pcap" } }
                pre #dump { (dump) }
            }
        }
        h2.row { "The record " @if page.record.is_some() { button type="button" data-copy="record" { "Copy" } } }
        @match (&page.record, &page.missing) {
            (Some(record), _) => details { summary { "as it was logged" } pre #record { (shown_lines(record)) } },
            (None, missing) => p.note { (missing.as_deref().unwrap_or("It cannot be read any more.")) },
        }
        h2 { "The same source around it" }
        (sessions(&page.neighbours, filter))
    }
}

fn indicators(list: &[Top], filter: &Filter) -> Markup {
    html! {
        table { tbody { @for one in list { tr { td { (fact(Kind::Indicator, &one.value, one.label.as_deref(), filter)) } } } } }
    }
}

fn one_turn(turn: &TurnPart) -> Markup {
    let is_client = turn.from == "client";
    html! {
        div class=(if is_client { "turn client" } else { "turn" }) {
            div.soft { (if is_client { "client" } else { "sensor" }) ", after " (number(turn.ms)) " ms: " (number(turn.length)) " bytes" @if turn.offset > 0 { " from byte " (number(turn.offset)) } }
            @if let Some(text) = &turn.text { pre { (shown_lines(text)) } }
            @if let Some(hex) = &turn.hex { details { summary { "bytes" } pre { (dump(hex)) } } }
        }
    }
}
