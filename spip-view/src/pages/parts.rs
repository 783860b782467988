//! Shared parts of pages: times, links to things, lists of the most frequent, lists of sessions.

use std::net::IpAddr;

use maud::{Markup, html};

use super::shown;
use crate::data::{Count, Fact, SessionLine, Top, TopList, Totals};
use crate::filter::{Filter, encode};
use crate::moment::Moment;
use crate::row::Kind;

/// Characters of a long text in a list; all of it is in the title.
const CUT: usize = 120;

/// Draws a moment, which the script may show in the reader's zone.
pub(super) fn time(moment: Moment) -> Markup {
    html! { time datetime=(moment.to_string()) { (moment.to_seconds().replace('T', " ").trim_end_matches('Z')) } }
}

/// Draws a moment that may be unknown.
pub(super) fn maybe_time(moment: Option<Moment>) -> Markup {
    html! { @if let Some(moment) = moment { (time(moment)) } @else { span.soft { "–" } } }
}

/// Writes a number with spaces between thousands.
pub(super) fn number(value: u64) -> String {
    let digits = value.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push('\u{2009}');
        }
        out.push(digit);
    }
    out
}

/// Writes a number of bytes in a unit that suits it.
pub(super) fn bytes(value: u64) -> String {
    let mut scaled = value as f64;
    for unit in ["B", "kB", "MB", "GB"] {
        if scaled < 1000.0 {
            return if unit == "B" { format!("{value} B") } else { format!("{scaled:.1} {unit}") };
        }
        scaled /= 1000.0;
    }
    format!("{scaled:.1} TB")
}

/// Writes a count; one that is a lower bound says so.
pub(super) fn count(count: Count) -> String {
    if count.is_exact { number(count.value) } else { format!("at least {}", number(count.value)) }
}

/// Writes a difference to an earlier number.
pub(super) fn change(now: u64, before: u64) -> String {
    if before == 0 {
        return if now == 0 { "none before either".to_owned() } else { "none before".to_owned() };
    }
    let percent = (now as f64 / before as f64 - 1.0) * 100.0;
    format!("{percent:+.0} % on {}", number(before))
}

/// Draws a text of a client in one line, cut where it is long.
pub(super) fn text(text: &str) -> Markup {
    let all = shown(text);
    match all.char_indices().nth(CUT) {
        None => html! { code { (all) } },
        Some((end, _)) => html! { code title=(all.chars().take(2_000).collect::<String>()) { (all[..end]) "…" } },
    }
}

/// Draws a source as a link to its page.
pub(super) fn source(address: IpAddr, filter: &Filter) -> Markup {
    html! { a.x href=(filter.link(&format!("/sources/{}", encode(&address.to_string())), &[])) { (address) } }
}

/// Draws a port as a link to its page.
pub(super) fn port(value: &str, filter: &Filter) -> Markup {
    html! { a href=(filter.link(&format!("/ports/{}", encode(value)), &[])) { (value) } }
}

/// Draws a session's time as a link to its page.
pub(super) fn session(id: &str, moment: Moment, filter: &Filter) -> Markup {
    html! { a href=(filter.link(&format!("/sessions/{}", encode(id)), &[])) { (time(moment)) } }
}

/// Returns the name of a kind of fact for people.
pub(super) fn kind(kind: Kind) -> String {
    match kind {
        Kind::Ja3 => "JA3".to_owned(),
        Kind::Ja4 => "JA4".to_owned(),
        Kind::Hassh => "HASSH".to_owned(),
        Kind::Group => "Payload".to_owned(),
        Kind::Syn => "SYN signature".to_owned(),
        Kind::SshClient => "SSH client".to_owned(),
        Kind::HttpFingerprint => "HTTP fingerprint".to_owned(),
        Kind::Path => "Request".to_owned(),
        Kind::Cve => "Vulnerability".to_owned(),
        other => {
            let name = other.name().replace('_', " ");
            let mut letters = name.chars();
            letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
        }
    }
}

/// Returns the name of many of a kind.
pub(super) fn plural(of: Kind) -> String {
    match of {
        Kind::Country => "Countries".to_owned(),
        Kind::Cve => "Vulnerabilities".to_owned(),
        Kind::Ja3 | Kind::Ja4 | Kind::Hassh => kind(of),
        of => format!("{}s", kind(of)),
    }
}

/// Returns the address of the page of a fact.
fn address(kind: Kind, value: &str) -> String {
    match kind {
        Kind::Source | Kind::ScanSource => format!("/sources/{}", encode(value)),
        Kind::Port | Kind::ScanPort => format!("/ports/{}", encode(value)),
        Kind::Group => format!("/payloads/groups/{}", encode(value)),
        Kind::Payload => format!("/payloads/{}", encode(value)),
        other => format!("/clients/{}/{}", other.name(), encode(value)),
    }
}

/// Draws a fact as a link to its page. A credential has its parts side by side.
pub(super) fn fact(kind: Kind, value: &str, label: Option<&str>, filter: &Filter) -> Markup {
    if kind == Kind::Credential {
        return html! { (text(label.unwrap_or(value))) };
    }
    // Names of things are no text of a client.
    if matches!(kind, Kind::Tag | Kind::Cve | Kind::Network | Kind::Scanner)
        || (kind == Kind::Payload && label.is_some())
    {
        let name = shown(label.unwrap_or(value));
        return html! { a.name href=(filter.link(&address(kind, value), &[])) { (name) } };
    }
    if kind == Kind::Country {
        let name = super::world::name(value).map_or_else(|| value.to_owned(), |name| format!("{value} {name}"));
        return html! { a href=(filter.link(&address(kind, value), &[])) { (shown(&name)) } };
    }
    html! { a href=(filter.link(&address(kind, value), &[])) { (text(label.unwrap_or(value))) } }
}

/// Draws a list of the most frequent.
pub(super) fn top(kind: Kind, items: &[Top], filter: &Filter) -> Markup {
    html! {
        @if items.is_empty() { p.empty { "Nothing in this range." } } @else {
            table {
                tbody {
                    @for item in items {
                        tr { td.n { (number(item.count)) } td { (fact(kind, &item.value, item.label.as_deref(), filter)) } }
                    }
                }
            }
        }
    }
}

/// Draws a list of the most frequent under its name, with how many there are.
pub(super) fn top_list(list: &TopList, filter: &Filter) -> Markup {
    html! {
        section { h2 { (plural(list.kind)) " " small { (count(list.distinct)) " different" } } (top(list.kind, &list.items, filter)) }
    }
}

/// Draws facts with how often they were seen.
pub(super) fn facts(facts: &[Fact], filter: &Filter) -> Markup {
    html! {
        @if facts.is_empty() { p.empty { "None." } } @else {
            table {
                tbody {
                    @for one in facts {
                        tr { td.n { (number(one.count)) } td.t.soft { (kind(one.kind)) } td { (fact(one.kind, &one.value, one.label.as_deref(), filter)) } }
                    }
                }
            }
        }
    }
}

/// Draws totals of a range, beside those of the range before it where they are given.
pub(super) fn totals(now: &Totals, before: Option<&Totals>) -> Markup {
    let pairs = |of: &dyn Fn(&Totals) -> u64| (of(now), before.map(of));
    let numbers = [
        ("connections", pairs(&|totals| totals.connections)),
        ("half-open SYNs", pairs(&|totals| totals.half_open)),
        ("refused by a limit", pairs(&|totals| totals.rejected)),
        ("session records", pairs(&|totals| totals.sessions)),
    ];
    html! {
        dl.numbers {
            @for (name, (now, before)) in numbers {
                div { dt { (name) } dd { (number(now)) @if let Some(before) = before { small { (change(now, before)) } } } }
            }
            div {
                dt { "payload" }
                dd { (bytes(now.bytes_in)) @if let Some(before) = before { small { (bytes(before.bytes_in)) " before" } } }
            }
        }
    }
}

/// Draws the rows of a list of sessions.
pub(super) fn session_rows(sessions: &[SessionLine], filter: &Filter) -> Markup {
    html! {
        @for line in sessions {
            @let port_text = if line.transport == "udp" { format!("{}/udp", line.port) } else { line.port.to_string() };
            tr {
                td.t { (session(&line.id, line.time, filter)) }
                td.t { (source(line.source, filter)) @if let Some(country) = &line.country { " " span.soft title=[super::world::name(country)] { (shown(country)) } } }
                td.n { (port(&port_text, filter)) }
                td { (line.protocol.as_deref().map(shown).unwrap_or_default()) @if line.is_tls { " (TLS)" } }
                td.n { (number(line.bytes_in)) }
                td {
                    @if line.count > 1 { span.soft { (number(line.count)) " connections, " (shown(&line.close_reason)) " " } }
                    @for tag in &line.tags { a.tag href=(filter.link(&address(Kind::Tag, &tag.id), &[])) { (shown(&tag.name)) } " " }
                    @if let Some(summary) = &line.summary { (text(summary)) }
                }
            }
        }
    }
}

/// Draws the head of a list of sessions.
pub(super) fn session_head() -> Markup {
    html! { thead { tr { th { "time" } th { "source" } th.n { "port" } th { "protocol" } th.n { "bytes" } th { "what" } } } }
}

/// Draws a list of sessions.
pub(super) fn sessions(list: &[SessionLine], filter: &Filter) -> Markup {
    html! {
        @if list.is_empty() { p.empty { "No sessions in this range." } } @else {
            div.wide { table { (session_head()) tbody { (session_rows(list, filter)) } } }
        }
    }
}

/// Draws the note of a page that looked at the newest sessions only.
pub(super) fn inexact(is_exact: bool) -> Markup {
    html! { @if !is_exact { p.note { "Too many sessions to examine each: the lists below cover the newest." } } }
}

/// Draws the link to where a list goes on.
pub(super) fn next(path: &str, next: Option<&str>, filter: &Filter) -> Markup {
    html! { @if let Some(next) = next { p { a href=(filter.link(path, &[("after", next)])) { "More" } } } }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_in_groups_of_three() {
        assert_eq!(number(7), "7");
        assert_eq!(number(1_234_567), "1\u{2009}234\u{2009}567");
        assert_eq!(
            (bytes(999), bytes(1_500), bytes(2_000_000_000)),
            ("999 B".into(), "1.5 kB".into(), "2.0 GB".into())
        );
        assert_eq!((change(0, 0).as_str(), change(3, 0).as_str()), ("none before either", "none before"));
        assert_eq!(change(15, 10), "+50 % on 10");
    }

    #[test]
    fn hostile_text_stays_text_and_long_text_is_cut() {
        let drawn = text("<script>alert(1)</script>\u{202e}").into_string();
        assert_eq!(drawn, "<code>&lt;script&gt;alert(1)&lt;/script&gt;\\u{202e}</code>");
        let drawn = text(&"\"onload=x ".repeat(50)).into_string();
        assert!(drawn.contains("…</code>") && !drawn.contains("\"onload"), "{drawn}");
    }
}
