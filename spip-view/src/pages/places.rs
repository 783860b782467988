//! *Countries* and *Networks*: where clients are, and which known scanners are among them.

use maud::{Markup, html};

use super::parts::{count, fact, number, plural, top};
use super::world;
use crate::data::places::{CountriesPage, NetworksPage};
use crate::data::{Top, TopList};
use crate::filter::Filter;
use crate::row::Kind;

pub(super) fn countries(page: &CountriesPage, filter: &Filter) -> Markup {
    html! {
        h1 { "Countries" }
        p.note { "Connections from " (count(page.total)) " countries. Of " (number(page.unknown)) " connections the country is not known." }
        @if !page.has_data { (missing()) }
        (world::map(&page.countries, filter))
        @if !page.countries.is_empty() {
            div.columns { (list(&page.countries, filter)) }
        }
    }
}

fn list(countries: &[Top], filter: &Filter) -> Markup {
    html! {
        table {
            tbody {
                @for country in countries {
                    tr { td.n { (number(country.count)) } td { (fact(Kind::Country, &country.value, None, filter)) } }
                }
            }
        }
    }
}

pub(super) fn networks(page: &NetworksPage, filter: &Filter) -> Markup {
    html! {
        h1 { "Networks" }
        p.note { "Autonomous systems by the operator's data; special ranges of RFC 6890 by their names." }
        @if !page.has_data { (missing()) }
        div.halves {
            (one(&page.networks, "No connections in this range.", filter))
            section {
                (one(&page.scanners, "No known scanner in this range.", filter))
                p.note {
                    "A scanner is listed where its address is in a list of yours (" code { "--scanners DIR" } "), or claimed where the client says so, "
                    "which anyone can. The switch in the filter leaves them out on every page."
                }
            }
        }
    }
}

fn one(list: &TopList, empty: &str, filter: &Filter) -> Markup {
    html! {
        section {
            h2 { (plural(list.kind)) " " small { (count(list.distinct)) " different" } }
            @if list.items.is_empty() { p.empty { (empty) } } @else { (top(list.kind, &list.items, filter)) }
        }
    }
}

/// Says how to get data on addresses.
fn missing() -> Markup {
    html! {
        div.hint {
            "There is no data on addresses. Name a directory with databases (*.mmdb, *.csv) with " code { "--geo DIR" } " or "
            code { "geo = \"DIR\"" } "; " code { "cargo xtask geo" } " in the checkout makes a package of data that may be distributed. "
            code { "spip-view retag" } " then applies it to what is stored."
        }
    }
}
