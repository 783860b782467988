//! *Ports*: the map of all of them, and what is spoken at one.

use maud::{Markup, html};

use super::chart::{chart, spark};
use super::heat::map;
use super::parts::{count, inexact, maybe_time, number, port, sessions, top, totals};
use crate::data::ports::{PortPage, PortsPage};
use crate::filter::Filter;
use crate::row::Kind;

pub(super) fn list(page: &PortsPage, filter: &Filter) -> Markup {
    html! {
        h1 { "Ports" }
        p.note {
            (count(page.total)) " ports were asked for. Each row is " (page.heat.ports_per_row) " ports; follow it to see them apart."
            @if filter.ports.is_some() { " " a href=(filter.link("/ports", &[("ports", "")])) { "All 65,536 ports" } }
        }
        (map(&page.heat, filter))
        h2 { "Most connections" }
        @if page.ports.is_empty() { p.empty { "No ports in this range." } } @else {
            div.wide {
                table {
                    thead { tr { th.n { "port" } th.n { "connections" } th { "over the range" } th { "first asked for" } } }
                    tbody {
                        @for line in &page.ports {
                            @let name = if line.transport == "udp" { format!("{}/udp", line.port) } else { line.port.to_string() };
                            tr {
                                td.n { (port(&name, filter)) }
                                td.n { (number(line.connections)) }
                                td { (spark(&line.series)) }
                                td.t { (maybe_time(line.first)) }
                            }
                        }
                    }
                }
            }
        }
    }
}

pub(super) fn one(page: &PortPage, filter: &Filter) -> Markup {
    let query = match page.port.split_once('/') {
        Some((number, transport)) => format!("port:{number} and transport:{transport}"),
        None => format!("port:{}", page.port),
    };
    html! {
        h1 { "Port " (page.port) }
        p { "First asked for " (maybe_time(page.first)) " · " (number(page.scans)) " scans asked for it without connecting · "
            a href=(filter.link("/search", &[("q", &query)])) { "search its sessions" } }
        (totals(&page.totals, None))
        (inexact(page.is_exact))
        h2 { "Connections" }
        (chart("connections", &page.connections))
        div.grid {
            section { h2 { "Spoken here" } (top(Kind::Protocol, &page.protocols, filter)) }
            section { h2 { "Payloads" } (top(Kind::Group, &page.payloads, filter)) }
            section { h2 { "Sources" } (top(Kind::Source, &page.sources, filter)) }
        }
        h2 { "Newest sessions" }
        (sessions(&page.sessions, filter))
    }
}
