//! *Credentials*: names and secrets, and what one source tried in which order.

use maud::{Markup, html};

use super::parts::{count, number, session, source, text, top};
use super::shown;
use crate::data::Top;
use crate::data::credentials::{Attempt, CredentialsPage};
use crate::filter::Filter;
use crate::row::Kind;

pub(super) fn draw(page: &CredentialsPage, filter: &Filter) -> Markup {
    html! {
        h1 { "Credentials" }
        p.note { (count(page.total)) " different combinations of protocol, user and secret." }
        @if page.pairs.is_empty() { p.empty { "No login attempts in this range." } } @else {
            div.wide {
                table {
                    thead { tr { th.n { "tries" } th { "protocol" } th { "user" } th { "secret" } } }
                    tbody {
                        @for pair in &page.pairs {
                            tr { td.n { (number(pair.count)) } td { (shown(&pair.protocol)) } td { (side(pair.user.as_deref())) } td { (side(pair.secret.as_deref())) } }
                        }
                    }
                }
            }
            div.grid {
                section { h2 { "Users" } (plain(&page.users)) }
                section { h2 { "Secrets" } (plain(&page.secrets)) }
                section { h2 { "Protocols" } (top(Kind::Protocol, &page.protocols, filter)) }
            }
            @for sequence in &page.sequences {
                h2 { (source(sequence.source, filter)) " " small { (number(sequence.count)) " tries; the first, in order" } }
                (attempts(&sequence.attempts, filter))
            }
        }
    }
}

fn plain(list: &[Top]) -> Markup {
    html! { table { tbody { @for one in list { tr { td.n { (number(one.count)) } td { (side(Some(&one.value))) } } } } } }
}

/// Draws a name or a secret. One that was sent empty is told apart from one that was not sent.
fn side(value: Option<&str>) -> Markup {
    html! {
        @match value {
            None => span.soft { "not sent" },
            Some("") => span.soft { "empty" },
            Some(value) => (text(value)),
        }
    }
}

/// Draws tries in their order.
pub(super) fn attempts(list: &[Attempt], filter: &Filter) -> Markup {
    html! {
        div.wide {
            table {
                thead { tr { th { "time" } th { "protocol" } th { "user" } th { "secret" } } }
                tbody {
                    @for one in list {
                        tr { td.t { (session(&one.session, one.time, filter)) } td { (shown(&one.protocol)) } td { (side(one.user.as_deref())) } td { (side(one.secret.as_deref())) } }
                    }
                }
            }
        }
    }
}
