//! The pages as HTML. Everything that a client sent is escaped by the templates.

use maud::{DOCTYPE, Markup, html};

use crate::filter::Filter;
use crate::web::Failure;
use crate::web::routes::{Page, ROUTES, Route};

/// Files that pages use: address, type, content.
pub const ASSETS: &[(&str, &str, &[u8])] = &[];

/// Draws a page.
#[must_use]
pub fn page(route: Route, page: &Page, filter: &Filter) -> Markup {
    let data = serde_json::to_string_pretty(page).unwrap_or_default();
    frame(route, filter, &html! { pre { (data) } })
}

/// Draws what stands in place of a page.
pub(crate) fn failure(route: Route, failure: &Failure, parameters: &[(String, String)]) -> Markup {
    let _ = parameters;
    frame(route, &Filter::last_day(crate::moment::Moment::now()), &html! { p role="alert" { (failure.text()) } })
}

fn frame(route: Route, filter: &Filter, main: &Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { "Spip: " (format!("{route:?}")) }
            }
            body {
                nav {
                    @for (other, path) in ROUTES.iter().filter(|(_, path)| !path.contains('{')) {
                        a href=(filter.link(path, &[])) { (format!("{other:?}")) } " "
                    }
                }
                main { (main) }
            }
        }
    }
}
