//! *Clients*: fingerprints by kind, and who shares one.

use maud::{Markup, html};

use super::chart::chart;
use super::parts::{facts, inexact, kind, number, sessions, text, time, top, top_list};
use crate::data::clients::{ClientsPage, FingerprintPage};
use crate::filter::Filter;
use crate::row::Kind;

use super::shown;
use super::tags::rule;

pub(super) fn list(page: &ClientsPage, filter: &Filter) -> Markup {
    html! {
        h1 { "Clients" }
        p.note { "Fingerprints and names of clients. Follow one to the sources that share it." }
        div.grid { @for list in &page.kinds { (top_list(list, filter)) } }
    }
}

pub(super) fn one(page: &FingerprintPage, filter: &Filter) -> Markup {
    html! {
        h1 { (kind(page.kind)) }
        @match page.kind {
            Kind::Country => p { (super::world::name(&page.value).map_or_else(|| shown(&page.value), |name| format!("{} {name}", page.value))) },
            _ => p { (text(page.label.as_deref().unwrap_or(&page.value))) },
        }
        @if let Some(tag) = &page.rule { (rule(tag, filter)) }
        p { (number(page.count)) " connections · first " (time(page.first)) " · last " (time(page.last)) }
        (inexact(page.is_exact))
        h2 { "Connections" }
        (chart("connections", &page.connections))
        div.grid {
            section { h2 { "Sources that share it" } (top(Kind::Source, &page.sources, filter)) }
            section { h2 { "Ports" } (top(Kind::Port, &page.ports, filter)) }
            section { h2 { "Payloads" } (top(Kind::Group, &page.payloads, filter)) }
            @if !page.tags.is_empty() && page.kind != Kind::Tag { section { h2 { "Tags" } (top(Kind::Tag, &page.tags, filter)) } }
            @if !page.indicators.is_empty() && page.kind != Kind::Indicator { section { h2 { "Indicators" } (top(Kind::Indicator, &page.indicators, filter)) } }
            section { h2 { "Seen with it" } (facts(&page.others, filter)) }
        }
        h2 { "Newest sessions" }
        (sessions(&page.sessions, filter))
    }
}
