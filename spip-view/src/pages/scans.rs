//! *Scans*: half-open against completed, who scans what, with which tools, and sweeps over addresses.

use maud::{Markup, html};

use super::chart::chart;
use super::parts::{count, number, source, time, top, totals};
use super::shown;
use crate::data::scans::{ScanLine, ScansPage};
use crate::filter::Filter;
use crate::row::Kind;

pub(super) fn draw(page: &ScansPage, filter: &Filter) -> Markup {
    html! {
        h1 { "Scans" }
        p.note { "Half-open SYNs: the client never completed the connection. Their sources are not verified, because a SYN can carry any address." }
        (totals(&page.totals, None))
        h2 { "Half-open SYNs" }
        (chart("half-open SYNs", &page.half_open))
        h2 { "Completed connections" }
        (chart("connections", &page.completed))
        div.grid {
            section { h2 { "Sources " small { (count(page.sources)) " scanned" } } (top(Kind::ScanSource, &page.top_sources, filter)) }
            section { h2 { "Ports " small { "records of scans that asked for it" } } (top(Kind::ScanPort, &page.ports, filter)) }
            section { h2 { "Tools" } (top(Kind::Tool, &page.tools, filter)) }
        }
        h2 { "Sweeps over addresses" }
        (scans(&page.sweeps, filter))
        h2 { "Newest" }
        (scans(&page.latest, filter))
    }
}

/// Draws scans in a list.
pub(super) fn scans(list: &[ScanLine], filter: &Filter) -> Markup {
    html! {
        @if list.is_empty() { p.empty { "None in this range." } } @else {
            div.wide {
                table {
                    thead { tr { th { "first SYN" } th { "source" } th.n { "SYNs" } th.n { "ports" } th { "which" } th.n { "addresses" } th { "which" } th { "tools" } th { "also connected" } } }
                    tbody {
                        @for line in list {
                            tr {
                                td.t { (time(line.time)) }
                                td { (source(line.source, filter)) }
                                td.n { (number(line.count)) }
                                td.n { (number(line.port_count)) }
                                td.x { (shown(&line.ports)) }
                                td.n { (number(line.destination_count)) }
                                td.x { (shown(&line.destinations)) }
                                td { (line.tools.as_deref().map(shown).unwrap_or_default()) }
                                td { (if line.has_connected { "yes" } else { "" }) }
                            }
                        }
                    }
                }
            }
        }
    }
}
