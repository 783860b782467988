//! *Payloads*: groups of variants, one group, and the bytes of one payload.

use maud::{Markup, html};

use super::chart::chart;
use super::parts::{bytes, count, fact, inexact, number, sessions, source, time, top};
use super::{shown, shown_lines};
use crate::data::payloads::{GroupPage, PayloadPage, PayloadsPage};
use crate::filter::Filter;
use crate::row::Kind;

pub(super) fn list(page: &PayloadsPage, filter: &Filter) -> Markup {
    html! {
        h1 { "Payloads" }
        p.note { (count(page.distinct)) " different payloads in " (count(page.total)) " groups: members of a group differ in numbers, hosts and tokens only." }
        @if page.groups.is_empty() { p.empty { "No payloads in this range." } } @else {
            div.wide {
                table {
                    thead { tr { th.n { "connections" } th { "in common" } th { "first" } th { "last" } th { "first from" } } }
                    tbody {
                        @for line in &page.groups {
                            tr {
                                td.n { (number(line.connections)) }
                                td { (fact(Kind::Group, &line.group, Some(&line.template), filter)) }
                                td.t { (time(line.first)) }
                                td.t { (time(line.last)) }
                                td { (source(line.source, filter)) }
                            }
                        }
                    }
                }
            }
        }
    }
}

pub(super) fn group(page: &GroupPage, filter: &Filter) -> Markup {
    html! {
        h1 { "Payloads that are alike" }
        pre { (shown_lines(&page.group.template)) }
        p { (number(page.group.connections)) " connections · first " (time(page.group.first)) " from " (source(page.group.source, filter)) " · last " (time(page.group.last)) }
        (inexact(page.is_exact))
        h2 { "Connections" }
        (chart("connections", &page.connections))
        div.grid {
            section { h2 { "Variants" } (top(Kind::Payload, &page.variants, filter)) }
            section { h2 { "Sources" } (top(Kind::Source, &page.sources, filter)) }
            section { h2 { "Ports" } (top(Kind::Port, &page.ports, filter)) }
        }
        h2 { "Newest sessions" }
        (sessions(&page.sessions, filter))
    }
}

pub(super) fn one(page: &PayloadPage, filter: &Filter) -> Markup {
    html! {
        h1 { "Payload" }
        p { code { (shown(&page.sha256)) } }
        p {
            (bytes(page.size)) " · " (number(page.count)) " connections · first " (time(page.first)) " · last " (time(page.last)) " · "
            (fact(Kind::Group, &page.group, Some("payloads like it"), filter)) " · "
            a href=(format!("/api/v1/payloads/{}/download", crate::filter::encode(&page.sha256))) { "download" }
        }
        @if page.is_shortened { p.note { "The record of these bytes is gone: what follows is their beginning." } }
        (both(&page.text, &page.hex))
        h2 { "Newest sessions that sent it" }
        (sessions(&page.sessions, filter))
    }
}

/// Draws bytes as text and as hexadecimal digits with their offsets.
pub(super) fn both(as_text: &str, hex: &str) -> Markup {
    html! {
        h2.row { "Text " button type="button" data-copy="as-text" { "Copy" } }
        pre #as-text { (shown_lines(as_text)) }
        h2.row { "Bytes " button type="button" data-copy="as-hex" { "Copy" } }
        pre #as-hex { (dump(hex)) }
    }
}

/// Writes hexadecimal digits in lines of sixteen bytes, each with its offset and its printable characters.
pub(super) fn dump(hex: &str) -> String {
    let bytes = hex::decode(hex).unwrap_or_default();
    let mut out = String::with_capacity(bytes.len() * 5);
    for (index, line) in bytes.chunks(16).enumerate() {
        let digits: Vec<_> = line.iter().map(|byte| format!("{byte:02x}")).collect();
        let printable: String =
            line.iter().map(|byte| if (0x20..0x7f).contains(byte) { char::from(*byte) } else { '.' }).collect();
        out.push_str(&format!("{:06x}  {:<47}  {printable}\n", index * 16, digits.join(" ")));
    }
    out
}

/// Draws a text of one line beside a name.
pub(super) fn named(name: &str, value: &str) -> Markup {
    html! { tr { td.t.soft { (name) } td { (shown(value)) } } }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_dumped_in_lines_of_sixteen() {
        let dumped = dump(&hex::encode(b"GET / HTTP/1.1\r\nA"));
        assert_eq!(
            dumped,
            "000000  47 45 54 20 2f 20 48 54 54 50 2f 31 2e 31 0d 0a  GET / HTTP/1.1..\n\
             000010  41                                               A\n"
        );
    }
}
