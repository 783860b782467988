//! The pages as HTML: one file a page, drawn from the data that its JSON has, too.
//!
//! Everything that a client sent is escaped by the templates, and characters that hide or turn text are shown as what they
//! are. No script or style stands in a page: the policy that it is sent with forbids both.

mod campaigns;
mod chart;
mod clients;
mod credentials;
mod health;
mod heat;
mod new;
mod now;
mod parts;
mod payloads;
mod places;
mod ports;
mod scans;
mod search;
mod session;
mod sources;
mod tags;
mod world;

use maud::{DOCTYPE, Markup, html};

use crate::data::is_shown;
use crate::filter::{Filter, RangeText, Without};
use crate::query::FIELDS;
use crate::web::Failure;
use crate::web::routes::{Page, Route};

/// Files that pages use: address, type, content.
pub const ASSETS: &[(&str, &str, &[u8])] = &[
    ("/assets/style.css", "text/css; charset=utf-8", include_bytes!("../assets/style.css")),
    ("/assets/icon.svg", "image/svg+xml", include_bytes!("../assets/icon.svg")),
    ("/assets/app.js", "text/javascript; charset=utf-8", include_bytes!("../assets/app.js")),
];

/// The pages in the menu: route, address, name, and the key that goes there behind `g`.
const MENU: &[(Route, &str, &str, &str)] = &[
    (Route::Now, "/", "Now", "n"),
    (Route::New, "/new", "New", "e"),
    (Route::Tags, "/tags", "Tags", "t"),
    (Route::Sources, "/sources", "Sources", "s"),
    (Route::Countries, "/countries", "Countries", "u"),
    (Route::Networks, "/networks", "Networks", "w"),
    (Route::Ports, "/ports", "Ports", "o"),
    (Route::Payloads, "/payloads", "Payloads", "y"),
    (Route::Clients, "/clients", "Clients", "c"),
    (Route::Campaigns, "/campaigns", "Campaigns", "m"),
    (Route::Credentials, "/credentials", "Credentials", "r"),
    (Route::Scans, "/scans", "Scans", "a"),
    (Route::Search, "/search", "Search", "f"),
    (Route::Health, "/health", "Health", "h"),
];

/// Spans that the filter offers.
const SPANS: &[(&str, &str)] = &[
    ("15m", "last 15 minutes"),
    ("1h", "last hour"),
    ("6h", "last 6 hours"),
    ("24h", "last 24 hours"),
    ("7d", "last 7 days"),
    ("30d", "last 30 days"),
    ("all", "everything"),
];

/// Draws a page.
#[must_use]
pub fn page(route: Route, page: &Page, filter: &Filter) -> Markup {
    let (title, main) = match page {
        Page::Now(data) => ("Now".to_owned(), now::draw(data, filter)),
        Page::New(data) => ("New".to_owned(), new::draw(data, filter)),
        Page::Tags(data) => ("Tags".to_owned(), tags::draw(data, filter)),
        Page::Countries(data) => ("Countries".to_owned(), places::countries(data, filter)),
        Page::Networks(data) => ("Networks".to_owned(), places::networks(data, filter)),
        Page::Sources(data) => ("Sources".to_owned(), sources::list(data, filter)),
        Page::Source(data) => (format!("Source {}", data.source), sources::one(data, filter)),
        Page::Ports(data) => ("Ports".to_owned(), ports::list(data, filter)),
        Page::Port(data) => (format!("Port {}", data.port), ports::one(data, filter)),
        Page::Payloads(data) => ("Payloads".to_owned(), payloads::list(data, filter)),
        Page::Group(data) => ("Group of payloads".to_owned(), payloads::group(data, filter)),
        Page::Payload(data) => ("Payload".to_owned(), payloads::one(data, filter)),
        Page::Clients(data) => ("Clients".to_owned(), clients::list(data, filter)),
        Page::Fingerprint(data) => (parts::kind(data.kind), clients::one(data, filter)),
        Page::Campaigns(data) => ("Campaigns".to_owned(), campaigns::draw(data, filter)),
        Page::Credentials(data) => ("Credentials".to_owned(), credentials::draw(data, filter)),
        Page::Scans(data) => ("Scans".to_owned(), scans::draw(data, filter)),
        Page::Session(data) => (format!("Session of {}", data.session.source), session::draw(data, filter)),
        Page::Search(data) => ("Search".to_owned(), search::draw(data, filter)),
        Page::Health(data) => ("Health".to_owned(), health::draw(data, filter)),
    };
    let query = filter.query.as_ref().map_or("", |query| query.text());
    frame(route, &title, filter, query, &main)
}

/// Draws what stands in place of a page.
pub(crate) fn failure(route: Route, failure: &Failure, parameters: &[(String, String)]) -> Markup {
    let query = parameters.iter().find(|(name, _)| name == "q").map_or("", |(_, value)| value);
    // What was understood stays as it was asked for.
    let others: Vec<_> = parameters.iter().filter(|(name, _)| name != "q").cloned().collect();
    let now = crate::moment::Moment::now();
    let filter = Filter::parse(&others, now).unwrap_or_else(|_| Filter::last_day(now));
    let main = html! {
        h1 { "This cannot be shown" }
        div role="alert" {
            (shown(&failure.text()))
            @if let Some((at, length)) = failure.place() {
                pre { (shown_lines(query)) "\n" (" ".repeat(at)) ("^".repeat(length.max(1))) }
            }
        }
        p.note { a href=(filter.link("/", &[("q", "")])) { "Now, without a query" } }
    };
    frame(route, "Not shown", &filter, query, &main)
}

fn frame(route: Route, title: &str, filter: &Filter, query: &str, main: &Markup) -> Markup {
    let fields: Vec<_> = FIELDS.iter().map(|field| (field.name, field.meaning)).collect();
    let fields = serde_json::to_string(&fields).unwrap_or_default();
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { (shown(title)) " · Spip" }
                link rel="stylesheet" href="/assets/style.css";
                link rel="icon" href="/assets/icon.svg";
                script src="/assets/app.js" defer {}
            }
            body data-zone=(if filter.is_local { "local" } else { "utc" }) data-fields=(fields) {
                header {
                    nav aria-label="Pages" {
                        strong { "Spip" }
                        @for (other, path, name, key) in MENU {
                            a href=(filter.link(path, &[])) data-key=(key)
                                aria-current=[(menu_of(route) == *other).then_some("page")] { (name) }
                        }
                    }
                    (bar(route, filter, query))
                }
                main { (main) }
                footer {
                    "Times are " (if filter.is_local { "in your zone" } else { "in UTC" }) ". The data of each page is JSON at the same path below "
                    code { "/api/v1" } ". "
                    button #keys type="button" { "Keys" } " " button #theme type="button" { "Light or dark" }
                }
                dialog #help {
                    h2 { "Keys" }
                    p { code { "/" } " query · " code { "p" } " pause the stream · " code { "t" } " light or dark · " code { "Esc" } " close" }
                    p { code { "g" } " and then: " @for (_, _, name, key) in MENU { code { (key) } " " (name) " · " } }
                    form method="dialog" { button { "Close" } }
                }
            }
        }
    }
}

/// The page of the menu that another one belongs to.
fn menu_of(route: Route) -> Route {
    match route {
        Route::Source => Route::Sources,
        Route::Port => Route::Ports,
        Route::Group | Route::Payload => Route::Payloads,
        Route::Fingerprint => Route::Clients,
        Route::Session => Route::Search,
        other => other,
    }
}

/// Range, sensor, query and zone. They hold on the page where they are set; on a page of one thing, on the list that it is in.
fn bar(route: Route, filter: &Filter, query: &str) -> Markup {
    let path = MENU.iter().find(|(other, ..)| *other == menu_of(route)).map_or("/", |(_, path, ..)| path);
    html! {
        form.filter method="get" action=(path) role="search" {
            @match &filter.range {
                RangeText::Between => {
                    label { "from " input name="from" value=(filter.from.to_seconds()) size="20"; }
                    label { "to " input name="to" value=(filter.to.to_seconds()) size="20"; }
                    a href=(filter.link(path, &[("range", "24h")])) { "last 24 hours" }
                }
                range => {
                    @let asked = match range { RangeText::Span(text) => text.as_str(), _ => "all" };
                    select name="range" aria-label="Range" {
                        @if !SPANS.iter().any(|(span, _)| *span == asked) { option value=(asked) selected { "last " (asked) } }
                        @for (span, name) in SPANS { option value=(span) selected[*span == asked] { (name) } }
                    }
                }
            }
            input name="sensor" placeholder="all sensors" aria-label="Sensor" size="12" value=(filter.sensor.as_deref().unwrap_or_default());
            input name="q" type="search" placeholder="port:22 and payload~\"wget\"" aria-label="Query" value=(query) spellcheck="false" autocomplete="off";
            select name="without" aria-label="Known scanners" {
                @for (without, name) in Without::ALL {
                    option value=(name) selected[filter.without == without] {
                        @match without {
                            Without::Nothing => "with known scanners",
                            Without::Listed => "without listed scanners",
                            Without::Claimed => "without claimed ones either",
                        }
                    }
                }
            }
            select name="zone" aria-label="Zone" {
                option value="utc" selected[!filter.is_local] { "UTC" }
                option value="local" selected[filter.is_local] { "my zone" }
            }
            button { "Show" }
        }
    }
}

/// Returns a text in one line as it may be shown: what hides or turns text, and line ends, as escapes.
fn shown(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if is_shown(c) { out.push(c) } else { out.extend(c.escape_default()) }
    }
    out
}

/// As [`shown`], with line feeds and tabs as they are.
fn shown_lines(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' | '\t' => out.push(c),
            '\r' => {}
            _ if is_shown(c) => out.push(c),
            _ => out.extend(c.escape_default()),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_hides_or_turns_text_is_shown_as_what_it_is() {
        assert_eq!(shown("a\u{202e}b\u{200b}\n\u{e0041}ü"), "a\\u{202e}b\\u{200b}\\n\\u{e0041}ü");
        assert_eq!(shown_lines("a\r\n\tb\u{1b}[31m"), "a\n\tb\\u{1b}[31m");
    }

    #[test]
    fn the_menu_has_each_list_and_each_key_once() {
        let mut keys: Vec<_> = MENU.iter().map(|(.., key)| key).collect();
        keys.sort_unstable();
        keys.dedup();
        assert_eq!(keys.len(), MENU.len());
        for (route, path) in crate::web::routes::ROUTES {
            assert_eq!(MENU.iter().any(|(other, ..)| other == route), !path.contains('{'), "{path}");
        }
    }
}
