//! *Sources*: the list, and everything that one source did.

use maud::{Markup, html};

use super::chart::chart;
use super::credentials::attempts;
use super::parts::{
    count, fact, facts, inexact, kind, maybe_time, next, number, port, sessions, source, time, top, totals,
};
use super::scans::scans;
use super::shown;
use crate::data::sources::{SourcePage, SourcesPage};
use crate::filter::Filter;
use crate::row::Kind;

pub(super) fn list(page: &SourcesPage, filter: &Filter) -> Markup {
    html! {
        h1 { "Sources" }
        p.note { (count(page.total)) " sources, most connections first." }
        @if page.sources.is_empty() { p.empty { "No connections in this range." } } @else {
            div.wide {
                table {
                    thead { tr { th { "source" } th.n { "connections" } th.n { "half-open SYNs" } th { "first here" } th { "last here" } } }
                    tbody {
                        @for line in &page.sources {
                            tr {
                                td { (source(line.source, filter)) }
                                td.n { (number(line.connections)) }
                                td.n { (number(line.half_open)) }
                                td.t { (maybe_time(line.first)) }
                                td.t { (maybe_time(line.last)) }
                            }
                        }
                    }
                }
            }
        }
        (next("/sources", page.next.as_deref(), filter))
    }
}

pub(super) fn one(page: &SourcePage, filter: &Filter) -> Markup {
    let query = format!("source:{}", page.source);
    html! {
        h1 { "Source " span.x { (page.source) } }
        p { "First here " (maybe_time(page.first)) " · last here " (maybe_time(page.last)) " · "
            a href=(filter.link("/search", &[("q", &query)])) { "search its sessions" } }
        @if !page.places.is_empty() { p { @for place in &page.places { span.soft { (kind(place.kind)) } " " (fact(place.kind, &place.value, place.label.as_deref(), filter)) " " } } }
        (totals(&page.totals, None))
        (inexact(page.is_exact))
        h2 { "Connections" }
        (chart("connections", &page.connections))
        h2 { "Ports, in the order in which it asked" }
        div.wide {
            table {
                thead { tr { th { "first asked" } th.n { "port" } th.n { "connections" } th { "spoke" } } }
                tbody {
                    @for step in &page.ports {
                        tr { td.t { (time(step.first)) } td.n { (port(&step.port, filter)) } td.n { (number(step.count)) } td { (shown(&step.protocols.join(", "))) } }
                    }
                }
            }
        }
        div.grid {
            @if !page.tags.is_empty() { section { h2 { "Tags" } (top(Kind::Tag, &page.tags, filter)) } }
            section { h2 { "Payloads" } (top(Kind::Group, &page.payloads, filter)) }
            section { h2 { "Asked for" } (facts(&page.asked, filter)) }
            section { h2 { "Fingerprints" } (facts(&page.fingerprints, filter)) }
        }
        @if !page.credentials.is_empty() { h2 { "Credentials, in order" } (attempts(&page.credentials, filter)) }
        @if !page.scans.is_empty() { h2 { "Half-open scans" } (scans(&page.scans, filter)) }
        h2 { "Looks the same" }
        @if page.alike.is_empty() { p.empty { "No other source shares its rarest fingerprints." } } @else {
            table {
                tbody {
                    @for other in &page.alike {
                        tr { td { (source(other.source, filter)) } td { (facts(&other.shared, filter)) } }
                    }
                }
            }
        }
        h2 { "Newest sessions" }
        (sessions(&page.sessions, filter))
    }
}
