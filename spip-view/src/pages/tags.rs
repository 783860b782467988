//! *Tags*: exploits and malware by name, the worst first, and what their payloads name.

use maud::{Markup, html};
use spip_enrich::export::{Form, List};
use spip_record::enrichment::Tag;

use super::chart::chart;
use super::parts::{count, fact, number, text, time, top_list};
use super::shown;
use crate::data::tags::TagsPage;
use crate::filter::Filter;
use crate::row::Kind;

pub(super) fn draw(page: &TagsPage, filter: &Filter) -> Markup {
    html! {
        h1 { "Tags" }
        p.note {
            (count(page.total)) " rules matched, the worst first. Export what payloads name, and sources of attacks that completed a handshake: "
            @for (index, form) in Form::ALL.into_iter().enumerate() {
                @if index > 0 { ", " }
                a href=(filter.link("/api/v1/indicators", &[("format", form.name())])) { (form_label(form)) }
            }
            "."
        }
        @if page.tags.is_empty() { p.empty { "No rule matched in this range." } } @else {
            (chart("tagged connections", &page.series))
            div.wide {
                table {
                    thead { tr { th { "priority" } th { "rule" } th { "class" } th { "vulnerabilities" } th.n { "connections" } th { "first" } th { "last" } } }
                    tbody {
                        @for line in &page.tags {
                            tr {
                                td { (priority(line.tag.priority)) }
                                td { (fact(Kind::Tag, &line.tag.id.to_string(), Some(&line.tag.name), filter)) }
                                td.t.soft { (shown(&line.tag.class)) }
                                td { @for cve in &line.tag.cve { (fact(Kind::Cve, cve, None, filter)) " " } }
                                td.n { (number(line.connections)) }
                                td.t { (time(line.first)) }
                                td.t { (time(line.last)) }
                            }
                        }
                    }
                }
            }
        }
        div.halves { (top_list(&page.cves, filter)) (top_list(&page.indicators, filter)) }
    }
}

/// Returns the text of the link to a form of export.
fn form_label(form: Form) -> &'static str {
    match form {
        Form::Stix => "STIX 2.1",
        Form::List(List::Urls) => "URLs",
        Form::List(_) => form.name(),
    }
}

/// Writes a priority of a rule: 1 is the worst.
pub(super) fn priority(priority: u8) -> Markup {
    match priority {
        1 => html! { span.bad { "high" } },
        2 => html! { "medium" },
        _ => html! { span.soft { "low" } },
    }
}

/// Draws what is known of a rule.
pub(super) fn rule(tag: &Tag, filter: &Filter) -> Markup {
    html! {
        table.facts {
            tbody {
                tr { td.t.soft { "rule" } td { (tag.id) @if tag.rev > 0 { ", revision " (tag.rev) } } }
                tr { td.t.soft { "class" } td { (shown(&tag.class)) ", priority " (priority(tag.priority)) } }
                @if !tag.cve.is_empty() { tr { td.t.soft { "vulnerabilities" } td { @for cve in &tag.cve { (fact(Kind::Cve, cve, None, filter)) " " } } } }
                @if !tag.technique.is_empty() { tr { td.t.soft { "techniques" } td { (shown(&tag.technique.join(", "))) } } }
                // Text, not links: the page leads nowhere but to itself.
                @for reference in &tag.reference { tr { td.t.soft { "reference" } td { (text(reference)) } } }
            }
        }
    }
}

/// Draws the rules that matched a session.
pub(super) fn of_session(tags: &[Tag], filter: &Filter) -> Markup {
    html! {
        table {
            tbody {
                @for tag in tags {
                    tr {
                        td { (priority(tag.priority)) }
                        td { (fact(Kind::Tag, &tag.id.to_string(), Some(&tag.name), filter)) }
                        td.soft { (shown(&tag.class)) }
                        td { @for cve in &tag.cve { (fact(Kind::Cve, cve, None, filter)) " " } }
                    }
                }
            }
        }
    }
}
