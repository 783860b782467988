//! *Now*: is it working, what arrives, and is that more than usual?

use maud::{Markup, html};

use super::chart::chart;
use super::parts::{bytes, change, maybe_time, number, session_head, session_rows, time, top_list, totals};
use super::shown;
use crate::data::now::{Message, NowPage};
use crate::filter::Filter;

pub(super) fn draw(page: &NowPage, filter: &Filter) -> Markup {
    let status = &page.status;
    html! {
        h1 { "Now" }
        p {
            "Last record " (maybe_time(status.last_record)) " · " (number(status.sensors)) (if status.sensors == 1 { " sensor · " } else { " sensors · " })
            @if status.behind_bytes > 0 { (bytes(status.behind_bytes)) " of logs not read yet" } @else { "logs read to their ends" }
            " · "
            @if status.missing > 0 { a.bad href=(filter.link("/health", &[])) { (number(status.missing)) " records missing" } } @else { "no record missing" }
        }
        (totals(&page.totals, Some(&page.before)))
        dl.numbers {
            div { dt { "connections in the last hour" } dd { (number(page.rates.hour)) } }
            div { dt { "that hour yesterday" } dd { @match page.rates.yesterday { Some(before) => { (number(before)) small { (change(page.rates.hour, before)) } } None => "–" } } }
            div { dt { "a week ago" } dd { @match page.rates.last_week { Some(before) => { (number(before)) small { (change(page.rates.hour, before)) } } None => "–" } } }
        }
        (messages(&status.warnings, "Warnings of the sensors"))
        h2 { "Connections" }
        (chart("connections", &page.connections))
        h2 { "Half-open SYNs" }
        (chart("half-open SYNs", &page.half_open))
        h2.row { "As it arrives " button #live-pause type="button" { "Pause" } small #live-state { "newest first" } }
        div.wide { table { (session_head()) tbody #live { (session_rows(&page.latest, filter)) } } }
        div.grid { @for list in &page.tops { (top_list(list, filter)) } }
    }
}

/// Draws messages of agents.
pub(super) fn messages(list: &[Message], title: &str) -> Markup {
    html! {
        @if !list.is_empty() {
            h2 { (title) }
            div.wide {
                table {
                    tbody {
                        @for message in list {
                            tr {
                                td.t { (time(message.time)) }
                                td class=[(message.level == "error").then_some("bad")] { (shown(&message.level)) }
                                td.soft { (shown(&message.target)) }
                                td { (shown(&message.message)) }
                            }
                        }
                    }
                }
            }
        }
    }
}
