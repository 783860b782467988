//! *Search*: the sessions of a query, over time and newest first, and their export.

use maud::{Markup, html};

use super::chart::chart;
use super::parts::{count, next, sessions};
use crate::data::search::SearchPage;
use crate::filter::Filter;

pub(super) fn draw(page: &SearchPage, filter: &Filter) -> Markup {
    html! {
        h1 { "Search" }
        p {
            (count(page.total)) " sessions · export as "
            a href=(filter.link("/api/v1/export", &[("format", "jsonl")])) { "JSONL" } " or "
            a href=(filter.link("/api/v1/export", &[("format", "csv")])) { "CSV" }
        }
        (chart("sessions", &page.histogram))
        (sessions(&page.sessions, filter))
        (next("/search", page.next.as_deref(), filter))
        details open[filter.query.is_none()] {
            summary { "The query language" }
            p { "Conditions are joined by " code { "and" } ", " code { "or" } ", " code { "not" } " and parentheses: "
                code { "port:22 and source:198.51.100.0/24 and payload~\"wget\"" } ". "
                code { ":" } " is equal, " code { "~" } " contains, " code { "<" } " and " code { ">" } " compare; a word alone is looked for everywhere." }
            div.wide {
                table {
                    thead { tr { th { "field" } th { "for example" } th { "what it is" } } }
                    tbody {
                        @for field in page.fields {
                            tr { td { code { (field.name) } @if !field.alias.is_empty() { " " span.soft { (field.alias) } } } td { code { (field.example) } } td { (field.meaning) } }
                        }
                    }
                }
            }
        }
    }
}
