//! *New*: what appeared for the first time, by kind, the most telling kinds first.

use maud::{Markup, html};

use super::parts::{count, fact, kind, maybe_time, number, plural, port, session, source, time};
use crate::data::new::NewPage;
use crate::filter::Filter;

pub(super) fn draw(page: &NewPage, filter: &Filter) -> Markup {
    html! {
        h1 { "New" }
        p.note { "Values that appeared for the first time in this range. The store begins " (maybe_time(page.since)) "; earlier appearances are unknown." }
        @if page.sections.is_empty() && page.returned.is_empty() { p.empty { "Nothing new in this range." } }
        @for section in &page.sections {
            h2 { (plural(section.kind)) " " small { (count(section.total)) " new" } }
            div.wide {
                table {
                    thead { tr { th { "first" } th { "what" } th { "from" } th.n { "port" } th { "last" } th.n { "since then" } } }
                    tbody {
                        @for item in &section.items {
                            tr {
                                td.t { @match &item.session { Some(id) => (session(id, item.first, filter)), None => (time(item.first)) } }
                                td { (fact(section.kind, &item.value, item.label.as_deref(), filter)) }
                                td { (source(item.source, filter)) }
                                td.n { @if let Some(number) = item.port { (port(&number.to_string(), filter)) } }
                                td.t { (time(item.last)) }
                                td.n { (number(item.count)) }
                            }
                        }
                    }
                }
            }
        }
        @if !page.returned.is_empty() {
            h2 { "Came back with something else" }
            p.note { "Known sources that sent something new in this range." }
            div.wide {
                table {
                    thead { tr { th { "when" } th { "source" } th { "first here" } th { "brought" } th { "what" } } }
                    tbody {
                        @for one in &page.returned {
                            tr {
                                td.t { @match &one.session { Some(id) => (session(id, one.time, filter)), None => (time(one.time)) } }
                                td { (source(one.source, filter)) }
                                td.t { (time(one.first)) }
                                td.soft { (kind(one.kind)) }
                                td { (fact(one.kind, &one.value, one.label.as_deref(), filter)) }
                            }
                        }
                    }
                }
            }
        }
    }
}
